package blas

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

func TestGemmBF16(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		e := engineAt(level, 2)
		rng := rand.New(rand.NewPCG(11, 12))
		for _, s := range shapes(rng) {
			transB := rng.IntN(2) == 1
			alpha, beta := float32(factors[rng.IntN(4)]), float32(factors[rng.IntN(4)])
			br, bc := s.k, s.n
			if transB {
				br, bc = bc, br
			}
			a := newMatrix(s.m, s.k, rng.IntN(3), normal[float32](rng), float32(math.NaN()))
			b := newMatrix(br, bc, rng.IntN(3), bf16(rng), 0x7fc0)
			c := newMatrix(s.m, s.n, rng.IntN(3), normal[float32](rng), canary)
			want, scale := product64(func(v uint16) float64 { return float64(math.Float32frombits(uint32(v) << 16)) }, false, transB, s.m, s.n, s.k, alpha, a, b, beta, c)
			e.SgemmBF16(transB, s.m, s.n, s.k, alpha, a.data, a.ld, b.data, b.ld, beta, c.data, c.ld)
			if err := compare(c, want, scale, s.k); err != nil {
				t.Fatalf("m %d n %d k %d transB %v alpha %v beta %v: %v", s.m, s.n, s.k, transB, alpha, beta, err)
			}
			// Widening beforehand must not change a bit.
			wide := matrix[float32]{b.rows, b.cols, b.ld, make([]float32, len(b.data))}
			for i, v := range b.data {
				wide.data[i] = math.Float32frombits(uint32(v) << 16)
			}
			if s.m <= directMaxRows && !transB {
				continue // multiplied in place, in other blocks
			}
			c1, c2 := newMatrix(s.m, s.n, 0, func() float32 { return 0 }, 0), newMatrix(s.m, s.n, 0, func() float32 { return 0 }, 0)
			e.SgemmBF16(transB, s.m, s.n, s.k, 1, a.data, a.ld, b.data, b.ld, 0, c1.data, c1.ld)
			e.Sgemm(false, transB, s.m, s.n, s.k, 1, a.data, a.ld, wide.data, wide.ld, 0, c2.data, c2.ld)
			if !slices.Equal(c1.data, c2.data) {
				t.Fatalf("m %d n %d k %d transB %v: differs from the product with the widened matrix", s.m, s.n, s.k, transB)
			}
		}
	})
}

// TestUnpacked: rows of A where they lie give the bits that packed ones do.
func TestUnpacked(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		e, packed := engineAt(level, 2), engineAt(level, 2)
		if e.suite.f32.direct == nil {
			t.Skip("no kernels for it")
		}
		packed.suite.f32.direct, packed.suite.f64.direct = nil, nil
		rng := rand.New(rand.NewPCG(21, 22))
		for _, s := range shapes(rng) {
			testUnpacked(t, rng, s, e.Sgemm, packed.Sgemm)
			testUnpacked(t, rng, s, e.Dgemm, packed.Dgemm)
		}
	})
}

func testUnpacked[T float](t *testing.T, rng *rand.Rand, s shape, gemm, packed func(transA, transB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int)) {
	a := newMatrix(s.m, s.k, rng.IntN(3), normal[T](rng), T(math.NaN()))
	b := newMatrix(s.k, s.n, rng.IntN(3), normal[T](rng), T(math.NaN()))
	c := newMatrix(s.m, s.n, rng.IntN(3), normal[T](rng), canary)
	got, want := c.clone(), c.clone()
	gemm(false, false, s.m, s.n, s.k, 0.5, a.data, a.ld, b.data, b.ld, 2, got.data, c.ld)
	packed(false, false, s.m, s.n, s.k, 0.5, a.data, a.ld, b.data, b.ld, 2, want.data, c.ld)
	if !slices.Equal(got.data, want.data) {
		t.Fatalf("%T, m %d n %d k %d: differs from the product with A packed", *new(T), s.m, s.n, s.k)
	}
}

