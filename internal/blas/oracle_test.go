package blas

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

// engineAt returns an engine of a given level, whatever the environment says.
func engineAt(level isa.Level, threads int) *Engine {
	return &Engine{threads: threads, suite: newSuite(level)}
}

// eachLevel runs a test on all levels that this machine supports.
func eachLevel(t *testing.T, f func(t *testing.T, level isa.Level)) {
	for _, level := range isa.Supported() {
		if testing.Short() && level == isa.Portable && isa.Active() != isa.Portable {
			continue // the same code on every machine, and slow in an emulator
		}
		t.Run(level.String(), func(t *testing.T) { f(t, level) })
	}
}

// A matrix is a row-major test matrix with a leading dimension of its own and
// canaries between and after its rows.
type matrix[T any] struct {
	rows, cols, ld int
	data           []T
}

const canary = -12345

func newMatrix[T any](rows, cols, pad int, value func() T, fill T) matrix[T] {
	m := matrix[T]{rows, cols, max(1, cols) + pad, nil}
	if rows > 0 {
		m.data = make([]T, (rows-1)*m.ld+cols)
	}
	for i := range m.data {
		m.data[i] = fill
	}
	for i := range rows {
		for j := range cols {
			m.data[i*m.ld+j] = value()
		}
	}
	return m
}

func (m matrix[T]) clone() matrix[T] {
	m.data = append([]T(nil), m.data...)
	return m
}

func (m matrix[T]) at(i, j int, trans bool) T {
	if trans {
		i, j = j, i
	}
	return m.data[i*m.ld+j]
}

// product64 is the oracle: it returns, per element of C, the exact-enough value
// of alpha*op(A)*op(B) + beta*C computed in float64 (float32 inputs) or with a
// compensated sum (float64 inputs), and |alpha|*|A||B| + |beta*C|, the scale of
// its forward error.
func product64[T float, S any](widen func(S) float64, transA, transB bool, m, n, k int, alpha T, a matrix[T], b matrix[S], beta T, c matrix[T]) (want, scale []float64) {
	want, scale = make([]float64, m*n), make([]float64, m*n)
	for i := range m {
		for j := range n {
			var s, low, abs float64
			if alpha != 0 {
				for p := range k {
					x, y := float64(a.at(i, p, transA)), widen(b.at(p, j, transB))
					// TwoProduct and TwoSum (Ogita, Rump and Oishi 2005, Algorithm 5.3).
					h := x * y
					r := math.FMA(x, y, -h)
					sum := s + h
					z := sum - s
					low += (s - (sum - z)) + (h - z) + r
					s = sum
					abs += math.Abs(h)
				}
				if !math.IsNaN(low) && !math.IsInf(low, 0) {
					s += low
				}
				s *= float64(alpha)
				abs *= math.Abs(float64(alpha))
			}
			if beta != 0 {
				s += float64(beta) * float64(c.at(i, j, false))
				abs += math.Abs(float64(beta) * float64(c.at(i, j, false)))
			}
			want[i*n+j], scale[i*n+j] = s, abs
		}
	}
	return want, scale
}

// unit is the unit roundoff of T.
func unit[T float]() float64 {
	var t T
	if _, ok := any(t).(float32); ok {
		return 0x1p-24
	}
	return 0x1p-53
}

