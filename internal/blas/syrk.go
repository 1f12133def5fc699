package blas

// Ssyrk computes the symmetric rank-k update C = alpha*A*A^T + beta*C, with A
// n x k, or C = alpha*A^T*A + beta*C, with A k x n, if trans. Both triangles of
// the n x n matrix C are written; only the upper one is read, and not even that
// if beta is zero.
func (e *Engine) Ssyrk(trans bool, n, k int, alpha float32, a []float32, lda int, beta float32, c []float32, ldc int) {
	checkSyrk(trans, n, k, len(a), lda, len(c), ldc)
	syrk(e, trans, n, k, alpha, a, lda, beta, c, ldc)
}

// Dsyrk is Ssyrk in float64.
func (e *Engine) Dsyrk(trans bool, n, k int, alpha float64, a []float64, lda int, beta float64, c []float64, ldc int) {
	checkSyrk(trans, n, k, len(a), lda, len(c), ldc)
	syrk(e, trans, n, k, alpha, a, lda, beta, c, ldc)
}

func syrk[T float32 | float64](e *Engine, trans bool, n, k int, alpha T, a []T, lda int, beta T, c []T, ldc int) {
	gemm(e, trans, !trans, n, n, k, alpha, a, lda, a, lda, beta, c, ldc)
	for i := range n {
		for j := range i {
			c[i*ldc+j] = c[j*ldc+i]
		}
	}
}

// accRows is the number of rows that SsyrkAcc sums in float32 before it adds
// the result to the float64 accumulator.
const accRows = 512

// SsyrkAcc adds alpha*A^T*A to the symmetric n x n matrix C, where A is k x n:
// single-precision data (activations) accumulated in double (their covariance).
// Blocks of at most 512 rows of A are multiplied in float32 and each block's
// result is added in float64, so that the rounding error does not grow with the
// number of rows. Both triangles of C are written; only the upper one is read.
func (e *Engine) SsyrkAcc(n, k int, alpha float64, a []float32, lda int, c []float64, ldc int) {
	checkSyrk(true, n, k, len(a), lda, len(c), ldc)
	s := make([]float32, n*n)
	for p := 0; p < k; p += accRows {
		syrk(e, true, n, min(accRows, k-p), 1, a[p*lda:], lda, 0, s, max(1, n))
		for i := range n {
			for j := range n {
				c[i*ldc+j] += alpha * float64(s[i*n+j])
			}
		}
	}
}
