package gguf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// rows is a tensor's Values in pieces of n rows.
func rows(values []float32, width, n int) func(func([]float32) error) error {
	return func(yield func([]float32) error) error {
		for piece := range slices.Chunk(values, width*n) {
			if err := yield(piece); err != nil {
				return err
			}
		}
		return nil
	}
}

func ramp(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i) - 10
	}
	return x
}

func write(t *testing.T, l *Layout) []byte {
	t.Helper()
	var b bytes.Buffer
	last := int64(0)
	err := l.Write(&b, func(written int64) error {
		if written <= last || written != int64(b.Len()) {
			t.Errorf("told of %d bytes with %d written", written, b.Len())
		}
		last = written
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != l.Size || last != l.Size {
		t.Errorf("%d bytes, the last told %d, planned %d", b.Len(), last, l.Size)
	}
	return b.Bytes()
}

func TestFileHoldsWhatWasPlanned(t *testing.T) {
	metadata := []KV{
		{"general.architecture", "deepseek2"}, {"a.u", uint32(7)}, {"a.i", int32(-7)}, {"a.f", float32(1e-5)}, {"a.yes", true}, {"a.no", false},
		{"a.texts", []string{"", "\u2581x", "a b"}}, {"a.ints", []int32{-1, 2}}, {"a.floats", []float32{0.5, -3}}, {"a.none", []string{}},
	}
	three := ramp(3 * 2 * 32)
	tensors := []Tensor{
		{"vector", F32, []int{5}, rows(ramp(5), 5, 1)},
		{"cube", Q8_0, []int{3, 2, 32}, rows(three, 32, 1)},
		{"matrix", BF16, []int{3, 7}, rows(ramp(21), 7, 2)},
		{"half", F16, []int{2, 3}, rows(ramp(6), 3, 2)},
	}
	b := write(t, Plan(metadata, tensors))
	f, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	if f.version != 3 {
		t.Errorf("version %d", f.version)
	}
	want := map[string]any{
		"general.architecture": "deepseek2", "a.u": uint32(7), "a.i": int32(-7), "a.f": float32(1e-5), "a.yes": true, "a.no": false,
		"a.texts": []any{"", "\u2581x", "a b"}, "a.ints": []any{int32(-1), int32(2)}, "a.floats": []any{float32(0.5), float32(-3)}, "a.none": []any{},
	}
	if !reflect.DeepEqual(f.metadata, want) {
		t.Errorf("metadata %v, want %v", f.metadata, want)
	}
	for i, kv := range metadata {
		if f.keys[i] != kv.Key {
			t.Errorf("key %d is %q, want %q", i, f.keys[i], kv.Key)
		}
	}
	dims := [][]uint64{{5}, {32, 2, 3}, {7, 3}, {3, 2}}
	kinds := []uint32{0, 8, 30, 1}
	sizes := []uint64{20, 3 * 2 * 34, 42, 12}
	end := f.tensors[0].offset
	for i, got := range f.tensors {
		if got.name != tensors[i].Name || !slices.Equal(got.dims, dims[i]) || got.kind != kinds[i] {
			t.Errorf("tensor %d: %+v", i, got)
		}
		if got.offset%32 != 0 || got.offset != (end+31)/32*32 {
			t.Errorf("%s at %d, behind data that ends at %d", got.name, got.offset, end)
		}
		for at := end; at < got.offset; at++ {
			if b[at] != 0 {
				t.Errorf("byte %d of the padding is %d", at, b[at])
			}
		}
		end = got.offset + sizes[i]
	}
	if uint64(len(b)) != (end+31)/32*32 {
		t.Errorf("%d bytes with data that ends at %d", len(b), end)
	}
	for i, x := range ramp(21) { // small integers are exact in every type
		if got := math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[int(f.tensors[2].offset)+2*i:])) << 16); got != x {
			t.Errorf("matrix[%d] = %g, want %g", i, got, x)
		}
	}
	for i, x := range ramp(5) {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(b[int(f.tensors[0].offset)+4*i:])); got != x {
			t.Errorf("vector[%d] = %g, want %g", i, got, x)
		}
	}
	// The cube's third row of the first plane pair: its bytes are those of the block by itself.
	block, bad := Q8_0.encode(nil, three[32:64])
	if at := f.tensors[1].offset; bad >= 0 || !bytes.Equal(b[at+34:at+68], block) {
		t.Errorf("second row of the cube: %x, want %x", b[at+34:at+68], block)
	}
}

// TestQ8Reference compares with the bytes that the Python package gguf 0.19, by the authors of the format, makes of the same
// values: ((i*i*37) % 211 - 105) / 64 for i below 32.
func TestQ8Reference(t *testing.T) {
	x := make([]float32, 32)
	for i := range x {
		x[i] = float32(i*i*37%211-105) / 64
	}
	got, ok := appendQ8(nil, x)
	if want := "9d2281ae34154fe3d118bab50ab9c123dff5642e51cea5d6604482190b56fbfa5205"; !ok || hex.EncodeToString(got) != want {
		t.Errorf("%x, want %s", got, want)
	}
}

func TestQ8RoundsHalfAwayFromZero(t *testing.T) {
	x := make([]float32, 32)
	copy(x, []float32{127, 0.5, -0.5, 1.5, -1.5, 2.5, 0.49999997, -126.5})
	got, ok := appendQ8(nil, x)
	if !ok || !bytes.Equal(got[:2], []byte{0x00, 0x3c}) { // 1 in binary16
		t.Fatalf("scale %x", got[:2])
	}
	want := []int8{127, 1, -1, 2, -2, 3, 0, -127}
	for i, q := range want {
		if int8(got[2+i]) != q {
			t.Errorf("%g is %d, want %d", x[i], int8(got[2+i]), q)
		}
	}
}