// compare fails if C is further from the oracle than the bound of Higham
// (Accuracy and Stability of Numerical Algorithms, section 3.5), gamma_{k+2} =
// (k+2)u/(1-(k+2)u) times the scale, or if anything beside C was written.
func compare[T float](c matrix[T], want, scale []float64, k int) error {
	u := unit[T]()
	gamma := float64(k+3) * u / (1 - float64(k+3)*u)
	tiny := float64(math.SmallestNonzeroFloat32)
	if u < 0x1p-30 {
		tiny = math.SmallestNonzeroFloat64
	}
	for i := range c.rows {
		for j := range c.cols {
			got, w := float64(c.at(i, j, false)), want[i*c.cols+j]
			if math.IsNaN(w) != math.IsNaN(got) || math.IsInf(w, 0) && got != w {
				return fmt.Errorf("C[%d,%d] = %v, want %v", i, j, got, w)
			}
			if d := math.Abs(got - w); d > gamma*scale[i*c.cols+j]+float64(k+2)*tiny {
				return fmt.Errorf("C[%d,%d] = %v, want %v: error %.3g is above the bound %.3g", i, j, got, w, d, gamma*scale[i*c.cols+j])
			}
		}
	}
	for i, v := range c.data {
		if i%c.ld >= c.cols && v != canary {
			return fmt.Errorf("element %d beyond row %d was written: %v", i%c.ld, i/c.ld, v)
		}
	}
	return nil
}

func normal[T float](rng *rand.Rand) func() T { return func() T { return T(rng.NormFloat64()) } }

func bf16(rng *rand.Rand) func() uint16 {
	return func() uint16 { return uint16(math.Float32bits(float32(rng.NormFloat64())) >> 16) }
}

func TestMain(m *testing.M) {
	if err := isa.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

type shape struct{ m, n, k int }

// shapes returns shapes on both sides of the boundaries between kernels, and
// some at random.
func shapes(rng *rand.Rand) []shape {
	s := []shape{{0, 3, 3}, {3, 0, 3}, {3, 3, 0}, {1, 1, 1}, {0, 0, 0}}
	dims := []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 33, 47, 48, 49, 63, 64, 65, 96, 97, 112, 145}
	depths := []int{1, 2, 7, 8, 9, 16, 32, 33, 48, 64, 100, 128, 383, 384, 385, 391, 640, 641, 648, 777}
	for range 60 {
		s = append(s, shape{dims[rng.IntN(len(dims))], dims[rng.IntN(len(dims))], depths[rng.IntN(len(depths))]})
	}
	return s
}

var factors = []float64{0, 1, -1, 0.37}

func TestGemm(t *testing.T) {
	eachLevel(t, func(t *testing.T, level isa.Level) {
		t.Run("float32", func(t *testing.T) { testGemm(t, engineAt(level, 2).Sgemm) })
		t.Run("float64", func(t *testing.T) { testGemm(t, engineAt(level, 2).Dgemm) })
	})
}

func testGemm[T float](t *testing.T, gemm func(transA, transB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int)) {
	rng := rand.New(rand.NewPCG(1, 2))
	nan := T(math.NaN())
	for _, s := range shapes(rng) {
		transA, transB := rng.IntN(2) == 1, rng.IntN(2) == 1
		alpha, beta := T(factors[rng.IntN(4)]), T(factors[rng.IntN(4)])
		ar, ac, br, bc := s.m, s.k, s.k, s.n
		if transA {
			ar, ac = ac, ar
		}
		if transB {
			br, bc = bc, br
		}
		a := newMatrix(ar, ac, rng.IntN(3), normal[T](rng), nan)
		b := newMatrix(br, bc, rng.IntN(3), normal[T](rng), nan)
		c := newMatrix(s.m, s.n, rng.IntN(3), normal[T](rng), canary)
		want, scale := product64(func(v T) float64 { return float64(v) }, transA, transB, s.m, s.n, s.k, alpha, a, b, beta, c)
		if beta == 0 {
			c = newMatrix(s.m, s.n, c.ld-max(1, s.n), func() T { return nan }, canary)
		}
		gemm(transA, transB, s.m, s.n, s.k, alpha, a.data, a.ld, b.data, b.ld, beta, c.data, c.ld)
		if err := compare(c, want, scale, s.k); err != nil {
			t.Fatalf("m %d n %d k %d transA %v transB %v alpha %v beta %v: %v", s.m, s.n, s.k, transA, transB, alpha, beta, err)
		}
	}
}
