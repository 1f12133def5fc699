package vec

import (
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

var exhaustive = flag.Bool("exhaustive", false, "test Exp on all float32, which takes minutes")

// eachLevel runs a test on all levels that this machine supports.
func eachLevel(t *testing.T, f func(t *testing.T)) {
	defer func(l isa.Level) { level = l }(level)
	for _, level = range isa.Supported() {
		t.Run(level.String(), f)
	}
}

// withPortable returns the result of f on the portable kernels.
func withPortable[T any](f func() T) T {
	defer func(l isa.Level) { level = l }(level)
	level = isa.Portable
	return f()
}

// ulp is the distance of float32 numbers around x, which is not below that of the
// subnormal ones.
func ulp(x float64) float64 {
	_, e := math.Frexp(x)
	return math.Ldexp(1, max(e-24, -149))
}

// same compares bits, except those of NaN.
func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func sameSlices(a, b []float32) error {
	for i := range a {
		if !same(a[i], b[i]) {
			return fmt.Errorf("element %d is %v (%#08x), want %v (%#08x)", i, a[i], math.Float32bits(a[i]), b[i], math.Float32bits(b[i]))
		}
	}
	return nil
}

// awkward holds the values at which something changes.
func awkward() []float32 {
	inf := float32(math.Inf(1))
	v := []float32{0, float32(math.Copysign(0, -1)), 1, -1, inf, -inf, float32(math.NaN()), -float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32}
	for _, x := range []float32{88.722839, 88.722832, 89, 88.029694, -87.336540, -87.336548, -87, -103.97208, -103.972084, -103.27893, -104, -110, 0.34657359, -0.34657359, 17.328680} {
		v = append(v, x, math.Nextafter32(x, inf), math.Nextafter32(x, -inf))
	}
	return v
}

func TestExp(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		step := uint32(4093)
		if *exhaustive {
			step = 1
		}
		const n = 1 << 12
		src, dst := make([]float32, n), make([]float32, n)
		var worst, worstSub float64
		var at, atSub float32
		check := func(src []float32) {
			Exp(dst[:len(src)], src)
			for i, x := range src {
				got, want := float64(dst[i]), math.Exp(float64(x))
				switch {
				case x != x:
					if got == got {
						t.Fatalf("exp(NaN) = %v", got)
					}
				case want > math.MaxFloat32*(1+0x1p-25):
					if !math.IsInf(got, 1) {
						t.Fatalf("exp(%v) = %v, want +Inf", x, got)
					}
				default:
					e := math.Abs(got-want) / ulp(want)
					if want < 0x1p-126 {
						if e > worstSub {
							worstSub, atSub = e, x
						}
					} else if e > worst {
						worst, at = e, x
					}
				}
			}
		}
		check(awkward())
		for b := uint64(0); b < 1<<32; {
			k := 0
			for ; k < n && b < 1<<32; k++ {
				src[k] = math.Float32frombits(uint32(b))
				b += uint64(step)
			}
			check(src[:k])
		}
		t.Logf("largest error %.4f ulp at %v, %.4f ulp at %v where subnormal", worst, at, worstSub, atSub)
		if worst > 1.01 || worstSub > 0.76 {
			t.Errorf("error %.4f ulp at %v (bound 1.01), %.4f ulp at %v (bound 0.76 where subnormal)", worst, at, worstSub, atSub)
		}
	})
}

// lengths are on both sides of the blocks.
var lengths = []int{0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 130, 576, 1000}

// values returns n random numbers of magnitudes up to and beyond those that occur,
// with some awkward ones.
func values(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	a := awkward()
	for i := range v {
		switch rng.IntN(12) {
		case 0:
			v[i] = a[rng.IntN(len(a))]
		case 1:
			v[i] = math.Float32frombits(rng.Uint32())
		case 2:
			v[i] = float32(rng.NormFloat64() * 60)
		default:
			v[i] = float32(rng.NormFloat64() * 3)
		}
	}
	return v
}

// plain returns n random numbers without special ones.
func plain(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64() * 3)
	}
	return v
}

