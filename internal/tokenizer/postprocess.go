package tokenizer

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// template is the single-sequence part of a TemplateProcessing: the ids before and behind a text. A
// text may occur more than once.
type template struct {
	parts []templatePart
}

// templatePart is the text, or the ids of a special token.
type templatePart struct {
	text bool
	ids  []int
}

// postProcessor reads post_processor. Of what it may hold, only TemplateProcessing changes ids;
// ByteLevel moves offsets, which this package does not have. It returns nil for no change.
func (p *parser) postProcessor(raw json.RawMessage) (*template, error) {
	parts, err := components(p, raw, "post_processor", "processors", func(o object) (*template, error) {
		kind, err := o.kind("Sequence", "TemplateProcessing", "ByteLevel")
		if err != nil || kind == "ByteLevel" {
			return nil, err
		}
		return p.template(o)
	})
	if err != nil {
		return nil, err
	}
	var found *template
	for _, t := range parts {
		if t != nil && found != nil {
			return nil, p.unsupported("post_processor", "more than one TemplateProcessing", "one")
		}
		if t != nil {
			found = t
		}
	}
	return found, nil
}

func (p *parser) template(o object) (*template, error) {
	special, err := o.member("special_tokens")
	if err != nil {
		return nil, err
	}
	pieces, err := p.list(o.m["single"], o.at("single"))
	if err != nil {
		return nil, err
	}
	t := &template{}
	for i, raw := range pieces {
		piece, err := p.object(raw, o.at("single")+"["+strconv.Itoa(i)+"]")
		if err != nil {
			return nil, err
		}
		if len(piece.m) != 1 || piece.m["Sequence"] == nil && piece.m["SpecialToken"] == nil {
			return nil, p.errorf(piece.field, "neither, or both", "one of Sequence, SpecialToken")
		}
		if piece.m["Sequence"] != nil {
			sequence, err := piece.member("Sequence")
			if err != nil {
				return nil, err
			}
			if id, err := sequence.string("id"); err != nil {
				return nil, err
			} else if id != "A" {
				return nil, p.errorf(sequence.at("id"), quote(id), `"A" in a template for one text`)
			}
			t.parts = append(t.parts, templatePart{text: true})
			continue
		}
		token, err := piece.member("SpecialToken")
		if err != nil {
			return nil, err
		}
		name, err := token.string("id")
		if err != nil {
			return nil, err
		}
		if special.m[name] == nil {
			return nil, p.errorf(token.at("id"), quote(name), "a name in "+special.field)
		}
		ids, err := p.specialIDs(special, name)
		if err != nil {
			return nil, err
		}
		t.parts = append(t.parts, templatePart{ids: ids})
	}
	return t, nil
}

func (p *parser) specialIDs(special object, name string) ([]int, error) {
	entry, err := special.member(name)
	if err != nil {
		return nil, err
	}
	list, err := p.list(entry.m["ids"], entry.at("ids"))
	if err != nil {
		return nil, err
	}
	ids := make([]int, len(list))
	for i, raw := range list {
		if ids[i], err = p.numberAt(raw, fmt.Sprintf("%s[%d]", entry.at("ids"), i), maxID); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// apply puts the special tokens around the ids of a text.
func (t *template) apply(ids []int) []int {
	var out []int
	for _, part := range t.parts {
		if part.text {
			out = append(out, ids...)
		} else {
			out = append(out, part.ids...)
		}
	}
	return out
}