func TestSyrk(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		t.Run("float32", func(t *testing.T) { testSyrk(t, engineAt(level, 2).Ssyrk) })
		t.Run("float64", func(t *testing.T) { testSyrk(t, engineAt(level, 2).Dsyrk) })
	})
}

func testSyrk[T float](t *testing.T, syrk func(trans bool, n, k int, alpha T, a []T, lda int, beta T, c []T, ldc int)) {
	rng := rand.New(rand.NewPCG(13, 14))
	for _, s := range shapes(rng) {
		trans := rng.IntN(2) == 1
		alpha, beta := T(factors[rng.IntN(4)]), T(factors[rng.IntN(4)])
		ar, ac := s.n, s.k
		if trans {
			ar, ac = ac, ar
		}
		a := newMatrix(ar, ac, rng.IntN(3), normal[T](rng), T(math.NaN()))
		c := newMatrix(s.n, s.n, rng.IntN(3), normal[T](rng), canary)
		sym := c.clone()
		for i := range s.n {
			for j := range i {
				sym.data[i*c.ld+j] = sym.data[j*c.ld+i]
			}
		}
		want, scale := product64(func(v T) float64 { return float64(v) }, trans, !trans, s.n, s.n, s.k, alpha, a, a, beta, sym)
		for i := range s.n {
			for j := range i {
				c.data[i*c.ld+j] = T(math.NaN()) // the lower triangle must not be read
			}
		}
		syrk(trans, s.n, s.k, alpha, a.data, a.ld, beta, c.data, c.ld)
		if err := compare(c, want, scale, s.k); err != nil {
			t.Fatalf("trans %v n %d k %d alpha %v beta %v: %v", trans, s.n, s.k, alpha, beta, err)
		}
		for i := range s.n {
			for j := range i {
				if x, y := c.at(i, j, false), c.at(j, i, false); x != y {
					t.Fatalf("trans %v n %d k %d: C[%d,%d] = %v but C[%d,%d] = %v", trans, s.n, s.k, i, j, x, j, i, y)
				}
			}
		}
	}
}

// TestSyrkAcc checks the bound that follows from the definition: float32
// rounding within blocks of accRows rows, float64 beyond.
func TestSyrkAcc(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		e := engineAt(level, 2)
		rng := rand.New(rand.NewPCG(15, 16))
		for _, s := range []shape{{n: 1, k: 1}, {n: 7, k: 0}, {n: 0, k: 7}, {n: 50, k: 511}, {n: 65, k: 512}, {n: 33, k: 513}, {n: 49, k: 1100}} {
			a := newMatrix(s.k, s.n, 2, normal[float32](rng), float32(math.NaN()))
			c := newMatrix(s.n, s.n, 1, func() float64 { return 1e6 }, canary)
			const alpha = 0.1
			before := c.clone()
			e.SsyrkAcc(s.n, s.k, alpha, a.data, a.ld, c.data, c.ld)
			gamma := 513 * 0x1p-24
			exact := level != isa.Portable // the assembly follows modelAcc to the bit
			for i := range s.n {
				for j := range s.n {
					var sum, abs float64
					for p := range s.k {
						v := float64(a.data[p*a.ld+i]) * float64(a.data[p*a.ld+j])
						sum += v
						abs += math.Abs(v)
					}
					want := before.at(i, j, false) + alpha*sum
					if model := modelAcc(s.k, alpha, a, i, j, before.at(min(i, j), max(i, j), false)); exact && c.at(i, j, false) != model {
						t.Fatalf("n %d k %d: C[%d,%d] = %v, want %v to the bit", s.n, s.k, i, j, c.at(i, j, false), model)
					}
					if got := c.at(i, j, false); math.Abs(got-want) > alpha*gamma*abs+1e6*8*0x1p-53 {
						t.Fatalf("n %d k %d: C[%d,%d] = %v, want %v", s.n, s.k, i, j, got, want)
					}
					if c.at(i, j, false) != c.at(j, i, false) {
						t.Fatalf("n %d k %d: not symmetric at %d,%d", s.n, s.k, i, j)
					}
				}
			}
			if s.n > 1 && c.data[s.n] != canary {
				t.Fatal("wrote beyond a row")
			}
		}
	})
}

