package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tensorFile is a safetensors file of float32 tensors of one element each.
func tensorFile(names ...string) string {
	var parts []string
	for i, name := range names {
		parts = append(parts, fmt.Sprintf(`%q:{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}`, name, 4*i, 4*i+4))
	}
	return string(rawFile("{"+strings.Join(parts, ",")+"}", 4*len(names)))
}

// indexOf is an index from pairs of tensor and file.
func indexOf(pairs ...string) string {
	var parts []string
	for i := 0; i < len(pairs); i += 2 {
		parts = append(parts, fmt.Sprintf("%q:%q", pairs[i], pairs[i+1]))
	}
	return `{"metadata":{"total_size":0},"weight_map":{` + strings.Join(parts, ",") + `}}`
}

const (
	shard1 = "model-00001-of-00002.safetensors"
	shard2 = "model-00002-of-00002.safetensors"
)

func TestOpenFolders(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		path  string // below the folder
		want  []string
		used  []string
	}{
		{"one file", map[string]string{"model.safetensors": tensorFile("b", "a")}, "", []string{"a", "b"}, []string{"model.safetensors"}},
		{"one file of any name", map[string]string{"weights.safetensors": tensorFile("a")}, "", []string{"a"}, []string{"weights.safetensors"}},
		{"path of a file", map[string]string{"x.safetensors": tensorFile("a"), "y.safetensors": tensorFile("b")}, "y.safetensors", []string{"b"}, []string{"y.safetensors"}},
		{"a set of one", map[string]string{"model-00001-of-00001.safetensors": tensorFile("a")}, "", []string{"a"}, []string{"model-00001-of-00001.safetensors"}},
		{"a set of two", map[string]string{shard1: tensorFile("a", "c"), shard2: tensorFile("b")}, "", []string{"a", "b", "c"}, []string{shard1, shard2}},
		{"an index", map[string]string{shard1: tensorFile("a"), shard2: tensorFile("b"), indexFile: indexOf("a", shard1, "b", shard2)}, "", []string{"a", "b"}, []string{shard1, shard2}},
		{"path of an index", map[string]string{shard1: tensorFile("a"), shard2: tensorFile("b"), indexFile: indexOf("a", shard1, "b", shard2)}, indexFile, []string{"a", "b"}, []string{shard1, shard2}},
		{"an index and a file it does not name", map[string]string{shard1: tensorFile("a"), "consolidated.safetensors": tensorFile("z"), indexFile: indexOf("a", shard1)}, "", []string{"a"}, []string{shard1}},
		{"one file and its index", map[string]string{"model.safetensors": tensorFile("b", "a"), indexFile: indexOf("a", "model.safetensors", "b", "model.safetensors")}, "", []string{"a", "b"}, []string{"model.safetensors"}},
		{"pickles beside", map[string]string{"model.safetensors": tensorFile("a"), "pytorch_model.bin": "x"}, "", []string{"a"}, []string{"model.safetensors"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.files["config.json"] = `{"model_type":"x"}`
			dir := folder(t, c.files)
			s, err := Open(filepath.Join(dir, c.path))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := s.Names(); !slices.Equal(got, c.want) {
				t.Errorf("tensors %v, want %v", got, c.want)
			}
			if got := s.Files(); !slices.Equal(got, c.used) {
				t.Errorf("files %v, want %v", got, c.used)
			}
			if s.Dir() != dir {
				t.Errorf("folder %s, want %s", s.Dir(), dir)
			}
			if string(s.Config()) != c.files["config.json"] {
				t.Errorf("config %s", s.Config())
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		path  string
		kind  Kind
		says  []string
	}{
		{"empty folder", map[string]string{}, "", BadSource, []string{"no safetensors file"}},
		{"no such folder", map[string]string{}, "missing", BadSource, []string{"missing", "no such file"}},
		{"no config", map[string]string{"model.safetensors": tensorFile("a")}, "", BadSource, []string{"config.json", "no such file"}},
		{"no config beside a file", map[string]string{"model.safetensors": tensorFile("a")}, "model.safetensors", BadSource, []string{"config.json"}},
		{"huge config", map[string]string{"model.safetensors": tensorFile("a"), "config.json": strings.Repeat(" ", maxConfig+1)}, "", BadSource, []string{"config.json", "at most"}},
		{"pickles only", map[string]string{"config.json": "{}", "pytorch_model.bin": "x"}, "", Unsupported, []string{"pytorch_model.bin", "safetensors"}},
		{"gguf only", map[string]string{"config.json": "{}", "m.gguf": "x"}, "", Unsupported, []string{"m.gguf"}},
		{"path of a pickle", map[string]string{"config.json": "{}", "pytorch_model.bin": "x"}, "pytorch_model.bin", Unsupported, []string{"pytorch_model.bin"}},
		{"path of a pickle index", map[string]string{"config.json": "{}", "pytorch_model.bin.index.json": "{}"}, "pytorch_model.bin.index.json", Unsupported, []string{"pytorch_model.bin.index.json"}},
		{"path of another file", map[string]string{"config.json": "{}"}, "config.json", BadSource, []string{"config.json", ".safetensors file"}},
		{"path of one shard", map[string]string{"config.json": "{}", shard1: tensorFile("a"), shard2: tensorFile("b")}, shard2, BadSource, []string{"shard 2 of 2"}},
		{"two files", map[string]string{"config.json": "{}", "x.safetensors": tensorFile("a"), "model.safetensors": tensorFile("b")}, "", BadSource, []string{"2 safetensors files", "x.safetensors", "index"}},
		{"file and index", map[string]string{"config.json": "{}", "model.safetensors": tensorFile("b"), shard1: tensorFile("a"), indexFile: indexOf("a", shard1)}, "", BadSource, []string{"both"}},
		{"file and an index of it and another", map[string]string{"config.json": "{}", "model.safetensors": tensorFile("b"), shard1: tensorFile("a"), indexFile: indexOf("a", shard1, "b", "model.safetensors")}, "", BadSource, []string{"both"}},
		{"file and an index that lacks a tensor of it", map[string]string{"config.json": "{}", "model.safetensors": tensorFile("a", "b"), indexFile: indexOf("a", "model.safetensors")}, "", BadSource, []string{"b", "does not name"}},
		{"a set without its second", map[string]string{"config.json": "{}", shard1: tensorFile("a")}, "", BadSource, []string{"1 of 2", shard2}},
		{"two sets", map[string]string{"config.json": "{}", shard1: tensorFile("a"), "other-00002-of-00002.safetensors": tensorFile("b")}, "", BadSource, []string{"2 safetensors files"}},
		{"sets of two sizes", map[string]string{"config.json": "{}", shard1: tensorFile("a"), "model-00002-of-00003.safetensors": tensorFile("b")}, "", BadSource, []string{"2 safetensors files"}},
		{"a tensor twice in a set", map[string]string{"config.json": "{}", shard1: tensorFile("a", "b"), shard2: tensorFile("b")}, "", BadSource, []string{"b", shard1, shard2}},
		{"a tensor twice under an index", map[string]string{"config.json": "{}", shard1: tensorFile("a", "b"), shard2: tensorFile("b"), indexFile: indexOf("a", shard1, "b", shard2)}, "", BadSource, []string{"b", shard1, shard2}},
		{"missing shard", map[string]string{"config.json": "{}", shard1: tensorFile("a"), indexFile: indexOf("a", shard1, "b", shard2)}, "", BadSource, []string{shard2}},
		{"tensor missing in its shard", map[string]string{"config.json": "{}", shard1: tensorFile("a"), indexFile: indexOf("a", shard1, "b", shard1)}, "", BadSource, []string{shard1, "b", "no such tensor"}},
		{"tensor missing in the index", map[string]string{"config.json": "{}", shard1: tensorFile("a", "b"), indexFile: indexOf("a", shard1)}, "", BadSource, []string{shard1, "b", "does not name"}},
		{"shard cut short", map[string]string{"config.json": "{}", shard1: tensorFile("a"), shard2: strings.TrimSuffix(tensorFile("b"), tensorFile("b")[64:]), indexFile: indexOf("a", shard1, "b", shard2)}, "", BadSource, []string{shard2, "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Open(filepath.Join(folder(t, c.files), c.path))
			if err == nil {
				s.Close()
			}
			wantError(t, err, c.kind, c.says...)
		})
	}
}

func TestOpenLinks(t *testing.T) {
	link := func(target, path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Skip("no symbolic links here:", err)
		}
	}
	index := map[string]string{"config.json": "{}", indexFile: indexOf("a", shard1)}

	outside := folder(t, map[string]string{"secret": tensorFile("a")})
	dir := folder(t, index)
	link(filepath.Join(outside, "secret"), filepath.Join(dir, shard1))
	_, err := Open(dir)
	wantError(t, err, BadSource, shard1, "symbolic link")

	inside := folder(t, index)
	if err := os.WriteFile(filepath.Join(inside, "blob"), []byte(tensorFile("a")), 0o644); err != nil {
		t.Fatal(err)
	}
	link("blob", filepath.Join(inside, shard1))
	s, err := Open(inside)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()

	dangling := folder(t, index)
	link("nothing", filepath.Join(dangling, shard1))
	_, err = Open(dangling)
	wantError(t, err, BadSource, shard1)

	// A Hugging Face cache: every file of a snapshot is a link to blobs.
	cache := folder(t, nil)
	blobs, snapshot := filepath.Join(cache, "blobs"), filepath.Join(cache, "snapshots", "0a1b")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, f := range []struct{ name, text string }{{"config.json", "{}"}, {indexFile, index[indexFile]}, {shard1, tensorFile("a")}} {
		blob := fmt.Sprint("blob", i)
		if err := os.WriteFile(filepath.Join(blobs, blob), []byte(f.text), 0o644); err != nil {
			t.Fatal(err)
		}
		link(filepath.Join("..", "..", "blobs", blob), filepath.Join(snapshot, f.name))
	}
	for _, path := range []string{snapshot, filepath.Join(snapshot, indexFile)} {
		s, err = Open(path)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

func TestOpenFolderInPlaceOfFile(t *testing.T) {
	for _, name := range []string{"model.safetensors", "config.json"} {
		files := map[string]string{"model.safetensors": tensorFile("a"), "config.json": "{}"}
		delete(files, name)
		dir := folder(t, files)
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir)
		wantError(t, err, BadSource, name, "no regular file")
	}
}

// valuesFile holds a 3x2 matrix in each float dtype, an I64 vector, a scalar and an empty tensor.
func valuesFile(matrix [6]float32) string {
	var data []byte
	var parts []string
	add := func(name, dtype, shape string, b []byte) {
		parts = append(parts, fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, name, dtype, shape, len(data), len(data)+len(b)))
		data = append(data, b...)
	}
	add("odd", "U8", "[1]", []byte{1}) // so that nothing behind it is aligned
	for _, d := range []DType{F32, F16, BF16} {
		b := make([]byte, 6*d.Size())
		narrow(d, b, matrix[:])
		add(strings.ToLower(d.String()), d.String(), "[3,2]", b)
	}
	add("ids", "I64", "[2]", make([]byte, 16))
	add("scalar", "BF16", "[]", []byte{0x80, 0x3f})
	add("empty", "F32", "[0,4]", nil)
	add("cube", "BF16", "[2,1,2]", []byte{0x80, 0x3f, 0, 0x40, 0x40, 0x40, 0x80, 0x40})
	file := rawFile("{"+strings.Join(parts, ",")+"}", 0)
	return string(append(file, data...))
}

// eachReader runs a test over the mapped file and over the reader of systems without memory mapping.
func eachReader(t *testing.T, text string, f func(t *testing.T, s *Source)) {
	dir := folder(t, map[string]string{"config.json": "{}", "model.safetensors": text})
	t.Run("mapped", func(t *testing.T) {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		f(t, s)
	})
	t.Run("read", func(t *testing.T) {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		file, err := os.Open(filepath.Join(dir, "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		d := readAtData{f: file}
		defer d.close()
		if _, _, err := readHeader(d, int64(len(text))); err != nil {
			t.Fatal(err)
		}
		for _, tensor := range s.tensors {
			tensor.data = d
		}
		f(t, s)
	})
}

func TestTensorValues(t *testing.T) {
	matrix := [6]float32{1, -2, 0.5, 65504, -0.0078125, 3}
	bf16 := matrix
	bf16[3] = 65536 // the nearest
	eachReader(t, valuesFile(matrix), func(t *testing.T, s *Source) {
		for name, want := range map[string][6]float32{"f32": matrix, "f16": matrix, "bf16": bf16} {
			w, err := s.Want(name, 3, 2)
			if err != nil {
				t.Fatal(err)
			}
			got, err := w.Float32(nil)
			if err != nil || !slices.Equal(got, want[:]) {
				t.Errorf("%s: %v, %v; want %v", name, got, err, want)
			}
			big := make([]float32, 10)
			got, err = w.Float32(big)
			if err != nil || len(got) != 6 || &got[0] != &big[0] {
				t.Errorf("%s: a large enough slice was not used", name)
			}
			got, err = w.Rows(1, 3, got[:0])
			if err != nil || !slices.Equal(got, want[2:]) {
				t.Errorf("%s: rows 1 to 3: %v, %v", name, got, err)
			}
			if got, err = w.Rows(3, 3, nil); err != nil || len(got) != 0 {
				t.Errorf("%s: no rows: %v, %v", name, got, err)
			}
			for _, r := range [][2]int{{-1, 1}, {2, 1}, {0, 4}, {math.MinInt, math.MaxInt}} {
				_, err := w.Rows(r[0], r[1], nil)
				wantError(t, err, BadSource, name, "3 rows")
			}
			if err := w.CheckFinite(); err != nil {
				t.Error(err)
			}
			raw := make([]byte, 6*w.DType.Size())
			narrow(w.DType, raw, matrix[:])
			if string(w.Bytes()) != string(raw) || w.Size() != int64(len(raw)) || w.Elements() != 6 {
				t.Errorf("%s: wrong bytes", name)
			}
			w.Release()
			if got, err := w.Float32(nil); err != nil || !slices.Equal(got, want[:]) {
				t.Errorf("%s after Release: %v, %v", name, got, err)
			}
		}
		scalar, err := s.Want("scalar")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := scalar.Float32(nil); err != nil || !slices.Equal(got, []float32{1}) {
			t.Errorf("scalar: %v, %v", got, err)
		}
		_, err = scalar.Rows(0, 1, nil)
		wantError(t, err, BadSource, "scalar")
		empty, err := s.Want("empty", 0, 4)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := empty.Float32(nil); err != nil || len(got) != 0 || empty.CheckFinite() != nil {
			t.Errorf("empty: %v, %v", got, err)
		}
		empty.Release()
		cube, _ := s.Get("cube")
		if got, err := cube.Rows(1, 2, nil); err != nil || !slices.Equal(got, []float32{3, 4}) {
			t.Errorf("cube: %v, %v", got, err)
		}
	})
}

func TestWantRefuses(t *testing.T) {
	eachReader(t, valuesFile([6]float32{}), func(t *testing.T, s *Source) {
		_, err := s.Want("missing", 3, 2)
		wantError(t, err, BadSource, s.Dir(), "missing", "no such tensor")
		_, err = s.Want("f32", 2, 3)
		wantError(t, err, BadSource, "model.safetensors", "f32", "[3, 2]", "[2, 3]")
		_, err = s.Want("f32", 6)
		wantError(t, err, BadSource, "f32", "[3, 2]", "[6]")
		_, err = s.Want("ids", 2)
		wantError(t, err, Unsupported, "model.safetensors", "ids", "I64")
		ids, ok := s.Get("ids")
		if !ok {
			t.Fatal("a tensor of integers is not listed")
		}
		_, err = ids.Float32(nil)
		wantError(t, err, Unsupported, "ids", "I64")
		wantError(t, ids.CheckFinite(), Unsupported, "ids", "I64")
		if _, ok := s.Get("missing"); ok {
			t.Error("got a tensor that is not there")
		}
	})
}

func TestNonFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		value float32
		says  string
	}{{nan, "NaN"}, {inf, "-Inf"}} {
		eachReader(t, valuesFile([6]float32{1, 2, 3, c.value, 5, nan}), func(t *testing.T, s *Source) {
			for _, name := range []string{"f32", "f16", "bf16"} {
				w, _ := s.Get(name)
				_, err := w.Float32(nil)
				says := []string{"model.safetensors", name, c.says, "index 3", "row 1, column 1"}
				wantError(t, err, BadSource, says...)
				wantError(t, w.CheckFinite(), BadSource, says...)
				_, err = w.Rows(1, 2, nil)
				wantError(t, err, BadSource, says...)
				if _, err := w.Rows(0, 1, nil); err != nil {
					t.Errorf("%s: rows without a NaN: %v", name, err)
				}
			}
		})
	}
}

// The index of a NaN must be right behind the first chunk as well.
func TestNonFiniteFar(t *testing.T) {
	const n, at = 3*chunkBytes/2 + 11, 3*chunkBytes/2 + 3
	header := fmt.Sprintf(`{"w":{"dtype":"BF16","shape":[%d],"data_offsets":[0,%d]}}`, n, 2*n)
	file := rawFile(header, 2*n)
	copy(file[len(file)-2*n+2*at:], []byte{0xc0, 0x7f})
	eachReader(t, string(file), func(t *testing.T, s *Source) {
		w, _ := s.Get("w")
		_, err := w.Float32(nil)
		wantError(t, err, BadSource, fmt.Sprintf("NaN at index %d", at))
		wantError(t, w.CheckFinite(), BadSource, fmt.Sprintf("NaN at index %d", at))
	})
}

func TestConcurrentReads(t *testing.T) {
	const n = 1 << 19
	header := fmt.Sprintf(`{"w":{"dtype":"BF16","shape":[512,%d],"data_offsets":[0,%d]}}`, n/512, 2*n)
	eachReader(t, string(rawFile(header, 2*n)), func(t *testing.T, s *Source) {
		w, _ := s.Get("w")
		want, err := w.Float32(nil)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					got, err := w.Float32(nil)
					if err != nil || !slices.Equal(got, want) {
						t.Error("concurrent reads differ", err)
					}
					if err := w.CheckFinite(); err != nil {
						t.Error(err)
					}
					w.Release()
				}
			})
		}
		wg.Wait()
	})
}

