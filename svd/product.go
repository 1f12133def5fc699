package svd

import "github.com/mlaconvert/mlaconvert/internal/blas"

// Gemm computes C <- alpha op(A) op(B) + beta C. A nil engine means the shared one.
func Gemm(e *blas.Engine, transA, transB bool, alpha float64, a, b Matrix, beta float64, c Matrix) {
	gemm(orShared(e), transA, transB, alpha, a, b, beta, c)
}

// Product returns op(A) op(B) as a new matrix. A nil engine means the shared one.
func Product(e *blas.Engine, transA, transB bool, a, b Matrix) Matrix {
	return product(orShared(e), transA, transB, a, b)
}

// Congruence returns A C A^T for A m x n, as a new m x m matrix. A nil engine means the shared one.
func (m Metric) Congruence(e *blas.Engine, a Matrix) Matrix {
	e = orShared(e)
	return product(e, false, true, m.rightApply(e, a), a)
}

// Energy returns tr(Q A C A^T), what the block costs if nothing of it is kept.
func (b Block) Energy(e *blas.Engine, c Metric) float64 {
	return b.Q.Inner(c.Congruence(e, b.A))
}

// Inner returns tr(C X) for a symmetric n x n matrix X.
func (m Metric) Inner(x Matrix) float64 {
	y := m.rightApply(sharedEngine(), x)
	sum := 0.0
	for i := range m.n {
		sum += y.At(i, i)
	}
	return sum
}
