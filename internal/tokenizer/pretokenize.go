package tokenizer

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// piece is a part of the text on its way to the model: text still to be tokenized, or an added token
// that was found in it.
type piece struct {
	text   string
	origin int // as in normalizer
	id     int // of an added token; notToken for text
}

const notToken = -1

// cut is the part of a piece from start to end.
func (pc piece) cut(start, end int) piece {
	return piece{pc.text[start:end], clamp(pc.origin-start, end-start), notToken}
}

// preTokenizer is one step of the pre_tokenizer of tokenizer.json. It appends to dst what it makes of
// one piece of text that is not empty.
type preTokenizer interface {
	preTokenize(dst []piece, pc piece) ([]piece, error)
}

func (p *parser) preTokenizer(o object) (preTokenizer, error) {
	kind, err := o.kind("Sequence", "ByteLevel", "Digits", "Split", "Metaspace", "Whitespace", "WhitespaceSplit",
		"Punctuation", "CharDelimiterSplit")
	if err != nil {
		return nil, err
	}
	d := characters()
	switch kind {
	case "ByteLevel":
		return p.byteLevel(o)
	case "Digits":
		individual, err := o.bool("individual_digits")
		s := &splitter{pattern: newOneOf(d.set("rust:numeric")), behavior: contiguous}
		if individual {
			s.behavior = isolated
		}
		return s, err
	case "Split":
		return p.split(o)
	case "Metaspace":
		return p.metaspace(o)
	case "Whitespace": // \w+|[^\w\s]+, which are words, and punctuation by exclusion
		return whitespace{
			space: newOneOf(d.set("rust:white_space")),
			word:  newOneOf(d.set("rust:word")),
		}, nil
	case "WhitespaceSplit":
		return &splitter{pattern: newOneOf(d.set("rust:white_space")), behavior: removed}, nil
	case "Punctuation":
		s := &splitter{pattern: newOneOf(d.set("rust:punctuation")), behavior: isolated}
		if !isNull(o.m["behavior"]) {
			s.behavior, err = p.behavior(o)
		}
		return s, err
	default:
		r, err := o.char("delimiter")
		return &splitter{pattern: literal(string(r)), behavior: removed}, err
	}
}

// behavior is what a split does with its matches.
type behavior int

const (
	isolated           behavior = iota // each a piece of its own
	removed                            // dropped
	mergedWithPrevious                 // joined to the piece before
	mergedWithNext                     // joined to the piece behind
	contiguous                         // runs of matches joined
)

var behaviors = []string{"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"}

func (p *parser) behavior(o object) (behavior, error) {
	s, err := o.string("behavior")
	if err != nil {
		return 0, err
	}
	i := slices.Index(behaviors, s)
	if i < 0 {
		return 0, p.unsupported(o.at("behavior"), quote(s), strings.Join(behaviors, ", "))
	}
	return behavior(i), nil
}

// apply joins spans as the behavior asks, in place. Those to be dropped keep their match flag.
func (b behavior) apply(spans []span) []span {
	if b == removed {
		return spans
	}
	if b == mergedWithNext {
		slices.Reverse(spans)
	}
	out := spans[:0]
	previous := false // whether the span before was a match
	for _, s := range spans {
		join := false
		switch b {
		case contiguous:
			join = s.match == previous
		case mergedWithPrevious, mergedWithNext:
			join = s.match && !previous
		}
		previous = s.match
		s.match = false
		if n := len(out); join && n > 0 {
			out[n-1].start, out[n-1].end = min(out[n-1].start, s.start), max(out[n-1].end, s.end)
		} else {
			out = append(out, s)
		}
	}
	if b == mergedWithNext {
		slices.Reverse(out)
	}
	return out
}

// splitter splits at the matches of a pattern.
type splitter struct {
	pattern  pattern
	behavior behavior
}

func (p *parser) split(o object) (*splitter, error) {
	pattern, err := p.pattern(o)
	if err != nil {
		return nil, err
	}
	invert, err := o.bool("invert")
	if err != nil {
		return nil, err
	}
	if invert {
		pattern = inverted{pattern}
	}
	behavior, err := p.behavior(o)
	return &splitter{pattern, behavior}, err
}

func (s *splitter) preTokenize(dst []piece, pc piece) ([]piece, error) {
	var few [16]span
	spans, err := s.pattern.spans(pc.text, few[:0])
	if err != nil {
		return nil, err
	}
	for _, sp := range s.behavior.apply(spans) {
		if !sp.match && sp.start < sp.end {
			dst = append(dst, pc.cut(sp.start, sp.end))
		}
	}
	return dst, nil
}

