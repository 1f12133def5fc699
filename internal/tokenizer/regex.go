package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// Time limits of regular expressions. Those of real tokenizers take well under a microsecond a byte;
// only one made to backtrack without end gets near, even on a machine that is busy with other things.
const (
	matchTimeout   = 30 * time.Second      // one match
	timeoutPerByte = 50 * time.Microsecond // all matches in a text, on top of matchTimeout
)

// span is a stretch of text, in bytes, that a pattern matched or left between two matches.
type span struct {
	start, end int
	match      bool
}

// pattern finds where a text is to be split or replaced.
type pattern interface {
	// spans appends to dst, in order, matches and what lies between them: together the whole text.
	// Empty matches are among them, empty stretches between matches are not.
	spans(text string, dst []span) ([]span, error)
}

// literal is the pattern that matches itself.
type literal string

func (l literal) spans(text string, dst []span) ([]span, error) {
	for pos := 0; pos < len(text); {
		i := strings.Index(text[pos:], string(l))
		if i < 0 {
			return append(dst, span{pos, len(text), false}), nil
		}
		if i > 0 {
			dst = append(dst, span{pos, pos + i, false})
		}
		pos += i + len(l)
		dst = append(dst, span{pos - len(l), pos, true})
	}
	return dst, nil
}

// oneOf is the pattern that matches each character of a set.
type oneOf struct {
	set   runeSet
	ascii [utf8.RuneSelf]bool
}

func newOneOf(set runeSet) *oneOf {
	o := &oneOf{set: set}
	for r := range o.ascii {
		o.ascii[r] = set.contains(rune(r))
	}
	return o
}

func (o *oneOf) contains(r rune) bool {
	if r < utf8.RuneSelf {
		return o.ascii[r]
	}
	return o.set.contains(r)
}

func (o *oneOf) spans(text string, dst []span) ([]span, error) {
	last := 0
	for i, r := range text {
		if !o.contains(r) {
			continue
		}
		if last < i {
			dst = append(dst, span{last, i, false})
		}
		last = i + utf8.RuneLen(r)
		dst = append(dst, span{i, last, true})
	}
	if last < len(text) {
		dst = append(dst, span{last, len(text), false})
	}
	return dst, nil
}

// inverted is a pattern with matches and what lies between them exchanged.
type inverted struct{ pattern }

func (v inverted) spans(text string, dst []span) ([]span, error) {
	first := len(dst)
	dst, err := v.pattern.spans(text, dst)
	for i := range dst[first:] {
		dst[first+i].match = !dst[first+i].match
	}
	return dst, err
}

// regex is an Oniguruma expression on regexp2.
//
// The two engines differ in what \s, \w, \p and (?i) mean, in Unicode versions, and in syntax.
// Therefore regexp2 never sees the text: the sets of the expression divide the code points into
// classes (those that no set tells apart), every class is given one stand-in character, and both the
// expression and the text are written in stand-ins. regexp2 is left with ranges of single characters,
// groups, repeats and lookaround, which mean the same in both.
type regex struct {
	re    *regexp2.Regexp
	ascii [utf8.RuneSelf]rune // stand-ins
	los   []rune              // first code points of the stretches of equal stand-in
	stand []rune              // stand-ins of the stretches
}

// firstStandIn is where the stand-ins begin: a stretch of 20,000 characters without a meaning in
// expressions.
const (
	firstStandIn = 0x4E00
	maxStandIns  = 20_000
)

func newRegex(expression string) (*regex, error) {
	tree, err := parseOniguruma(expression)
	if err != nil {
		return nil, err
	}
	w := &regexWriter{index: map[string]int{}}
	w.collect(tree)
	x := &regex{}
	if err := w.divide(x); err != nil {
		return nil, err
	}
	w.write(tree)
	x.re, err = regexp2.Compile(w.out.String(), regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("an expression that does not compile: %w", err)
	}
	x.re.MatchTimeout = matchTimeout
	for r := range x.ascii {
		x.ascii[r] = x.lookUp(rune(r))
	}
	return x, nil
}

func (x *regex) lookUp(r rune) rune {
	i, found := slices.BinarySearch(x.los, r)
	if !found {
		i--
	}
	return x.stand[i]
}

