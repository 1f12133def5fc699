package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// scenario is a small conversion in three units, over three shards, with tensors that a unit finds in several of them.
type scenario struct {
	layout *Layout
	values map[string][]float32
	units  [][]string
	files  map[string]string
}

func newScenario(t testing.TB) *scenario {
	specs := []Spec{
		{"embed", BF16, []int{40, 8}}, {"l0.q", BF16, []int{8, 8}}, {"l0.k", F32, []int{3, 8}}, {"l1.q", BF16, []int{8, 8}},
		{"l1.k", F32, []int{3, 8}}, {"norm", F16, []int{8}}, {"empty", F16, []int{0, 8}}, {"head", BF16, []int{40, 8}},
	}
	layout, err := PlanLayout(specs, 800)
	if err != nil {
		t.Fatal(err)
	}
	if len(layout.Shards) != 3 {
		t.Fatalf("%d shards", len(layout.Shards))
	}
	s := &scenario{
		layout: layout,
		values: make(map[string][]float32),
		units:  [][]string{{"l0.q", "l0.k"}, {"embed", "norm", "empty", "head"}, {"l1.k", "l1.q"}},
		files:  map[string]string{"config.json": `{"model_type":"deepseek_v3"}`, "README.md": "# A model\n"},
	}
	rng := rand.New(rand.NewPCG(9, 10))
	for _, spec := range specs {
		n := 1
		for _, d := range spec.Shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		s.values[spec.Name] = v
	}
	return s
}

// run does what is left to do with w, in the given order of units, and returns the units it did.
func (s *scenario) run(w *Writer, order []int) (did []string, err error) {
	for _, i := range order {
		unit := fmt.Sprint("unit ", i)
		if payload, ok := w.Done(unit); ok {
			if want := "payload of " + unit + "\x00"; string(payload) != want {
				return did, fmt.Errorf("%s: payload %q, want %q", unit, payload, want)
			}
			continue
		}
		for _, name := range s.units[i] {
			if err := w.WriteTensor(name, s.values[name]); err != nil {
				return did, err
			}
		}
		if err := w.Keep("work", func(to io.Writer) error { _, err := io.WriteString(to, unit); return err }); err != nil {
			return did, err
		}
		if err := w.MarkDone(unit, []byte("payload of "+unit+"\x00")); err != nil {
			return did, err
		}
		did = append(did, unit)
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if err := w.WriteFile(name, []byte(s.files[name])); err != nil {
			return did, err
		}
	}
	return did, w.Commit()
}

var inOrder = []int{0, 1, 2}