// modelAcc returns an element of SsyrkAcc's result in the order of operations that
// is common to all assembly kernels.
func modelAcc(k int, alpha float64, a matrix[float32], i, j int, c float64) float64 {
	blocks := (k + 511) / 512
	for p0 := 0; p0 < k; {
		p1 := min(k, p0+roundUp((k+blocks-1)/blocks, 8))
		var s float32
		for p := p0; p < p1; p++ {
			s = fused(a.data[p*a.ld+i], a.data[p*a.ld+j], s)
		}
		c = math.FMA(alpha, float64(s), c)
		p0 = p1
	}
	return c
}

// fused returns x*y + z rounded once to T.
func fused[T float](x, y, z T) T {
	if math.Abs(float64(unit[T]())) < 0x1p-30 {
		return T(math.FMA(float64(x), float64(y), float64(z)))
	}
	p := new(big.Float).SetPrec(600).SetFloat64(float64(x) * float64(y)) // exact
	f, _ := p.Add(p, new(big.Float).SetFloat64(float64(z))).Float32()
	return T(f)
}

// modelGemm computes C = alpha*op(A)*op(B) + beta*C in the order that the
// assembly kernels of all machines are to follow.
func modelGemm[T float](transA, transB bool, m, n, k int, alpha T, a, b matrix[T], beta T, c matrix[T]) {
	add := func(i, j int, sum, beta T) {
		p := &c.data[i*c.ld+j]
		if beta == 0 {
			*p = alpha * sum
		} else {
			*p = fused(alpha, sum, beta**p)
		}
	}
	if m <= dotMaxRows && !transA && transB {
		// Inner products, summed in lanes.
		lanes := dotBlock[T]()
		span := func(i, j, p0, p1 int, beta T) {
			s := make([]T, lanes)
			for p := p0; p < p1; p++ {
				l := (p - p0) % lanes
				s[l] = fused(a.at(i, p, false), b.at(p, j, true), s[l])
			}
			for half := lanes / 2; half > 0; half /= 2 {
				for l := range half {
					s[l] += s[l+half]
				}
			}
			if p := &c.data[i*c.ld+j]; beta == 0 {
				*p = alpha * s[0]
			} else {
				*p = T(alpha*s[0]) + T(beta**p)
			}
		}
		for i := range m {
			for j := range n {
				even, beta := k/lanes*lanes, beta
				steps := dotSteps
				if m <= dotOnce {
					steps = k + 1
				}
				for p := 0; p < even; p += steps {
					span(i, j, p, min(even, p+steps), beta)
					beta = 1
				}
				if even < k {
					span(i, j, even, k, beta)
				}
			}
		}
		return
	}
	inner := innerBlock[T]()
	var t T
	_, double := any(t).(float64)
	size := 4
	if double {
		size = 8
	}
	if m <= directMaxRows && !transB && n*k*size > directBytes {
		inner = directSteps
	}
	blocks := (k + inner - 1) / inner
	block := roundUp((k+blocks-1)/blocks, blockMultiple)
	for i := range m {
		for j := range n {
			beta := beta
			for p0 := 0; p0 < k; p0 += block {
				var s T
				for p := p0; p < min(k, p0+block); p++ {
					s = fused(a.at(i, p, transA), b.at(p, j, transB), s)
				}
				add(i, j, s, beta)
				beta = 1
			}
		}
	}
}

// TestModel checks that the assembly kernels compute, to the bit, what the order
// of operations that is common to all machines gives.
func TestModel(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		if level == isa.Portable {
			t.Skip("rounds products and sums separately")
		}
		t.Run("float32", func(t *testing.T) { testModel(t, engineAt(level, 3).Sgemm) })
		t.Run("float64", func(t *testing.T) { testModel(t, engineAt(level, 3).Dgemm) })
	})
}

