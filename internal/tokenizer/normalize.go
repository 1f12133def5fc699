package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// normalizer is one step of the normalizer of tokenizer.json. What it makes of a text may be most bytes long; it must heed that
// itself if it can make of a text what is many times as long.
//
// origin is the number of leading bytes of text that stand for the first character of what was given
// to Encode, 0 where text begins later. Metaspace with prepend_scheme "first" depends on it, and the
// rules by which it moves are those of the alignments that Hugging Face tokenizers keeps.
type normalizer interface {
	normalize(text string, origin, most int) (string, int, error)
}

func (p *parser) normalizer(o object) (normalizer, error) {
	kind, err := o.kind("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Strip", "ByteLevel")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "NFC":
		return normalForm{composed: true}, nil
	case "NFD":
		return normalForm{}, nil
	case "NFKC":
		return normalForm{compatible: true, composed: true}, nil
	case "NFKD":
		return normalForm{compatible: true}, nil
	case "Lowercase":
		return lowercase{}, nil
	case "ByteLevel":
		return byteChars{}, nil
	case "Prepend":
		s, err := o.string("prepend")
		return prepend(s), err
	case "Strip":
		left, err := o.bool("strip_left")
		if err != nil {
			return nil, err
		}
		right, err := o.bool("strip_right")
		return strip{left, right}, err
	default:
		return p.replace(o)
	}
}

// prepend puts a string before a text that is not empty.
type prepend string

func (n prepend) normalize(text string, origin, _ int) (string, int, error) {
	if text == "" {
		return text, origin, nil
	}
	if origin > 0 {
		origin += len(n)
	}
	return string(n) + text, origin, nil
}

// replace puts a string in the place of every match. A fault of Hugging Face tokenizers is not
// imitated: what an empty match puts at the very start comes out doubled there, if a pre-tokenizer
// cuts it off and ByteLevel follows.
type replace struct {
	pattern pattern
	content string
}

func (p *parser) replace(o object) (*replace, error) {
	pattern, err := p.pattern(o)
	if err != nil {
		return nil, err
	}
	content, err := o.string("content")
	return &replace{pattern, content}, err
}

// pattern reads {"String": "..."} or {"Regex": "..."} under the key pattern.
func (p *parser) pattern(o object) (pattern, error) {
	inner, err := o.member("pattern")
	if err != nil {
		return nil, err
	}
	if len(inner.m) != 1 || isNull(inner.m["String"]) && isNull(inner.m["Regex"]) {
		return nil, p.errorf(inner.field, "neither, or both", "one of String, Regex")
	}
	if !isNull(inner.m["String"]) {
		s, err := inner.string("String")
		if err != nil || s != "" {
			return literal(s), err
		}
		return newRegex("") // matches between any two characters
	}
	s, err := inner.string("Regex")
	if err != nil {
		return nil, err
	}
	re, err := newRegex(s)
	if err != nil {
		e := &Error{File: p.file, Field: inner.at("Regex"), Got: err.Error() + " in " + quote(s), Want: "an Oniguruma regular expression"}
		if syntax, ok := err.(*syntaxError); ok && syntax.unsupported {
			e.Unsupported = true
		}
		return nil, e
	}
	return re, nil
}

func (n *replace) normalize(text string, origin, most int) (string, int, error) {
	spans, err := n.pattern.spans(text, nil)
	if err != nil {
		return "", 0, err
	}
	size := len(text)
	for _, s := range spans {
		if s.match {
			size += len(n.content) - (s.end - s.start)
		}
	}
	if size > most {
		return "", 0, errGrowth
	}
	var b strings.Builder
	b.Grow(size)
	kept := 0
	for _, s := range spans {
		if !s.match {
			b.WriteString(text[s.start:s.end])
			kept += clamp(origin-s.start, s.end-s.start)
			continue
		}
		b.WriteString(n.content)
		// The content belongs to the last byte of what it replaces.
		if max(0, s.end-1) < origin {
			kept += len(n.content)
		}
	}
	return b.String(), kept, nil
}

// clamp brings n into the range from 0 to limit.
func clamp(n, limit int) int { return max(0, min(n, limit)) }

// lowercase maps every character by itself, without the rule for a final sigma.
type lowercase struct{}

func (lowercase) normalize(text string, origin, _ int) (string, int, error) {
	lower := characters().lower
	var b strings.Builder
	b.Grow(len(text))
	kept := 0
	for i, r := range text {
		n := b.Len()
		if s, ok := lower[r]; ok {
			b.WriteString(s)
		} else {
			b.WriteRune(r)
		}
		if i < origin {
			kept += b.Len() - n
		}
	}
	return b.String(), kept, nil
}

// strip removes white space at the ends.
type strip struct{ left, right bool }

func (n strip) normalize(text string, origin, _ int) (string, int, error) {
	white := characters().set("rust:white_space").contains
	if n.left {
		trimmed := strings.TrimLeftFunc(text, white)
		origin = clamp(origin-(len(text)-len(trimmed)), len(trimmed))
		text = trimmed
	}
	if n.right {
		text = strings.TrimRightFunc(text, white)
		origin = min(origin, len(text))
	}
	return text, origin, nil
}

// byteChars writes each byte as the character that stands for it.
type byteChars struct{}

func (byteChars) normalize(text string, origin, _ int) (string, int, error) {
	var b strings.Builder
	b.Grow(2 * len(text))
	kept := 0
	for i := range len(text) {
		b.WriteString(byteToChar[text[i]])
		if i < origin {
			kept = b.Len()
		}
	}
	return b.String(), kept, nil
}

// byteToChar is GPT-2's map of bytes to printable characters: a printable Latin-1 character stands
// for itself, the others follow from U+0100 on in order.
var byteToChar, charToByte = func() (to [256]string, from map[rune]byte) {
	from = make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !(r >= '!' && r <= '~' || r >= 0xA1 && r <= 0xAC || r >= 0xAE) {
			r = next
			next++
		}
		to[b] = string(r)
		from[r] = byte(b)
	}
	return to, from
}()

// decodeByteChars undoes byteToChar; a token with any other character stands for its own bytes.
func decodeByteChars(dst []byte, token string) []byte {
	n := len(dst)
	for _, r := range token {
		b, ok := charToByte[r]
		if !ok {
			return append(dst[:n], token...)
		}
		dst = append(dst, b)
	}
	return dst
}

// validUTF8 replaces every maximal part of an ill-formed sequence by U+FFFD, as Unicode recommends
// (section 3.9, U+FFFD substitution of maximal subparts).
func validUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			size = maximalSubpart(b)
		}
		out.WriteRune(r)
		b = b[size:]
	}
	return out.String()
}

// maximalSubpart is the length of the ill-formed sequence at the start of b that is replaced as one:
// the longest beginning of a well-formed one, at least a byte.
func maximalSubpart(b []byte) int {
	lo, hi, length := byte(0x80), byte(0xBF), 0
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		length = 2
	case c >= 0xE0 && c <= 0xEF:
		length = 3
		if c == 0xE0 {
			lo = 0xA0
		} else if c == 0xED {
			hi = 0x9F
		}
	case c >= 0xF0 && c <= 0xF4:
		length = 4
		if c == 0xF0 {
			lo = 0x90
		} else if c == 0xF4 {
			hi = 0x8F
		}
	}
	n := 1
	for n < length && n < len(b) && b[n] >= lo && b[n] <= hi {
		lo, hi = 0x80, 0xBF
		n++
	}
	return n
}
