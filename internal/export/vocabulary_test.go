package export

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/internal/tokenizer"
)

// plan plans an export of the tiny model with the given files.
func plan(t *testing.T, files map[string]string, o Options) (*Plan, error) {
	t.Helper()
	return NewPlan(writeModel(t, testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1), files), o)
}

// changed is the byte-level tokenizer.json with other fields.
func changed(t *testing.T, change func(m map[string]any)) map[string]string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(testmodel.ByteTokenizer(54), &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{tokenizerFile: string(text)}
}

// byteLevel is a pre_tokenizer as models have it: components, then ByteLevel.
func byteLevel(useRegex bool, before ...any) map[string]any {
	last := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": useRegex}
	return map[string]any{"type": "Sequence", "pretokenizers": append(before, last)}
}

func split(regex string) map[string]any {
	return map[string]any{"type": "Split", "pattern": map[string]any{"Regex": regex}, "behavior": "Isolated", "invert": false}
}

// The expressions of the models' own tokenizer.json.
const (
	llama3Regex = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
	qwen2Regex  = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
	nemoRegex   = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)

func TestPreTokenizersAreRecognised(t *testing.T) {
	digits := map[string]any{"type": "Digits", "individual_digits": true}
	for _, c := range []struct {
		want         string
		pre          any
		ignoreMerges bool
		warnings     int
	}{
		{"gpt-2", byteLevel(true), false, 0},
		{"smollm", byteLevel(true, digits), false, 0},
		{"llama-bpe", byteLevel(false, split(llama3Regex)), true, 0},
		{"smaug-bpe", byteLevel(false, split(llama3Regex)), false, 0},
		{"qwen2", byteLevel(false, split(qwen2Regex)), false, 0},
		{"tekken", byteLevel(false, split(nemoRegex)), true, 0},
		{"tekken", byteLevel(false, split(nemoRegex)), false, 1},
	} {
		files := changed(t, func(m map[string]any) {
			m["pre_tokenizer"] = c.pre
			m["model"].(map[string]any)["ignore_merges"] = c.ignoreMerges
		})
		p, err := plan(t, files, Options{})
		if err != nil {
			t.Errorf("%s: %v", c.want, err)
			continue
		}
		if p.TokenizerModel != "gpt2" || p.PreTokenizer != c.want || len(p.Warnings) != c.warnings {
			t.Errorf("%s, %s, %q; want gpt2, %s and %d warnings", p.TokenizerModel, p.PreTokenizer, p.Warnings, c.want, c.warnings)
		}
	}
}

func TestUnknownPreTokenizersAreRefused(t *testing.T) {
	files := changed(t, func(m map[string]any) { m["pre_tokenizer"] = byteLevel(false, split(`\p{L}+|\s+`)) })
	_, err := plan(t, files, Options{})
	wantError(t, err, checkpoint.Unsupported, "--pre", tokenizerFile, `\p{L}+|\s+`, "qwen2")
	p, err := plan(t, files, Options{Pre: "deepseek-llm"})
	if err != nil || p.PreTokenizer != "deepseek-llm" {
		t.Errorf("with --pre: %v", err)
	}
	files = changed(t, func(m map[string]any) {
		m["pre_tokenizer"] = map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}
	})
	_, err = plan(t, files, Options{})
	wantError(t, err, checkpoint.Unsupported, "--pre", "a space put in front")
	_, err = plan(t, changed(t, func(m map[string]any) { m["pre_tokenizer"] = map[string]any{"type": "Whitespace"} }), Options{})
	wantError(t, err, checkpoint.Unsupported, "", "Whitespace")
	files = changed(t, func(m map[string]any) { m["normalizer"] = map[string]any{"type": "NFC"} })
	p, err = plan(t, files, Options{})
	if err != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "NFC") {
		t.Errorf("with NFC: %v, %v", p, err)
	}
}