func testModel[T float](t *testing.T, gemm func(transA, transB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int)) {
	rng := rand.New(rand.NewPCG(17, 18))
	for _, s := range []shape{{1, 70, 41}, {3, 5, 2100}, {5, 3, 2100}, {16, 9, 77}, {17, 21, 1300}, {2, 500, 700}, {25, 33, 390}, {11, 101, 50}} {
		for layout := range 4 {
			transA, transB := layout&1 == 1, layout&2 == 2
			if s.m*s.n*s.k > 500_000 && (transA || transB) {
				continue
			}
			ar, ac, br, bc := s.m, s.k, s.k, s.n
			if transA {
				ar, ac = ac, ar
			}
			if transB {
				br, bc = bc, br
			}
			a := newMatrix(ar, ac, 1, normal[T](rng), canary)
			b := newMatrix(br, bc, 2, normal[T](rng), canary)
			c := newMatrix(s.m, s.n, 3, normal[T](rng), canary)
			want := c.clone()
			alpha, beta := T(-0.7), T(0.3)
			gemm(transA, transB, s.m, s.n, s.k, alpha, a.data, a.ld, b.data, b.ld, beta, c.data, c.ld)
			modelGemm(transA, transB, s.m, s.n, s.k, alpha, a, b, beta, want)
			for i, w := range want.data {
				if c.data[i] != w {
					t.Fatalf("m %d n %d k %d transA %v transB %v: C[%d,%d] = %v, want %v to the bit", s.m, s.n, s.k, transA, transB, i/c.ld, i%c.ld, c.data[i], w)
				}
			}
		}
	}
}

// TestThreads checks that results do not depend on the number of goroutines.
func TestThreads(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		rng := rand.New(rand.NewPCG(19, 20))
		for _, s := range []shape{{200, 150, 700}, {67, 333, 129}, {8, 700, 300}, {1, 3000, 400}, {700, 40, 33}} {
			a := newMatrix(s.m, s.k, 0, normal[float32](rng), 0)
			b := newMatrix(s.n, s.k, 0, normal[float32](rng), 0)
			bt := newMatrix(s.k, s.n, 0, normal[float32](rng), 0)
			h := newMatrix(s.n, s.k, 0, bf16(rng), 0)
			order := min(s.n, 200)
			wide := newMatrix(order, s.k, 0, normal[float64](rng), 0)
			run := func(threads int) []float64 {
				e := engineAt(level, threads)
				c, d := make([]float32, s.m*s.n), make([]float64, order*order)
				var all []float64
				keep := func() {
					for _, v := range c {
						all = append(all, float64(v))
					}
				}
				e.Sgemm(false, true, s.m, s.n, s.k, 1, a.data, a.ld, b.data, b.ld, 0, c, s.n)
				keep()
				e.Sgemm(false, false, s.m, s.n, s.k, 0.5, a.data, a.ld, bt.data, bt.ld, 1, c, s.n)
				keep()
				e.SgemmBF16(true, s.m, s.n, s.k, 1, a.data, a.ld, h.data, h.ld, 0.5, c, s.n)
				keep()
				e.Dsyrk(false, order, s.k, 1, wide.data, wide.ld, 0, d, order)
				e.SsyrkAcc(order, s.k, 2, bt.data, bt.ld, d, order)
				return append(all, d...)
			}
			want := run(1)
			for _, threads := range []int{2, 3, 5} {
				if !slices.Equal(run(threads), want) {
					t.Fatalf("%v: %d threads differ from one", s, threads)
				}
			}
		}
	})
}

