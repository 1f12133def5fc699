package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"
)

// format describes a 16-bit float by its fields; the oracle knows nothing else.
type format struct {
	dtype        DType
	mantissaBits int
	bias         int
	widen        func([]float32, []byte)
	narrow       func([]byte, []float32)
}

var formats = []format{
	{F16, 10, 15, F16ToFloat32, Float32ToF16},
	{BF16, 7, 127, BF16ToFloat32, Float32ToBF16},
}

func (f format) exponentMax() int { return 1<<(15-f.mantissaBits) - 1 }

// value is the number that code stands for, by the definition of the format.
func (f format) value(code uint16) float64 {
	mantissa := int(code) & (1<<f.mantissaBits - 1)
	exponent := int(code) >> f.mantissaBits & f.exponentMax()
	var v float64
	switch exponent {
	case f.exponentMax():
		v = math.Inf(1)
		if mantissa != 0 {
			return math.NaN()
		}
	case 0:
		v = math.Ldexp(float64(mantissa), 1-f.bias-f.mantissaBits)
	default:
		v = math.Ldexp(float64(mantissa+1<<f.mantissaBits), exponent-f.bias-f.mantissaBits)
	}
	if code&0x8000 != 0 {
		v = math.Copysign(v, -1)
	}
	return v
}

// nearest finds the code for x by searching all values; table holds those of the codes from 0 to infinity's, where
// infinity counts as the value that would follow the largest.
func (f format) nearest(table []float64, x float32) uint16 {
	a := math.Abs(float64(x))
	hi := sort.SearchFloat64s(table, a)
	code := hi
	switch {
	case hi == len(table):
		code = len(table) - 1
	case hi > 0:
		below, above := a-table[hi-1], table[hi]-a
		if below < above || below == above && hi%2 == 1 {
			code = hi - 1
		}
	}
	if math.Signbit(float64(x)) {
		code |= 0x8000
	}
	return uint16(code)
}

func (f format) table() []float64 {
	infinity := f.exponentMax() << f.mantissaBits
	table := make([]float64, infinity+1)
	for code := range table {
		table[code] = f.value(uint16(code))
	}
	table[infinity] = math.Ldexp(1, f.exponentMax()-f.bias)
	return table
}

func TestWidenAllValues(t *testing.T) {
	for _, f := range formats {
		src := make([]byte, 2<<16)
		for code := range 1 << 16 {
			binary.LittleEndian.PutUint16(src[2*code:], uint16(code))
		}
		dst := make([]float32, 1<<16)
		f.widen(dst, src)
		back := make([]byte, len(src))
		f.narrow(back, dst)
		for code, got := range dst {
			want := f.value(uint16(code))
			if math.IsNaN(want) {
				again := binary.LittleEndian.Uint16(back[2*code:])
				if got == got || math.Signbit(float64(got)) != (code&0x8000 != 0) {
					t.Fatalf("%v %#04x: got %v, want a NaN of the same sign", f.dtype, code, got)
				}
				if quiet := uint16(code | 1<<(f.mantissaBits-1)); again != quiet {
					t.Fatalf("%v %#04x: NaN came back as %#04x, want %#04x", f.dtype, code, again, quiet)
				}
				continue
			}
			if float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) {
				t.Fatalf("%v %#04x: got %v, want %v", f.dtype, code, got, want)
			}
			if again := binary.LittleEndian.Uint16(back[2*code:]); again != uint16(code) {
				t.Fatalf("%v %#04x: came back as %#04x", f.dtype, code, again)
			}
		}
	}
}

func TestNarrowRounding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, f := range formats {
		table := f.table()
		var xs []float32
		add := func(x float32) { xs = append(xs, x, -x) }
		for code := 1; code < len(table); code++ {
			tie := float32((table[code-1] + table[code]) / 2) // exact: one more bit than the format has
			add(tie)
			add(math.Nextafter32(tie, 0))
			add(math.Nextafter32(tie, math.MaxFloat32))
			add(float32(table[code-1]))
		}
		add(math.SmallestNonzeroFloat32)
		add(math.MaxFloat32)
		add(float32(math.Inf(1)))
		for range 300_000 {
			x := math.Float32frombits(rng.Uint32())
			if x == x {
				add(x)
			}
		}
		dst := make([]byte, 2*len(xs))
		f.narrow(dst, xs)
		for i, x := range xs {
			got, want := binary.LittleEndian.Uint16(dst[2*i:]), f.nearest(table, x)
			if got != want {
				t.Fatalf("%v of %v (%#08x): got %#04x, want %#04x", f.dtype, x, math.Float32bits(x), got, want)
			}
		}
	}
}

// A NaN whose payload lies in the dropped bits only must not become an infinity.
func TestNarrowNaN(t *testing.T) {
	for _, f := range formats {
		for _, bits := range []uint32{0x7f800001, 0xff800001, 0x7fffffff, 0x7fc00000, 0xffc00000, 0x7f807fff} {
			var b [2]byte
			f.narrow(b[:], []float32{math.Float32frombits(bits)})
			code := binary.LittleEndian.Uint16(b[:])
			if !math.IsNaN(f.value(code)) || code>>15 != uint16(bits>>31) {
				t.Errorf("%v of NaN %#08x: got %#04x", f.dtype, bits, code)
			}
		}
	}
}

