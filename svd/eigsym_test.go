package svd

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

type symCase struct {
	name string
	c    Matrix
}

// symCases returns symmetric matrices that are hard for one step or another
// of an eigensolver.
func symCases() []symCase {
	rng := testRNG()
	var cases []symCase
	add := func(name string, c Matrix) { cases = append(cases, symCase{name, c}) }
	diagonal := func(n int, f func(i int) float64) Matrix {
		c := NewMatrix(n, n)
		for i := range n {
			c.Set(i, i, f(i))
		}
		return c
	}
	for _, n := range []int{1, 2, 3, 31, 32, 33, 64, 65, 97, 200} {
		a := randomMatrix(rng, n, n)
		symmetrise(a)
		add(fmt.Sprintf("random %d", n), a)
	}
	for _, n := range []int{1, 5, 80} {
		add(fmt.Sprintf("zero %d", n), NewMatrix(n, n))
		add(fmt.Sprintf("identity %d", n), eye(n))
		add(fmt.Sprintf("diagonal %d", n), diagonal(n, func(i int) float64 { return float64((i*7)%n) - 2 }))
	}
	ones := NewMatrix(70, 70)
	for i := range ones.Data {
		ones.Data[i] = 1
	}
	add("ones", ones)

	for _, n := range []int{21, 101} { // Wilkinson's W+: pairs of eigenvalues that agree to many digits
		w := diagonal(n, func(i int) float64 { return math.Abs(float64(i - n/2)) })
		for i := range n - 1 {
			w.Set(i, i+1, 1)
			w.Set(i+1, i, 1)
		}
		add(fmt.Sprintf("Wilkinson %d", n), w)
		// Its copies, glued by tiny elements: many clusters.
		g := NewMatrix(3*n, 3*n)
		for b := range 3 {
			g.Slice(b*n, b*n+n, b*n, b*n+n).copyFrom(w)
			if b > 0 {
				g.Set(b*n, b*n-1, 1e-10)
				g.Set(b*n-1, b*n, 1e-10)
			}
		}
		add(fmt.Sprintf("glued Wilkinson %d", n), g)
	}
	laplace := diagonal(150, func(int) float64 { return 2 })
	for i := range 149 {
		laplace.Set(i, i+1, -1)
		laplace.Set(i+1, i, -1)
	}
	add("second difference", laplace)

	add("repeated", withEigenvalues(rng, slices.Concat(slices.Repeat([]float64{3}, 40), slices.Repeat([]float64{-1}, 50), []float64{7})))
	graded := make([]float64, 90)
	for i := range graded {
		graded[i] = math.Pow(10, -float64(i)/4)
	}
	add("graded", withEigenvalues(rng, graded))
	up := NewMatrix(60, 60)
	for i := range 60 {
		for j := range 60 {
			up.Set(i, j, math.Pow(10, -float64(i+j)/3)*(1+float64((i*j)%5)))
		}
	}
	add("graded elements", up)
	low := randomMatrix(rng, 100, 7)
	add("rank 7", naiveProduct(low, low.T()))
	clustered := make([]float64, 120)
	for i := range clustered {
		clustered[i] = 1 + 1e-13*rng.Float64()
	}
	clustered[0] = -1
	add("clustered", withEigenvalues(rng, clustered))
	for _, s := range []float64{1e-150, 1e150, 1e-300, 1e300} {
		a := randomMatrix(rng, 40, 40)
		symmetrise(a)
		scale(s, a.Data)
		add(fmt.Sprintf("scale %g", s), a)
	}
	arrow := diagonal(90, func(i int) float64 { return float64(i) })
	for i := range 89 {
		arrow.Set(i, 89, 1e-3)
		arrow.Set(89, i, 1e-3)
	}
	add("arrow", arrow)
	return cases
}

// checkEigen checks the pairs against c: order, orthonormality, residual and
// the sign convention.
func checkEigen(t *testing.T, c Matrix, e *Eigen, tol float64) {
	t.Helper()
	n, k := c.Rows, len(e.Values)
	norm := frobenius(c)
	if e.Vectors.Rows != n || e.Vectors.Cols != k {
		t.Fatalf("vectors are %d x %d, want %d x %d", e.Vectors.Rows, e.Vectors.Cols, n, k)
	}
	for i := 1; i < k; i++ {
		if !(e.Values[i] <= e.Values[i-1]) {
			t.Fatalf("eigenvalue %d, %g, above the one before, %g", i, e.Values[i], e.Values[i-1])
		}
	}
	if o := orthogonalityError(e.Vectors); !(o <= tol) {
		t.Errorf("orthogonality error %g", o)
	}
	scaled := e.Vectors.Clone()
	for i := range n {
		for j := range k {
			scaled.Data[i*scaled.Stride+j] *= e.Values[j]
		}
	}
	if r := frobenius(naiveSub(naiveProduct(c, e.Vectors), scaled)); !(r <= tol*norm) {
		t.Errorf("residual %g for a norm of %g", r, norm)
	}
	if math.Abs(e.Trace-naiveTrace(c)) > tol*norm {
		t.Errorf("trace %g, want %g", e.Trace, naiveTrace(c))
	}
	for j := range k {
		if leadingSign(e.Vectors, j) <= 0 {
			t.Errorf("largest component of vector %d is not positive", j)
		}
	}
}

