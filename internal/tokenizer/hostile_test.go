package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// small is a whole tokenizer in a few lines, for tests that change it.
const small = `{
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 7, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
  ],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}]},
  "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[0-9]"}, "behavior": "Isolated", "invert": false},
  "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}},
  "decoder": {"type": "Strip", "content": "_", "start": 1, "stop": 0},
  "model": {"type": "BPE", "dropout": null, "unk_token": "?", "fuse_unk": false, "byte_fallback": false,
    "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "_": 4, "1": 5, "_ab": 6}, "merges": ["a b", "_ ab"]}
}`

func TestSmall(t *testing.T) {
	tok, err := Parse([]byte(small), "small.json")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := tok.Encode("ab1c<s>a", true)
	if want := []int{7, 6, 5, 0, 7, 4, 1}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("ids %v (%v), want %v", ids, err, want)
	}
	if text, err := tok.Decode([]int{6, 5, 1}); err != nil || text != "ab1a" {
		t.Errorf("decoded %q (%v)", text, err)
	}
	if id, ok := tok.ID("<s>"); !ok || id != 7 {
		t.Errorf("<s> is %d %v", id, ok)
	}
	if _, err := tok.Decode([]int{8}); err == nil {
		t.Error("8 is a token")
	}
	if _, ok := tok.ID("x"); ok {
		t.Error("x is a token")
	}
	pair, err := Parse([]byte(strings.Replace(small, `"1": 5`, `"\ud83d\ude00": 5`, 1)), "small.json")
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := pair.ID("😀"); !ok || id != 5 {
		t.Errorf("a surrogate pair: %d %v", id, ok)
	}
	if ids, err := tok.Encode("", false); err != nil || len(ids) != 0 {
		t.Errorf("nothing gives %v (%v)", ids, err)
	}
}