// TestSpecial checks that NaN and Inf go where the definition of the product
// takes them, and nowhere else.
func TestSpecial(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		e := engineAt(level, 2)
		rng := rand.New(rand.NewPCG(21, 22))
		inf, nan := float32(math.Inf(1)), float32(math.NaN())
		for _, s := range []shape{{5, 60, 40}, {40, 60, 50}, {33, 17, 9}} {
			for layout := range 4 {
				transA, transB := layout&1 == 1, layout&2 == 2
				ar, ac, br, bc := s.m, s.k, s.k, s.n
				if transA {
					ar, ac = ac, ar
				}
				if transB {
					br, bc = bc, br
				}
				a := newMatrix(ar, ac, 0, normal[float32](rng), 0)
				b := newMatrix(br, bc, 0, normal[float32](rng), 0)
				c := newMatrix(s.m, s.n, 0, normal[float32](rng), canary)
				a.data[rng.IntN(len(a.data))] = nan
				a.data[rng.IntN(len(a.data))] = inf
				b.data[rng.IntN(len(b.data))] = -inf
				c.data[rng.IntN(len(c.data))] = nan
				want, scale := product64(func(v float32) float64 { return float64(v) }, transA, transB, s.m, s.n, s.k, 1, a, b, 1, c)
				e.Sgemm(transA, transB, s.m, s.n, s.k, 1, a.data, a.ld, b.data, b.ld, 1, c.data, c.ld)
				for i := range scale {
					if math.IsInf(scale[i], 0) {
						scale[i] = 0
					}
				}
				if err := compare(c, want, scale, s.k); err != nil {
					t.Fatalf("%v transA %v transB %v: %v", s, transA, transB, err)
				}
			}
		}
	})
}

func TestGemv(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		e := engineAt(level, 2)
		rng := rand.New(rand.NewPCG(23, 24))
		for _, s := range []shape{{m: 1, n: 1}, {m: 7, n: 33}, {m: 100, n: 129}, {m: 64, n: 576}, {m: 3, n: 0}, {m: 0, n: 3}} {
			for _, trans := range []bool{false, true} {
				a := newMatrix(s.m, s.n, 1, normal[float64](rng), math.NaN())
				lenX, lenY := s.n, s.m
				if trans {
					lenX, lenY = lenY, lenX
				}
				x := newMatrix(lenX, 1, 0, normal[float64](rng), 0)
				y := newMatrix(lenY, 1, 0, normal[float64](rng), canary)
				want, scale := product64(func(v float64) float64 { return v }, trans, false, lenY, 1, lenX, 2, a, x, -1, y)
				e.Dgemv(trans, s.m, s.n, 2, a.data, a.ld, x.data, -1, y.data)
				if err := compare(y, want, scale, lenX); err != nil {
					t.Fatalf("m %d n %d trans %v: %v", s.m, s.n, trans, err)
				}
			}
		}
	})
}

// TestGemvBoth wants the bits of two calls of Dgemv, which have an oracle of their own.
func TestGemvBoth(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		e := engineAt(level, 2)
		rng := rand.New(rand.NewPCG(25, 26))
		for _, s := range []shape{{m: 4, n: 8}, {m: 64, n: 7}, {m: 64, n: 64}, {m: 64, n: 577}, {m: 60, n: 129}, {m: 62, n: 100}, {m: 8, n: 2000}, {m: 64, n: 3000}, {m: 400, n: 40}, {m: 0, n: 9}} {
			a := newMatrix(s.m, s.n, 3, normal[float64](rng), math.NaN())
			vector := func(n int) matrix[float64] { return newMatrix(n, 1, 0, normal[float64](rng), canary) }
			x, y, w, z := vector(s.n), vector(s.m), vector(s.m), vector(s.n)
			wantY, wantZ := y.clone(), z.clone()
			e.Dgemv(false, s.m, s.n, 1, a.data, a.ld, x.data, 1, wantY.data)
			e.Dgemv(true, s.m, s.n, 1, a.data, a.ld, w.data, 1, wantZ.data)
			e.DgemvBoth(s.m, s.n, a.data, a.ld, x.data, y.data, w.data, z.data)
			if !slices.Equal(y.data, wantY.data) || !slices.Equal(z.data, wantZ.data) {
				t.Fatalf("m %d n %d: not what two products make", s.m, s.n)
			}
		}
	})
}