func TestEigSym(t *testing.T) {
	for _, tc := range symCases() {
		t.Run(tc.name, func(t *testing.T) {
			before := tc.c.Clone()
			e, err := EigSym(tc.c, Options{})
			if err != nil {
				t.Fatal(err)
			}
			checkEigen(t, tc.c, e, 1e-13)
			want := oracleEigenvalues(tc.c)
			for i, v := range want {
				if math.Abs(e.Values[i]-v) > 1e-13*max(math.Abs(want[0]), math.Abs(want[len(want)-1])) {
					t.Errorf("eigenvalue %d is %g, want %g", i, e.Values[i], v)
				}
			}
			reduced, err := tridiagonalise(sharedEngine(), tc.c)
			if err != nil {
				t.Fatal(err)
			}
			values, err := reduced.values()
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range want {
				if math.Abs(values[i]-v) > 1e-13*max(math.Abs(want[0]), math.Abs(want[len(want)-1])) {
					t.Errorf("without vectors, eigenvalue %d is %g, want %g", i, values[i], v)
				}
			}
			if !slices.Equal(before.Data, tc.c.Data) {
				t.Error("the input was changed")
			}
			for _, k := range []int{0, 1, tc.c.Rows / 2} {
				top, err := eigSymTop(sharedEngine(), tc.c, k)
				if err != nil {
					t.Fatal(err)
				}
				checkEigen(t, tc.c, top, 1e-13)
				if !slices.Equal(top.Values, e.Values[:k]) {
					t.Errorf("the %d leading eigenvalues differ from the full solution", k)
				}
			}
		})
	}
}

func TestEigSymReadsLowerTriangle(t *testing.T) {
	rng := testRNG()
	a := paddedMatrix(rng, 70, 70, 3)
	for i := range 70 {
		for j := i + 1; j < 70; j++ {
			a.Set(i, j, math.NaN())
		}
	}
	full := NewMatrix(70, 70)
	for i := range 70 {
		for j := range i + 1 {
			full.Set(i, j, a.At(i, j))
			full.Set(j, i, a.At(i, j))
		}
	}
	e, err := EigSym(a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkEigen(t, full, e, 1e-13)
}

func TestEigSymErrors(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		a := eye(50)
		a.Set(40, 3, v)
		if _, err := EigSym(a, Options{}); !errors.Is(err, ErrNotFinite) {
			t.Errorf("%v in the input: error %v", v, err)
		}
	}
	if e, err := EigSym(NewMatrix(0, 0), Options{}); err != nil || len(e.Values) != 0 {
		t.Errorf("order 0: %v, %v", e, err)
	}
	mustPanic(t, "a rectangle", func() { EigSym(NewMatrix(2, 3), Options{}) })
	mustPanic(t, "short data", func() { EigSym(Matrix{Rows: 3, Cols: 3, Stride: 3, Data: make([]float64, 8)}, Options{}) })
	mustPanic(t, "a short stride", func() { EigSym(Matrix{Rows: 3, Cols: 3, Stride: 2, Data: make([]float64, 9)}, Options{}) })
}

func TestEigSymThreads(t *testing.T) {
	a := randomMatrix(testRNG(), 331, 331)
	symmetrise(a)
	var first *Eigen
	for threads := 1; threads <= 3; threads++ {
		e, err := EigSym(a, Options{Engine: blas.New(threads)})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = e
		} else if !slices.Equal(first.Values, e.Values) || !slices.Equal(first.Vectors.Data, e.Vectors.Data) {
			t.Errorf("%d threads give other bits than one", threads)
		}
	}
}

// The secular equation over random and extreme poles and weights: the roots
// interlace, and the vectors are orthonormal and reproduce D + rho z z^T.
func TestSecular(t *testing.T) {
	rng := testRNG()
	for trial := range 300 {
		k := 1 + rng.IntN(40)
		d, z := make([]float64, k), make([]float64, k)
		var norm float64
		for i := range d {
			d[i] = rng.NormFloat64()
			if trial%3 == 1 {
				d[i] = math.Copysign(math.Pow(10, -8*rng.Float64()), d[i])
			}
			z[i] = rng.NormFloat64()
			if trial%2 == 1 {
				z[i] *= math.Pow(10, -6*rng.Float64())
			}
			norm += z[i] * z[i]
		}
		scale(1/math.Sqrt(norm), z)
		slices.Sort(d)
		rho := math.Pow(10, 4*rng.Float64()-2)
		coef := NewMatrix(k, k)
		values, err := secularVectors(sharedEngine(), d, z, rho, coef)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			hi := d[k-1] + rho*(1+1e-14)
			if i < k-1 {
				hi = d[i+1]
			}
			if v < d[i] || v > hi {
				t.Errorf("trial %d: root %d, %g, outside [%g, %g]", trial, i, v, d[i], hi)
			}
		}
		c := NewMatrix(k, k)
		for i := range k {
			for j := range k {
				c.Set(i, j, rho*z[i]*z[j])
			}
			c.Data[i*k+i] += d[i]
		}
		vectors := coef.T()
		if o := orthogonalityError(vectors); !(o < 1e-13) {
			t.Errorf("trial %d: orthogonality error %g", trial, o)
		}
		lv := coef.Clone()
		for i := range k {
			scale(values[i], lv.Row(i))
		}
		if r := frobenius(naiveSub(naiveProduct(coef, c), lv)); !(r < 1e-13*(rho+frobenius(c))) {
			t.Errorf("trial %d: residual %g", trial, r)
		}
	}
}