// TestHostile changes one place of the small file, and wants an error that names the place.
func TestHostile(t *testing.T) {
	deep := strings.Repeat(`{"type": "Sequence", "normalizers": [`, 100) + strings.Repeat(`]}`, 100)
	for _, test := range []struct {
		old, new    string
		want        string
		unsupported bool
	}{
		{`"version": "1.0"`, `"version": "2.0"`, `version: found "2.0"`, true},
		{`"version": "1.0"`, `"version": 1`, `version: found 1`, false},
		{`"version": "1.0"`, `"version": "1.0", "model": {}`, `the key "model" twice`, false},
		{`"BPE"`, `"Unigram"`, `model.type: found "Unigram", supported BPE`, true},
		{`"dropout": null`, `"dropout": 0.1`, "model.dropout: found 0.1, supported null", true},
		{`"dropout": null`, `"dropout": "x"`, "model.dropout", true},
		{`"fuse_unk": false`, `"fuse_unk": "no"`, `model.fuse_unk: found "no"`, false},
		{`"unk_token": "?"`, `"unk_token": 3`, "model.unk_token: found 3", false},
		{`"vocab": {`, `"vocab": [], "v": {`, "model.vocab: found a list", false},
		{`"vocab": {`, `"v": {`, "model.vocab: found nothing", false},
		{`"merges": [`, `"m": [`, "model.merges: found nothing", false},
		{`["a b", "_ ab"]`, `{"a": "b"}`, "model.merges: found an object", false},
		{`"a": 1`, `"a": -1`, `model.vocab["a"]: found -1`, false},
		{`"a": 1`, `"a": 1.5`, `model.vocab["a"]: found 1.5`, false},
		{`"a": 1`, `"a": 1e3`, `model.vocab["a"]: found 1e3`, false},
		{`"a": 1`, `"a": 4294967296`, `model.vocab["a"]: found 4294967296`, false},
		{`"a": 1`, `"a": 99999999999999999999999`, `model.vocab["a"]`, false},
		{`"a": 1`, `"a": "1"`, `model.vocab["a"]: found "1"`, false},
		{`"a": 1`, `"a": null`, `model.vocab["a"]: found null`, false},
		{`"a": 1`, `"a": 2`, `id 2, which "a" has`, false},
		{`"a": 1`, `"a": 1, "a": 8`, "the token twice", false},
		{`"_ ab"`, `"_ x"`, `model.merges[1]: found "x", which is not in model.vocab`, false},
		{`"_ ab"`, `"ab _"`, `found "ab_", which is not`, false},
		{`"_ ab"`, `"_ab"`, `model.merges[1]: found "_ab"`, false},
		{`"_ ab"`, `"_ a b"`, `model.merges[1]: found "_ a b"`, false},
		{`"_ ab"`, `["_", "a", "b"]`, "model.merges[1]: found a list", false},
		{`"_ ab"`, `["_"]`, "model.merges[1]: found a list", false},
		{`"_ ab"`, `["_", 7]`, "model.merges[1]: found a list", false},
		{`"_ ab"`, `[["_", "ab"]]`, "model.merges[1]: found a list", false},
		{`"_ ab"`, `7`, "model.merges[1]: found 7", false},
		{`"_ ab"`, `null`, "model.merges[1]: found null", false},
		{`"byte_fallback": false`, `"continuing_subword_prefix": "##"`, "continuing_subword_prefix", false},
		{`"Prepend"`, `"Precompiled"`, `normalizer.normalizers[0].type: found "Precompiled", supported`, true},
		{`"Prepend"`, `7`, "normalizer.normalizers[0].type: found 7", false},
		{`"prepend": "_"`, `"prepend": null`, "normalizer.normalizers[0].prepend: found null", false},
		{`[{"type": "Prepend", "prepend": "_"}]`, `[null]`, "normalizer.normalizers[0]: found null", false},
		{`[{"type": "Prepend", "prepend": "_"}]`, `7`, "normalizer.normalizers: found 7", false},
		{`[{"type": "Prepend", "prepend": "_"}]`, `[` + deep + `]`, "nested deeper", true},
		{`[{"type": "Prepend", "prepend": "_"}]`, `[` + strings.Repeat(`{"type": "NFC"}, `, 200) + `{"type": "NFD"}]`, "more than 100 components", true},
		{`"Isolated"`, `"Shredded"`, `pre_tokenizer.behavior: found "Shredded", supported Isolated, Removed`, true},
		{`"invert": false`, `"invert": null`, "pre_tokenizer.invert: found null", false},
		{`{"Regex": "[0-9]"}`, `{"Regex": "[0-"}`, `pre_tokenizer.pattern.Regex: found an unclosed class at byte 3 in "[0-"`, false},
		{`{"Regex": "[0-9]"}`, `{"Regex": "(.)\\1"}`, `pre_tokenizer.pattern.Regex: found \1`, true},
		{`{"Regex": "[0-9]"}`, `{"Regex": 1}`, "pre_tokenizer.pattern.Regex: found 1", false},
		{`{"Regex": "[0-9]"}`, `{"Regex": "1", "String": "1"}`, "pre_tokenizer.pattern", false},
		{`{"Regex": "[0-9]"}`, `"1"`, `pre_tokenizer.pattern: found "1"`, false},
		{`"type": "Split"`, `"type": "BertPreTokenizer"`, `pre_tokenizer.type: found "BertPreTokenizer", supported`, true},
		{`"TemplateProcessing"`, `"BertProcessing"`, `post_processor.type: found "BertProcessing"`, true},
		{`{"Sequence": {"id": "A"`, `{"Sequence": {"id": "B"`, `Sequence.id: found "B"`, false},
		{`{"SpecialToken": {"id": "<s>"`, `{"SpecialToken": {"id": "<t>"`, `SpecialToken.id: found "<t>"`, false},
		{`"ids": [7]`, `"ids": [-7]`, "post_processor.special_tokens.<s>.ids[0]: found -7", false},
		{`"ids": [7]`, `"ids": 7`, "post_processor.special_tokens.<s>.ids: found 7", false},
		{`"content": "_", "start"`, `"content": "__", "start"`, `decoder.content: found "__", expected one character`, false},
		{`"start": 1`, `"start": -1`, "decoder.start: found -1", false},
		{`"Strip"`, `"CTC"`, `decoder.type: found "CTC", supported`, true},
		{`"id": 7`, `"id": -7`, "added_tokens[0].id: found -7", false},
		{`"special": true`, `"special": 1`, "added_tokens[0].special: found 1", false},
		{`"special": true`, `"spezial": true`, "added_tokens[0].special: found nothing", false},
		{`"content": "<s>"`, `"content": "` + strings.Repeat("s", 5000) + `"`, "added_tokens[0].content", true},
		{`"1": 5`, `"1": 7`, "added_tokens[0]: found the next free id 7 taken", false},
		{`"1": 5`, `"\ud800": 5`, "half a surrogate pair", false},
		{`"1": 5`, `"\udc00\ud800": 5`, "half a surrogate pair", false},
		{`"1": 5`, "\"\xff\": 5", "invalid UTF-8 at byte", false},
		{`"1": 5`, `"1": 5,`, "JSON: found", false},
		{`"1": 5`, `"1": ` + strings.Repeat("[", 100_000), "exceeded max depth", false},
	} {
		data := strings.Replace(small, test.old, test.new, 1)
		if data == small {
			t.Fatalf("%s is not in the file", test.old)
		}
		_, err := Parse([]byte(data), "small.json")
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60s: error %v, want an *Error", test.new, err)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "small.json: ") || e.Unsupported != test.unsupported {
			t.Errorf("%.60s: error %v, want %q, unsupported %v", test.new, err, test.want, test.unsupported)
		}
		if len(err.Error()) > 800 {
			t.Errorf("%.60s: an error of %d bytes", test.new, len(err.Error()))
		}
	}
	for _, data := range []string{"", " ", "null", "[]", "7", `"x"`, "{}", "{", "\x00", `{"model": null}`, `{"model": []}`} {
		var e *Error
		if _, err := Parse([]byte(data), "x.json"); !errors.As(err, &e) {
			t.Errorf("%q: error %v, want an *Error", data, err)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "no.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	path := filepath.Join(dir, "tokenizer.json")
	if err := os.WriteFile(path, []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+": model: found nothing") {
		t.Errorf("error %v", err)
	}
	if err := os.Truncate(path, maxFileBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "size: found") {
		t.Errorf("error %v", err)
	}
}

func TestEncodeErrors(t *testing.T) {
	tok := load(t, "gpt2")
	for text, at := range map[string]int{"\xff": 0, "abc\xe2\x82": 3, "é\xc3": 2, "a\xed\xa0\x80": 1} {
		_, err := tok.Encode(text, false)
		var e *Error
		if want := fmt.Sprintf("text: found invalid UTF-8 at byte %d", at); !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
	if ids, err := tok.Encode("\uFFFD", false); err != nil || len(ids) == 0 {
		t.Errorf("U+FFFD itself: %v, %v", ids, err)
	}
	for _, id := range []int{-1, len(tok.Describe().Tokens), 1 << 40} {
		if _, err := tok.Decode([]int{1, id}); err == nil || !strings.HasPrefix(err.Error(), "ids[1]: found "+fmt.Sprint(id)) {
			t.Errorf("id %d: error %v", id, err)
		}
	}
	data := strings.Replace(small, `"unk_token": "?"`, `"unk_token": "??"`, 1)
	tok, err := Parse([]byte(data), "small.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Encode("xyz", false); err == nil || !strings.Contains(err.Error(), `model.unk_token: found "??"`) {
		t.Errorf("error %v", err)
	}
}

// TestEncodeWithoutEnd wants an error of an expression that backtracks without end on the text.
func TestEncodeWithoutEnd(t *testing.T) {
	tok, err := Parse([]byte(strings.Replace(small, "[0-9]", "(?:a|a|b)*(?:a|a|b)*c", 1)), "small.json")
	if err != nil {
		t.Fatal(err)
	}
	tok.preTokenizers[0].(*splitter).pattern.(*regex).re.MatchTimeout = 200 * time.Millisecond
	_, err = tok.Encode(strings.Repeat("ab", 500), false)
	var e *Error
	if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), "pre_tokenizer: found a regular expression that backtracks") {
		t.Errorf("error %v", err)
	}
}

