package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// maxID is the highest token id that a file may give.
const maxID = math.MaxInt32

// bpe is a byte-pair encoding model (Sennrich, Haddow and Birch, arXiv:1508.07909).
type bpe struct {
	vocab  map[string]int
	tokens map[int]string
	merges map[uint64]merge // by pairKey
	// unknown is the token for a character that is not in vocab; without one they are dropped.
	unknown       string
	hasUnknown    bool
	fuseUnknown   bool
	prefix        string // continuing_subword_prefix
	suffix        string // end_of_word_suffix
	byteFallback  bool
	byteTokens    [256]int // ids of <0x00> to <0xFF>, or notToken
	ignoreMerges  bool
	words         wordCache
	scratchBuffer sync.Pool // of *wordScratch
}

// merge is what a pair of tokens becomes. Lower ranks come first.
type merge struct{ rank, id int32 }

func pairKey(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

func (p *parser) bpe(raw json.RawMessage) (*bpe, error) {
	o, err := p.object(raw, "model")
	if err != nil {
		return nil, err
	}
	// Old files have no type.
	if !isNull(o.m["type"]) {
		if _, err := o.kind("BPE"); err != nil {
			return nil, err
		}
	}
	if d := o.m["dropout"]; !isNull(d) {
		if rate, err := strconv.ParseFloat(describe(d), 64); err != nil || rate != 0 {
			return nil, p.unsupported("model.dropout", describe(d), "null")
		}
	}
	m := &bpe{}
	m.scratchBuffer.New = func() any { return new(wordScratch) }
	if m.unknown, m.hasUnknown, err = o.optString("unk_token"); err != nil {
		return nil, err
	}
	for key, field := range map[string]*string{
		"continuing_subword_prefix": &m.prefix, "end_of_word_suffix": &m.suffix,
	} {
		if *field, _, err = o.optString(key); err != nil {
			return nil, err
		}
	}
	for key, field := range map[string]*bool{
		"fuse_unk": &m.fuseUnknown, "byte_fallback": &m.byteFallback, "ignore_merges": &m.ignoreMerges,
	} {
		if *field, err = o.optBool(key, false); err != nil {
			return nil, err
		}
	}
	if err := p.vocabulary(m, o.m["vocab"]); err != nil {
		return nil, err
	}
	if err := p.merges(m, o.m["merges"]); err != nil {
		return nil, err
	}
	for b := range m.byteTokens {
		m.byteTokens[b] = notToken
		if id, ok := m.vocab[fmt.Sprintf("<0x%02X>", b)]; ok {
			m.byteTokens[b] = id
		}
	}
	return m, nil
}

func (p *parser) vocabulary(m *bpe, raw json.RawMessage) error {
	m.vocab, m.tokens = map[string]int{}, map[int]string{}
	return p.members(raw, "model.vocab", func(token string, value json.RawMessage) error {
		at := func() string { return "model.vocab[" + quote(token) + "]" }
		id, ok := wholeNumber(value, maxID)
		if !ok {
			return p.errorf(at(), describe(value), fmt.Sprintf("an id from 0 to %d", maxID))
		}
		if _, twice := m.vocab[token]; twice {
			return p.errorf(at(), "the token twice", "every token once")
		}
		if other, twice := m.tokens[id]; twice {
			return p.errorf(at(), fmt.Sprintf("id %d, which %s has", id, quote(other)), "every id once")
		}
		m.vocab[token], m.tokens[id] = id, token
		return nil
	})
}

// merges reads the merges in order of rank. If a pair comes twice, the last one counts.
func (p *parser) merges(m *bpe, raw json.RawMessage) error {
	const field = "model.merges"
	if !begins(raw, '[') {
		return p.errorf(field, describe(raw), "a list")
	}
	m.merges = map[uint64]merge{}
	rank := int32(0)
	return items(raw, func(item json.RawMessage) error {
		if begins(item, '"') && strings.HasPrefix(text(item), "#version") {
			return nil
		}
		at := func() string { return field + "[" + strconv.Itoa(int(rank)) + "]" }
		a, b, ok := mergePair(item)
		if !ok {
			return p.errorf(at(), describe(item), `"a b" or ["a", "b"]`)
		}
		if !strings.HasPrefix(b, m.prefix) {
			return p.errorf(at(), quote(b), "a token that begins with continuing_subword_prefix "+quote(m.prefix))
		}
		ids := [3]int{}
		for i, token := range [3]string{a, b, a + b[len(m.prefix):]} {
			if ids[i], ok = m.vocab[token]; !ok {
				return p.errorf(at(), quote(token)+", which is not in model.vocab", "tokens of model.vocab")
			}
		}
		m.merges[pairKey(int32(ids[0]), int32(ids[1]))] = merge{rank, int32(ids[2])}
		rank++
		return nil
	})
}

// mergePair reads "a b" or ["a", "b"].
func mergePair(item json.RawMessage) (a, b string, ok bool) {
	if begins(item, '"') {
		a, b, ok = strings.Cut(text(item), " ")
		return a, b, ok && !strings.Contains(b, " ")
	}
	if !begins(item, '[') {
		return "", "", false
	}
	n := 0
	err := items(item, func(part json.RawMessage) error {
		if n == 2 || !begins(part, '"') {
			return errNotPair
		}
		a, b = b, text(part)
		n++
		return nil
	})
	return a, b, err == nil && n == 2
}

var errNotPair = errors.New("not a pair of strings")

// encode appends the ids of one word, which is not empty.
func (m *bpe) encode(dst []int, word string) ([]int, error) {
	if m.ignoreMerges {
		if id, ok := m.vocab[word]; ok {
			return append(dst, id), nil
		}
	}
	if ids, ok := m.words.get(word); ok {
		for _, id := range ids {
			dst = append(dst, int(id))
		}
		return dst, nil
	}
	w := m.scratchBuffer.Get().(*wordScratch)
	defer m.scratchBuffer.Put(w)
	if err := m.split(w, word); err != nil {
		return nil, err
	}
	w.mergeAll(m.merges)
	first := len(dst)
	for i := 0; i < len(w.symbols); i = int(w.symbols[i].next) {
		dst = append(dst, int(w.symbols[i].id))
	}
	m.words.put(word, dst[first:])
	return dst, nil
}

// split fills w with the tokens of single characters, or bytes, that merging begins with.
func (m *bpe) split(w *wordScratch, word string) error {
	w.symbols = w.symbols[:0]
	add := func(id int) { w.symbols = append(w.symbols, symbol{id: int32(id)}) }
	pending := false // whether an unknown token is still to be added
	flush := func() {
		if pending {
			add(m.vocab[m.unknown])
			pending = false
		}
	}
	for i := 0; i < len(word); {
		_, size := utf8.DecodeRuneInString(word[i:])
		char := word[i : i+size]
		if i > 0 && m.prefix != "" {
			char = m.prefix + char
		}
		i += size
		if i == len(word) && m.suffix != "" {
			char += m.suffix
		}
		if id, ok := m.vocab[char]; ok {
			flush()
			add(id)
			continue
		}
		if m.byteFallback && m.hasBytes(char) {
			// As in Hugging Face tokenizers, an unknown token from before comes only later.
			for j := range len(char) {
				add(m.byteTokens[char[j]])
			}
			continue
		}
		if !m.hasUnknown {
			continue
		}
		if _, ok := m.vocab[m.unknown]; !ok {
			return &Error{Field: "model.unk_token", Got: quote(m.unknown) + ", which is not in model.vocab", Want: "a token for " + quote(char)}
		}
		if !m.fuseUnknown {
			flush()
		}
		pending = true
	}
	flush()
	return nil
}

// hasBytes says whether there is a token for every byte of s.
func (m *bpe) hasBytes(s string) bool {
	for i := range len(s) {
		if m.byteTokens[s[i]] == notToken {
			return false
		}
	}
	return true
}

// symbol is a token of a word in the making, linked to its neighbours.
type symbol struct {
	id         int32
	prev, next int32 // indices; -1 and the number of symbols at the ends
	gone       bool  // merged into the one before
}

// candidate is a merge that may be possible at a symbol.
type candidate struct {
	merge
	pos int32
}

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.pos < d.pos
}