func TestTokensAndSpecialOnes(t *testing.T) {
	files := changed(t, func(m map[string]any) {
		m["added_tokens"] = append(m["added_tokens"].([]any), map[string]any{
			"id": 54, "content": "two words", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false,
		})
	})
	files[tokenizerConfig] = `{"bos_token": "<bos>", "eos_token": {"content": "<eos>"}, "pad_token": "<pad>", "unk_token": null, "add_bos_token": true}`
	_, f := exported(t, writeModel(t, testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1), files), Options{})
	tokens, types := f.metadata["tokenizer.ggml.tokens"].([]any), f.metadata["tokenizer.ggml.token_type"].([]any)
	if len(tokens) != 80 || len(types) != 80 {
		t.Fatalf("%d tokens, %d types, want the 80 rows of the embedding", len(tokens), len(types))
	}
	for id, want := range map[int]struct {
		text string
		kind int32
	}{0: {"<pad>", 3}, 1: {"<bos>", 3}, 3: {"a", 1}, 29: {"ab", 1}, 53: {"yz", 1}, 54: {"two words", 4}, 55: {"[PAD55]", 5}, 79: {"[PAD79]", 5}} {
		if tokens[id] != want.text || types[id] != want.kind {
			t.Errorf("token %d is %q of type %v, want %q of type %d", id, tokens[id], types[id], want.text, want.kind)
		}
	}
	if merges := f.metadata["tokenizer.ggml.merges"].([]any); len(merges) != 25 || merges[0] != "a b" || merges[24] != "y z" {
		t.Errorf("merges %v", merges)
	}
	for key, want := range map[string]any{
		"bos_token_id": uint32(1), "eos_token_id": uint32(2), "padding_token_id": uint32(0), "add_bos_token": true, "add_eos_token": false,
		"unknown_token_id": nil, "scores": nil,
	} {
		if got := f.metadata["tokenizer.ggml."+key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
}

func TestTextsBeginAndEndAsThePostProcessorSays(t *testing.T) {
	template := func(single ...any) func(map[string]any) {
		return func(m map[string]any) {
			special := map[string]any{}
			for id, name := range []string{"<pad>", "<bos>", "<eos>"} {
				special[name] = map[string]any{"id": name, "ids": []int{id}, "tokens": []string{name}}
			}
			m["post_processor"] = map[string]any{"type": "TemplateProcessing", "single": single, "pair": []any{}, "special_tokens": special}
		}
	}
	text := map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}
	token := func(name string) any { return map[string]any{"SpecialToken": map[string]any{"id": name, "type_id": 0}} }
	for _, c := range []struct {
		template func(map[string]any)
		bos, eos bool
		warnings int
	}{
		{template(token("<bos>"), text), true, false, 0},
		{template(token("<bos>"), text, token("<eos>")), true, true, 0},
		{template(text), false, false, 0},
		{template(token("<pad>"), text), false, false, 1},
	} {
		files := changed(t, c.template)
		files[tokenizerConfig] = `{"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": false, "add_eos_token": false}`
		p, f := exported(t, writeModel(t, testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1), files), Options{})
		bos, eos := f.metadata["tokenizer.ggml.add_bos_token"], f.metadata["tokenizer.ggml.add_eos_token"]
		if bos != c.bos || eos != c.eos || len(p.Warnings) != c.warnings {
			t.Errorf("add_bos %v, add_eos %v, %q; want %v, %v and %d warnings", bos, eos, p.Warnings, c.bos, c.eos, c.warnings)
		}
	}
}

func TestChatTemplates(t *testing.T) {
	read := func(files map[string]string) map[string]any {
		_, f := exported(t, writeModel(t, testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1), files), Options{})
		maps.DeleteFunc(f.metadata, func(key string, _ any) bool { return !strings.Contains(key, "chat_template") })
		return f.metadata
	}
	same := func(got map[string]any, want map[string]any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	same(read(nil), map[string]any{})
	same(read(map[string]string{tokenizerConfig: `{"chat_template": "{{x}}"}`}), map[string]any{"tokenizer.chat_template": "{{x}}"})
	same(read(map[string]string{tokenizerConfig: `{"chat_template": "old"}`, templateFile: "new"}), map[string]any{"tokenizer.chat_template": "new"})
	same(read(map[string]string{tokenizerConfig: `{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}`}), map[string]any{
		"tokenizer.chat_template": "d", "tokenizer.chat_templates": []any{"tool_use"}, "tokenizer.chat_template.tool_use": "t",
	})
	same(read(map[string]string{templateFile: "d", templateFolder + "/rag.jinja": "r", templateFolder + "/notes.txt": "n"}), map[string]any{
		"tokenizer.chat_template": "d", "tokenizer.chat_templates": []any{"rag"}, "tokenizer.chat_template.rag": "r",
	})
	_, err := plan(t, map[string]string{tokenizerConfig: `{"chat_template": 3}`}, Options{})
	wantError(t, err, checkpoint.BadSource, "", tokenizerConfig, "chat_template")
}