// spans follows the search loop of Hugging Face tokenizers: an empty match right behind the last
// match is passed over by one character.
func (x *regex) spans(text string, dst []span) ([]span, error) {
	if text == "" {
		return dst, nil // not even an empty match
	}
	runes := make([]rune, 0, len(text))
	var offsets []int // in bytes, of runes; nil while they are the same
	for i, r := range text {
		if r < utf8.RuneSelf {
			runes = append(runes, x.ascii[r])
		} else {
			if offsets == nil {
				offsets = make([]int, len(runes), len(text)+1)
				for j := range offsets {
					offsets[j] = j
				}
			}
			runes = append(runes, x.lookUp(r))
		}
		if offsets != nil {
			offsets = append(offsets, i)
		}
	}
	if offsets != nil {
		offsets = append(offsets, len(text))
	}
	offset := func(i int) int {
		if offsets == nil {
			return i
		}
		return offsets[i]
	}

	start := time.Now()
	limit := matchTimeout + time.Duration(len(text))*timeoutPerByte
	from, lastEnd, prev := 0, -1, 0
	for n := 1; from <= len(runes); n++ {
		if n%256 == 0 && time.Since(start) > limit {
			return nil, errRegexTime
		}
		m, err := x.re.FindRunesMatchStartingAt(runes, from)
		if err != nil {
			return nil, errRegexTime
		}
		if m == nil {
			break
		}
		end := m.Index + m.Length
		if m.Length == 0 && end == lastEnd {
			from++
			continue
		}
		if prev < m.Index {
			dst = append(dst, span{offset(prev), offset(m.Index), false})
		}
		dst = append(dst, span{offset(m.Index), offset(end), true})
		from, lastEnd, prev = end, end, end
	}
	if prev < len(runes) {
		dst = append(dst, span{offset(prev), len(text), false})
	}
	return dst, nil
}

var errRegexTime = errors.New("a regular expression that backtracks without end on this text")

// regexWriter turns a tree into a regexp2 expression of stand-ins.
type regexWriter struct {
	sets    []runeSet
	index   map[string]int // of sets, by content
	members [][]rune       // of sets: stand-ins, ascending
	out     strings.Builder
}

var newlineSet = runeSet{{'\n', '\n'}}

func setKey(s runeSet) string {
	var b []byte
	for _, r := range s {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.lo)), uint64(r.hi))
	}
	return string(b)
}

func (w *regexWriter) add(s runeSet) {
	key := setKey(s)
	if _, ok := w.index[key]; !ok {
		w.index[key] = len(w.sets)
		w.sets = append(w.sets, s)
	}
}

// collect lists the sets that a tree tells characters apart by.
func (w *regexWriter) collect(n *node) {
	switch n.kind {
	case nodeSet:
		w.add(n.set)
	case nodeBOL, nodeEOL, nodeEndLine:
		w.add(newlineSet)
	case nodeWord, nodeNotWord:
		w.add(characters().set(`\w`))
	}
	for _, s := range n.subs {
		w.collect(s)
	}
}

// divide gives every class of code points its stand-in.
func (w *regexWriter) divide(x *regex) error {
	if len(w.sets) > maxPatternSets {
		return &syntaxError{0, fmt.Sprintf("an expression of more than %d different sets", maxPatternSets), true}
	}
	type edge struct {
		at  rune
		set int
	}
	var edges []edge
	for i, s := range w.sets {
		for _, r := range s {
			edges = append(edges, edge{r.lo, i}, edge{r.hi + 1, i})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return int(a.at - b.at) })
	w.members = make([][]rune, len(w.sets))
	within := make([]byte, len(w.sets)) // 1 for the sets that hold the current code points
	classes := map[string]rune{}
	for at, i := rune(0), 0; at <= unicode.MaxRune; {
		for ; i < len(edges) && edges[i].at == at; i++ {
			within[edges[i].set] ^= 1
		}
		class, ok := classes[string(within)]
		if !ok {
			if len(classes) == maxStandIns {
				return &syntaxError{0, fmt.Sprintf("an expression that tells apart more than %d kinds of characters", maxStandIns), true}
			}
			class = firstStandIn + rune(len(classes))
			classes[string(within)] = class
			for set, in := range within {
				if in == 1 {
					w.members[set] = append(w.members[set], class)
				}
			}
		}
		if n := len(x.stand); n == 0 || x.stand[n-1] != class {
			x.los = append(x.los, at)
			x.stand = append(x.stand, class)
		}
		if i == len(edges) {
			break
		}
		at = edges[i].at
	}
	return nil
}

