package tokenizer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file parses the regular expressions of tokenizer.json, which Hugging Face tokenizers hands
// to Oniguruma in its own default syntax (the Oniguruma document RE), into a small tree. Case
// folding and properties are resolved to sets of code points here, so that nothing of another
// engine's view of Unicode is left. What no tokenizer needs (captures read back, subexpression
// calls, absent operators, text segments, callouts, conditionals) is refused by name.

// Limits on one expression. They are far above what any tokenizer has, and keep a hostile file from
// costing more than its size.
const (
	maxPatternBytes = 16 << 10
	maxPatternDepth = 64
	maxPatternSets  = 512
	maxRepeat       = 1000    // of one interval; Oniguruma itself stops at 100,000
	maxRepeatTotal  = 1 << 16 // product over nested intervals
)

type nodeKind int

const (
	nodeSet     nodeKind = iota // one code point of set
	nodeConcat                  // subs in order
	nodeAlt                     // subs, the first that leads to a match
	nodeRepeat                  // subs[0], min to max times, max < 0 for no limit
	nodeLook                    // subs[0], zero width
	nodeAtomic                  // subs[0] without backtracking into it
	nodeBegin                   // \A
	nodeEnd                     // \z
	nodeEndLine                 // \Z
	nodeBOL                     // ^
	nodeEOL                     // $
	nodeWord                    // \b
	nodeNotWord                 // \B
)

type repeatKind int

const (
	greedy repeatKind = iota
	lazy
	possessive
)

// node is a part of a parsed expression.
type node struct {
	kind     nodeKind
	subs     []*node
	set      runeSet
	min, max int
	repeat   repeatKind
	behind   bool // of nodeLook
	not      bool // of nodeLook
}

// syntaxError is what is wrong with an expression, and where.
type syntaxError struct {
	offset      int // bytes into the expression
	message     string
	unsupported bool
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("%s at byte %d", e.message, e.offset)
}

type regexOptions struct {
	ignoreCase bool // (?i)
	dotAll     bool // (?m)
}

type onigParser struct {
	src     string
	pos     int
	depth   int
	options regexOptions
	// literals is the run of characters read last under (?i), each as its foldKey, for the check
	// against foldings of several characters.
	literals []rune
}

// parseOniguruma parses an expression in Oniguruma's default syntax.
func parseOniguruma(src string) (n *node, err error) {
	p := &onigParser{src: src}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*syntaxError)
			if !ok {
				panic(r)
			}
			n, err = nil, e
		}
	}()
	if len(src) > maxPatternBytes {
		p.unsupported("an expression of more than %d bytes", maxPatternBytes)
	}
	n = p.alternatives()
	if p.pos < len(src) {
		p.fail("unmatched )")
	}
	p.checkRepeats(n, 1)
	p.checkBehind(n, false)
	return n, nil
}

func (p *onigParser) fail(format string, args ...any) {
	panic(&syntaxError{p.pos, fmt.Sprintf(format, args...), false})
}

func (p *onigParser) unsupported(format string, args ...any) {
	panic(&syntaxError{p.pos, fmt.Sprintf(format, args...), true})
}

func (p *onigParser) more() bool { return p.pos < len(p.src) }

func (p *onigParser) peek(prefix string) bool { return strings.HasPrefix(p.src[p.pos:], prefix) }

func (p *onigParser) accept(prefix string) bool {
	if p.peek(prefix) {
		p.pos += len(prefix)
		return true
	}
	return false
}

func (p *onigParser) next() rune {
	r, size := utf8.DecodeRuneInString(p.src[p.pos:])
	p.pos += size
	return r
}

func (p *onigParser) enter() {
	if p.depth++; p.depth > maxPatternDepth {
		p.unsupported("groups nested deeper than %d", maxPatternDepth)
	}
}

func (p *onigParser) leave() { p.depth-- }

// alternatives reads up to an unmatched ) or the end.
func (p *onigParser) alternatives() *node {
	p.enter()
	defer p.leave()
	options := p.options
	alt := &node{kind: nodeAlt}
	for {
		alt.subs = append(alt.subs, p.sequence())
		p.options = options
		if !p.accept("|") {
			break
		}
	}
	if len(alt.subs) == 1 {
		return alt.subs[0]
	}
	return alt
}