// TestPortable checks all assembly kernels against the portable ones, to the bit.
func TestPortable(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, n := range lengths {
			for round := range 20 {
				x, y, z := values(rng, n), values(rng, n), values(rng, n)
				if round%2 == 0 {
					x, y, z = plain(rng, n), plain(rng, n), plain(rng, n)
				}
				if err := comparePortable(x, y, z, float32(rng.NormFloat64())); err != nil {
					t.Fatalf("n %d: %v", n, err)
				}
			}
		}
	})
}

func comparePortable(x, y, z []float32, a float32) error {
	n := len(x)
	for _, f := range []struct {
		name string
		run  func() []float32
	}{
		{"Exp", func() []float32 { d := make([]float32, n); Exp(d, x); return d }},
		{"Exp in place", func() []float32 { d := slices.Clone(x); Exp(d, d); return d }},
		{"ExpSum", func() []float32 { d := make([]float32, n); s := ExpSum(d, x, a); return append(d, s) }},
		{"ExpSum(-Inf)", func() []float32 { d := make([]float32, n); s := ExpSum(d, x, negInf); return append(d, s) }},
		{"Softmax", func() []float32 { d := slices.Clone(x); Softmax(d); return d }},
		{"SiLUMul", func() []float32 { d := make([]float32, n); SiLUMul(d, x, y); return d }},
		{"SiLUMul in place", func() []float32 { d := slices.Clone(x); SiLUMul(d, d, y); return d }},
		{"Dot", func() []float32 { return []float32{Dot(x, y)} }},
		{"SumSquares", func() []float32 { return []float32{SumSquares(x)} }},
		{"DotF64", func() []float32 {
			s := DotF64(x, y)
			return []float32{float32(s), float32(s - float64(float32(s)))}
		}},
		{"Axpy", func() []float32 { d := slices.Clone(z); Axpy(a, x, d); return d }},
		{"Scale", func() []float32 { d := slices.Clone(x); Scale(a, d); return d }},
		{"ScaleMul", func() []float32 { d := make([]float32, n); ScaleMul(d, x, a, y); return d }},
		{"Max", func() []float32 { return []float32{Max(x)} }},
		{"WidenBF16", func() []float32 {
			d, s := make([]float32, n), make([]uint16, n)
			for i, v := range x {
				s[i] = uint16(math.Float32bits(v) >> 16)
			}
			WidenBF16(d, s)
			return d
		}},
		{"NarrowBF16", func() []float32 {
			d, s := make([]float32, n), make([]uint16, n)
			if !NarrowBF16(s, x) {
				return nil
			}
			WidenBF16(d, s)
			return d
		}},
	} {
		if err := sameSlices(f.run(), withPortable(f.run)); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func FuzzPortable(f *testing.F) {
	f.Add(uint16(100), uint64(1), float32(0.5))
	f.Fuzz(func(t *testing.T, n uint16, seed uint64, a float32) {
		rng := rand.New(rand.NewPCG(seed, 3))
		k := int(n % 300)
		x, y, z := values(rng, k), values(rng, k), values(rng, k)
		defer func(l isa.Level) { level = l }(level)
		for _, level = range isa.Supported()[1:] {
			if err := comparePortable(x, y, z, a); err != nil {
				t.Fatalf("%v, n %d: %v", level, k, err)
			}
		}
	})
}

// TestFMA checks the rounding of the portable fused product against arithmetic of
// arbitrary precision.
func TestFMA(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200_000 {
		x, y := math.Float32frombits(rng.Uint32()), math.Float32frombits(rng.Uint32())
		// Mostly of the magnitude of the product, or half an ulp of it.
		z := x * y * float32(math.Ldexp(rng.Float64()-0.5, rng.IntN(60)-30))
		if rng.IntN(4) == 0 {
			z = math.Float32frombits(rng.Uint32())
		}
		if rng.IntN(4) == 0 { // ties
			x, y = float32(1+rng.IntN(1<<12)), float32(math.Ldexp(float64(1+rng.IntN(1<<12)), -rng.IntN(26)))
			z = float32(rng.IntN(1<<24)) * float32(math.Ldexp(1, -rng.IntN(3)))
		}
		if x != x || y != y || z != z || math.IsInf(float64(x*y)+float64(z), 0) || math.IsInf(float64(x)*float64(y), 0) || math.IsInf(float64(z), 0) {
			continue
		}
		got := fma(x, y, z)
		p := new(big.Float).SetPrec(2000).SetFloat64(float64(x))
		p.Mul(p, new(big.Float).SetFloat64(float64(y)))
		p.Add(p, new(big.Float).SetFloat64(float64(z)))
		if want, _ := p.Float32(); got != want {
			t.Fatalf("fma(%v, %v, %v) = %v, want %v", x, y, z, got, want)
		}
	}
}

// TestFMATies has sums that lie so close to the midpoint of two float32 that
// rounding to float64 first makes them the midpoint.
func TestFMATies(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	below := [2]float32{0.5 * (1 + 0x1p-23), 1 - 0x1p-23}           // product 1/2 - 2^-47
	above := [2]float32{0.5 * (1 + 0x1p-12), 1 - 0x1p-12 + 0x1p-24} // product 1/2 + 2^-37
	for range 1000 {
		z := float32(1<<23 + rng.IntN(1<<23)) // odd and even, one apart
		for _, sign := range []float32{1, -1} {
			for _, signZ := range []float32{1, -1} {
				for _, f := range [][2]float32{below, above} {
					for _, scale := range []float32{1, 0x1p-60} {
						x, y, z := sign*f[0]*scale*scale, f[1], signZ*z*scale*scale
						p := new(big.Float).SetPrec(2000).SetFloat64(float64(x))
						p.Mul(p, big.NewFloat(float64(y)))
						p.Add(p, big.NewFloat(float64(z)))
						if got, want := fma(x, y, z), float32Of(p); got != want {
							t.Fatalf("fma(%v, %v, %v) = %v, want %v", x, y, z, got, want)
						}
					}
				}
			}
		}
	}
}

func float32Of(f *big.Float) float32 { v, _ := f.Float32(); return v }

func TestExpSum(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 8))
		for _, n := range lengths {
			x, d, e := plain(rng, n), make([]float32, n), make([]float32, n)
			got := ExpSum(d, x, 1.5)
			var want float64
			for i := range x {
				e[i] = x[i] - 1.5
			}
			Exp(e, e)
			for _, v := range e {
				want += float64(v)
			}
			if err := sameSlices(d, e); err != nil {
				t.Fatalf("n %d: %v", n, err)
			}
			if math.Abs(float64(got)-want) > want*0x1p-24*float64(n/16+5) {
				t.Fatalf("n %d: sum %v, want %v", n, got, want)
			}
		}
	})
}