func TestFloat32Bytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	src := make([]byte, 4*1001)
	for i := range src {
		src[i] = byte(rng.Uint32())
	}
	x := make([]float32, 1001)
	F32ToFloat32(x, src)
	for i := range x {
		want := uint32(src[4*i]) | uint32(src[4*i+1])<<8 | uint32(src[4*i+2])<<16 | uint32(src[4*i+3])<<24
		if got := math.Float32bits(x[i]); got != want {
			t.Fatalf("element %d: got %#08x, want %#08x", i, got, want)
		}
	}
	dst := make([]byte, len(src))
	Float32ToF32(dst, x)
	if string(dst) != string(src) {
		t.Fatal("float32 values did not come back as they were")
	}
}

// The loops that take several elements at a time must agree with themselves on any length and alignment, and must touch
// nothing beyond it.
func TestConversionLengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, d := range []DType{F32, F16, BF16} {
		size := d.Size()
		for n := range 40 {
			for shift := range 3 {
				raw := make([]byte, shift+n*size+5)
				values := make([]float32, n)
				for i := range values {
					values[i] = float32(rng.NormFloat64())
					narrow(d, raw[shift+i*size:], values[i:i+1])
				}
				got := make([]float32, n+1)
				got[n] = 12345
				widen(d, got[:n], raw[shift:shift+n*size])
				if got[n] != 12345 {
					t.Fatalf("%v: %d elements: wrote behind the end", d, n)
				}
				again := make([]byte, n*size+1)
				again[n*size] = 77
				narrow(d, again, got[:n])
				if again[n*size] != 77 || string(again[:n*size]) != string(raw[shift:shift+n*size]) {
					t.Fatalf("%v: %d elements: came back different", d, n)
				}
			}
		}
		for _, f := range []func(){
			func() { widen(d, make([]float32, 3), make([]byte, 3*size-1)) },
			func() { narrow(d, make([]byte, 3*size-1), make([]float32, 3)) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%v: short bytes did not panic", d)
					}
				}()
				f()
			}()
		}
	}
}

func TestFirstNonFinite(t *testing.T) {
	for _, f := range formats {
		for code := range 1 << 16 {
			v := f.value(uint16(code))
			want := -1
			if math.IsNaN(v) || math.IsInf(v, 0) {
				want = 21 // in the words before the tail
			}
			b := make([]byte, 2*37)
			for i := range 37 {
				binary.LittleEndian.PutUint16(b[2*i:], 0x8000|uint16(i))
			}
			binary.LittleEndian.PutUint16(b[2*21:], uint16(code))
			if got := firstNonFinite(f.dtype, b); got != want {
				t.Fatalf("%v %#04x: got %d, want %d", f.dtype, code, got, want)
			}
		}
	}
	large := []uint32{math.Float32bits(math.MaxFloat32), math.Float32bits(-math.MaxFloat32), 0x7f000000, 0xff7fffff, 0x80000000, 0x007fffff}
	for _, d := range []DType{F32, F16, BF16} {
		for n := range 70 {
			for at := range n {
				for _, bad := range []uint32{0x7f800000, 0xff800000, 0x7f800001, 0xffffffff} {
					b := make([]byte, n*d.Size())
					for i := range n {
						put := large[i%len(large)]
						if i == at || i == n-1 {
							put = bad
						}
						if d == F16 && put != bad {
							put = 0x7bff_0000
						}
						if d == F32 {
							binary.LittleEndian.PutUint32(b[4*i:], put)
						} else {
							binary.LittleEndian.PutUint16(b[2*i:], uint16(put>>16))
						}
					}
					if got := firstNonFinite(d, b); got != at {
						t.Fatalf("%v: got %d, want %d of %d", d, got, at, n)
					}
				}
			}
		}
	}
}

func TestParseDType(t *testing.T) {
	for _, d := range []DType{F32, F16, BF16} {
		for _, s := range []string{d.String(), fmt.Sprintf("%c%s", d.String()[0]|0x20, d.String()[1:])} {
			if got, err := ParseDType(s); got != d || err != nil {
				t.Errorf("ParseDType(%q) = %v, %v", s, got, err)
			}
		}
	}
	for _, s := range []string{"", "keep", "f64", "I64", "F8_E4M3", "bf16 ", "DType(0)"} {
		if got, err := ParseDType(s); err == nil {
			t.Errorf("ParseDType(%q) = %v, want an error", s, got)
		}
	}
	if F32.Size() != 4 || F16.Size() != 2 || BF16.Size() != 2 || DType(0).Size() != 0 || u8.Size() != 0 {
		t.Error("wrong sizes")
	}
	if DType(0).IsFloat() || f64.IsFloat() {
		t.Error("types that are not converted count as floats")
	}
}

func benchmarkElements(b *testing.B, d DType, f func(x []float32, raw []byte)) {
	const n = 1 << 16
	x, raw := make([]float32, n), make([]byte, n*d.Size())
	for i := range x {
		x[i] = float32(i-n/2) / 1000
	}
	narrow(d, raw, x)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		f(x, raw)
	}
}

func BenchmarkConvert(b *testing.B) {
	for _, d := range []DType{BF16, F16, F32} {
		b.Run("widen/"+d.String(), func(b *testing.B) {
			benchmarkElements(b, d, func(x []float32, raw []byte) { widen(d, x, raw) })
		})
		b.Run("narrow/"+d.String(), func(b *testing.B) {
			benchmarkElements(b, d, func(x []float32, raw []byte) { narrow(d, raw, x) })
		})
		b.Run("finite/"+d.String(), func(b *testing.B) {
			benchmarkElements(b, d, func(_ []float32, raw []byte) { firstNonFinite(d, raw) })
		})
	}
}