func (p *onigParser) sequence() *node {
	p.literals = p.literals[:0]
	seq := &node{kind: nodeConcat}
	for p.more() && !p.peek("|") && !p.peek(")") {
		start := p.pos
		n := p.atom()
		if n == nil {
			continue
		}
		for {
			q := p.quantifier(n)
			if q == nil {
				break
			}
			if zeroWidth(n) {
				p.pos = start
				p.fail("a repeat of what matches no character")
			}
			n = q
			p.literals = p.literals[:0]
		}
		seq.subs = append(seq.subs, n)
	}
	p.literals = p.literals[:0]
	return seq
}

func zeroWidth(n *node) bool {
	return n.kind == nodeLook || n.kind >= nodeBegin
}

// quantifier reads one, if there is one, and applies it to n. As in Oniguruma, {n}? is an optional
// {n}, {n,m}+ a repeated {n,m}, and a brace that begins no interval a literal.
func (p *onigParser) quantifier(n *node) *node {
	q := &node{kind: nodeRepeat, subs: []*node{n}, max: -1}
	switch {
	case p.accept("*"):
	case p.accept("+"):
		q.min = 1
	case p.accept("?"):
		q.max = 1
	case p.peek("{"):
		fixed, ok := p.interval(q)
		if !ok {
			return nil
		}
		if !fixed && p.accept("?") {
			q.repeat = lazy
		}
		return q
	default:
		return nil
	}
	if p.accept("?") {
		q.repeat = lazy
	} else if p.accept("+") {
		q.repeat = possessive
	}
	return q
}

// interval reads {n}, {n,}, {,m} or {n,m}; ok is false, and nothing is read, for anything else.
func (p *onigParser) interval(q *node) (fixed, ok bool) {
	end := strings.IndexByte(p.src[p.pos:], '}')
	if end < 0 {
		return false, false
	}
	low, high, comma := strings.Cut(p.src[p.pos+1:p.pos+end], ",")
	number := func(s string) (int, bool) {
		for _, c := range s {
			if c < '0' || c > '9' {
				return 0, false
			}
		}
		n, err := strconv.Atoi("0" + s)
		if err != nil || n > maxRepeat {
			p.unsupported("a repeat count of %s above %d", quote(s), maxRepeat)
		}
		return n, true
	}
	var lowOK, highOK bool
	if low == "" && high == "" {
		return false, false
	}
	if q.min, lowOK = number(low); !lowOK {
		return false, false
	}
	if q.max, highOK = number(high); !highOK {
		return false, false
	}
	switch {
	case !comma:
		q.max = q.min
	case high == "":
		q.max = -1
	case q.max < q.min:
		p.unsupported("an interval with its ends reversed")
	}
	p.pos += end + 1
	return !comma, true
}

// checkRepeats bounds the number of times that nested intervals ask for their innermost part.
func (p *onigParser) checkRepeats(n *node, total int) {
	if n.kind == nodeRepeat {
		total *= max(n.min, n.max, 1)
		if total > maxRepeatTotal {
			p.unsupported("nested repeats of more than %d in all", maxRepeatTotal)
		}
	}
	for _, s := range n.subs {
		p.checkRepeats(s, total)
	}
}

// checkBehind refuses atomic groups in a look-behind: regexp2 matches it from right to left, and what
// a group that does not backtrack takes depends on the direction.
func (p *onigParser) checkBehind(n *node, behind bool) {
	if behind && (n.kind == nodeAtomic || n.kind == nodeRepeat && n.repeat == possessive) {
		p.unsupported("an atomic group or possessive repeat in a look-behind")
	}
	if n.kind == nodeLook {
		behind = n.behind
	}
	for _, s := range n.subs {
		p.checkBehind(s, behind)
	}
}

func setNode(s runeSet) *node { return &node{kind: nodeSet, set: s} }

// foldKey is one character for all that (?i) makes equal.
func foldKey(r rune) rune {
	if group, ok := characters().folds[r]; ok {
		return group[0]
	}
	return r
}

// literal is a node for one character, under (?i) for all that fold to the same.
func (p *onigParser) literal(r rune) *node {
	set := runeSet{{r, r}}
	if !p.options.ignoreCase {
		p.literals = p.literals[:0]
		return setNode(set)
	}
	// Oniguruma lets U+00DF match ss under (?i), and the other way round. No tokenizer has that.
	p.literals = append(p.literals, foldKey(r))
	for _, m := range characters().multi {
		n := len(p.literals) - len(m.sequence)
		if foldKey(r) == foldKey(m.char) || n >= 0 && slices.EqualFunc(p.literals[n:], m.sequence, func(key, r rune) bool {
			return key == foldKey(r)
		}) {
			p.unsupported("(?i) on %s, which U+%04X equals", quote(string(m.sequence)), m.char)
		}
	}
	return setNode(foldSet(set))
}

