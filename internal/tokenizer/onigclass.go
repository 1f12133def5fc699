package tokenizer

import "strings"

// class reads a bracketed character class. Case folding applies to the whole of an outermost class
// before its negation, as in Oniguruma.
func (p *onigParser) class() *node {
	set, not := p.classBody()
	if p.options.ignoreCase {
		if !not {
			for _, m := range characters().multi {
				if set.contains(m.char) {
					p.unsupported("(?i) on a class with a character that folds to several, U+%04X", m.char)
				}
			}
		}
		set = foldSet(set)
	}
	if not {
		set = set.negate()
	}
	return setNode(set)
}

// classItem is what a class is made of: one character, which may begin or end a range, or a set.
type classItem struct {
	char  rune
	set   runeSet
	isSet bool
}

// classBody reads from [ to ] and returns the set without the negation, and whether there is one.
func (p *onigParser) classBody() (set runeSet, not bool) {
	start := p.pos
	p.enter()
	defer p.leave()
	p.pos++
	not = p.accept("^")
	// A ] in the first place is a literal, if another is left to close the class.
	literalClose := p.peek("]")
	if literalClose && !strings.Contains(p.src[p.pos+1:], "]") {
		p.fail("an empty class")
	}
	left := allRunes // of the && read so far
	for {
		switch {
		case !p.more():
			p.pos = start
			p.fail("an unclosed class")
		case p.peek("]") && !literalClose:
			p.pos++
			return left.intersect(set), not
		case p.accept("&&"):
			left, set = left.intersect(set), nil
		case p.peek("[:") && p.posixBracket():
			set = set.union(p.posixClass())
			p.noRangeAfterSet()
		case p.peek("["):
			inner, innerNot := p.classBody()
			if innerNot {
				inner = inner.negate()
			}
			set = set.union(inner)
		default:
			set = set.union(p.classRange())
		}
		literalClose = false
	}
}

// noRangeAfterSet refuses [\d-a], as Oniguruma does: a - after a set is literal only at the end.
func (p *onigParser) noRangeAfterSet() {
	if p.peek("-") && !p.peek("-]") && !p.peek("-&&") {
		p.fail("a range that begins with a set")
	}
}

// classRange reads a set, a character, or a range. A - that has no character before it to begin a
// range with, or nothing after it to end one, is a character.
func (p *onigParser) classRange() runeSet {
	item := p.classItem()
	if item.isSet {
		p.noRangeAfterSet()
		return item.set
	}
	if !p.peek("-") || p.peek("-]") || p.peek("-&&") {
		return runeSet{{item.char, item.char}}
	}
	p.pos++
	if !p.more() {
		p.fail("an unclosed class")
	}
	if p.peek("[") {
		p.unsupported("a range that ends with a class")
	}
	end := p.classItem()
	if end.isSet {
		p.fail("a range that ends with a set")
	}
	if end.char < item.char {
		p.fail("a range with its ends reversed")
	}
	return runeSet{{item.char, end.char}}
}

// classItem reads one character or escape within a class.
func (p *onigParser) classItem() classItem {
	if !p.peek(`\`) {
		return classItem{char: p.next()}
	}
	rest := p.src[p.pos+1:]
	if strings.HasPrefix(rest, "b") {
		p.pos += 2
		return classItem{char: '\b'}
	}
	if strings.HasPrefix(rest, "R") || strings.HasPrefix(rest, "X") {
		p.unsupported(`\%c in a class`, rest[0])
	}
	if set, ok := p.setEscape(characters().set("[:word:]")); ok {
		return classItem{set: set, isSet: true}
	}
	return classItem{char: p.charEscape()}
}

// posixBracket says whether [: at this place begins a POSIX class.
func (p *onigParser) posixBracket() bool {
	end := strings.Index(p.src[p.pos:], ":]")
	if end < 0 {
		return false
	}
	return !strings.ContainsAny(p.src[p.pos+2:p.pos+end], `]\[`)
}

func (p *onigParser) posixClass() runeSet {
	end := strings.Index(p.src[p.pos:], ":]")
	name, not := strings.CutPrefix(p.src[p.pos+2:p.pos+end], "^")
	set, ok := characters().sets["[:"+name+":]"]
	if !ok {
		p.fail("a POSIX class %s", quote(name))
	}
	p.pos += end + 2
	if not {
		set = set.negate()
	}
	return set
}
