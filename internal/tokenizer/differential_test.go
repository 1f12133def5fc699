package tokenizer

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// The tests of this file run by hand against the real engine; see oracle. TOKENIZER_ROUNDS is the
// number of random strings, expressions or files, TOKENIZER_SEED the seed.

func rounds(t *testing.T, fallback int) int {
	s := os.Getenv("TOKENIZER_ROUNDS")
	if s == "" {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newRand(t *testing.T) *rand.Rand {
	seed, _ := strconv.ParseUint(os.Getenv("TOKENIZER_SEED"), 10, 64)
	t.Log("seed", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// randomText puts parts of the mixed lines, characters of interest and any characters together.
func randomText(r *rand.Rand, lines []string) string {
	interest := []rune(" \t\n\r\v\f\u0085\u00a0\u2028\u2029\u3000\u200b\ufeff'sStTdDmMrReEvVlLſK▁Ġ<|>[]_-.,0٣½Ⅷ²éÉßİıǅŉ각각\u0301\u0323\u0345\u0334\u0f73\u0344한\u1109\u11a7क़ﬁ①㎏ªAaBb")
	var b strings.Builder
	for range 1 + r.IntN(12) {
		switch r.IntN(6) {
		case 0, 1:
			for range 1 + r.IntN(6) {
				b.WriteRune(interest[r.IntN(len(interest))])
			}
		case 2:
			c := rune(r.IntN(0x110000))
			if r.IntN(2) == 0 {
				c = rune(r.IntN(0x3000))
			}
			if utf8.ValidRune(c) {
				b.WriteRune(c)
			}
		case 3:
			b.WriteString([]string{"<|endoftext|>", "foo", "foobar", "foobarbaz", "sep", "</s>", "<mask>", "<pad>", "    ", " ", "yesterday",
				"Straße", "ﬁn", "fin", "[INST]", "<s>", "<unk>", "<0x0A>", "nil", "|>", "<|im_start|>", "<tool_call>"}[r.IntN(22)])
		default:
			line := []rune(lines[r.IntN(len(lines))])
			if len(line) > 0 {
				from := r.IntN(len(line))
				b.WriteString(string(line[from:min(len(line), from+1+r.IntN(8))]))
			}
		}
	}
	return b.String()
}

// compare encodes and decodes a text and says how the result differs from the engine's.
func compare(tok *Tokenizer, text string, want oracleResult) string {
	ids, err := tok.Encode(text, false)
	if want.Error != "" {
		return "" // the engine panics on it
	}
	if err != nil {
		return err.Error()
	}
	if !slices.Equal(ids, want.IDs) {
		return fmt.Sprintf("ids %v, want %v", ids, want.IDs)
	}
	special, err := tok.Encode(text, true)
	if err != nil || want.Special != nil && !slices.Equal(special, want.Special) {
		return fmt.Sprintf("with special tokens %v (%v), want %v", special, err, want.Special)
	}
	decoded, err := tok.Decode(ids)
	if err != nil || decoded != want.Decoded {
		return fmt.Sprintf("decoded %q (%v), want %q", decoded, err, want.Decoded)
	}
	return ""
}

// shorten drops characters from a text for as long as the difference stays.
func (o *oracle) shorten(tok *Tokenizer, text string) string {
	for again := true; again; {
		again = false
		runes := []rune(text)
		for i := range runes {
			shorter := string(slices.Delete(slices.Clone(runes), i, i+1))
			if compare(tok, shorter, o.encode([]string{shorter})[0]) != "" {
				text, again = shorter, true
				break
			}
		}
	}
	return text
}

// TestDifferentialText gives random strings to every family.
func TestDifferentialText(t *testing.T) {
	o := startOracle(t)
	r := newRand(t)
	lines := mixedLines(t)
	for _, family := range families {
		tok := load(t, family)
		o.load("testdata/" + family + ".json")
		o.compareRandom(tok, r, lines, rounds(t, 5000), family)
	}
}

func (o *oracle) compareRandom(tok *Tokenizer, r *rand.Rand, lines []string, n int, name string) {
	o.t.Helper()
	wrong := 0
	for n > 0 {
		texts := make([]string, min(n, 500))
		for i := range texts {
			texts[i] = randomText(r, lines)
		}
		n -= len(texts)
		for i, want := range o.encode(texts) {
			if compare(tok, texts[i], want) != "" {
				if wrong++; wrong <= 3 {
					short := o.shorten(tok, texts[i])
					o.t.Errorf("%s: %q: %s", name, short, compare(tok, short, o.encode([]string{short})[0]))
				}
			}
		}
	}
	if wrong > 0 {
		o.t.Errorf("%s: %d differences", name, wrong)
	}
}

// TestDifferentialCodePoints gives every family all code points, between letters, digits and marks.
func TestDifferentialCodePoints(t *testing.T) {
	o := startOracle(t)
	var texts []string
	for _, around := range [][2]string{{"a", "1 "}, {"\u0323", "\u0301'"}} {
		for first := rune(0); first <= unicode.MaxRune; first += 256 {
			var b strings.Builder
			for c := first; c < first+256; c++ {
				if utf8.ValidRune(c) {
					b.WriteString(around[0] + string(c) + around[1])
				}
			}
			texts = append(texts, b.String())
		}
	}
	for _, family := range families {
		t.Run(family, func(t *testing.T) {
			tok := load(t, family)
			o.load("testdata/" + family + ".json")
			wrong := 0
			for batch := range slices.Chunk(texts, 256) {
				for i, want := range o.encode(batch) {
					if compare(tok, batch[i], want) == "" {
						continue
					}
					if wrong++; wrong <= 3 {
						short := o.shorten(tok, batch[i])
						t.Errorf("%+q: %s", short, compare(tok, short, o.encode([]string{short})[0]))
					}
				}
			}
			t.Logf("%d differences", wrong)
		})
	}
}

// TestDifferentialFile reads one file, named by TOKENIZER_FILE, and compares the lines of the text
// named by TOKENIZER_TEXT, the whole text, and random strings.
func TestDifferentialFile(t *testing.T) {
	o := startOracle(t)
	path := os.Getenv("TOKENIZER_FILE")
	if path == "" {
		t.Skip("TOKENIZER_FILE names no tokenizer.json")
	}
	tok, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	o.load(path)
	if path := os.Getenv("TOKENIZER_TEXT"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts := append(strings.SplitAfter(string(text), "\n"), string(text))
		for i, want := range o.encode(texts) {
			if diff := compare(tok, texts[i], want); diff != "" {
				t.Errorf("part %d: %.2000s", i, diff)
			}
		}
		t.Log(len(texts), "texts compared")
	}
	o.compareRandom(tok, newRand(t), mixedLines(t), rounds(t, 20000), path)
}

// TestDifferentialRegex splits random strings by random expressions.
func TestDifferentialRegex(t *testing.T) {
	o := startOracle(t)
	r := newRand(t)
	lines := mixedLines(t)
	compared, refused, unsupported, timeouts := 0, 0, 0, 0
	for range rounds(t, 3000) {
		expression := randomExpression(r, 3)
		texts := make([]string, 20)
		for i := range texts {
			texts[i] = randomText(r, lines)
		}
		re, err := newRegex(expression)
		want, bad := o.split(expression, texts)
		if bad != "" {
			refused++
			continue // what the engine refuses may be read here
		}
		if err != nil {
			if s, ok := err.(*syntaxError); !ok || !s.unsupported {
				t.Errorf("%q: %v, but the engine reads it", expression, err)
			}
			unsupported++
			continue
		}
		s := &splitter{re, isolated}
		for i, text := range texts {
			if want[i] == nil {
				continue
			}
			pieces, err := s.preTokenize(nil, piece{text: text})
			if err == errRegexTime {
				timeouts++
				break
			}
			if err != nil {
				t.Errorf("%q on %q: %v", expression, text, err)
				continue
			}
			got := make([]string, len(pieces))
			for j, pc := range pieces {
				got[j] = pc.text
			}
			compared++
			if !slices.Equal(got, want[i]) {
				t.Errorf("%q on %q:\n got %q\nwant %q", expression, text, got, want[i])
				break
			}
		}
		if t.Failed() && testing.Short() {
			break
		}
	}
	t.Logf("%d splits compared; the engine refused %d expressions, this package alone %d, %d of which backtrack without end",
		compared, refused, unsupported+timeouts, timeouts)
}

func randomExpression(r *rand.Rand, depth int) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	property := func() string {
		return pick(`\p{`, `\P{`, `\p{^`) + pick("L", "N", "Lu", "Ll", "Lt", "M", "P", "S", "Z", "Zs", "C", "Cn", "Han", "Latin", "Greek", "Cyrillic",
			"Alpha", "Digit", "Space", "Word", "Punct", "Any", "letter", "Other_Number", "Uppercase Letter", "White_Space", "Emoji", "upper", "ASCII") + "}"
	}
	item := func() string { // within a class
		return pick("a", "e", "s", "S", "t", "0-9", "a-z", "A-Z", "é", "一-龥", `\s`, `\S`, `\d`, `\w`, `\W`, `\h`, `\n`, `\r`, `\]`, `\-`, "'", " ", ".",
			`\u0300-\u036f`, `\x{1F300}-\x{1FAFF}`, "[:alpha:]", "[:^digit:]", "[:word:]", "[:punct:]", property(), property(), "[a-m]", "[^a-m]", `\x41`, "ſ", "K", "-")
	}
	class := func() string {
		var b strings.Builder
		b.WriteString(pick("[", "[", "[^"))
		for range 1 + r.IntN(4) {
			b.WriteString(item())
		}
		if r.IntN(8) == 0 {
			b.WriteString("&&" + item() + item())
		}
		return b.String() + "]"
	}
	atom := func() string {
		switch r.IntN(12) {
		case 0, 1, 2:
			return pick("a", "s", "é", "'", "'s", " ", "0", "foo", "<", `\.`, "▁", "ſ", "re", "ll", "中", "S", "-", "]", "}", "{")
		case 3, 4:
			return class()
		case 5:
			return property()
		case 6:
			return pick(`\s`, `\S`, `\d`, `\D`, `\w`, `\W`, `\h`, ".", `\n`, `\r`, `\N`, `\O`, `\R`, `\t`)
		case 7:
			return pick("^", "$", `\b`, `\B`, `\A`, `\z`, `\Z`)
		}
		if depth == 0 {
			return pick("a", `\p{L}`, `\s`, "[^ ]")
		}
		inner := randomExpression(r, depth-1)
		return pick("(", "(?:", "(?:", "(?i:", "(?m:", "(?>", "(?=", "(?!", "(?<=", "(?<!", "(?<n>", "(?i)", "(?-i)(") + inner + ")"
	}
	var b strings.Builder
	for i := range 1 + r.IntN(3) {
		if i > 0 && r.IntN(2) == 0 {
			b.WriteString("|")
		}
		for range 1 + r.IntN(3) {
			b.WriteString(atom())
			if r.IntN(3) == 0 {
				b.WriteString(pick("*", "+", "?", "*?", "+?", "??", "*+", "++", "?+", "{2}", "{1,3}", "{,2}", "{2,}", "{1,2}?", "{2}?", "{1,2}+", "{,}", "{x"))
			}
		}
	}
	return b.String()
}

// TestDifferentialComponents puts random normalizers, pre-tokenizers and added tokens around the
// models of two families.
func TestDifferentialComponents(t *testing.T) {
	o := startOracle(t)
	r := newRand(t)
	lines := mixedLines(t)
	bases := map[string]map[string]json.RawMessage{}
	for _, family := range []string{"smollm", "llama2"} {
		data, err := os.ReadFile("testdata/" + family + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]json.RawMessage
		if err := json.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		bases[family] = file
	}
	read, refused := 0, 0
	for range rounds(t, 300) {
		family := []string{"smollm", "llama2"}[r.IntN(2)]
		file := map[string]any{}
		for k, v := range bases[family] {
			file[k] = v
		}
		if family == "llama2" {
			file["model"] = randomModel(t, r, bases[family]["model"])
		}
		file["normalizer"] = randomComponents(r, "normalizers", randomNormalizer)
		file["pre_tokenizer"] = randomComponents(r, "pretokenizers", randomPreTokenizer)
		file["decoder"] = randomComponents(r, "decoders", randomDecoder)
		file["added_tokens"] = randomAdded(r)
		data, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := Parse(data, "random")
		bad := o.ask(map[string]any{"parse": string(data)}, nil)
		if bad != "" && err == nil && !strings.Contains(bad, "vocab") {
			t.Logf("read here, refused by the engine: %s", bad)
		}
		if bad != "" || err != nil {
			// Of two tokens that become equal the engine takes one by the order of a hash map; one that
			// becomes empty makes it split everywhere, and panic within characters. Both are refused here.
			if bad == "" && !strings.Contains(err.Error(), "of which the normalizer leaves nothing") && !strings.Contains(err.Error(), "when normalized") {
				t.Errorf("%v, but the engine reads it", err)
			}
			refused++
			continue
		}
		read++
		delete(file, "model")
		description, _ := json.Marshal(file)
		o.compareRandom(tok, r, lines, 200, string(description))
		if t.Failed() {
			break
		}
	}
	t.Logf("%d files compared, %d refused", read, refused)
}

// randomModel changes what a model with byte fallback does with characters that it does not know.
func randomModel(t *testing.T, r *rand.Rand, raw json.RawMessage) map[string]any {
	var model map[string]any
	if err := json.Unmarshal(raw, &model); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"fuse_unk", "byte_fallback", "ignore_merges"} {
		model[flag] = r.IntN(2) == 0
	}
	if r.IntN(4) == 0 {
		model["unk_token"] = nil
	}
	vocab := model["vocab"].(map[string]any)
	for range r.IntN(2) * 30 { // some bytes under other names, so that the ids stay without gaps
		token := fmt.Sprintf("<0x%02X>", r.IntN(256))
		if id, ok := vocab[token]; ok {
			delete(vocab, token)
			vocab["no"+token] = id
		}
	}
	return model
}

type component = map[string]any

func randomComponents(r *rand.Rand, key string, one func(*rand.Rand) component) any {
	switch n := r.IntN(5); n {
	case 0:
		return nil
	case 1:
		return one(r)
	default:
		list := []component{}
		for range n - 1 {
			list = append(list, one(r))
		}
		return component{"type": "Sequence", key: list}
	}
}

// randomPattern matches nothing empty unless asked to: see replace.
func randomPattern(r *rand.Rand, empty bool) component {
	literals := []string{" ", "a", "▁", "'s", "-", "oo", "<", ""}
	expressions := []string{`\s+`, `\d{1,3}`, `[^\s]+`, `(?<=a).`, `\p{L}+|\p{N}`, " ?[a-z]+", gpt2Expression, `(?i:s)`, `\b`, `$`, `a*`}
	if !empty {
		literals, expressions = literals[:7], expressions[:8]
	}
	if r.IntN(2) == 0 {
		return component{"String": literals[r.IntN(len(literals))]}
	}
	return component{"Regex": expressions[r.IntN(len(expressions))]}
}

func randomNormalizer(r *rand.Rand) component {
	flag := func() bool { return r.IntN(2) == 0 }
	switch r.IntN(9) {
	case 0:
		return component{"type": "NFC"}
	case 1:
		return component{"type": "NFD"}
	case 2:
		return component{"type": "NFKC"}
	case 3:
		return component{"type": "NFKD"}
	case 4:
		return component{"type": "Lowercase"}
	case 5:
		return component{"type": "Prepend", "prepend": []string{"▁", "x", " ", "ab"}[r.IntN(4)]}
	case 6:
		return component{"type": "Strip", "strip_left": flag(), "strip_right": false}
	case 7:
		return component{"type": "Replace", "pattern": randomPattern(r, false), "content": []string{"▁", "", "zz", " "}[r.IntN(4)]}
	default:
		return component{"type": "ByteLevel"}
	}
}

func randomPreTokenizer(r *rand.Rand) component {
	flag := func() bool { return r.IntN(2) == 0 }
	behavior := behaviors[r.IntN(len(behaviors))]
	switch r.IntN(9) {
	case 0:
		return component{"type": "ByteLevel", "add_prefix_space": flag(), "trim_offsets": flag(), "use_regex": flag()}
	case 1:
		return component{"type": "Digits", "individual_digits": flag()}
	case 2, 3:
		return component{"type": "Split", "pattern": randomPattern(r, true), "behavior": behavior, "invert": flag()}
	case 4, 5:
		return component{"type": "Metaspace", "replacement": "▁", "prepend_scheme": []string{"always", "first", "first", "never"}[r.IntN(4)], "split": flag()}
	case 6:
		return component{"type": "Whitespace"}
	case 7:
		return component{"type": "WhitespaceSplit"}
	default:
		return component{"type": "Punctuation", "behavior": behavior}
	}
}

func randomDecoder(r *rand.Rand) component {
	switch r.IntN(7) {
	case 0:
		return component{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}
	case 1:
		return component{"type": "Replace", "pattern": randomPattern(r, true), "content": []string{" ", "", "zz"}[r.IntN(3)]}
	case 2:
		return component{"type": "ByteFallback"}
	case 3:
		return component{"type": "Fuse"}
	case 4:
		return component{"type": "Strip", "content": []string{" ", "▁", "a"}[r.IntN(3)], "start": r.IntN(3), "stop": 0}
	case 5:
		return component{"type": "Metaspace", "replacement": "▁", "prepend_scheme": []string{"always", "first", "never"}[r.IntN(3)], "split": true}
	default:
		return component{"type": "BPEDecoder", "suffix": []string{"</w>", "a", "▁"}[r.IntN(3)]}
	}
}

func randomAdded(r *rand.Rand) []component {
	flag := func() bool { return r.IntN(2) == 0 }
	list := []component{}
	contents := []string{"foo", "foobar", "foobarbaz", "sep", "</s>", "<mask>", "<pad>", "    ", " ", "yesterday", "Straße", "ﬁn", "fin", "nil", "a", "S", "中", "<|endoftext|>", "<unk>", "▁"}
	for _, i := range r.Perm(len(contents))[:r.IntN(8)] {
		list = append(list, component{"id": len(list), "content": contents[i], "single_word": r.IntN(3) == 0, "lstrip": flag(), "rstrip": flag(),
			"normalized": flag(), "special": flag()})
	}
	return list
}