// whitespace keeps runs of word characters and runs of others, without white space.
type whitespace struct{ space, word *oneOf }

func (w whitespace) preTokenize(dst []piece, pc piece) ([]piece, error) {
	start, last := 0, 0
	for i, r := range pc.text {
		class := 1
		if w.space.contains(r) {
			class = 0
		} else if w.word.contains(r) {
			class = 2
		}
		if class != last {
			if last != 0 {
				dst = append(dst, pc.cut(start, i))
			}
			start, last = i, class
		}
	}
	if last != 0 {
		dst = append(dst, pc.cut(start, len(pc.text)))
	}
	return dst, nil
}

// byteLevel splits as GPT-2 does, if asked to, and writes bytes as characters.
type byteLevel struct {
	prefixSpace bool
	re          *regex // nil for none
}

const gpt2Expression = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

func (p *parser) byteLevel(o object) (*byteLevel, error) {
	b := &byteLevel{}
	var err error
	if b.prefixSpace, err = o.bool("add_prefix_space"); err != nil {
		return nil, err
	}
	useRegex, err := o.optBool("use_regex", true)
	if err != nil || !useRegex {
		return b, err
	}
	b.re, err = newRegex(gpt2Expression)
	return b, err
}

func (b *byteLevel) preTokenize(dst []piece, pc piece) ([]piece, error) {
	if b.prefixSpace && pc.text[0] != ' ' {
		if pc.origin > 0 {
			pc.origin++
		}
		pc.text = " " + pc.text
	}
	var few [16]span
	spans := append(few[:0], span{0, len(pc.text), false})
	if b.re != nil {
		var err error
		if spans, err = b.re.spans(pc.text, few[:0]); err != nil {
			return nil, err
		}
	}
	// One string for the whole piece, of which the parts are cut.
	var chars strings.Builder
	chars.Grow(len(pc.text) + len(pc.text)/4)
	ends := make([]int, len(spans))
	origin := 0
	next := 0
	for i := range len(pc.text) {
		chars.WriteString(byteToChar[pc.text[i]])
		if i < pc.origin {
			origin = chars.Len()
		}
		for next < len(spans) && spans[next].end == i+1 {
			ends[next] = chars.Len()
			next++
		}
	}
	mapped := piece{chars.String(), origin, notToken}
	start := 0
	for _, end := range ends {
		if start < end {
			dst = append(dst, mapped.cut(start, end))
		}
		start = end
	}
	return dst, nil
}

// metaspace writes spaces as another character and splits before it.
type metaspace struct {
	replacement string
	always      bool // prepend_scheme "always"
	first       bool // prepend_scheme "first"
	split       bool
}

func (p *parser) metaspace(o object) (*metaspace, error) {
	r, err := o.char("replacement")
	if err != nil {
		return nil, err
	}
	m := &metaspace{replacement: string(r)}
	scheme := "always"
	if !isNull(o.m["prepend_scheme"]) {
		if scheme, err = o.string("prepend_scheme"); err != nil {
			return nil, err
		}
	}
	// add_prefix_space is the older name: false says never, and must not contradict.
	prefix, err := o.optBool("add_prefix_space", true)
	if err != nil {
		return nil, err
	}
	if !prefix && scheme != "never" {
		return nil, p.errorf(o.at("prepend_scheme"), quote(scheme), `"never", as add_prefix_space is false`)
	}
	switch scheme {
	case "always":
		m.always = true
	case "first":
		m.first = true
	case "never":
	default:
		return nil, p.unsupported(o.at("prepend_scheme"), quote(scheme), "always, first, never")
	}
	m.split, err = o.optBool("split", true)
	return m, err
}

func (m *metaspace) preTokenize(dst []piece, pc piece) ([]piece, error) {
	if strings.Contains(pc.text, " ") {
		origin := len(strings.ReplaceAll(pc.text[:pc.origin], " ", m.replacement))
		pc.text = strings.ReplaceAll(pc.text, " ", m.replacement)
		pc.origin = origin
	}
	if (m.always || m.first && pc.origin > 0) && !strings.HasPrefix(pc.text, m.replacement) {
		if pc.origin > 0 {
			pc.origin += len(m.replacement)
		}
		pc.text = m.replacement + pc.text
	}
	if !m.split {
		return append(dst, pc), nil
	}
	start := 0
	for start < len(pc.text) {
		_, size := utf8.DecodeRuneInString(pc.text[start:])
		end := strings.Index(pc.text[start+size:], m.replacement)
		if end < 0 {
			end = len(pc.text)
		} else {
			end += start + size
		}
		dst = append(dst, pc.cut(start, end))
		start = end
	}
	return dst, nil
}