func TestHostileTokenizerFiles(t *testing.T) {
	_, err := plan(t, map[string]string{tokenizerFile: `{"model": {"type": "WordPiece"}}`}, Options{})
	wantError(t, err, checkpoint.Unsupported, "", tokenizerFile, "WordPiece")
	_, err = plan(t, map[string]string{tokenizerConfig: `{"bos_token": 3}`}, Options{})
	wantError(t, err, checkpoint.BadSource, "", tokenizerConfig)
	_, err = plan(t, changed(t, func(m map[string]any) { m["model"].(map[string]any)["vocab"].(map[string]any)["zz"] = 80 }), Options{})
	wantError(t, err, checkpoint.BadSource, "", `"zz"`, "80 rows")

	dir := t.TempDir()
	if err := testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1).Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	src := testmodel.OpenDir(t, dir)
	_, err = NewPlan(src, Options{})
	wantError(t, err, checkpoint.Unsupported, "tokenizer.json", "no such file")
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, testmodel.ByteTokenizer(54), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, tokenizerFile)); err != nil {
		t.Skip(err)
	}
	_, err = NewPlan(src, Options{})
	wantError(t, err, checkpoint.BadSource, "", "link")
}

// piecesTokenizer is a tokenizer.json of SentencePiece's kind, as transformers makes it of a SentencePiece model: the pieces
// in order of their scores, and as merges every pair that makes a piece. It has the letters a to c, bytes and random pieces.
func piecesTokenizer(r *rand.Rand, size int, complete bool) map[string]string {
	vocab := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2}
	add := func(token string) bool {
		if _, ok := vocab[token]; ok {
			return false
		}
		vocab[token] = len(vocab)
		return true
	}
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b))
	}
	pieces := []string{metaspace, "a", "b", "c"}
	for _, p := range pieces {
		add(p)
	}
	for len(vocab) < size {
		union := pieces[r.IntN(len(pieces))] + pieces[r.IntN(len(pieces))]
		if len(union) <= 12 && add(union) {
			pieces = append(pieces, union)
		}
	}
	merges := []string{}
	for _, union := range pieces {
		for i := range union {
			_, left := vocab[union[:i]]
			_, right := vocab[union[i:]]
			if left && right && i > 0 {
				merges = append(merges, union[:i]+" "+union[i:])
				if !complete {
					break
				}
			}
		}
	}
	text, _ := json.Marshal(map[string]any{
		"version": "1.0",
		"added_tokens": []any{map[string]any{
			"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
		}},
		"normalizer": map[string]any{"type": "Sequence", "normalizers": []any{
			map[string]any{"type": "Prepend", "prepend": metaspace},
			map[string]any{"type": "Replace", "pattern": map[string]any{"String": " "}, "content": metaspace},
		}},
		"pre_tokenizer": nil, "post_processor": nil, "decoder": nil,
		"model": map[string]any{
			"type": "BPE", "dropout": nil, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges,
		},
	})
	return map[string]string{tokenizerFile: string(text), tokenizerConfig: `{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}`}
}

// byScores tokenizes as llama.cpp's model llama does: again and again, of all neighbours whose union is a token, it joins those
// with the highest score, of equal ones the first; what is no token then becomes bytes.
func byScores(text string, ids map[string]int, scores []any) (out []int) {
	var parts []string
	for _, c := range metaspace + strings.ReplaceAll(text, " ", metaspace) {
		parts = append(parts, string(c))
	}
	for {
		best := -1
		var most float32
		for i := range len(parts) - 1 {
			id, ok := ids[parts[i]+parts[i+1]]
			if ok && (best < 0 || scores[id].(float32) > most) {
				best, most = i, scores[id].(float32)
			}
		}
		if best < 0 {
			break
		}
		parts = slices.Replace(parts, best, best+2, parts[best]+parts[best+1])
	}
	for _, part := range parts {
		if id, ok := ids[part]; ok {
			out = append(out, id)
			continue
		}
		for _, b := range []byte(part) {
			out = append(out, ids[fmt.Sprintf("<0x%02X>", b)])
		}
	}
	return out
}