// finished returns the files of an uninterrupted run.
func (s *scenario) finished(t testing.TB) map[string]string {
	dir := t.TempDir()
	w, err := Create(filepath.Join(dir, "out"), s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(w, inOrder); err != nil {
		t.Fatal(err)
	}
	if tt, ok := t.(*testing.T); ok {
		if got := listing(tt, dir); !slices.Equal(got, []string{"out"}) {
			t.Fatalf("left behind: %v", got)
		}
		return readTree(tt, filepath.Join(dir, "out"))
	}
	return nil
}

func TestWriterRoundTrip(t *testing.T) {
	s := newScenario(t)
	out := filepath.Join(t.TempDir(), "out")
	w, err := Create(out, s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("the output is there before Commit")
	}
	if _, err := s.run(w, inOrder); err != nil {
		t.Fatal(err)
	}
	src, err := Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if want := slices.Sorted(maps.Keys(s.values)); !slices.Equal(src.Names(), want) {
		t.Fatalf("tensors %v, want %v", src.Names(), want)
	}
	for name, values := range s.values {
		_, spec, _ := s.layout.Lookup(name)
		tensor, err := src.Want(name, spec.Shape...)
		if err != nil {
			t.Fatal(err)
		}
		raw := make([]byte, len(values)*spec.DType.Size())
		narrow(spec.DType, raw, values)
		if tensor.DType != spec.DType || !bytes.Equal(tensor.Bytes(), raw) {
			t.Errorf("%s: other bytes than written", name)
		}
	}
	tree := readTree(t, out)
	for name, text := range s.files {
		if tree[name] != text {
			t.Errorf("%s: %q, want %q", name, tree[name], text)
		}
	}
	if len(tree) != 3+1+len(s.files) {
		t.Errorf("files %v", slices.Sorted(maps.Keys(tree)))
	}
	// Nothing works any more, and a deferred Abort does no harm.
	wantText(t, w.WriteTensor("norm", s.values["norm"]), "closed")
	wantText(t, w.WriteFile("x", nil), "closed")
	wantText(t, w.MarkDone("x", nil), "closed")
	wantText(t, w.Commit(), "closed")
	if err := w.Abort(false); err != nil || !maps.Equal(readTree(t, out), tree) {
		t.Error("Abort after Commit:", err)
	}
}

// The files must not depend on the order of the writes, nor on how many run at once.
func TestWriterAnyOrder(t *testing.T) {
	s := newScenario(t)
	want := s.finished(t)
	rng := rand.New(rand.NewPCG(11, 12))
	for round := range 8 {
		out := filepath.Join(t.TempDir(), "out")
		w, err := Create(out, s.layout, WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		names := slices.Sorted(maps.Keys(s.values))
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		var wg sync.WaitGroup
		for i, name := range names {
			write := func() {
				if err := w.WriteTensor(name, s.values[name]); err != nil {
					t.Error(err)
				}
				if err := w.MarkDone(fmt.Sprint("unit of ", i), nil, name); err != nil {
					t.Error(err)
				}
			}
			if round%2 == 0 {
				write()
			} else {
				wg.Go(write)
			}
		}
		wg.Wait()
		for name, text := range s.files {
			if err := w.WriteFile(name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(readTree(t, out), want) {
			t.Fatal("other files in another order")
		}
	}
}

func TestWriterSources(t *testing.T) {
	matrix := [6]float32{1, -2, 0.5, 65504, -0.0078125, 3}
	src, err := Open(folder(t, map[string]string{"config.json": "{}", "model.safetensors": valuesFile(matrix), "tokenizer.json": "\x00\xff{}"}))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var specs []Spec
	for _, from := range []string{"f32", "f16", "bf16"} {
		for _, to := range []DType{F32, F16, BF16} {
			if from == "bf16" && to == F16 {
				continue // 65536 does not fit
			}
			specs = append(specs, Spec{from + to.String(), to, []int{3, 2}})
		}
	}
	specs = append(specs, Spec{"raw", BF16, []int{3, 2}}, Spec{"scalar", F32, nil}, Spec{"empty", BF16, []int{0, 4}})
	layout, err := PlanLayout(specs, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	w, err := Create(out, layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(false)
	for _, spec := range specs {
		from := strings.TrimSuffix(spec.Name, spec.DType.String())
		tensor, ok := src.Get(from)
		if from == "raw" {
			bf16, _ := src.Get("bf16")
			err = w.WriteRaw("raw", bf16.Bytes())
		} else if !ok {
			t.Fatal(from)
		} else {
			err = w.CopyFrom(spec.Name, tensor)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"config.json", "tokenizer.json"} {
		if err := w.CopyFile(filepath.Join(src.Dir(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := readTree(t, out)["tokenizer.json"]; got != "\x00\xff{}" {
		t.Errorf("tokenizer.json is %q", got)
	}
	dst, err := Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	for _, spec := range specs {
		from := strings.TrimSuffix(spec.Name, spec.DType.String())
		if from == "raw" {
			from = "bf16"
		}
		a, _ := src.Get(from)
		b, _ := dst.Get(spec.Name)
		want, err1 := a.Float32(nil)
		got, err2 := b.Float32(nil)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		rounded := make([]byte, len(want)*spec.DType.Size())
		narrow(spec.DType, rounded, want)
		widen(spec.DType, want, rounded)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", spec.Name, got, want)
		}
	}
}

// Tensors of several chunks, whose last is not whole, converted on the way, side by side; the larger ones past the page cache.
func TestCopyLarge(t *testing.T) {
	for _, n := range []int{2*chunkBytes + 12345, directLeast/2 + directBytes + 12345} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { testCopyLarge(t, n) })
	}
}

func testCopyLarge(t *testing.T, n int) {
	src, err := Open(folder(t, map[string]string{"config.json": "{}",
		"model.safetensors": string(rawFile(fmt.Sprintf(`{"w":{"dtype":"BF16","shape":[%d],"data_offsets":[0,%d]}}`, n, 2*n), 2*n))}))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	w, _ := src.Get("w")
	values, err := w.Float32(nil)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := PlanLayout([]Spec{{"copied", BF16, []int{n}}, {"wider", F32, []int{n}}, {"written", BF16, []int{n}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	writer, err := Create(out, layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Abort(false)
	errs := make([]error, 3)
	var wg sync.WaitGroup
	wg.Go(func() { errs[0] = writer.CopyFrom("copied", w) })
	wg.Go(func() { errs[1] = writer.CopyFrom("wider", w) })
	wg.Go(func() { errs[2] = writer.WriteTensor("written", values) })
	wg.Wait()
	for _, err := range append(errs, writer.WriteFile("config.json", []byte("{}")), writer.Commit()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	dst, err := Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	for _, name := range dst.Names() {
		tensor, _ := dst.Get(name)
		if got, err := tensor.Float32(nil); err != nil || !slices.Equal(got, values) {
			t.Errorf("%s: other values: %v", name, err)
		}
	}
}

// A direct write keeps what lies beside it, wherever it begins and ends.
func TestDirectWriter(t *testing.T) {
	plain, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	direct := openDirect(plain)
	if direct == nil {
		t.Log("no direct writes here")
		direct = plain
	} else {
		defer direct.Close()
	}
	r := rand.New(rand.NewPCG(1, 1))
	const size = 3*directBytes + 777
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	if _, err := plain.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]int{{0, size}, {1, 2 * directAlign}, {directAlign, directAlign}, {directAlign - 3, 5}, {10, 20}, {4711, size - 4711 - 55}, {2 * directAlign, 2*directBytes + 1}} {
		d := newDirectWriter(direct, plain, int64(c[0]))
		for at := c[0]; at < c[0]+c[1]; {
			k := min(1+r.IntN(chunkBytes), c[0]+c[1]-at)
			for i := range k {
				want[at+i] = byte(r.Uint32())
			}
			if err := d.write(want[at : at+k]); err != nil {
				t.Fatal(err)
			}
			at += k
		}
		if err := d.flush(); err != nil {
			t.Fatal(err)
		}
		d.release()
		got, err := os.ReadFile(plain.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes from %d: another content", c[1], c[0])
		}
	}
}

func TestWriterRefusesTensors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	src, err := Open(folder(t, map[string]string{"config.json": "{}", "model.safetensors": valuesFile([6]float32{1, 1e30, 3, 4, nan, 6})}))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	bad, _ := src.Get("f32")
	ids, _ := src.Get("ids")
	layout, err := PlanLayout([]Spec{{"bf", BF16, []int{3, 2}}, {"f", F32, []int{3, 2}}, {"h", F16, []int{3, 2}}, {"i", F32, []int{2}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w, err := Create(filepath.Join(dir, "out"), layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, w.WriteTensor("x", nil), "x", "not in the layout")
	wantText(t, w.WriteTensor("f", make([]float32, 5)), "f", "5 values", "6", "[3, 2]")
	wantText(t, w.WriteTensor("f", make([]float32, 7)), "f", "7 values", "6")
	parts := func(err error, parts ...[]float32) func(func([]float32) error) error {
		return func(put func([]float32) error) error {
			for _, part := range parts {
				_ = put(part) // an error must stay where it is overlooked
			}
			return err
		}
	}
	wantText(t, w.WriteParts("f", parts(nil, make([]float32, 3), make([]float32, 2))), "f", "20 bytes", "24")
	wantText(t, w.WriteParts("f", parts(nil, make([]float32, 3), make([]float32, 4), nil)), "f", "more than 24 bytes")
	wantText(t, w.WriteParts("f", parts(nil, make([]float32, 2), []float32{3, nan, 5}, []float32{6})), "f", "NaN at index 3 (row 1, column 1)")
	wantText(t, w.WriteParts("f", parts(errors.New("no more"), make([]float32, 6))), "no more")
	wantText(t, w.WriteRaw("f", make([]byte, 23)), "f", "23 bytes", "24")
	wantText(t, w.WriteRaw("h", make([]byte, 24)), "h", "24 bytes", "12")
	wantText(t, w.WriteRaw("h", []byte{0, 0, 0, 0x7c, 0, 0, 0, 0, 0, 0, 0, 0}), "h", "+Inf at index 1")
	wantText(t, w.WriteTensor("f", []float32{1, 2, 3, nan, 5, 6}), "f", "NaN at index 3 (row 1, column 1)")
	wantText(t, w.WriteTensor("bf", []float32{1, 2, 3, 4, -inf, 6}), "bf", "-Inf at index 4")
	wantError(t, w.WriteTensor("bf", []float32{1, 2, math.MaxFloat32, 4, 5, 6}), Unsupported, "model.safetensors", "bf", "3.4028235e+38 at index 2", "BF16")
	wantError(t, w.WriteTensor("h", []float32{1, 2, 3, 4, -65520, 6}), Unsupported, "h", "-65520 at index 4", "F16")
	wantError(t, w.CopyFrom("f", bad), BadSource, "model.safetensors", "f32", "NaN at index 4")
	wantError(t, w.CopyFrom("h", bad), BadSource, "f32", "NaN at index 4")
	wantText(t, w.CopyFrom("i", bad), "i", "[3, 2]", "[2]")
	wantError(t, w.CopyFrom("i", ids), Unsupported, "ids", "I64")
	wantText(t, w.MarkDone("unit", nil, "f"), "unit", "f", "not written")
	wantText(t, w.MarkDone("unit", nil, "x"), "unit", "x", "not written")
	wantText(t, w.Commit(), "4 of 4 tensors", "bf")

	// What was refused can be written, once.
	for _, name := range []string{"bf", "f", "h"} {
		if err := w.WriteTensor(name, make([]float32, 6)); err != nil {
			t.Fatal(err)
		}
	}
	wantText(t, w.WriteTensor("f", make([]float32, 6)), "f", "twice")
	if err := w.MarkDone("unit", nil, "f"); err != nil {
		t.Fatal(err)
	}
	wantText(t, w.WriteTensor("f", make([]float32, 6)), "f", "twice")
	wantText(t, w.MarkDone("unit", nil, "f"), "unit", "twice")
	wantText(t, w.Commit(), "1 of 4 tensors", "i")
	for _, name := range []string{"", ".", "..", "a/b", "/a", "model.safetensors", "model-00001-of-00002.safetensors", indexFile} {
		wantText(t, w.WriteFile(name, nil), "name")
	}
	wantError(t, w.CopyFile(filepath.Join(dir, "missing")), BadSource, "missing")
	if err := w.Abort(false); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestCopyOutOfRange(t *testing.T) {
	src, err := Open(folder(t, map[string]string{"config.json": "{}", "model.safetensors": valuesFile([6]float32{1, 2, 3, 4, -1e30, 6})}))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	layout, err := PlanLayout([]Spec{{"h", F16, []int{3, 2}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := Create(filepath.Join(t.TempDir(), "out"), layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort(false)
	big, _ := src.Get("f32")
	wantError(t, w.CopyFrom("h", big), Unsupported, src.Dir(), "-1e+30 at index 4", "F16")
}

func TestCreateRefuses(t *testing.T) {
	s := newScenario(t)
	other, err := PlanLayout([]Spec{{"a", F32, []int{2}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	model := func(dir string) {
		os.MkdirAll(filepath.Join(dir, "out"), 0o755)
		os.WriteFile(filepath.Join(dir, "out", "config.json"), []byte("{}"), 0o644)
	}
	unfinished := func(dir string) {
		w, err := Create(filepath.Join(dir, "out"), s.layout, WriterOptions{Identity: "one"})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range s.units[0] {
			if err := w.WriteTensor(name, s.values[name]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.MarkDone("unit 0", nil); err != nil {
			t.Fatal(err)
		}
		if err := w.Abort(true); err != nil {
			t.Fatal(err)
		}
	}
	petabyte, err := PlanLayout([]Spec{{"a", F32, []int{1 << 24, 1 << 24}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		before func(dir string)
		layout *Layout
		opts   WriterOptions
		kind   Kind
		says   []string
	}{
		{"output exists", model, nil, WriterOptions{}, Exists, []string{"out", "exists"}},
		{"output exists, resume", model, nil, WriterOptions{Resume: true}, Exists, []string{"out", "exists"}},
		{"output is empty", func(dir string) { os.Mkdir(filepath.Join(dir, "out"), 0o755) }, nil, WriterOptions{}, Exists, []string{"out", "exists"}},
		{"output is a file", func(dir string) { os.WriteFile(filepath.Join(dir, "out"), nil, 0o644) }, nil, WriterOptions{Force: true}, Exists, []string{"out", "no folder"}},
		{"output is a link", func(dir string) { os.Symlink(dir, filepath.Join(dir, "out")) }, nil, WriterOptions{Force: true}, Exists, []string{"out", "no folder"}},
		{"output is a dangling link", func(dir string) { os.Symlink("nothing", filepath.Join(dir, "out")) }, nil, WriterOptions{}, Exists, []string{"out", "exists"}},
		{"output is no model", func(dir string) {
			os.MkdirAll(filepath.Join(dir, "out", "thesis"), 0o755)
		}, nil, WriterOptions{Force: true}, Exists, []string{"out", "config.json"}},
		{"source is the output", model, nil, WriterOptions{Force: true, Protect: []string{"out"}}, Exists, []string{"out", "being read"}},
		{"source is in the output", func(dir string) {
			model(dir)
			os.Mkdir(filepath.Join(dir, "out", "sub"), 0o755)
		}, nil, WriterOptions{Force: true, Protect: []string{"out/sub"}}, Exists, []string{"out", "being read"}},
		{"unfinished", unfinished, nil, WriterOptions{Identity: "one"}, Exists, []string{"out.partial", "unfinished"}},
		{"unfinished of another identity", unfinished, nil, WriterOptions{Resume: true, Identity: "two"}, Exists, []string{"out.partial", "another recipe"}},
		{"unfinished of another identity, force", unfinished, nil, WriterOptions{Resume: true, Force: true, Identity: "two"}, Exists, []string{"out.partial", "another recipe"}},
		{"unfinished of another layout", unfinished, other, WriterOptions{Resume: true, Identity: "one"}, Exists, []string{"out.partial", "another recipe"}},
		{"staging is not ours", func(dir string) {
			os.MkdirAll(filepath.Join(dir, "out.partial", "x"), 0o755)
		}, nil, WriterOptions{Force: true}, Exists, []string{"out.partial", "in the way"}},
		{"staging is a file", func(dir string) { os.WriteFile(filepath.Join(dir, "out.partial"), nil, 0o644) }, nil, WriterOptions{Force: true, Resume: true}, Exists, []string{"out.partial", "in the way"}},
		{"what is put aside is not ours", func(dir string) {
			model(dir)
			os.Mkdir(filepath.Join(dir, "out.partial.old"), 0o755)
		}, nil, WriterOptions{Force: true}, Exists, []string{"out.partial.old", "in the way"}},
		{"no space", func(string) {}, petabyte, WriterOptions{}, NoSpace, []string{"out", "bytes free", fmt.Sprint(petabyte.TotalBytes)}},
		{"no space for the rest", func(string) {}, nil, WriterOptions{Extra: 1 << 50}, NoSpace, []string{"out", "bytes free"}},
		{"no space, force", unfinished, petabyte, WriterOptions{Force: true}, NoSpace, []string{"out", "bytes free"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			c.before(dir)
			if strings.Contains(c.name, "link") {
				if _, err := os.Lstat("out"); err != nil {
					t.Skip("no symbolic links here")
				}
			}
			names, tree := listing(t, dir), readTreeNoLinks(t, dir)
			layout := c.layout
			if layout == nil {
				layout = s.layout
			}
			refused := Check("out", layout, c.opts)
			w, err := Create("out", layout, c.opts)
			if err == nil {
				w.Abort(false)
			}
			wantError(t, err, c.kind, c.says...)
			// Only what takes the journal to know is not refused at once.
			if !strings.Contains(c.name, "of another") && !strings.Contains(c.name, "put aside") {
				wantError(t, refused, c.kind, c.says...)
			} else if refused != nil {
				t.Error(refused)
			}
			if got := listing(t, dir); !slices.Equal(got, names) {
				t.Errorf("%v was there, now %v", names, got)
			}
			if !maps.Equal(readTreeNoLinks(t, dir), tree) {
				t.Error("a refusal changed files")
			}
		})
	}
}

// readTreeNoLinks is readTree, but takes symbolic links for what they are.
func readTreeNoLinks(t *testing.T, dir string) map[string]string {
	t.Helper()
	for _, name := range listing(t, dir) {
		if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.Mode()&os.ModeSymlink != 0 {
			return nil
		}
	}
	return readTree(t, dir)
}

func TestForceRefusesWorkingDirectory(t *testing.T) {
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.MkdirAll(filepath.Join(out, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "config.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(out, "sub"))
	for _, path := range []string{out, ".."} {
		_, err := Create(path, s.layout, WriterOptions{Force: true})
		wantError(t, err, Exists, out, "working directory")
	}
	if got := listing(t, dir); !slices.Equal(got, []string{"out"}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestLocked(t *testing.T) {
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	w, err := Create(out, s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range []WriterOptions{{}, {Resume: true}, {Force: true}} {
		_, err := Create(out, s.layout, opts)
		wantError(t, err, Exists, "another process")
		wantError(t, Check(out, s.layout, opts), Exists, "another process")
	}
	if _, err := s.run(w, inOrder); err != nil {
		t.Fatal("the writer that holds the lock:", err)
	}
	if !maps.Equal(readTree(t, out), s.finished(t)) {
		t.Error("other files")
	}
}

func TestForceReplacesAtCommit(t *testing.T) {
	s := newScenario(t)
	want := s.finished(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "config.json"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := readTree(t, out)
	for _, keep := range []bool{false, true} {
		w, err := Create(out, s.layout, WriterOptions{Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteTensor("norm", s.values["norm"]); err != nil {
			t.Fatal(err)
		}
		if err := w.Abort(keep); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(readTree(t, out), old) {
			t.Fatal("the old output changed before Commit")
		}
	}
	w, err := Create(out, s.layout, WriterOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(w, inOrder); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(readTree(t, out), want) {
		t.Error("other files than without an old output")
	}
	if got := listing(t, dir); !slices.Equal(got, []string{"out"}) {
		t.Errorf("left behind: %v", got)
	}
}

// A Commit whose last rename fails puts the old output back.
func TestForceRestores(t *testing.T) {
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "config.json"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := Create(out, s.layout, WriterOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { crashPoint = func(string) {} }()
	crashPoint = func(point string) {
		if point == "aside" {
			if err := os.Rename(out+".partial", out+".stolen"); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := s.run(w, inOrder); err == nil {
		t.Fatal("Commit without a staging folder")
	}
	if got := readTree(t, out); !maps.Equal(got, map[string]string{"config.json": "old"}) {
		t.Errorf("the old output is now %v", got)
	}
	if err := w.Abort(false); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); !slices.Equal(got, []string{"out", "out.stolen"}) {
		t.Errorf("left behind: %v", got)
	}
}

// An output that appears while we write is not replaced without Force.
func TestCommitFindsOutput(t *testing.T) {
	s := newScenario(t)
	out := filepath.Join(t.TempDir(), "out")
	w, err := Create(out, s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = s.run(w, inOrder)
	wantError(t, err, Exists, "out")
	if err := w.Abort(true); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	w, err = Create(out, s.layout, WriterOptions{Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	if did, err := s.run(w, inOrder); err != nil || len(did) != 0 {
		t.Fatalf("did %v again: %v", did, err)
	}
	if !maps.Equal(readTree(t, out), s.finished(t)) {
		t.Error("other files")
	}
}

func TestParents(t *testing.T) {
	s := newScenario(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "a", "b", "out")
	w, err := Create(out, s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(false); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	petabyte, err := PlanLayout([]Spec{{"a", F32, []int{1 << 24, 1 << 24}}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Create(out, petabyte, WriterOptions{})
	wantError(t, err, NoSpace, "out")
	if got := listing(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	w, err = Create(out, s.layout, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(w, inOrder); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(readTree(t, out), s.finished(t)) {
		t.Error("other files")
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(filepath.Join(dir, "file", "out"), s.layout, WriterOptions{}); err == nil {
		t.Error("created a folder below a file")
	}
}
