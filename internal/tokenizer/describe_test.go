package tokenizer

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

func TestDescribe(t *testing.T) {
	const text = `{"version":"1.0","truncation":null,"padding":null,
		"added_tokens":[
			{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
			{"id":9,"content":"extra","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false}],
		"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Sequence","normalizers":[{"type":"Lowercase"}]}]},
		"pre_tokenizer":{"type":"Digits","individual_digits":true},
		"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"E","type_id":0}}],
			"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]},"E":{"id":"E","ids":[4,1],"tokens":["?","a"]}}},
		"decoder":null,
		"model":{"type":"BPE","dropout":null,"unk_token":"?","fuse_unk":true,"byte_fallback":true,"ignore_merges":true,
			"vocab":{"<s>":0,"a":1,"b":2,"ab":3,"?":4,"ba":5,"aba":6},"merges":["b a",["a","b"],"ab a"]}}`
	tok, err := Parse([]byte(text), "t")
	if err != nil {
		t.Fatal(err)
	}
	d := tok.Describe()
	want := &Description{
		Tokens: map[int]Token{
			0: {Text: "<s>", Added: true, Special: true}, 1: {Text: "a"}, 2: {Text: "b"}, 3: {Text: "ab"}, 4: {Text: "?"}, 5: {Text: "ba"},
			6: {Text: "aba"}, 7: {Text: "extra", Added: true}, // as Hugging Face tokenizers does: the next free id, whatever the file says
		},
		Merges:       [][2]string{{"b", "a"}, {"a", "b"}, {"ab", "a"}},
		ByteFallback: true, IgnoreMerges: true, Unknown: "?",
		Before: []int{0}, After: []int{4, 1}, Templated: true,
	}
	types := func(texts []json.RawMessage) (out []string) {
		for _, raw := range texts {
			var c struct{ Type string }
			if err := json.Unmarshal(raw, &c); err != nil {
				t.Fatal(err)
			}
			out = append(out, c.Type)
		}
		return out
	}
	if got := types(d.Normalizers); !slices.Equal(got, []string{"NFC", "Lowercase"}) {
		t.Errorf("normalizers %v", got)
	}
	if len(d.PreTokenizers) != 1 || string(d.PreTokenizers[0]) != `{"individual_digits":true,"type":"Digits"}` {
		t.Errorf("pre-tokenizers %s", d.PreTokenizers)
	}
	d.Normalizers, d.PreTokenizers = nil, nil
	if !reflect.DeepEqual(d, want) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}
}

func TestDescribeWholeFile(t *testing.T) {
	tok, err := Load(filepath.Join("..", "..", "testdata", "gqa", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := tok.Describe()
	if len(d.Tokens) != 1024 || len(d.Merges) != 767 || d.Templated || !d.Tokens[0].Special {
		t.Errorf("%d tokens, %d merges, templated %v, token 0 %+v", len(d.Tokens), len(d.Merges), d.Templated, d.Tokens[0])
	}
	// Every merge makes the token of the next id: the ids follow the merges in a trained tokenizer.
	for i, m := range d.Merges {
		if got := d.Tokens[257+i].Text; got != m[0]+m[1] {
			t.Fatalf("merge %d of %q is not token %q", i, m, got)
		}
	}
}
