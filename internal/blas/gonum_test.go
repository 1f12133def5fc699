package blas

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
	"gonum.org/v1/gonum/blas/testblas"
)

// TestGonumSuite runs gonum's own tests of the routines that are overridden.
func TestGonumSuite(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		impl := engineAt(level, 2).Gonum()
		t.Run("Dgemm", func(t *testing.T) { testblas.TestDgemm(t, impl) })
		t.Run("Dsyrk", func(t *testing.T) { testblas.DsyrkTest(t, impl) })
		t.Run("Dsyr2k", func(t *testing.T) { testblas.Dsyr2kTest(t, impl) })
		t.Run("Dtrsm", func(t *testing.T) { testblas.DtrsmTest(t, impl) })
		t.Run("Dtrmm", func(t *testing.T) { testblas.DtrmmTest(t, impl) })
		t.Run("Dgemv", func(t *testing.T) { testblas.DgemvTest(t, impl) })
	})
}

var (
	sides      = []blas.Side{blas.Left, blas.Right}
	uplos      = []blas.Uplo{blas.Upper, blas.Lower}
	transposes = []blas.Transpose{blas.NoTrans, blas.Trans, blas.ConjTrans}
	diags      = []blas.Diag{blas.NonUnit, blas.Unit}
)

// nearGonum compares B with gonum's to within a bound on the difference of two
// backward stable results; the triangles below are well conditioned.
func nearGonum[T float](got, want matrix[T], k int) error {
	var scale float64
	for i := range want.rows {
		for j := range want.cols {
			scale = max(scale, math.Abs(float64(want.at(i, j, false))))
		}
	}
	for i, w := range want.data {
		if d := math.Abs(float64(got.data[i]) - float64(w)); !(d <= 16*float64(k+1)*unit[T]()*scale) && got.data[i] != w {
			return fmt.Errorf("row %d, column %d: %v, want %v", i/want.ld, i%want.ld, got.data[i], w)
		}
	}
	return nil
}

// TestTriangular covers orders beyond one diagonal block, which gonum's tests do
// not reach.
func TestTriangular(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		ours, theirs := engineAt(level, 2).Gonum(), gonum.Implementation{}
		t.Run("float64", func(t *testing.T) {
			testTriangular(t, ours.Dtrsm, theirs.Dtrsm)
			testTriangular(t, ours.Dtrmm, theirs.Dtrmm)
		})
		t.Run("float32", func(t *testing.T) {
			testTriangular(t, ours.Strsm, theirs.Strsm)
			testTriangular(t, ours.Strmm, theirs.Strmm)
		})
	})
}

func testTriangular[T float](t *testing.T, ours, theirs func(s blas.Side, ul blas.Uplo, tA blas.Transpose, d blas.Diag, m, n int, alpha T, a []T, lda int, b []T, ldb int)) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, s := range sides {
		for _, ul := range uplos {
			for _, tA := range transposes {
				for _, d := range diags {
					m, n := 1+rng.IntN(220), 1+rng.IntN(220)
					order := m
					if s == blas.Right {
						order = n
					}
					a := newMatrix(order, order, rng.IntN(3), func() T { return T(rng.Float64()-0.5) / T(order) }, canary)
					for i := range order {
						a.data[i*a.ld+i] = 1 + T(rng.Float64())
						for j := range order {
							if (ul == blas.Upper) == (j < i) && i != j {
								a.data[i*a.ld+j] = T(math.NaN()) // must not be read
							}
						}
					}
					b := newMatrix(m, n, rng.IntN(3), normal[T](rng), canary)
					want := b.clone()
					alpha := T(factors[rng.IntN(4)])
					ours(s, ul, tA, d, m, n, alpha, a.data, a.ld, b.data, b.ld)
					theirs(s, ul, tA, d, m, n, alpha, a.data, a.ld, want.data, want.ld)
					if err := nearGonum(b, want, order); err != nil {
						t.Fatalf("side %c uplo %c trans %c diag %c m %d n %d alpha %v: %v", s, ul, tA, d, m, n, alpha, err)
					}
				}
			}
		}
	}
}