func TestSoftmax(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(9, 10))
		for _, n := range lengths[1:] {
			x := plain(rng, n)
			for i := range x {
				x[i] = x[i]*20 + 300
				if i%3 == 1 {
					x[i] = -inf
				}
			}
			top := float64(Max(x))
			var sum float64
			for _, v := range x {
				sum += math.Exp(float64(v) - top)
			}
			got := slices.Clone(x)
			Softmax(got)
			for i, v := range x {
				// The difference to the maximum is rounded to 2^-24 of itself.
				diff := math.Abs(float64(v) - top)
				want := math.Exp(float64(v)-top) / sum
				if v == -inf {
					diff = 0
				}
				if math.Abs(float64(got[i])-want) > want*0x1p-24*(diff+float64(n)/16+8)+0x1p-148 {
					t.Fatalf("n %d: element %d is %v, want %v", n, i, got[i], want)
				}
			}
		}
		for _, tt := range []struct{ in, want []float32 }{
			{[]float32{}, []float32{}},
			{[]float32{5}, []float32{1}},
			{[]float32{-inf, -inf, -inf}, []float32{0, 0, 0}},
			{[]float32{-inf, 7, -inf, 7}, []float32{0, 0.5, 0, 0.5}},
			{[]float32{1, nan, 2}, []float32{nan, nan, nan}},
			{[]float32{-inf, nan}, []float32{nan, nan}},
			{[]float32{inf, 0}, []float32{nan, nan}},
			{[]float32{-math.MaxFloat32, math.MaxFloat32}, []float32{0, 1}},
		} {
			got := slices.Clone(tt.in)
			Softmax(got)
			if err := sameSlices(got, tt.want); err != nil {
				t.Errorf("Softmax(%v): %v", tt.in, err)
			}
		}
	})
}

