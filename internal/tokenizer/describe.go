package tokenizer

import (
	"encoding/json"
	"slices"
)

// Description is what a tokenizer.json says, for writing it in another engine's format.
type Description struct {
	// Tokens holds every token by its id.
	Tokens map[int]Token
	// Merges are the pairs of tokens that are joined, in order of rank.
	Merges [][2]string
	// Normalizers and PreTokenizers are the components in order, Sequences taken apart, as the file has them.
	Normalizers, PreTokenizers []json.RawMessage
	// ByteFallback and IgnoreMerges are the model's fields of these names; Unknown is its unk_token, "" for none.
	ByteFallback, IgnoreMerges bool
	Unknown                    string
	// Affixed says that the model marks the beginnings or ends of words (continuing_subword_prefix, end_of_word_suffix).
	Affixed bool
	// Before and After are the ids that the post-processor puts around a text. Templated says that there is one.
	Before, After []int
	Templated     bool
}

// Token is a token of a [Description]: as the file writes it, in the characters that stand for bytes in a byte-level model.
type Token struct {
	Text string
	// Added tokens are cut out of a text before anything else; Special ones among them are not text at all.
	Added, Special bool
}

// Describe returns what the file said.
func (t *Tokenizer) Describe() *Description {
	m := t.model
	d := &Description{
		Tokens:      make(map[int]Token, t.size),
		Normalizers: t.source.normalizers, PreTokenizers: t.source.preTokenizers,
		ByteFallback: m.byteFallback, IgnoreMerges: m.ignoreMerges, Unknown: m.unknown,
		Affixed: m.prefix != "" || m.suffix != "",
	}
	for id, text := range m.tokens {
		d.Tokens[id] = Token{Text: text}
	}
	for id, a := range t.added.tokens {
		d.Tokens[id] = Token{Text: a.content, Added: true, Special: a.special}
	}
	type ranked struct {
		rank int32
		key  uint64
	}
	order := make([]ranked, 0, len(m.merges))
	for key, merge := range m.merges {
		order = append(order, ranked{merge.rank, key})
	}
	slices.SortFunc(order, func(a, b ranked) int { return int(a.rank) - int(b.rank) })
	for _, r := range order {
		d.Merges = append(d.Merges, [2]string{m.tokens[int(r.key>>32)], m.tokens[int(uint32(r.key))]})
	}
	if t.post != nil {
		d.Templated = true
		seen := false
		for _, part := range t.post.parts {
			switch {
			case part.text:
				seen = true
			case seen:
				d.After = append(d.After, part.ids...)
			default:
				d.Before = append(d.Before, part.ids...)
			}
		}
	}
	return d
}

// componentTexts are the components of a file that [Description] lists, as it has them.
type componentTexts struct{ normalizers, preTokenizers []json.RawMessage }

// componentTexts copies the components out of a file that has been parsed.
func (p *parser) componentTexts(o object) (c componentTexts, err error) {
	for _, part := range []struct {
		to         *[]json.RawMessage
		field, key string
	}{
		{&c.normalizers, "normalizer", "normalizers"},
		{&c.preTokenizers, "pre_tokenizer", "pretokenizers"},
	} {
		*part.to, err = components(p, o.m[part.field], part.field, part.key, func(o object) (json.RawMessage, error) {
			return json.Marshal(o.m)
		})
		if err != nil {
			return c, err
		}
	}
	return c, nil
}