// foldSet adds to a set every character that (?i) makes equal to one of its own.
func foldSet(s runeSet) runeSet {
	out := s
	var extra []runeRange
	for r, group := range characters().folds {
		if s.contains(r) {
			for _, g := range group {
				extra = append(extra, runeRange{g, g})
			}
		}
	}
	if len(extra) > 0 {
		out = out.union(newRuneSet(extra...))
	}
	return out
}

// atom reads one item before any quantifier; nil for a comment.
func (p *onigParser) atom() *node {
	switch {
	case p.accept("(?#"):
		end := strings.IndexByte(p.src[p.pos:], ')')
		if end < 0 {
			p.fail("a comment without its end")
		}
		p.pos += end + 1
		return nil
	case p.peek("("):
		p.literals = p.literals[:0]
		n := p.group()
		p.literals = p.literals[:0]
		return n
	case p.peek("["):
		p.literals = p.literals[:0]
		return p.class()
	case p.accept("."):
		p.literals = p.literals[:0]
		if p.options.dotAll {
			return setNode(allRunes)
		}
		return setNode(newRuneSet(runeRange{'\n', '\n'}).negate())
	case p.accept("^"):
		return &node{kind: nodeBOL}
	case p.accept("$"):
		return &node{kind: nodeEOL}
	case p.peek(`\`):
		return p.escape()
	case p.peek("*"), p.peek("+"), p.peek("?"):
		p.fail("nothing to repeat")
	case p.peek("{"):
		if _, ok := p.interval(&node{}); ok {
			p.fail("nothing to repeat")
		}
	}
	return p.literal(p.next())
}

// group reads what begins with a parenthesis.
func (p *onigParser) group() *node {
	start := p.pos
	outer := p.options
	look := func(behind, not bool) *node {
		return &node{kind: nodeLook, subs: []*node{p.alternatives()}, behind: behind, not: not}
	}
	var n *node
	switch {
	case p.accept("(?:"):
		n = p.alternatives()
	case p.accept("(?="):
		n = look(false, false)
	case p.accept("(?!"):
		n = look(false, true)
	case p.accept("(?<="):
		n = look(true, false)
	case p.accept("(?<!"):
		n = look(true, true)
	case p.accept("(?>"):
		n = &node{kind: nodeAtomic, subs: []*node{p.alternatives()}}
	case p.accept("(?<"), p.accept("(?'"):
		// A named group. Nothing reads it back, so that it is a plain one.
		end := strings.IndexAny(p.src[p.pos:], ">'")
		if end <= 0 || (p.src[start+2] == '<') != (p.src[p.pos+end] == '>') {
			p.fail("a group name without its end")
		}
		name := p.src[p.pos : p.pos+end]
		for i, r := range name {
			if !characters().set("[:word:]").contains(r) || i == 0 && r >= '0' && r <= '9' {
				p.fail("a group name of other than word characters")
			}
		}
		p.pos += end + 1
		n = p.alternatives()
	case p.accept("(?"):
		return p.optionGroup(outer)
	case p.peek("(*"):
		p.unsupported("a callout")
	default:
		p.pos++
		n = p.alternatives()
	}
	p.options = outer
	if !p.accept(")") {
		p.pos = start
		p.fail("an unclosed group")
	}
	if n.kind != nodeLook {
		// Keep the group as one item, whatever a quantifier is applied to.
		n = &node{kind: nodeConcat, subs: []*node{n}}
	}
	return n
}

// optionGroup reads (?im-im:...) and (?im-im), after its first two characters. The latter holds to
// the end of the group around it, alternatives included: a(?i)b|c is a(?i:b|c).
func (p *onigParser) optionGroup(outer regexOptions) *node {
	on := true
	for {
		if !p.more() {
			p.fail("an unclosed group")
		}
		switch c := p.next(); c {
		case '-':
			on = false
		case 'i':
			p.options.ignoreCase = on
		case 'm':
			p.options.dotAll = on
		case ':':
			n := p.alternatives()
			p.options = outer
			if !p.accept(")") {
				p.fail("an unclosed group")
			}
			return &node{kind: nodeConcat, subs: []*node{n}}
		case ')':
			n := p.alternatives()
			p.options = outer
			return &node{kind: nodeConcat, subs: []*node{n}}
		default:
			p.pos -= utf8.RuneLen(c)
			p.unsupported("(?%c", c)
		}
	}
}

// escape reads what begins with a backslash, outside a class.
func (p *onigParser) escape() *node {
	start := p.pos
	if set, ok := p.setEscape(characters().set(`\w`)); ok {
		p.literals = p.literals[:0]
		return setNode(set)
	}
	rest := p.src[start+1:]
	if rest == "" {
		p.fail(`the expression ends in \`)
	}
	newlines := newRuneSet(runeRange{'\n', '\r'}, runeRange{0x85, 0x85}, runeRange{0x2028, 0x2029})
	p.pos += 2
	switch rest[0] {
	case 'A':
		return &node{kind: nodeBegin}
	case 'z':
		return &node{kind: nodeEnd}
	case 'Z':
		return &node{kind: nodeEndLine}
	case 'b':
		return &node{kind: nodeWord}
	case 'B':
		return &node{kind: nodeNotWord}
	case 'N':
		return setNode(newRuneSet(runeRange{'\n', '\n'}).negate())
	case 'O':
		return setNode(allRunes)
	case 'R': // (?>\r\n|[\n-\r\x85\u2028\u2029])
		pair := &node{kind: nodeConcat, subs: []*node{
			setNode(runeSet{{'\r', '\r'}}), setNode(runeSet{{'\n', '\n'}}),
		}}
		alt := &node{kind: nodeAlt, subs: []*node{pair, setNode(newlines)}}
		return &node{kind: nodeAtomic, subs: []*node{alt}}
	}
	p.pos = start
	return p.literal(p.charEscape())
}

// setEscape reads a backslash sequence that stands for a set. What \w and \p{Word} take of Latin-1
// differs, in the engine, between a class and the outside: word is the set they stand for.
func (p *onigParser) setEscape(word runeSet) (set runeSet, ok bool) {
	rest := p.src[p.pos+1:]
	if rest == "" {
		return nil, false
	}
	not := rest[0] >= 'A' && rest[0] <= 'Z'
	size := 1
	switch rest[0] {
	case 'd', 'D':
		set = characters().set("[:digit:]")
	case 's', 'S':
		set = characters().set("[:space:]")
	case 'h', 'H':
		set = characters().set("[:xdigit:]")
	case 'w', 'W':
		set = word
	case 'p', 'P':
		end := strings.IndexByte(rest, '}')
		if len(rest) < 2 || rest[1] != '{' || end < 0 {
			p.fail(`\%c without a name in braces`, rest[0])
		}
		name, circumflex := strings.CutPrefix(rest[2:end], "^")
		name = foldPropertyName(name)
		if set, ok = properties()[name]; !ok {
			p.unsupported("the character property %s", quote(name))
		}
		if name == "word" {
			set = word
		}
		not = not != circumflex
		size = end + 1
	default:
		return nil, false
	}
	p.pos += 1 + size
	if not {
		set = set.negate()
	}
	return set, true
}

// charEscape reads a backslash sequence that stands for one character.
func (p *onigParser) charEscape() rune {
	p.pos++
	if !p.more() {
		p.fail(`the expression ends in \`)
	}
	start := p.pos
	hex := func(digits string) rune {
		n, err := strconv.ParseUint(digits, 16, 32)
		if err != nil || n > unicode.MaxRune || n >= 0xD800 && n < 0xE000 {
			p.fail("a code point of %s", quote(digits))
		}
		return rune(n)
	}
	switch c := p.next(); c {
	case 't':
		return '\t'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 'f':
		return '\f'
	case 'v':
		return '\v'
	case 'a':
		return '\a'
	case 'e':
		return 0x1B
	case 'u':
		if len(p.src)-p.pos < 4 {
			p.fail(`\u without four digits`)
		}
		p.pos += 4
		return hex(p.src[p.pos-4 : p.pos])
	case 'x':
		if p.accept("{") {
			end := strings.IndexByte(p.src[p.pos:], '}')
			if end < 0 {
				p.fail(`\x{ without its end`)
			}
			p.pos += end + 1
			return hex(p.src[p.pos-1-end : p.pos-1])
		}
		digits := 0
		for digits < 2 && p.pos+digits < len(p.src) && strings.IndexByte("0123456789abcdefABCDEF", p.src[p.pos+digits]) >= 0 {
			digits++
		}
		p.pos += digits
		if r := hex("0" + p.src[p.pos-digits:p.pos]); r < 0x80 {
			return r
		}
		p.unsupported("a byte that is no character")
	default:
		if c >= 0x80 || !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return c
		}
		p.pos = start
		p.unsupported(`\%c`, c)
	}
	panic("unreachable")
}