// TestQ8Definition holds any block to the definition: |x - d*q| is at most half of d, up to the rounding of d itself.
func TestQ8Definition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		x := make([]float32, 32)
		most := 0.0
		for i := range x {
			x[i] = float32(r.NormFloat64() * math.Exp2(float64(r.IntN(20)-10)))
			most = max(most, math.Abs(float64(x[i])))
		}
		b, ok := appendQ8(nil, x)
		if !ok {
			t.Fatal("a scale beyond binary16")
		}
		d := most / 127
		for i := range x {
			if e := math.Abs(float64(x[i]) - d*float64(int8(b[2+i]))); e > d*(0.5+1e-5) {
				t.Fatalf("%g is %d of %g", x[i], int8(b[2+i]), d)
			}
		}
		bits := binary.LittleEndian.Uint16(b)
		stored := math.Ldexp(float64(bits&0x3ff|0x400), int(bits>>10)-25)
		if bits>>10 == 0 {
			stored = math.Ldexp(float64(bits), -24)
		}
		if e := math.Abs(stored - d); e > d/2048*1.0001+math.Exp2(-25) {
			t.Fatalf("scale %g is stored as %g", d, stored)
		}
	}
	zero, ok := appendQ8(nil, make([]float32, 32))
	if !ok || !bytes.Equal(zero, make([]byte, 34)) {
		t.Errorf("zeros: %x", zero)
	}
	tiny := slices.Repeat([]float32{1e-45}, 32)
	if b, ok := appendQ8(nil, tiny); !ok || !bytes.Equal(b, make([]byte, 34)) {
		t.Errorf("the least float32: %x", b)
	}
}

func TestValuesBeyondTheTypeAreErrors(t *testing.T) {
	f32max := float32(math.MaxFloat32)
	for _, c := range []struct {
		kind Type
		x    float32
		ok   bool
	}{
		{F32, f32max, true}, {F32, -f32max, true},
		{F16, 65504, true}, {F16, 65519.996, true}, {F16, 65520, false}, {F16, -65520, false}, {F16, 1e-30, true},
		{BF16, 0x1.fep127, true}, {BF16, 0x1.fefffep127, true}, {BF16, 0x1.ffp127, false}, {BF16, -f32max, false},
		{Q8_0, 65504 * 127, true}, {Q8_0, -65520 * 127, false},
	} {
		x := make([]float32, 64)
		x[40] = c.x
		err := Plan(nil, []Tensor{{"w", c.kind, []int{64}, rows(x, 64, 1)}}).Write(&bytes.Buffer{}, func(int64) error { return nil })
		var e *RangeError
		switch {
		case c.ok && err != nil, !c.ok && !errors.As(err, &e):
			t.Errorf("%g as %s: %v", c.x, c.kind, err)
		case !c.ok && (e.Tensor != "w" || e.Type != c.kind || e.Index != 40 && c.kind != Q8_0 || e.Index != 32 && c.kind == Q8_0):
			t.Errorf("%g as %s: %+v", c.x, c.kind, e)
		}
	}
}

func TestErrorsPassThrough(t *testing.T) {
	wrong := errors.New("wrong")
	one := func() *Layout { return Plan(nil, []Tensor{{"w", F32, []int{2}, rows(ramp(2), 2, 1)}}) }
	failing := Plan(nil, []Tensor{{"w", F32, []int{2}, func(func([]float32) error) error { return wrong }}})
	none := func(int64) error { return nil }
	if err := failing.Write(&bytes.Buffer{}, none); !errors.Is(err, wrong) {
		t.Errorf("of Values: %v", err)
	}
	if err := one().Write(&bytes.Buffer{}, func(int64) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("of done: %v", err)
	}
	for n := range 3 {
		w := &failAfter{n: n, err: wrong}
		if err := one().Write(w, none); !errors.Is(err, wrong) {
			t.Errorf("of write %d: %v", n, err)
		}
	}
}

type failAfter struct {
	n   int
	err error
}

func (w *failAfter) Write(p []byte) (int, error) {
	if w.n--; w.n < 0 {
		return 0, w.err
	}
	return len(p), nil
}

func TestMistakesPanic(t *testing.T) {
	values := rows(ramp(4), 4, 1)
	for name, f := range map[string]func(){
		"key twice":    func() { Plan([]KV{{"a", true}, {"a", false}}, nil) },
		"value":        func() { Plan([]KV{{"a", 1}}, nil) },
		"tensor twice": func() { Plan(nil, []Tensor{{"a", F32, []int{4}, values}, {"a", F32, []int{4}, values}}) },
		"long name":    func() { Plan(nil, []Tensor{{string(make([]byte, 64)), F32, []int{4}, values}}) },
		"no shape":     func() { Plan(nil, []Tensor{{"a", F32, nil, values}}) },
		"five axes":    func() { Plan(nil, []Tensor{{"a", F32, []int{1, 1, 1, 1, 4}, values}}) },
		"short block":  func() { Plan(nil, []Tensor{{"a", Q8_0, []int{4}, values}}) },
		"too few": func() {
			Plan(nil, []Tensor{{"a", F32, []int{2, 4}, values}}).Write(&bytes.Buffer{}, func(int64) error { return nil })
		},
		"part of a row": func() {
			Plan(nil, []Tensor{{"a", F32, []int{3}, values}}).Write(&bytes.Buffer{}, func(int64) error { return nil })
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