func benchmarkSymmetric(n int) Matrix {
	rng := rand.New(rand.NewPCG(3, 4))
	a := randomMatrix(rng, n, n)
	symmetrise(a)
	return a
}

func BenchmarkEigSym(b *testing.B) {
	for _, n := range []int{128, 576, 1024, 2048, 4096} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := benchmarkSymmetric(n)
			for b.Loop() {
				if _, err := EigSym(a, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTridiagonalise(b *testing.B) {
	for _, n := range []int{128, 576, 1024, 2048} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := benchmarkSymmetric(n)
			for b.Loop() {
				if _, err := tridiagonalise(sharedEngine(), a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Tridiagonal matrices that deflate much, little and in odd places.
func TestTridiagonalEigen(t *testing.T) {
	power := func(rng *rand.Rand, digits float64) float64 { return math.Pow(10, -digits*rng.Float64()) }
	kinds := []struct {
		name      string
		diag, off func(rng *rand.Rand, i int) float64
	}{
		{"random", func(rng *rand.Rand, _ int) float64 { return rng.NormFloat64() }, func(rng *rand.Rand, _ int) float64 { return rng.NormFloat64() }},
		{"zero diagonal", func(*rand.Rand, int) float64 { return 0 }, func(*rand.Rand, int) float64 { return 1 }},
		{"wide range", func(rng *rand.Rand, _ int) float64 { return power(rng, 12) }, func(rng *rand.Rand, _ int) float64 { return power(rng, 12) }},
		{"repeated", func(rng *rand.Rand, _ int) float64 { return float64(rng.IntN(3)) }, func(rng *rand.Rand, _ int) float64 { return power(rng, 16) }},
		{"near identity", func(*rand.Rand, int) float64 { return 1 }, func(rng *rand.Rand, _ int) float64 { return 1e-8 * rng.NormFloat64() }},
		{"glued Wilkinson", func(_ *rand.Rand, i int) float64 { return math.Abs(float64(i%21) - 10) }, func(rng *rand.Rand, i int) float64 {
			if i%21 == 20 {
				return power(rng, 14)
			}
			return 1
		}},
		{"graded", func(_ *rand.Rand, i int) float64 { return math.Pow(2, -float64(i)) }, func(_ *rand.Rand, i int) float64 { return math.Pow(2, -float64(i)-0.5) }},
		{"rounding", func(rng *rand.Rand, _ int) float64 { return 1 + 1e-15*float64(rng.IntN(5)) }, func(rng *rand.Rand, _ int) float64 { return 1e-15 * rng.NormFloat64() }},
	}
	for _, kind := range kinds {
		for trial := range 10 {
			rng := rand.New(rand.NewPCG(uint64(trial), 99))
			n := 33 + rng.IntN(130)
			d, off := make([]float64, n), make([]float64, n-1)
			c := NewMatrix(n, n)
			for i := range d {
				d[i] = kind.diag(rng, i)
				c.Set(i, i, d[i])
			}
			for i := range off {
				off[i] = kind.off(rng, i)
				switch rng.IntN(25) {
				case 0:
					off[i] = 0
				case 1:
					off[i] = 1e-300
				}
				c.Set(i, i+1, off[i])
				c.Set(i+1, i, off[i])
			}
			values, zt, err := tridiagonalEigen(sharedEngine(), d, off, n)
			if err != nil {
				t.Fatalf("%s, trial %d: %v", kind.name, trial, err)
			}
			if !slices.IsSorted(values) {
				t.Errorf("%s, trial %d: values do not ascend", kind.name, trial)
			}
			if o := orthogonalityError(zt.T()); !(o < 2e-14) {
				t.Errorf("%s, trial %d: orthogonality error %g", kind.name, trial, o)
			}
			scaled := zt.Clone()
			for i, v := range values {
				scale(v, scaled.Row(i))
			}
			if r := frobenius(naiveSub(naiveProduct(zt, c), scaled)); !(r < 2e-14*frobenius(c)) {
				t.Errorf("%s, trial %d: residual %g, norm %g", kind.name, trial, r, frobenius(c))
			}
		}
	}
}
