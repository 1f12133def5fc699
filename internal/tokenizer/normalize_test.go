package tokenizer

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

var forms = []struct {
	name string
	form normalForm
	norm norm.Form
}{
	{"NFC", normalForm{composed: true}, norm.NFC},
	{"NFD", normalForm{}, norm.NFD},
	{"NFKC", normalForm{compatible: true, composed: true}, norm.NFKC},
	{"NFKD", normalForm{compatible: true}, norm.NFKD},
}

// TestNormalForms compares with x/text where the two agree on the data: on characters that the engine
// knows, in strings of less than 30 marks.
func TestNormalForms(t *testing.T) {
	tables := normalTables()
	var alphabet []rune
	for r := range rune(0x30000) {
		if !utf8.ValidRune(r) {
			continue
		}
		s := string(r)
		changes := norm.NFD.String(s) != s
		if norm.NFD.PropertiesString(s).CCC() != 0 && !tables.marks.contains(r) && !changes ||
			changes && !isHangul(r) && !tables.canonical.contains(r) ||
			norm.NFKD.String(s) != s && !isHangul(r) && !tables.compatible.contains(r) {
			continue // later than the engine's Unicode
		}
		if changes || norm.NFKD.String(s) != s || tables.marks.contains(r) || r < 0x250 || r >= hangulL && r < 0x1200 {
			alphabet = append(alphabet, r)
		}
	}
	if len(alphabet) < 15_000 {
		t.Fatalf("only %d characters that normalization changes", len(alphabet))
	}
	var marks []rune
	for _, set := range tables.marks {
		for r := set.lo; r <= set.hi; r++ {
			marks = append(marks, r)
		}
	}
	r := newRand(t)
	texts := make([]string, 0, len(alphabet)+20_000)
	for _, c := range alphabet {
		texts = append(texts, string(c))
	}
	for range 20_000 {
		var b strings.Builder
		for range 1 + r.IntN(8) {
			switch r.IntN(3) {
			case 0:
				b.WriteRune(marks[r.IntN(len(marks))])
			case 1:
				b.WriteRune([]rune("aeouAEOyYcsαωбк각ᄀ가각ᆨᅡかはＡ")[r.IntN(24)])
			default:
				b.WriteRune(alphabet[r.IntN(len(alphabet))])
			}
		}
		texts = append(texts, b.String())
	}
	for _, f := range forms {
		for _, text := range texts {
			if got, _, _ := f.form.normalize(text, 0, len(text)*growth); got != f.norm.String(text) {
				t.Fatalf("%s of %+q: %+q, want %+q", f.name, text, got, f.norm.String(text))
			}
		}
	}
}

// TestNormalFormsOfEngine are ways in which the engine differs from x/text.
func TestNormalFormsOfEngine(t *testing.T) {
	for _, test := range []struct {
		form       normalForm
		text, want string
	}{
		// No U+034F goes between more than 30 marks.
		{normalForm{composed: true}, "a" + strings.Repeat("\u0308\u0323", 40), "ạ" + strings.Repeat("\u0323", 39) + strings.Repeat("\u0308", 40)},
		// U+11938, the composite of these, is of Unicode 13.
		{normalForm{composed: true}, "\U00011935\U00011930", "\U00011935\U00011930"},
		{normalForm{}, "\U00011938", "\U00011938"},
		// U+1DFA, of a lower class than U+0301, is of Unicode 14.
		{normalForm{}, "a\u0301\u1dfa", "a\u0301\u1dfa"},
	} {
		if got, _, _ := test.form.normalize(test.text, 0, 100); got != test.want {
			t.Errorf("%+v of %+q: %+q, want %+q", test.form, test.text, got, test.want)
		}
		if norm.NFC.String(test.text) == test.want && norm.NFD.String(test.text) == test.want {
			t.Errorf("%+q is no difference", test.text)
		}
	}
}

func TestNormalizers(t *testing.T) {
	for _, test := range []struct {
		n    normalizer
		text string
		want string
	}{
		{lowercase{}, "AÉİΣΣ ẞǅ", "aéi̇σσ ßǆ"},
		{prepend("▁"), "a", "▁a"},
		{prepend("▁"), "", ""},
		{strip{true, true}, " \u0085\u3000a b\u00a0\n", "a b"},
		{strip{true, false}, " a ", "a "},
		{strip{false, true}, " a ", " a"},
		{strip{true, true}, "  ", ""},
		{strip{true, true}, "\u200ba", "\u200ba"},
		{&replace{literal("aa"), "b"}, "aaaaac", "bbac"},
		{&replace{newOneOf(runeSet{{'0', '9'}}), "#"}, "a12b", "a##b"},
		{byteChars{}, "é \n!", "Ã©ĠĊ!"},
	} {
		if got, _, err := test.n.normalize(test.text, 0, 100); err != nil || got != test.want {
			t.Errorf("%#v of %q: %q (%v), want %q", test.n, test.text, got, err, test.want)
		}
	}
}

// TestValidUTF8 are examples of the Unicode Standard, tables 3-8 to 3-11.
func TestValidUTF8(t *testing.T) {
	for bytes, want := range map[string]string{
		"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41": "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41",
		"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41": "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41",
		"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42": "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41\uFFFD\uFFFD\x42",
		"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41": "\uFFFD\uFFFD\uFFFD\uFFFD\x41",
		"a\xE2\x82":                            "a\uFFFD",
		"\xF0\x9F\x98":                         "\uFFFD",
		"valid €":                              "valid €",
		"\uFFFD":                               "\uFFFD",
		"":                                     "",
	} {
		if got := validUTF8([]byte(bytes)); got != want {
			t.Errorf("%x: %+q, want %+q", bytes, got, want)
		}
	}
}