func TestPanics(t *testing.T) {
	e := New(1)
	f := make([]float32, 12)
	for _, tt := range []struct {
		want string
		call func()
	}{
		{mLT0, func() { e.Sgemm(false, false, -1, 2, 2, 1, f, 2, f, 2, 0, f, 2) }},
		{nLT0, func() { e.Sgemm(false, false, 2, -1, 2, 1, f, 2, f, 2, 0, f, 2) }},
		{kLT0, func() { e.Sgemm(false, false, 2, 2, -1, 1, f, 2, f, 2, 0, f, 2) }},
		{badLdA, func() { e.Sgemm(false, false, 2, 2, 3, 1, f, 2, f, 2, 0, f, 2) }},
		{badLdA, func() { e.Sgemm(true, false, 3, 2, 2, 1, f, 2, f, 2, 0, f, 2) }},
		{badLdB, func() { e.Sgemm(false, true, 2, 2, 3, 1, f, 3, f, 2, 0, f, 2) }},
		{badLdC, func() { e.Sgemm(false, false, 2, 3, 2, 1, f, 2, f, 3, 0, f, 2) }},
		{shortA, func() { e.Sgemm(false, false, 4, 2, 4, 1, f, 4, f, 2, 0, f, 2) }},
		{shortB, func() { e.Sgemm(false, false, 2, 4, 4, 1, f, 4, f, 4, 0, f, 4) }},
		{shortC, func() { e.Sgemm(false, false, 4, 4, 2, 1, f, 2, f, 4, 0, f, 4) }},
		{shortA, func() { e.Ssyrk(false, 3, 5, 1, f, 5, 0, f, 3) }},
		{shortC, func() { e.Ssyrk(false, 4, 1, 1, f, 1, 0, f, 4) }},
		{badLdA, func() { e.Ssyrk(true, 3, 2, 1, f, 2, 0, f, 3) }},
		{shortX, func() { e.Sgemv(false, 2, 3, 1, f, 3, f[:2], 0, f) }},
		{shortY, func() { e.Sgemv(true, 2, 3, 1, f, 3, f, 0, f[:2]) }},
	} {
		func() {
			defer func() {
				if got := recover(); got != tt.want {
					t.Errorf("panic %v, want %q", got, tt.want)
				}
			}()
			tt.call()
		}()
	}
}

func FuzzGemm(f *testing.F) {
	f.Add(uint16(5), uint16(70), uint16(130), uint8(3), uint64(1))
	f.Add(uint16(64), uint16(64), uint16(64), uint8(0), uint64(2))
	f.Fuzz(func(t *testing.T, m16, n16, k16 uint16, layout uint8, seed uint64) {
		m, n, k := int(m16%140), int(n16%140), int(k16%900)
		transA, transB := layout&1 == 1, layout&2 == 2
		rng := rand.New(rand.NewPCG(seed, 1))
		ar, ac, br, bc := m, k, k, n
		if transA {
			ar, ac = ac, ar
		}
		if transB {
			br, bc = bc, br
		}
		a := newMatrix(ar, ac, int(layout>>2&3), normal[float32](rng), float32(math.NaN()))
		b := newMatrix(br, bc, int(layout>>4&3), normal[float32](rng), float32(math.NaN()))
		c := newMatrix(m, n, int(layout>>6&3), normal[float32](rng), canary)
		alpha, beta := float32(factors[rng.IntN(4)]), float32(factors[rng.IntN(4)])
		levels := isa.Supported()
		portable := c.clone()
		engineAt(isa.Portable, 1).Sgemm(transA, transB, m, n, k, alpha, a.data, a.ld, b.data, b.ld, beta, portable.data, portable.ld)
		want, scale := make([]float64, m*n), make([]float64, m*n)
		for i := range m {
			for j := range n {
				want[i*n+j] = float64(portable.at(i, j, false))
				for p := range k {
					scale[i*n+j] += 2 * math.Abs(float64(alpha)*float64(a.at(i, p, transA))*float64(b.at(p, j, transB)))
				}
				scale[i*n+j] += 2 * math.Abs(float64(beta)*float64(c.at(i, j, false)))
			}
		}
		for _, level := range levels[1:] {
			got := c.clone()
			engineAt(level, 2).Sgemm(transA, transB, m, n, k, alpha, a.data, a.ld, b.data, b.ld, beta, got.data, got.ld)
			if err := compare(got, want, scale, k); err != nil {
				t.Fatal(fmt.Errorf("%v against portable: m %d n %d k %d transA %v transB %v: %w", level, m, n, k, transA, transB, err))
			}
		}
	})
}
