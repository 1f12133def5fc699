package svd

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

func TestTopEigen(t *testing.T) {
	for _, kind := range []string{"power 0.5", "power 1", "exponential over noise", "flat", "steep"} {
		for _, n := range []int{1, 40, 193, 300} {
			values := spectrum(kind, n)
			for i := range values {
				values[i] *= values[i]
			}
			c := withEigenvalues(testRNG(), values)
			for _, k := range []int{0, 1, 10, n / 4, n / 2, n, n + 5} {
				e, err := TopEigen(c, k, Options{})
				if err != nil {
					t.Fatal(err)
				}
				want := min(k, n)
				if len(e.Values) != want || !e.Converged {
					t.Fatalf("%s, order %d: %d values of %d, converged %v", kind, n, len(e.Values), want, e.Converged)
				}
				var captured, best float64
				for i, v := range e.Values {
					captured += v
					best += values[i]
					if v > values[i]+1e-13*values[0] {
						t.Errorf("%s, order %d, k %d: value %d is %g, above the true %g", kind, n, k, i, v, values[i])
					}
				}
				if lost := best - captured; lost > 1e-4*(e.Trace-best)+1e-13*e.Trace {
					t.Errorf("%s, order %d, k %d: captured %g, optimum %g, trace %g", kind, n, k, captured, best, e.Trace)
				}
				if o := orthogonalityError(e.Vectors); !(o < 1e-13) {
					t.Errorf("%s, order %d, k %d: orthogonality error %g", kind, n, k, o)
				}
				// Ritz values are what the vectors capture.
				g := naiveProduct(naiveProduct(e.Vectors.T(), c), e.Vectors)
				for i := range want {
					g.Data[i*want+i] -= e.Values[i]
					if leadingSign(e.Vectors, i) <= 0 {
						t.Errorf("%s, order %d, k %d: largest component of vector %d is not positive", kind, n, k, i)
					}
				}
				if r := frobenius(g); !(r <= 1e-13*values[0]*float64(n)) {
					t.Errorf("%s, order %d, k %d: V^T C V differs from diag(Values) by %g", kind, n, k, r)
				}
			}
		}
	}
}

// A basis that fills up is compressed and goes on.
func TestKrylovRestart(t *testing.T) {
	const n, k = 500, 20
	values := make([]float64, n)
	for i := range values { // no gap anywhere: slow for any method
		values[i] = 1 - 0.5*float64(i)/n
	}
	c := withEigenvalues(testRNG(), values)
	opt := Options{Tol: 1e-9, MaxIterations: 1000}.withDefaults()
	s, err := blockKrylov(denseOperator(nil, c), k, opt)
	if err != nil {
		t.Fatal(err)
	}
	if size := s.blocks * minBlock; size <= restartAt*k || size >= 1000*minBlock || !s.converged {
		t.Fatalf("%d vectors, converged %v: the test does not see a restart", size, s.converged)
	}
	var lost float64
	for i, v := range s.values {
		lost += values[i] - v
	}
	if lost > 1e-6*trace(c) || lost < -1e-12 {
		t.Errorf("captured energy short of the optimum by %g", lost)
	}
	if o := orthogonalityError(s.vectors.T()); !(o < 1e-13) {
		t.Errorf("orthogonality error %g", o)
	}
}

func TestTopEigenErrors(t *testing.T) {
	for _, n := range []int{30, 250} { // direct and iterative
		for _, v := range []float64{math.NaN(), math.Inf(1)} {
			c := eye(n)
			c.Set(7, 5, v)
			c.Set(5, 7, v)
			if _, err := TopEigen(c, 3, Options{}); !errors.Is(err, ErrNotFinite) {
				t.Errorf("order %d, %v in the input: error %v", n, v, err)
			}
		}
		c := eye(n)
		c.Set(9, 9, -0.5)
		if _, err := TopEigen(c, 3, Options{}); !errors.Is(err, ErrNotPositive) {
			t.Errorf("order %d, indefinite: error %v", n, err)
		}
		c.Set(9, 9, -1e-9) // rounding
		if _, err := TopEigen(c, 3, Options{}); err != nil {
			t.Errorf("order %d, an eigenvalue of -1e-9: %v", n, err)
		}
		if e, err := TopEigen(NewMatrix(n, n), 3, Options{}); err != nil || e.Values[0] != 0 || orthogonalityError(e.Vectors) > 1e-14 {
			t.Errorf("order %d, zero matrix: %v", n, err)
		}
	}
	mustPanic(t, "a rectangle", func() { TopEigen(NewMatrix(2, 3), 1, Options{}) })
	mustPanic(t, "a negative k", func() { TopEigen(eye(3), -1, Options{}) })
}

func TestTopEigenScale(t *testing.T) {
	base := withEigenvalues(testRNG(), spectrum("power 1", 230))
	want, err := TopEigen(base, 8, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []float64{0x1p-498, 0x1p498} { // 1e-150 and 1e150
		c := base.Clone()
		scale(s, c.Data)
		e, err := TopEigen(c, 8, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range e.Values {
			if math.Abs(v/s-want.Values[i]) > 1e-13 {
				t.Errorf("scale %g: value %d is %g, want %g", s, i, v/s, want.Values[i])
			}
		}
	}
}

func TestTopEigenThreads(t *testing.T) {
	c := withEigenvalues(testRNG(), spectrum("power 1", 260))
	var first *Eigen
	for threads := 1; threads <= 3; threads++ {
		e, err := TopEigen(c, 40, Options{Engine: blas.New(threads)})
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