// TestMemory reads files made to use much memory for their size.
func TestMemory(t *testing.T) {
	var vocab strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&vocab, `"t%d": %d, `, i, 2_000_000_000+i)
	}
	sets := strings.Builder{}
	for i := range 500 {
		fmt.Fprintf(&sets, `[\\p{L}\\x{%x}]`, 0x2000+2*i)
	}
	for name, data := range map[string]string{
		"high ids":   strings.Replace(small, `"vocab": {`, `"vocab": {`+vocab.String(), 1),
		"many sets":  strings.Replace(small, "[0-9]", sets.String(), 1),
		"repeats":    strings.Replace(small, "[0-9]", "(?:(?:a{200}){200})?", 1),
		"empty loop": strings.Replace(small, "[0-9]", "(?:(?:){1000})*", 1),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tok, err := Parse([]byte(data), "x.json")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := tok.Encode("ab ab", false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 200<<20 {
			t.Errorf("%s: %d MB allocated for a file of %d bytes", name, n>>20, len(data))
		}
	}

	// Components that make more and more of a text or an added token.
	const normalizer, preTokenizer = `{"type": "Prepend", "prepend": "_"}`, `{"type": "Split", "pattern": {"Regex": "[0-9]"}, "behavior": "Isolated", "invert": false}`
	replace := func(content string) string {
		return `{"type": "Replace", "pattern": {"String": "a"}, "content": "` + content + `"}`
	}
	list := func(n int, component string) string { return strings.Repeat(component+",", n-1) + component }
	doubling := strings.Replace(small, normalizer, list(99, replace("aa")), 1)
	for name, test := range map[string]struct{ data, text, where string }{
		"doubled text": {doubling, "ab ab", "normalizer: "},
		"doubled tokens": {strings.Replace(doubling, `"added_tokens": [`, `"added_tokens": [
			{"id": 8, "content": "a", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false},`, 1), "", "added_tokens[0]: "},
		"long content":    {strings.Replace(small, normalizer, list(2, replace(strings.Repeat("a", 4000))), 1), "ab ab", "normalizer: "},
		"many beginnings": {strings.Replace(small, `"prepend": "_"`, `"prepend": "`+strings.Repeat("_", 4000)+`"`, 1), strings.Repeat("a<s>", 2000), "normalizer: "},
		"doubled bytes": {strings.Replace(small, preTokenizer, `{"type": "Sequence", "pretokenizers": [`+
			list(99, `{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}`)+`]}`, 1), "é", "pre_tokenizer: "},
	} {
		if len(test.data) <= len(small) {
			t.Fatalf("%s: the file is as it was", name)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tok, err := Parse([]byte(test.data), "x.json")
		if err == nil {
			_, err = tok.Encode(test.text, false)
		}
		runtime.ReadMemStats(&after)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), test.where) || !strings.Contains(err.Error(), errGrowth.Error()) {
			t.Errorf("%s: error %v, want one of %q", name, err, test.where)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 200<<20 {
			t.Errorf("%s: %d MB allocated for a file of %d bytes", name, n>>20, len(test.data))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	for _, family := range []string{"gpt2", "llama3", "mistral", "flags"} {
		data, err := os.ReadFile("testdata/" + family + ".json")
		if err != nil {
			f.Fatal(err)
		}
		// The components of the family, with the small model.
		var file, model map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(data, &file), json.Unmarshal([]byte(small), &model)); err != nil {
			f.Fatal(err)
		}
		file["model"] = model["model"]
		seed, err := json.Marshal(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse(data, "fuzz.json")
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		ids, err := tok.Encode("ab1 é", true)
		if err != nil {
			return
		}
		// A template may hold ids that are not in the vocabulary.
		tok.Decode(ids)
	})
}

func FuzzEncode(f *testing.F) {
	for i, line := range mixedLines(f)[:40] {
		f.Add(line, byte(i))
	}
	var toks []*Tokenizer
	for _, family := range families {
		toks = append(toks, load(f, family))
	}
	lossless := []string{"gpt2", "llama3", "smollm", "deepseek", "gpt4o"}
	f.Fuzz(func(t *testing.T, text string, which byte) {
		i := int(which) % len(families)
		ids, err := toks[i].Encode(text, false)
		if invalidUTF8(text) >= 0 {
			if err == nil {
				t.Fatal("no error for invalid UTF-8")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		back, err := toks[i].Decode(ids)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(lossless, families[i]) && back != text {
			t.Fatalf("%s: %q came back as %q", families[i], text, back)
		}
	})
}
