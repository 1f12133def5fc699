package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
)

// families are the tokenizers of testdata; testdata/make.py makes them and says what each is for.
var families = []string{
	"gpt2", "llama3", "qwen2", "smollm", "deepseek", "gpt4o", "possessive", // byte-level
	"llama2", "mistral", // byte fallback
	"gaps", "clip", "flags", // odd ones
}

func load(t testing.TB, family string) *Tokenizer {
	t.Helper()
	tok, err := Load("testdata/" + family + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func gunzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// mixedLines are the 10,000 lines of testdata/lines.bin.gz.
func mixedLines(t testing.TB) []string {
	t.Helper()
	raw := gunzip(t, "testdata/lines.bin.gz")
	var lines []string
	for len(raw) > 0 {
		n, size := binary.Uvarint(raw)
		if size <= 0 || uint64(len(raw)-size) < n {
			t.Fatal("lines.bin.gz is broken")
		}
		lines = append(lines, string(raw[size:size+int(n)]))
		raw = raw[size+int(n):]
	}
	return lines
}

func appendIDs(b []byte, ids []int) []byte {
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}

// TestGolden compares the ids of 10,000 lines, and the text that they decode to, with those of Hugging
// Face tokenizers: as checksums of all, with special tokens, and as ids of the first, without.
func TestGolden(t *testing.T) {
	lines := mixedLines(t)
	if len(lines) != 10_000 {
		t.Fatalf("%d lines, want 10,000", len(lines))
	}
	var shown map[string][][]int
	if err := json.Unmarshal(gunzip(t, "testdata/ids.json.gz"), &shown); err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			tok := load(t, family)
			sums, err := os.ReadFile("testdata/" + family + ".sums")
			if err != nil {
				t.Fatal(err)
			}
			if len(sums) != 4*len(lines) {
				t.Fatalf("%d bytes of sums for %d lines", len(sums), len(lines))
			}
			wrong := 0
			for i, line := range lines {
				if i < len(shown[family]) {
					ids, err := tok.Encode(line, false)
					if err != nil || !slices.Equal(ids, shown[family][i]) {
						t.Fatalf("line %d %q:\n got ids %v (%v)\nwant ids %v", i, line, ids, err, shown[family][i])
					}
				}
				ids, err := tok.Encode(line, true)
				if err != nil {
					t.Fatalf("line %d %q: %v", i, line, err)
				}
				decoded, err := tok.Decode(ids)
				if err != nil {
					t.Fatal(err)
				}
				sum := crc32.ChecksumIEEE(append(appendIDs(nil, ids), decoded...))
				if want := binary.LittleEndian.Uint32(sums[4*i:]); sum != want {
					if wrong++; wrong <= 3 {
						t.Errorf("line %d %q: sum %08x, want %08x; ids %v, decoded %q", i, line, sum, want, ids, decoded)
					}
				}
			}
			if wrong > 0 {
				t.Errorf("%d of %d lines are wrong", wrong, len(lines))
			}
		})
	}
}

// TestVariants puts other components around the models of two families; testdata/make.py lists them.
func TestVariants(t *testing.T) {
	var variants []struct {
		Family     string
		Components map[string]json.RawMessage
		Results    []struct {
			Text    string
			IDs     []int
			Decoded string
		}
	}
	if err := json.Unmarshal(gunzip(t, "testdata/variants.json.gz"), &variants); err != nil {
		t.Fatal(err)
	}
	if len(variants) < 20 {
		t.Fatalf("%d variants, want more", len(variants))
	}
	for _, v := range variants {
		data, err := os.ReadFile("testdata/" + v.Family + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]json.RawMessage
		if err := json.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		maps.Copy(file, v.Components)
		if data, err = json.Marshal(file); err != nil {
			t.Fatal(err)
		}
		components, err := json.Marshal(v.Components)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := Parse(data, "variant.json")
		if err != nil {
			t.Errorf("%s: %v", components, err)
			continue
		}
		for _, r := range v.Results {
			if diff := compare(tok, r.Text, oracleResult{IDs: r.IDs, Special: nil, Decoded: r.Decoded}); diff != "" {
				t.Errorf("%s: %q: %s", components, r.Text, diff)
			}
		}
	}
}

// TestRoundTrip decodes what the byte-level tokenizers without a normalizer encode.
func TestRoundTrip(t *testing.T) {
	lines := mixedLines(t)[:2000]
	for _, family := range []string{"gpt2", "llama3", "smollm", "deepseek", "gpt4o"} {
		tok := load(t, family)
		for i, line := range lines {
			ids, err := tok.Encode(line, false)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := tok.Decode(ids); err != nil || back != line {
				t.Fatalf("%s, line %d: %q came back as %q (%v)", family, i, line, back, err)
			}
		}
	}
}

// TestConcurrent shares one tokenizer, and so its cache and its regular expressions.
func TestConcurrent(t *testing.T) {
	lines := mixedLines(t)[:500]
	tok := load(t, "llama3")
	want := make([][]int, len(lines))
	for i, line := range lines {
		var err error
		if want[i], err = tok.Encode(line, true); err != nil {
			t.Fatal(err)
		}
	}
	fresh := load(t, "llama3")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range lines {
				i = (i + g*125) % len(lines)
				ids, err := fresh.Encode(lines[i], true)
				if err != nil || !slices.Equal(ids, want[i]) {
					t.Errorf("line %d: %v, want %v (%v)", i, ids, want[i], err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestMergesForms reads the same merges in both forms of file.
func TestMergesForms(t *testing.T) {
	data, err := os.ReadFile("testdata/gpt2.json")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	model := file["model"].(map[string]any)
	merges := model["merges"].([]any)
	for i, m := range merges {
		a, b, ok := bytes.Cut([]byte(m.(string)), []byte(" "))
		if !ok {
			t.Fatalf("merge %d is %v, want the form with a space", i, m)
		}
		merges[i] = []string{string(a), string(b)}
	}
	model["type"] = "BPE"
	data, err = json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := Parse(data, "pairs.json")
	if err != nil {
		t.Fatal(err)
	}
	spaced := load(t, "gpt2")
	for _, line := range mixedLines(t)[:300] {
		a, errA := spaced.Encode(line, false)
		b, errB := pairs.Encode(line, false)
		if errA != nil || errB != nil || !slices.Equal(a, b) {
			t.Fatalf("%q: %v (%v) and %v (%v)", line, a, errA, b, errB)
		}
	}
}
