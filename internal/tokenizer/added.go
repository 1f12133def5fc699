package tokenizer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxAddedToken bounds the length of an added token, and maxPattern that of what the normalizer makes of it, and with them the
// cost of looking for them.
const (
	maxAddedToken = 4096
	maxPattern    = 16 * maxAddedToken
)

// addedToken is an entry of added_tokens. Its flags say whether it must not touch word characters,
// takes white space on either side with it, and is looked for in normalized text.
type addedToken struct {
	content                                string
	id                                     int
	singleWord, lstrip, rstrip, normalized bool
	special                                bool
	pattern                                string // content, normalized if it is looked for there
}

// addedVocabulary finds added tokens in text. Tokens with normalized false are cut out of the text
// as given, the others out of what is left of it after the normalizer.
type addedVocabulary struct {
	tokens     map[int]*addedToken
	ids        map[string]int
	raw        trie
	normalized trie
	space      *oneOf
	word       *oneOf
}

// addedTokens reads added_tokens. Like Hugging Face tokenizers, which reads the field id only to warn,
// it gives a token the id that the model has for its content, or else the next one behind the model's.
func (p *parser) addedTokens(raw json.RawMessage, model *bpe, normalizers []normalizer) (*addedVocabulary, error) {
	v := &addedVocabulary{
		tokens: map[int]*addedToken{},
		ids:    map[string]int{},
		space:  newOneOf(characters().set("rust:white_space")),
		word:   newOneOf(characters().set("rust:word")),
	}
	if isNull(raw) {
		return v, nil
	}
	list, err := p.list(raw, "added_tokens")
	if err != nil {
		return nil, err
	}
	next := len(model.vocab)
	left := mostBytes(0) // for all normalized tokens together
	for i, entry := range list {
		field := "added_tokens[" + strconv.Itoa(i) + "]"
		t, err := p.addedToken(entry, field)
		if err != nil {
			return nil, err
		}
		if t.content == "" {
			continue
		}
		known := true
		if t.id, known = v.ids[t.content]; !known {
			if t.id, known = model.vocab[t.content]; !known {
				t.id = next
				next++
				if token, taken := model.tokens[t.id]; taken {
					return nil, p.errorf(field, fmt.Sprintf("the next free id %d taken by %s", t.id, quote(token)), "a vocabulary without gaps")
				}
			}
		}
		t.pattern = t.content
		if t.normalized {
			left += growth * len(t.content)
			if t.pattern, _, err = normalizeAll(normalizers, t.content, 0, min(left, maxPattern)); err != nil {
				return nil, p.errorf(field, err.Error(), "a token that can be normalized")
			}
			left -= len(t.pattern)
		}
		v.ids[t.content] = t.id
		v.tokens[t.id] = t
	}
	for _, t := range v.tokens {
		tr := &v.raw
		if t.normalized {
			tr = &v.normalized
		}
		if t.pattern == "" {
			return nil, p.errorf("added_tokens", quote(t.content)+", of which the normalizer leaves nothing", "a token to look for")
		}
		if !tr.insert(t.pattern, t.id) {
			return nil, p.errorf("added_tokens", "two tokens that are both "+quote(t.pattern)+" when normalized", "different tokens")
		}
	}
	return v, nil
}

func (p *parser) addedToken(raw json.RawMessage, field string) (*addedToken, error) {
	o, err := p.object(raw, field)
	if err != nil {
		return nil, err
	}
	if _, err := o.number("id", maxID); err != nil {
		return nil, err
	}
	t := &addedToken{}
	if t.content, err = o.string("content"); err != nil {
		return nil, err
	}
	if len(t.content) > maxAddedToken {
		return nil, p.unsupported(o.at("content"), quote(t.content), fmt.Sprintf("up to %d bytes", maxAddedToken))
	}
	for key, flag := range map[string]*bool{
		"single_word": &t.singleWord, "lstrip": &t.lstrip, "rstrip": &t.rstrip,
		"normalized": &t.normalized, "special": &t.special,
	} {
		if *flag, err = o.bool(key); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// extract cuts the tokens of a trie out of a piece. The order of the checks, and what happens where
// the white space of one token runs into the next, is that of Hugging Face tokenizers.
func (v *addedVocabulary) extract(dst []piece, pc piece, tr *trie) []piece {
	if tr.empty() {
		return append(dst, pc)
	}
	text := pc.text
	done := 0 // how far text has been given out
	for at := 0; at < len(text); {
		start, end, id := tr.find(text, at)
		if id == notToken {
			break
		}
		at = end
		t := v.tokens[id]
		if t.singleWord {
			before, _ := utf8.DecodeLastRuneInString(text[:start])
			after, _ := utf8.DecodeRuneInString(text[end:])
			if start > 0 && v.word.contains(before) || end < len(text) && v.word.contains(after) {
				continue
			}
		}
		if t.lstrip {
			start = max(done, len(strings.TrimRightFunc(text[:start], v.space.contains)))
		}
		if t.rstrip {
			end = len(text) - len(strings.TrimLeftFunc(text[end:], v.space.contains))
		}
		if done < start {
			dst = append(dst, pc.cut(done, start))
		}
		// A token whose text lies within the white space that the one before it took is lost; where it
		// would end before it begins, Hugging Face tokenizers panics.
		if start < end {
			found := pc.cut(start, end)
			found.id = id
			dst = append(dst, found)
		}
		done = end
	}
	if done < len(text) {
		dst = append(dst, pc.cut(done, len(text)))
	}
	return dst
}

// trie finds strings in text: the leftmost, and of those the longest.
type trie struct {
	nodes []trieNode
}

type trieNode struct {
	edges []trieEdge
	id    int // of the string that ends here, or notToken
}

type trieEdge struct {
	b    byte
	node int32
}

func (t *trie) empty() bool { return len(t.nodes) == 0 }

func (n *trieNode) next(b byte) int32 {
	for _, e := range n.edges {
		if e.b == b {
			return e.node
		}
	}
	return -1
}

// insert adds a string; it returns false if it is there already.
func (t *trie) insert(s string, id int) bool {
	if t.empty() {
		t.nodes = append(t.nodes, trieNode{id: notToken})
	}
	at := int32(0)
	for i := range len(s) {
		next := t.nodes[at].next(s[i])
		if next < 0 {
			next = int32(len(t.nodes))
			t.nodes = append(t.nodes, trieNode{id: notToken})
			t.nodes[at].edges = append(t.nodes[at].edges, trieEdge{s[i], next})
		}
		at = next
	}
	if t.nodes[at].id != notToken {
		return false
	}
	t.nodes[at].id = id
	return true
}

// find returns where in text, from byte from on, the first string is; id is notToken if there is none.
func (t *trie) find(text string, from int) (start, end, id int) {
	for start := from; start < len(text); start++ {
		end, id := 0, notToken
		at := int32(0)
		for i := start; i < len(text); i++ {
			if at = t.nodes[at].next(text[i]); at < 0 {
				break
			}
			if t.nodes[at].id != notToken {
				end, id = i+1, t.nodes[at].id
			}
		}
		if id != notToken {
			return start, end, id
		}
	}
	return 0, 0, notToken
}
