package tokenizer

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Unicode normalization forms (Unicode Standard Annex 15) as Hugging Face tokenizers has them: by the
// tables of Unicode 9, where a later character is inert, and without the limit of 30 marks in a row at
// which x/text inserts U+034F. x/text gives the data, which later versions never change for a
// character once assigned; which characters the engine knows is in unicode.bin.gz.

// normalRune is a character of a normalized text. change counts, as the engine does, how the text
// before relates: 0 stands for one character replaced, -n for n more removed, 1 for one inserted.
type normalRune struct {
	r      rune
	class  uint8 // canonical combining class
	change int
}

// Hangul syllables decompose by arithmetic (Unicode Standard, section 3.12).
const (
	hangulS, hangulL, hangulV, hangulT = 0xAC00, 0x1100, 0x1161, 0x11A7
	hangulLCount                       = 19
	hangulVCount                       = 21
	hangulTCount                       = 28
	hangulSCount                       = hangulLCount * hangulVCount * hangulTCount
)

// normalData is what normalization needs of a character, from the engine's sets.
type normalData struct {
	canonical, compatible, marks runeSet
	pairs                        map[[2]rune]rune // primary composites
}

var normalTables = sync.OnceValue(func() *normalData {
	d := characters()
	t := &normalData{
		canonical:  d.set("nfd:decomposes"),
		compatible: d.set("nfkd:decomposes"),
		marks:      d.set("nfd:marks"),
		pairs:      map[[2]rune]rune{},
	}
	for _, set := range t.canonical {
		for r := set.lo; r <= set.hi; r++ {
			composite := string(r)
			if isHangul(r) || norm.NFC.String(composite) != composite {
				continue // arithmetic, or excluded from composition
			}
			parts := []rune(norm.NFD.String(composite))
			first := []rune(norm.NFC.String(string(parts[:len(parts)-1])))
			t.pairs[[2]rune{first[0], parts[len(parts)-1]}] = r
		}
	}
	return t
})

func isHangul(r rune) bool { return r >= hangulS && r < hangulS+hangulSCount }

// decompose appends the full decomposition of r.
func (t *normalData) decompose(dst []normalRune, r rune, compatible bool) []normalRune {
	add := func(r rune) {
		n := normalRune{r: r, change: 1}
		if r >= 0x300 && t.marks.contains(r) {
			n.class = norm.NFD.PropertiesString(string(r)).CCC()
		}
		dst = append(dst, n)
	}
	first := len(dst)
	switch {
	case r < 0xA0:
		add(r)
	case isHangul(r):
		s := r - hangulS
		add(hangulL + s/(hangulVCount*hangulTCount))
		add(hangulV + s/hangulTCount%hangulVCount)
		if s%hangulTCount > 0 {
			add(hangulT + s%hangulTCount)
		}
	case compatible && t.compatible.contains(r):
		for _, part := range norm.NFKD.String(string(r)) {
			add(part)
		}
	case !compatible && t.canonical.contains(r):
		for _, part := range norm.NFD.String(string(r)) {
			add(part)
		}
	default:
		add(r)
	}
	dst[first].change = 0
	return dst
}

// compose returns the primary composite of two characters, if there is one.
func (t *normalData) compose(a, b rune) (rune, bool) {
	if l, v := a-hangulL, b-hangulV; l >= 0 && l < hangulLCount && v >= 0 && v < hangulVCount {
		return hangulS + (l*hangulVCount+v)*hangulTCount, true
	}
	if trail := b - hangulT; isHangul(a) && (a-hangulS)%hangulTCount == 0 && trail > 0 && trail < hangulTCount {
		return a + trail, true
	}
	r, ok := t.pairs[[2]rune{a, b}]
	return r, ok
}

// normalForm is one of NFC, NFD, NFKC and NFKD.
type normalForm struct{ compatible, composed bool }

func (f normalForm) normalize(text string, origin, _ int) (string, int, error) {
	if isASCII(text) {
		return text, origin, nil
	}
	t := normalTables()
	runes := make([]normalRune, 0, len(text))
	starter := 0 // where the characters not yet in canonical order begin
	sort := func(end int) {
		slices.SortStableFunc(runes[starter:end], func(a, b normalRune) int { return int(a.class) - int(b.class) })
	}
	for _, r := range text {
		n := len(runes)
		runes = t.decompose(runes, r, f.compatible)
		for i := n; i < len(runes); i++ {
			if runes[i].class == 0 {
				if starter < i {
					sort(i)
				}
				starter = i
			}
		}
	}
	sort(len(runes))
	if f.composed {
		runes = t.recompose(runes)
	}
	var b strings.Builder
	b.Grow(len(text))
	for _, r := range runes {
		b.WriteRune(r.r)
	}
	return b.String(), changedOrigin(text, origin, runes), nil
}

// recompose is the canonical composition algorithm, in place.
func (t *normalData) recompose(runes []normalRune) []normalRune {
	starter := -1 // index in out of the last character that may compose
	blocked := -1 // class of the last character kept behind it; -1 while there is none
	out := runes[:0]
	for _, r := range runes {
		if starter >= 0 && blocked < int(r.class) {
			if c, ok := t.compose(out[starter].r, r.r); ok {
				out[starter].r = c
				out[starter].change += r.change - 1
				continue
			}
		}
		if r.class == 0 {
			starter, blocked = len(out), -1
		} else if starter >= 0 {
			blocked = int(r.class)
		}
		out = append(out, r)
	}
	return out
}

// changedOrigin says how many bytes of the text that runes spell come from before origin in text,
// the text that they replace.
func changedOrigin(text string, origin int, runes []normalRune) int {
	pos, kept := 0, 0
	for _, r := range runes {
		from := pos
		if r.change > 0 {
			from = max(0, pos-1) // what is inserted belongs to what stands before it
		}
		if from >= origin {
			break
		}
		kept += utf8.RuneLen(r.r)
		for n := r.change; n <= 0 && pos < len(text); n++ {
			_, size := utf8.DecodeRuneInString(text[pos:])
			pos += size
		}
	}
	return kept
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