// writeSet writes a set as a class of stand-ins.
func (w *regexWriter) writeSet(s runeSet) {
	members := w.members[w.index[setKey(s)]]
	switch len(members) {
	case 0:
		w.out.WriteString("(?!)")
		return
	case 1:
		w.out.WriteRune(members[0])
		return
	}
	w.out.WriteByte('[')
	for i := 0; i < len(members); {
		j := i
		for j+1 < len(members) && members[j+1] == members[j]+1 {
			j++
		}
		w.out.WriteRune(members[i])
		if j > i {
			w.out.WriteByte('-')
			w.out.WriteRune(members[j])
		}
		i = j + 1
	}
	w.out.WriteByte(']')
}

// writeLook writes a lookaround for one character of a set.
func (w *regexWriter) writeLook(kind string, s runeSet) {
	w.out.WriteString(kind)
	w.writeSet(s)
	w.out.WriteByte(')')
}

func (w *regexWriter) write(n *node) {
	out := &w.out
	switch n.kind {
	case nodeSet:
		w.writeSet(n.set)
	case nodeConcat, nodeAlt:
		out.WriteString("(?:")
		for i, s := range n.subs {
			if i > 0 && n.kind == nodeAlt {
				out.WriteByte('|')
			}
			w.write(s)
		}
		out.WriteByte(')')
	case nodeRepeat:
		if n.repeat == possessive {
			out.WriteString("(?>")
		}
		out.WriteString("(?:")
		w.write(n.subs[0])
		out.WriteByte(')')
		switch {
		case n.max < 0 && n.min == 0:
			out.WriteByte('*')
		case n.max < 0 && n.min == 1:
			out.WriteByte('+')
		case n.max < 0:
			fmt.Fprintf(out, "{%d,}", n.min)
		case n.min == 0 && n.max == 1:
			out.WriteByte('?')
		default:
			fmt.Fprintf(out, "{%d,%d}", n.min, n.max)
		}
		switch n.repeat {
		case lazy:
			out.WriteByte('?')
		case possessive:
			out.WriteByte(')')
		}
	case nodeLook:
		out.WriteString("(?")
		if n.behind {
			out.WriteByte('<')
		}
		if n.not {
			out.WriteByte('!')
		} else {
			out.WriteByte('=')
		}
		w.write(n.subs[0])
		out.WriteByte(')')
	case nodeAtomic:
		out.WriteString("(?>")
		w.write(n.subs[0])
		out.WriteByte(')')
	case nodeBegin:
		out.WriteString(`\A`)
	case nodeEnd:
		out.WriteString(`\z`)
	case nodeEndLine: // the end, or before a newline that is the last character
		out.WriteString(`(?:\z|(?=`)
		w.writeSet(newlineSet)
		out.WriteString(`\z))`)
	case nodeBOL: // not behind a newline that is the last character
		out.WriteString(`(?:\A|`)
		w.writeLook("(?<=", newlineSet)
		out.WriteString(`(?!\z))`)
	case nodeEOL:
		out.WriteString(`(?:\z|`)
		w.writeLook("(?=", newlineSet)
		out.WriteByte(')')
	case nodeWord, nodeNotWord:
		word := characters().set(`\w`)
		ahead := [2]string{"(?!", "(?="}
		if n.kind == nodeNotWord {
			ahead = [2]string{"(?=", "(?!"}
		}
		out.WriteString("(?:")
		w.writeLook("(?<=", word)
		w.writeLook(ahead[0], word)
		out.WriteByte('|')
		w.writeLook("(?<!", word)
		w.writeLook(ahead[1], word)
		out.WriteByte(')')
	}
}
