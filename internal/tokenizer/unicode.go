package tokenizer

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"io"
	"strings"
	"sync"
)

// unicodeData holds the character sets of Hugging Face tokenizers, read out of that engine by
// testdata/make_unicode.py. They are not those of Go's unicode package: the engine's regular
// expressions follow Unicode 16, its normalization forms Unicode 9.
//
//go:embed unicode.bin.gz
var unicodeData []byte

// characterData is unicodeData unpacked.
type characterData struct {
	sets  map[string]runeSet // by the name that make_unicode.py gives
	folds map[rune][]rune    // every character that (?i) makes equal to others: all of them, itself included
	multi []multiFold
	lower map[rune]string // lower case where it differs
}

// multiFold is a sequence that (?i) makes equal to one character, such as ss to U+00DF.
type multiFold struct {
	sequence []rune
	char     rune
}

var characters = sync.OnceValue(func() *characterData {
	z, err := gzip.NewReader(bytes.NewReader(unicodeData))
	if err != nil {
		panic("tokenizer: embedded character data: " + err.Error())
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		panic("tokenizer: embedded character data: " + err.Error())
	}
	number := func() int {
		n, size := binary.Uvarint(raw)
		if size <= 0 {
			panic("tokenizer: embedded character data is cut short")
		}
		raw = raw[size:]
		return int(n)
	}
	runes := func(n int) []rune {
		out := make([]rune, n)
		for i := range out {
			out[i] = rune(number())
		}
		return out
	}
	d := &characterData{sets: map[string]runeSet{}, folds: map[rune][]rune{}, lower: map[rune]string{}}
	for range number() {
		size := number()
		name := string(raw[:size])
		raw = raw[size:]
		set := make(runeSet, number())
		end := 0
		for i := range set {
			lo := end + number()
			hi := lo + number()
			set[i] = runeRange{rune(lo), rune(hi)}
			end = hi + 1
		}
		d.sets[name] = set
	}
	for range number() {
		group := runes(number())
		for i := 1; i < len(group); i++ {
			group[i] += group[i-1]
		}
		for _, r := range group {
			d.folds[r] = group
		}
	}
	for range number() {
		sequence := runes(number())
		d.multi = append(d.multi, multiFold{sequence, rune(number())})
	}
	last := 0
	for range number() {
		last += number()
		d.lower[rune(last)] = string(runes(number()))
	}
	return d
})

// set returns a set by name; a name that is not there is a bug of the caller.
func (d *characterData) set(name string) runeSet {
	s, ok := d.sets[name]
	if !ok {
		panic("tokenizer: no character set " + name)
	}
	return s
}

// generalCategories lists the long names of the general categories and the groups of them
// (Unicode Standard Annex 44, table 12). Cs is empty: UTF-8 holds no surrogates.
var generalCategories = map[string]string{
	"L": "Lu Ll Lt Lm Lo", "Letter": "L", "LC": "Lu Ll Lt", "Cased_Letter": "LC",
	"Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt", "Modifier_Letter": "Lm", "Other_Letter": "Lo",
	"M": "Mn Mc Me", "Mark": "M", "Combining_Mark": "M",
	"Nonspacing_Mark": "Mn", "Spacing_Mark": "Mc", "Enclosing_Mark": "Me",
	"N": "Nd Nl No", "Number": "N",
	"Decimal_Number": "Nd", "Letter_Number": "Nl", "Other_Number": "No",
	"P": "Pc Pd Ps Pe Pi Pf Po", "Punctuation": "P",
	"Connector_Punctuation": "Pc", "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps", "Close_Punctuation": "Pe",
	"Initial_Punctuation": "Pi", "Final_Punctuation": "Pf", "Other_Punctuation": "Po",
	"S": "Sm Sc Sk So", "Symbol": "S",
	"Math_Symbol": "Sm", "Currency_Symbol": "Sc", "Modifier_Symbol": "Sk", "Other_Symbol": "So",
	"Z": "Zs Zl Zp", "Separator": "Z",
	"Space_Separator": "Zs", "Line_Separator": "Zl", "Paragraph_Separator": "Zp",
	"C": "Cc Cf Cn Co Cs", "Other": "C",
	"Control": "Cc", "Format": "Cf", "Unassigned": "Cn", "Private_Use": "Co", "Surrogate": "Cs",
}

// foldPropertyName brings a property name to the form in which Oniguruma compares them.
func foldPropertyName(name string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(name))
}

// properties maps the names that \p{...} takes, folded, to sets.
var properties = sync.OnceValue(func() map[string]runeSet {
	d := characters()
	out := map[string]runeSet{"any": allRunes, "cs": nil}
	for name, set := range d.sets {
		if posix, ok := strings.CutPrefix(name, "[:"); ok {
			name = strings.TrimSuffix(posix, ":]")
		}
		if !strings.ContainsAny(name, `:\`) {
			out[foldPropertyName(name)] = set
		}
	}
	var resolve func(name string) runeSet
	resolve = func(name string) runeSet {
		members, ok := generalCategories[name]
		if !ok {
			return out[foldPropertyName(name)]
		}
		var set runeSet
		for member := range strings.FieldsSeq(members) {
			set = set.union(resolve(member))
		}
		return set
	}
	for name := range generalCategories {
		out[foldPropertyName(name)] = resolve(name)
	}
	// As properties these two are not the POSIX classes.
	out["punct"] = out["p"]
	out["assigned"] = out["cn"].negate()
	return out
})
