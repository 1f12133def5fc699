package svd

import (
	"errors"
	"fmt"
	"math"
	"math/cmplx"
	"math/rand/v2"
	"slices"
	"testing"
)

func randomHermitian(rng *rand.Rand, n int) CMatrix {
	h := NewCMatrix(n, n)
	for i := range n {
		h.Set(i, i, complex(rng.NormFloat64(), 0))
		for j := range i {
			v := complex(rng.NormFloat64(), rng.NormFloat64())
			h.Set(i, j, v)
			h.Set(j, i, cmplx.Conj(v))
		}
	}
	return h
}

// embed returns the real symmetric [Re -Im; Im Re], whose eigenvalues are
// those of h, each twice.
func embed(h CMatrix) Matrix {
	n := h.Rows
	a := NewMatrix(2*n, 2*n)
	for i := range n {
		for j := range n {
			v := h.At(i, j)
			a.Set(i, j, real(v))
			a.Set(n+i, n+j, real(v))
			a.Set(n+i, j, imag(v))
			a.Set(i, n+j, -imag(v))
		}
	}
	return a
}

func checkHermitian(t *testing.T, h CMatrix, e *HermitianEigen) {
	t.Helper()
	n := h.Rows
	want := oracleEigenvalues(embed(h))
	norm := max(math.Abs(want[0]), math.Abs(want[2*n-1]))
	for i, v := range e.Values {
		if i > 0 && v > e.Values[i-1] {
			t.Errorf("eigenvalue %d, %g, above the one before", i, v)
		}
		if math.Abs(v-want[2*i]) > 1e-13*norm {
			t.Errorf("eigenvalue %d is %g, want %g", i, v, want[2*i])
		}
	}
	for i := range n {
		var big complex128
		for k := range n {
			var o, r complex128 // (V^* V)_ik and (H V - V D)_ik
			for j := range n {
				o += cmplx.Conj(e.Vectors.At(j, i)) * e.Vectors.At(j, k)
				r += h.At(i, j) * e.Vectors.At(j, k)
			}
			if i == k {
				o--
			}
			if !(cmplx.Abs(o) < 1e-13) {
				t.Fatalf("vectors %d and %d: orthogonality error %g", i, k, cmplx.Abs(o))
			}
			r -= e.Vectors.At(i, k) * complex(e.Values[k], 0)
			if !(cmplx.Abs(r) <= 1e-13*norm) {
				t.Fatalf("residual %g in vector %d, norm %g", cmplx.Abs(r), k, norm)
			}
			if v := e.Vectors.At(k, i); cmplx.Abs(v) > cmplx.Abs(big)*(1+1e-9) {
				big = v
			}
		}
		if math.Abs(imag(big)) > 1e-15 || real(big) <= 0 {
			t.Errorf("largest component of vector %d is %v", i, big)
		}
	}
}

func TestEigHermitian(t *testing.T) {
	rng := testRNG()
	cases := map[string]CMatrix{"zero": NewCMatrix(6, 6)}
	for _, n := range []int{1, 2, 3, 17, 64} {
		cases[fmt.Sprintf("random %d", n)] = randomHermitian(rng, n)
	}
	for _, s := range []float64{1e-150, 1e150, 1e300} {
		h := randomHermitian(rng, 9)
		for i := range h.Data {
			h.Data[i] *= complex(s, 0)
		}
		cases[fmt.Sprintf("scale %g", s)] = h
	}
	low := NewCMatrix(20, 20) // rank 2
	for range 2 {
		var v [20]complex128
		for i := range v {
			v[i] = complex(rng.NormFloat64(), rng.NormFloat64())
		}
		for i := range v {
			for j := range v {
				low.Data[i*20+j] += v[i] * cmplx.Conj(v[j])
			}
		}
	}
	for i := range 20 {
		low.Set(i, i, complex(real(low.At(i, i)), 0))
	}
	cases["rank 2"] = low
	repeated := NewCMatrix(12, 12)
	for i := range 12 {
		repeated.Set(i, i, complex(float64(i/4), 0))
	}
	repeated.Set(0, 1, 1i)
	repeated.Set(1, 0, -1i)
	cases["repeated"] = repeated
	graded := randomHermitian(rng, 15)
	for i := range 15 {
		for j := range 15 {
			graded.Data[i*15+j] *= complex(math.Pow(10, -float64(i+j)), 0)
		}
	}
	cases["graded"] = graded
	for name, h := range cases {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(h.Data)
			e, err := EigHermitian(h)
			if err != nil {
				t.Fatal(err)
			}
			checkHermitian(t, h, e)
			if !slices.Equal(before, h.Data) {
				t.Error("the input was changed")
			}
		})
	}
}

func TestEigHermitianErrors(t *testing.T) {
	for _, v := range []complex128{complex(math.NaN(), 0), complex(0, math.NaN()), complex(0, math.Inf(-1))} {
		h := randomHermitian(testRNG(), 5)
		h.Set(4, 1, v)
		if _, err := EigHermitian(h); !errors.Is(err, ErrNotFinite) {
			t.Errorf("%v in the input: error %v", v, err)
		}
	}
	if e, err := EigHermitian(NewCMatrix(0, 0)); err != nil || len(e.Values) != 0 {
		t.Errorf("order 0: %v, %v", e, err)
	}
	mustPanic(t, "a rectangle", func() { EigHermitian(NewCMatrix(2, 3)) })
}

func BenchmarkEigHermitian(b *testing.B) {
	for _, n := range []int{8, 32, 64, 128} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := randomHermitian(testRNG(), n)
			for b.Loop() {
				if _, err := EigHermitian(h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