func TestScoresTokenizeAsMergesDo(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	a := testmodel.TinyMLA
	a.Vocab = 340
	files := piecesTokenizer(r, 330, true)
	p, f := exported(t, writeModel(t, testmodel.NewMLA(a, "BF16", 1), files), Options{})
	if p.TokenizerModel != "llama" || p.PreTokenizer != "default" || len(p.Warnings) != 0 {
		t.Fatalf("%s, %s, %q", p.TokenizerModel, p.PreTokenizer, p.Warnings)
	}
	tokens, types, scores := f.metadata["tokenizer.ggml.tokens"].([]any), f.metadata["tokenizer.ggml.token_type"].([]any), f.metadata["tokenizer.ggml.scores"].([]any)
	ids := map[string]int{}
	for id, token := range tokens {
		want := int32(1)
		switch {
		case id == 0:
			want = 2
		case id >= 3 && id < 259:
			want = 6
		case id >= 330:
			want = 5
		}
		if types[id] != want {
			t.Errorf("token %d, %q, has type %v, want %d", id, token, types[id], want)
		}
		if want == 1 || want == 6 {
			ids[token.(string)] = id
		}
	}
	for key, want := range map[string]any{"unknown_token_id": uint32(0), "bos_token_id": uint32(1), "add_space_prefix": true, "merges": nil} {
		if got := f.metadata["tokenizer.ggml."+key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	ours, err := tokenizer.Parse([]byte(files[tokenizerFile]), "t")
	if err != nil {
		t.Fatal(err)
	}
	joined := 0
	for range 400 {
		var b strings.Builder
		for range 1 + r.IntN(40) {
			b.WriteString([]string{"a", "b", "c", " ", "a", "b", "é"}[r.IntN(7)])
		}
		text := b.String()
		want, err := ours.Encode(text, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := byScores(text, ids, scores); !slices.Equal(got, want) {
			t.Fatalf("%q: by scores %v, by merges %v", text, got, want)
		}
		joined += len(text) - len(want)
	}
	if joined < 400 {
		t.Errorf("only %d characters were joined", joined)
	}
}

// TestPrependSchemes: llama.cpp puts a space in front of every text between special tokens, or of none.
func TestPrependSchemes(t *testing.T) {
	a := testmodel.TinyMLA
	a.Vocab = 330
	for scheme, want := range map[string]struct {
		prefix bool
		warns  string
	}{"always": {true, ""}, "first": {true, "behind a special token"}, "never": {false, ""}} {
		files := piecesTokenizer(rand.New(rand.NewPCG(3, 4)), 330, true)
		var m map[string]any
		if err := json.Unmarshal([]byte(files[tokenizerFile]), &m); err != nil {
			t.Fatal(err)
		}
		m["normalizer"] = nil
		m["pre_tokenizer"] = map[string]any{"type": "Metaspace", "replacement": metaspace, "prepend_scheme": scheme, "split": false}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		files[tokenizerFile] = string(text)
		p, f := exported(t, writeModel(t, testmodel.NewMLA(a, "BF16", 1), files), Options{})
		if got := f.metadata["tokenizer.ggml.add_space_prefix"]; got != want.prefix {
			t.Errorf("%s: add_space_prefix is %v", scheme, got)
		}
		if told := strings.Join(p.Warnings, "; "); (told == "") != (want.warns == "") || !strings.Contains(told, want.warns) {
			t.Errorf("%s: %q, want %q", scheme, p.Warnings, want.warns)
		}
	}
}

func TestIncompleteMergesAreTold(t *testing.T) {
	a := testmodel.TinyMLA
	a.Vocab = 330
	src := writeModel(t, testmodel.NewMLA(a, "BF16", 1), piecesTokenizer(rand.New(rand.NewPCG(3, 4)), 330, false))
	p, err := NewPlan(src, Options{})
	if err != nil || len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "may split some words otherwise") {
		t.Errorf("%+v, %v", p, err)
	}
	if err := p.Run(context.Background(), filepath.Join(t.TempDir(), "m.gguf"), false, &silent{}); err != nil {
		t.Error(err)
	}
	_, err = NewPlan(src, Options{Pre: "qwen2"})
	wantError(t, err, checkpoint.Unsupported, "--pre", "byte-level")
}