// wordScratch is the working space of merging one word.
type wordScratch struct {
	symbols []symbol
	queue   []candidate // binary heap, the first to merge at the root
}

// mergeAll merges pairs in order of rank, from left to right, until none is left. With a queue of
// candidates and linked symbols it takes O(n log n) for n symbols.
func (w *wordScratch) mergeAll(merges map[uint64]merge) {
	s := w.symbols
	n := int32(len(s))
	w.queue = w.queue[:0]
	offer := func(pos int32) {
		if next := s[pos].next; next < n {
			if m, ok := merges[pairKey(s[pos].id, s[next].id)]; ok {
				w.push(candidate{m, pos})
			}
		}
	}
	for i := range n {
		s[i].prev, s[i].next = i-1, i+1
	}
	for i := range n {
		offer(i)
	}
	for len(w.queue) > 0 {
		c := w.pop()
		left := &s[c.pos]
		if left.gone || left.next == n {
			continue
		}
		right := &s[left.next]
		// The pair may have changed since. As in Hugging Face tokenizers, it still counts if it makes
		// the same token.
		if m, ok := merges[pairKey(left.id, right.id)]; !ok || m.id != c.id {
			continue
		}
		left.id, left.next = c.id, right.next
		right.gone = true
		if right.next < n {
			s[right.next].prev = c.pos
		}
		if left.prev >= 0 {
			offer(left.prev)
		}
		offer(c.pos)
	}
}

func (w *wordScratch) push(c candidate) {
	w.queue = append(w.queue, c)
	q := w.queue
	i := len(q) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !q[i].before(q[parent]) {
			break
		}
		q[i], q[parent] = q[parent], q[i]
		i = parent
	}
}

func (w *wordScratch) pop() candidate {
	q := w.queue
	top := q[0]
	last := len(q) - 1
	q[0] = q[last]
	q = q[:last]
	w.queue = q
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top
		}
		if child+1 < last && q[child+1].before(q[child]) {
			child++
		}
		if !q[child].before(q[i]) {
			return top
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}
