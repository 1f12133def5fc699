package svd

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// Gemm computes C <- alpha op(A) op(B) + beta C. A nil engine means the
// shared one.
func Gemm(e *blas.Engine, transA, transB bool, alpha float64, a, b Matrix, beta float64, c Matrix) {
	m, k := a.Rows, a.Cols
	if transA {
		m, k = k, m
	}
	kb, n := b.Rows, b.Cols
	if transB {
		kb, n = n, kb
	}
	if k != kb || m != c.Rows || n != c.Cols {
		panic(badShape)
	}
	if m == 0 || n == 0 {
		return
	}
	orShared(e).Dgemm(transA, transB, m, n, k, alpha, a.Data, a.Stride, b.Data, b.Stride, beta, c.Data, c.Stride)
}

// Product returns op(A) op(B) as a new matrix. A nil engine means the shared
// one.
func Product(e *blas.Engine, transA, transB bool, a, b Matrix) Matrix {
	m, n := a.Rows, b.Cols
	if transA {
		m = a.Cols
	}
	if transB {
		n = b.Rows
	}
	c := NewMatrix(m, n)
	Gemm(e, transA, transB, 1, a, b, 0, c)
	return c
}

// dot returns x^T y over the length of x, in four interleaved partial sums.
func dot(x, y []float64) float64 {
	y = y[:len(x)]
	var s0, s1, s2, s3 float64
	for len(x) >= 4 {
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
		x, y = x[4:], y[4:]
	}
	for i, v := range x {
		s0 += v * y[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// axpy computes y <- y + alpha x over the length of x.
func axpy(alpha float64, x, y []float64) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += alpha * v
	}
}

// Syrk computes C <- alpha A A^T + beta C, or alpha A^T A + beta C if trans;
// both triangles of C are written. A nil engine means the shared one.
func Syrk(e *blas.Engine, trans bool, alpha float64, a Matrix, beta float64, c Matrix) {
	n, k := a.Rows, a.Cols
	if trans {
		n, k = k, n
	}
	if c.Rows != n || c.Cols != n {
		panic(badShape)
	}
	if n > 0 {
		orShared(e).Dsyrk(trans, n, k, alpha, a.Data, a.Stride, beta, c.Data, c.Stride)
	}
}

// epsilon is the distance from 1 to the next float64.
const epsilon = 0x1p-52

// energy returns the squared Frobenius norm of a.
func energy(a Matrix) float64 {
	var s float64
	for i := range a.Rows {
		s += dot(a.Row(i), a.Row(i))
	}
	return s
}

// innerProduct returns tr(A^T B).
func innerProduct(a, b Matrix) float64 {
	var s float64
	for i := range a.Rows {
		s += dot(a.Row(i), b.Row(i))
	}
	return s
}

// symmetrise replaces a by (A + A^T) / 2.
func symmetrise(a Matrix) {
	for i := range a.Rows {
		for j := range i {
			v := (a.At(i, j) + a.At(j, i)) / 2
			a.Set(i, j, v)
			a.Set(j, i, v)
		}
	}
}

func eye(n int) Matrix {
	a := NewMatrix(n, n)
	for i := range n {
		a.Set(i, i, 1)
	}
	return a
}

func trace(a Matrix) float64 {
	var s float64
	for i := range a.Rows {
		s += a.At(i, i)
	}
	return s
}

// positiveRows makes the largest component of every row positive, the first
// of equals.
func positiveRows(a Matrix) {
	for i := range a.Rows {
		positiveRow(a.Row(i))
	}
}

// positiveRow is positiveRows for one row; it reports whether the sign changed.
func positiveRow(row []float64) bool {
	var big float64
	for _, v := range row {
		if math.Abs(v) > math.Abs(big) {
			big = v
		}
	}
	if big < 0 {
		scale(-1, row)
	}
	return big < 0
}

func sum(x []float64) float64 {
	var s float64
	for _, v := range x {
		s += v
	}
	return s
}
