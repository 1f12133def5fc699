package svd

import (
	"fmt"
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// cholBlock is the width of a block column: wide enough for GEMM to carry
// the work, narrow enough for the scalar part inside to stay small.
const cholBlock = 128

// Cholesky factors the symmetric positive definite matrix a, of which only the
// lower triangle is read, as L L^T with L lower triangular. If a is not
// positive definite to working precision, ok is false and pivot is the index of
// the first diagonal element that came out not positive, or not finite. A nil
// engine means the shared one.
func Cholesky(e *blas.Engine, a Matrix) (l Matrix, pivot int, ok bool) {
	a.checkSquare()
	e = orShared(e)
	n := a.Rows
	l = NewMatrix(n, n)
	for i := range n {
		copy(l.Row(i)[:i+1], a.Row(i)[:i+1])
	}
	for j := 0; j < n; j += cholBlock {
		w := min(cholBlock, n-j)
		diag, left := l.Slice(j, j+w, j, j+w), l.Slice(j, j+w, 0, j)
		below := l.Slice(j+w, n, j, j+w)
		if j > 0 {
			Gemm(e, false, true, -1, left, left, 1, diag)
			Gemm(e, false, true, -1, l.Slice(j+w, n, 0, j), left, 1, below)
		}
		if p, ok := cholUnblocked(diag); !ok {
			return l, j + p, false
		}
		SolveLowerRight(e, diag, true, below)
	}
	return l, n, true
}

// cholUnblocked factors a in place and clears what is above its diagonal.
func cholUnblocked(a Matrix) (pivot int, ok bool) {
	for i := range a.Rows {
		ri := a.Row(i)
		for j := range i {
			rj := a.Row(j)
			ri[j] = (ri[j] - dot(ri[:j], rj[:j])) / rj[j]
		}
		d := ri[i] - dot(ri[:i], ri[:i])
		if !(d > 0) || d > math.MaxFloat64 {
			return i, false
		}
		ri[i] = math.Sqrt(d)
		clear(ri[i+1:])
	}
	return a.Rows, true
}

// SolveSPD returns the X of (A + ridge I) X = B for a symmetric positive
// (semi)definite n x n matrix A, of which only the lower triangle is read, and
// B n x p. If the sum is not positive definite the error wraps ErrNotPositive
// and names the pivot.
func SolveSPD(e *blas.Engine, a Matrix, ridge float64, b Matrix) (Matrix, error) {
	a.checkSquare()
	b.check()
	if b.Rows != a.Rows {
		panic(badShape)
	}
	if _, err := b.maxAbs(); err != nil {
		return Matrix{}, err
	}
	r := a.Clone()
	for i := range r.Rows {
		r.Data[i*r.Stride+i] += ridge
	}
	l, pivot, ok := Cholesky(e, r)
	if !ok {
		if _, err := a.maxAbs(); err != nil {
			return Matrix{}, err
		}
		return Matrix{}, fmt.Errorf("%w: pivot %d of %d with ridge %g", ErrNotPositive, pivot, a.Rows, ridge)
	}
	x := b.Clone()
	SolveLower(e, l, false, x)
	SolveLower(e, l, true, x)
	return x, nil
}
