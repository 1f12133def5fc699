package svd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// randomSPD returns a positive definite matrix of condition number about cond.
func randomSPD(n int, cond float64) Matrix {
	values := make([]float64, n)
	for i := range values {
		values[i] = math.Pow(cond, -float64(i)/float64(max(1, n-1)))
	}
	return withEigenvalues(testRNG(), values)
}

func TestCholesky(t *testing.T) {
	for _, n := range []int{0, 1, 2, 31, 32, 33, 127, 128, 129, 300} {
		for _, cond := range []float64{1, 1e3, 1e10} {
			a := randomSPD(n, cond)
			padded := paddedMatrix(testRNG(), n, n, 3)
			for i := range n { // the upper triangle stays noise
				copy(padded.Row(i)[:i+1], a.Row(i)[:i+1])
			}
			l, pivot, ok := Cholesky(nil, padded)
			if !ok || pivot != n {
				t.Fatalf("order %d, condition %g: failed at pivot %d", n, cond, pivot)
			}
			for i := range n {
				for j := i + 1; j < n; j++ {
					if l.At(i, j) != 0 {
						t.Fatalf("order %d: element above the diagonal", n)
					}
				}
				if !(l.At(i, i) > 0) {
					t.Fatalf("order %d: diagonal element %g", n, l.At(i, i))
				}
			}
			if e := frobenius(naiveSub(naiveProduct(l, l.T()), a)); !(e <= 1e-14*frobenius(a)) {
				t.Errorf("order %d, condition %g: L L^T differs by %g", n, cond, e)
			}
		}
	}
}

// The failing pivot is the first at which the leading minor is not positive.
func TestCholeskyPivot(t *testing.T) {
	for _, n := range []int{1, 40, 200} {
		for _, at := range []int{0, n / 2, n - 1} {
			for _, v := range []float64{0, -3, math.NaN(), math.Inf(1)} {
				a := eye(n)
				a.Set(at, at, v)
				if _, pivot, ok := Cholesky(nil, a); ok || pivot != at {
					t.Errorf("order %d, %g at %d: ok %v, pivot %d", n, v, at, ok, pivot)
				}
			}
		}
	}
	// Rank 50: by rounding the pivot after the 50th is tiny of either sign, so
	// only a clear minus is certain to be found.
	low := randomMatrix(testRNG(), 150, 50)
	c := naiveProduct(low, low.T())
	for i := range 150 {
		c.Data[i*150+i] -= 1e-6
	}
	if _, pivot, ok := Cholesky(nil, c); ok || pivot < 50 {
		t.Errorf("indefinite from pivot 50 on: ok %v, pivot %d", ok, pivot)
	}
}

func TestTriangularSolves(t *testing.T) {
	rng := testRNG()
	for _, n := range []int{0, 1, 5, 32, 33, 64, 100, 257} {
		for _, p := range []int{0, 1, 3, 300} {
			l := paddedMatrix(rng, n, n, 1) // above the diagonal is noise that must not be read
			full := NewMatrix(n, n)
			for i := range n {
				l.Set(i, i, 2+math.Abs(l.At(i, i)))
				for j := range i {
					l.Set(i, j, l.At(i, j)/math.Sqrt(float64(n)))
				}
				copy(full.Row(i)[:i+1], l.Row(i)[:i+1])
				for j := i + 1; j < n; j++ {
					l.Set(i, j, math.NaN())
				}
			}
			for _, trans := range []bool{false, true} {
				op := full
				if trans {
					op = full.T()
				}
				b := paddedMatrix(rng, n, p, 2)
				x := b.Clone()
				SolveLower(nil, l, trans, x)
				if e := frobenius(naiveSub(naiveProduct(op, x), b.Clone())); !(e <= 1e-12*(1+frobenius(x))) {
					t.Errorf("left, order %d, %d columns, trans %v: residual %g", n, p, trans, e)
				}
				b = paddedMatrix(rng, p, n, 2)
				x = b.Clone()
				SolveLowerRight(nil, l, trans, x)
				if e := frobenius(naiveSub(naiveProduct(x, op), b.Clone())); !(e <= 1e-12*(1+frobenius(x))) {
					t.Errorf("right, order %d, %d rows, trans %v: residual %g", n, p, trans, e)
				}
			}
		}
	}
	mustPanic(t, "SolveLower of another order", func() { SolveLower(nil, eye(3), false, NewMatrix(4, 1)) })
	mustPanic(t, "SolveLowerRight of another order", func() { SolveLowerRight(nil, eye(3), false, NewMatrix(1, 4)) })
}

func TestSolveSPD(t *testing.T) {
	rng := testRNG()
	for _, n := range []int{1, 33, 200} {
		for _, ridge := range []float64{0, 0.5} {
			a := randomSPD(n, 100)
			want := randomMatrix(rng, n, 7)
			b := naiveProduct(a, want)
			for i := range n {
				axpy(ridge, want.Row(i), b.Row(i))
			}
			x, err := SolveSPD(nil, a, ridge, b)
			if err != nil {
				t.Fatal(err)
			}
			if e := frobenius(naiveSub(x, want)); !(e <= 1e-11*frobenius(want)) {
				t.Errorf("order %d, ridge %g: error %g", n, ridge, e)
			}
		}
	}
	if _, err := SolveSPD(nil, NewMatrix(5, 5), 0, NewMatrix(5, 1)); !errors.Is(err, ErrNotPositive) {
		t.Errorf("singular: error %v", err)
	}
	bad := eye(5)
	bad.Set(3, 1, math.NaN())
	if _, err := SolveSPD(nil, bad, 0, NewMatrix(5, 1)); !errors.Is(err, ErrNotFinite) {
		t.Errorf("NaN in A: error %v", err)
	}
	if _, err := SolveSPD(nil, eye(5), 0, bad); !errors.Is(err, ErrNotFinite) {
		t.Errorf("NaN in B: error %v", err)
	}
	mustPanic(t, "a right side of another height", func() { SolveSPD(nil, eye(3), 0, NewMatrix(4, 1)) })
}

func TestCholeskyThreads(t *testing.T) {
	a := randomSPD(300, 100)
	var first Matrix
	for threads := 1; threads <= 3; threads++ {
		x, err := SolveSPD(blas.New(threads), a, 0.1, a)
		if err != nil {
			t.Fatal(err)
		}
		if threads == 1 {
			first = x
		} else if !slices.Equal(first.Data, x.Data) {
			t.Errorf("%d threads give other bits than one", threads)
		}
	}
}

func BenchmarkCholesky(b *testing.B) {
	for _, n := range []int{1024, 4096} {
		a := NewMatrix(n, n)
		for i := range a.Data {
			a.Data[i] = 1 / float64(2+i%13)
		}
		symmetrise(a)
		for i := range n {
			a.Data[i*n+i] += float64(n)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, _, ok := Cholesky(nil, a); !ok {
					b.Fatal("not positive definite")
				}
			}
		})
		b.Run(fmt.Sprintf("solve/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := SolveSPD(nil, a, 1, a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