// TestRankExact checks that the gonum form of the symmetric updates writes one
// triangle only.
func TestRankExact(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		ours, theirs := engineAt(level, 2).Gonum(), gonum.Implementation{}
		t.Run("float64", func(t *testing.T) { testRank(t, ours.Dsyrk, theirs.Dsyrk, ours.Dsyr2k, theirs.Dsyr2k) })
		t.Run("float32", func(t *testing.T) { testRank(t, ours.Ssyrk, theirs.Ssyrk, ours.Ssyr2k, theirs.Ssyr2k) })
	})
}

type syrkFunc[T float] func(ul blas.Uplo, tA blas.Transpose, n, k int, alpha T, a []T, lda int, beta T, c []T, ldc int)

type syr2kFunc[T float] func(ul blas.Uplo, tA blas.Transpose, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int)

func testRank[T float](t *testing.T, ours, theirs syrkFunc[T], ours2, theirs2 syr2kFunc[T]) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, ul := range uplos {
		for _, tA := range transposes[:2] {
			for range 6 {
				n, k := 1+rng.IntN(160), 1+rng.IntN(80)
				rows, cols := n, k
				if tA != blas.NoTrans {
					rows, cols = k, n
				}
				a := newMatrix(rows, cols, rng.IntN(3), normal[T](rng), T(math.NaN()))
				b := newMatrix(rows, cols, rng.IntN(3), normal[T](rng), T(math.NaN()))
				c := newMatrix(n, n, rng.IntN(3), normal[T](rng), canary)
				alpha, beta := T(factors[rng.IntN(4)]), T(factors[rng.IntN(4)])
				want := c.clone()
				ours(ul, tA, n, k, alpha, a.data, a.ld, beta, c.data, c.ld)
				theirs(ul, tA, n, k, alpha, a.data, a.ld, beta, want.data, want.ld)
				if err := nearGonum(c, want, k); err != nil {
					t.Fatalf("syrk uplo %c trans %c n %d k %d alpha %v beta %v: %v", ul, tA, n, k, alpha, beta, err)
				}
				ours2(ul, tA, n, k, alpha, a.data, a.ld, b.data, b.ld, beta, c.data, c.ld)
				theirs2(ul, tA, n, k, alpha, a.data, a.ld, b.data, b.ld, beta, want.data, want.ld)
				if err := nearGonum(c, want, 2*k); err != nil {
					t.Fatalf("syr2k uplo %c trans %c n %d k %d alpha %v beta %v: %v", ul, tA, n, k, alpha, beta, err)
				}
			}
		}
	}
}

// TestGonumGemv covers matrices above the size from which the engine is used.
func TestGonumGemv(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		rng := rand.New(rand.NewPCG(7, 8))
		ours, theirs := engineAt(level, 2).Gonum(), gonum.Implementation{}
		for _, s := range []shape{{m: 300, n: 301}, {m: 1, n: 70001}, {m: 70001, n: 1}, {m: 512, n: 256}} {
			for _, tA := range transposes {
				a := newMatrix(s.m, s.n, 1, normal[float64](rng), math.NaN())
				lenX, lenY := s.n, s.m
				if tA != blas.NoTrans {
					lenX, lenY = lenY, lenX
				}
				x := newMatrix(1, lenX, 0, normal[float64](rng), 0)
				y := newMatrix(1, lenY, 0, normal[float64](rng), 0)
				want := y.clone()
				ours.Dgemv(tA, s.m, s.n, 0.5, a.data, a.ld, x.data, 1, -2, y.data, 1)
				theirs.Dgemv(tA, s.m, s.n, 0.5, a.data, a.ld, x.data, 1, -2, want.data, 1)
				if err := nearGonum(y, want, lenX); err != nil {
					t.Fatalf("trans %c m %d n %d: %v", tA, s.m, s.n, err)
				}
			}
		}
	})
}