func TestSiLUMul(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		const n = 1 << 10
		g, u, d := make([]float32, n), make([]float32, n), make([]float32, n)
		rng := rand.New(rand.NewPCG(11, 12))
		worst, at := 0.0, float32(0)
		for b := uint64(0); b < 1<<32; {
			for i := range g {
				g[i], u[i] = math.Float32frombits(uint32(b)), 1+float32(rng.Float64())
				b += 2039
			}
			SiLUMul(d, g, u)
			for i, x := range g {
				if x != x || math.IsInf(float64(x), -1) {
					if d[i] == d[i] {
						t.Fatalf("SiLU(%v) = %v, want NaN", x, d[i])
					}
					continue
				}
				silu := float64(x) / (1 + math.Exp(-float64(x)))
				want := silu * float64(u[i])
				if math.Abs(want) > math.MaxFloat32 {
					if !math.IsInf(float64(d[i]), 1) {
						t.Fatalf("SiLU(%v)*%v = %v, want +Inf", x, u[i], d[i])
					}
					continue
				}
				e := math.Abs(float64(d[i])-want) / ulp(want)
				if math.Abs(float64(x)) < 87 && math.Abs(want) >= 0x1p-126 {
					if e > worst {
						worst, at = e, x
					}
				} else if math.Abs(float64(d[i])-want) > 4*ulp(want)+2e-43 {
					t.Fatalf("SiLU(%v)*%v = %v, want %v", x, u[i], d[i], want)
				}
			}
		}
		t.Logf("largest error %.3f ulp at %v", worst, at)
		if worst > 4 {
			t.Errorf("error %.3f ulp at %v, bound 4", worst, at)
		}
	})
}

// TestReductions checks the bounds of the sums against exact arithmetic.
func TestReductions(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(13, 14))
		for _, n := range lengths {
			x, y := plain(rng, n), plain(rng, n)
			exact, scale := new(big.Float).SetPrec(300), 0.0
			for i := range x {
				p := float64(x[i]) * float64(y[i])
				exact.Add(exact, big.NewFloat(p))
				scale += math.Abs(p)
			}
			want, _ := exact.Float64()
			if got := float64(Dot(x, y)); math.Abs(got-want) > scale*0x1p-24*float64(n/64+8) {
				t.Errorf("n %d: Dot = %v, want %v", n, got, want)
			}
			if got := DotF64(x, y); math.Abs(got-want) > scale*0x1p-53*float64(n/16+6) {
				t.Errorf("n %d: DotF64 = %v, want %v", n, got, want)
			}
			if got, want := Max(x), slices.Max(append([]float32{negInf}, x...)); got != want {
				t.Errorf("n %d: Max = %v, want %v", n, got, want)
			}
		}
		nan := float32(math.NaN())
		for _, n := range []int{3, 16, 40} {
			x := make([]float32, n)
			for i := range x {
				x[i] = nan
			}
			if got := Max(x); got != negInf {
				t.Errorf("Max of NaN = %v, want -Inf", got)
			}
			x[n-1], x[0] = -3, float32(math.Copysign(0, -1))
			if got := Max(x); got != 0 || math.Signbit(float64(got)) {
				t.Errorf("Max = %v, want 0", got)
			}
		}
	})
}

// TestBounds checks that nothing beyond the slices is written.
func TestBounds(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, n := range lengths {
			d := make([]float32, n+2)
			d[0], d[n+1] = -7, -7
			x := make([]float32, n)
			h := make([]uint16, n)
			in := d[1 : n+1 : n+1]
			Exp(in, x)
			ExpSum(in, x, 0)
			Softmax(in)
			SiLUMul(in, x, x)
			Axpy(1, x, in)
			Scale(2, in)
			ScaleMul(in, x, 2, x)
			WidenBF16(in, h)
			rounded := make([]uint16, n+1)
			rounded[n] = 7
			NarrowBF16(rounded[:n:n], x)
			if rounded[n] != 7 {
				t.Fatalf("n %d: wrote outside", n)
			}
			if d[0] != -7 || d[n+1] != -7 {
				t.Fatalf("n %d: wrote outside", n)
			}
		}
	})
}