func TestClosed(t *testing.T) {
	s, err := Open(folder(t, map[string]string{"config.json": "{}", "model.safetensors": tensorFile("a")}))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := s.Get("a")
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = a.Float32(nil)
	wantError(t, err, BadSource, "a", "closed")
	if a.Bytes() != nil {
		t.Error("bytes of a closed source")
	}
	a.Release()
}

func TestHashes(t *testing.T) {
	files := map[string]string{
		"config.json": `{"a":1}`, shard1: tensorFile("a"), shard2: string(rawFile(`{"b":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}`, 4_000_000)),
		indexFile: indexOf("a", shard1, "b", shard2), "tokenizer.json": "{}",
	}
	dir := folder(t, files)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var total int64
	want := make(map[string]string)
	for _, name := range []string{"config.json", shard1, shard2, indexFile} {
		sum := sha256.Sum256([]byte(files[name]))
		want[name] = hex.EncodeToString(sum[:])
		total += int64(len(files[name]))
	}
	var last int64
	calls := 0
	got, err := s.Hashes(t.Context(), func(done, all int64) {
		if done < last || all != total {
			t.Errorf("progress %d of %d after %d", done, all, last)
		}
		last = done
		calls++
	})
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("got %v, %v; want %v", got, err, want)
	}
	if last != total || calls < 5 {
		t.Errorf("progress ended at %d of %d after %d calls", last, total, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.Hashes(ctx, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, shard1)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Hashes(t.Context(), nil)
	wantError(t, err, BadSource, shard1, "no such file")
}