func TestPanics(t *testing.T) {
	two, three := make([]float32, 2), make([]float32, 3)
	for name, f := range map[string]func(){
		"Exp":        func() { Exp(two, three) },
		"ExpSum":     func() { ExpSum(two, three, 0) },
		"SiLUMul":    func() { SiLUMul(two, two, three) },
		"Dot":        func() { Dot(two, three) },
		"DotF64":     func() { DotF64(two, three) },
		"Axpy":       func() { Axpy(1, two, three) },
		"ScaleMul":   func() { ScaleMul(two, two, 1, three) },
		"WidenBF16":  func() { WidenBF16(two, make([]uint16, 3)) },
		"NarrowBF16": func() { NarrowBF16(make([]uint16, 2), three) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s took slices of different length", name)
				}
			}()
			f()
		}()
	}
}

func BenchmarkVec(b *testing.B) {
	const n = 4096
	x, y, d := plain(rand.New(rand.NewPCG(1, 1)), n), plain(rand.New(rand.NewPCG(1, 2)), n), make([]float32, n)
	h := make([]uint16, n)
	defer func(l isa.Level) { level = l }(level)
	for _, level = range isa.Supported() {
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"Exp", func() { Exp(d, x) }},
			{"ExpSum", func() { ExpSum(d, x, 1) }},
			{"Softmax", func() { copy(d, x); Softmax(d) }},
			{"SiLUMul", func() { SiLUMul(d, x, y) }},
			{"Dot", func() { Dot(x, y) }},
			{"DotF64", func() { DotF64(x, y) }},
			{"Axpy", func() { Axpy(1e-9, x, d) }},
			{"ScaleMul", func() { ScaleMul(d, x, 2, y) }},
			{"Max", func() { Max(x) }},
			{"WidenBF16", func() { WidenBF16(d, h) }},
			{"NarrowBF16", func() { NarrowBF16(h, x) }},
		} {
			b.Run(f.name+"/"+level.String(), func(b *testing.B) {
				for b.Loop() {
					f.run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
			})
		}
	}
}

// TestNarrowBF16: every value becomes the nearest of the bfloat16 around it, the even one if it is half way, as float64, in
// which all of these are exact, says; and one NaN or infinity anywhere is found.
func TestNarrowBF16(t *testing.T) {
	value := func(h uint32) float64 { return float64(math.Float32frombits(h << 16)) }
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(9, 9))
		for _, n := range lengths {
			x, got := make([]float32, n), make([]uint16, n)
			for range 50 {
				for i := range x {
					u := rng.Uint32()
					if rng.IntN(2) == 0 {
						u = u&^0xffff | []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff}[rng.IntN(6)]
					}
					if u&0x7f800000 >= 0x7f000000 {
						u &^= 1 << 30 // no NaN or infinity, nor what is next to one
					}
					x[i] = math.Float32frombits(u)
				}
				if !NarrowBF16(got, x) {
					t.Fatalf("n %d: finite values taken for others", n)
				}
				for i, v := range x {
					below := math.Float32bits(v) >> 16 // toward zero
					want := below
					if low, high := math.Abs(float64(v)-value(below)), math.Abs(float64(v)-value(below+1)); high < low || high == low && below&1 == 1 {
						want = below + 1
					}
					if uint32(got[i]) != want {
						t.Fatalf("%g (%#x) became %#x, want %#x", v, math.Float32bits(v), got[i], want)
					}
				}
				if n > 0 {
					bad := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.Float32frombits(0x7f800001)}
					x[rng.IntN(n)] = bad[rng.IntN(len(bad))]
					if NarrowBF16(got, x) {
						t.Fatalf("n %d: %v taken for finite", n, x)
					}
				}
			}
		}
	})
}
