package blas

// Sgemm computes C = alpha*op(A)*op(B) + beta*C in float32, where op(A) is
// m x k, op(B) is k x n and C is m x n. A is stored m x k, or k x m if transA;
// B is stored k x n, or n x k if transB. If beta is zero, C is not read. If
// alpha is zero, A and B are not read.
func (e *Engine) Sgemm(transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	checkGemm(transA, transB, m, n, k, len(a), lda, len(b), ldb, len(c), ldc)
	p := product[float32, float32]{
		engine: e, kn: &e.suite.f32, pool: &pool32, m: m, n: n, k: k, inner: innerBlock[float32](),
		alpha: alpha, beta: beta, a: operand[float32]{a, lda, !transA}, b: operand[float32]{b, ldb, transB},
		c: c, ldc: ldc,
	}
	p.run()
}

// Dgemm is Sgemm in float64.
func (e *Engine) Dgemm(transA, transB bool, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	checkGemm(transA, transB, m, n, k, len(a), lda, len(b), ldb, len(c), ldc)
	p := product[float64, float64]{
		engine: e, kn: &e.suite.f64, pool: &pool64, m: m, n: n, k: k, inner: innerBlock[float64](),
		alpha: alpha, beta: beta, a: operand[float64]{a, lda, !transA}, b: operand[float64]{b, ldb, transB},
		c: c, ldc: ldc,
	}
	p.run()
}

// SgemmBF16 is Sgemm with A not transposed and B held as bfloat16 bits. B is
// widened to float32 block by block as the kernels need it.
func (e *Engine) SgemmBF16(transB bool, m, n, k int, alpha float32, a []float32, lda int, b []uint16, ldb int, beta float32, c []float32, ldc int) {
	checkGemm(false, transB, m, n, k, len(a), lda, len(b), ldb, len(c), ldc)
	p := product[float32, uint16]{
		engine: e, kn: &e.suite.bf16, pool: &pool32, m: m, n: n, k: k, inner: innerBlock[float32](),
		alpha: alpha, beta: beta, a: operand[float32]{a, lda, true}, b: operand[uint16]{b, ldb, transB},
		c: c, ldc: ldc,
	}
	p.run()
}

// Sgemv computes y = alpha*op(A)*x + beta*y in float32, where A is m x n and
// op(A) is A, or its transpose if trans. If beta is zero, y is not read.
func (e *Engine) Sgemv(trans bool, m, n int, alpha float32, a []float32, lda int, x []float32, beta float32, y []float32) {
	gemv(e.Sgemm, trans, m, n, alpha, a, lda, x, beta, y)
}

// Dgemv is Sgemv in float64.
func (e *Engine) Dgemv(trans bool, m, n int, alpha float64, a []float64, lda int, x []float64, beta float64, y []float64) {
	gemv(e.Dgemm, trans, m, n, alpha, a, lda, x, beta, y)
}

// gemv expresses a matrix-vector product as the product of a matrix of one row,
// y^T = x^T op(A)^T, which the product kernels stream A through once.
func gemv[T float32 | float64](gemm func(transA, transB bool, m, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int), trans bool, m, n int, alpha T, a []T, lda int, x []T, beta T, y []T) {
	switch {
	case m < 0:
		panic(mLT0)
	case n < 0:
		panic(nLT0)
	}
	checkMatrix(m, n, lda, len(a), badLdA, shortA)
	lenX, lenY := n, m
	if trans {
		lenX, lenY = m, n
	}
	if len(x) < lenX {
		panic(shortX)
	}
	if len(y) < lenY {
		panic(shortY)
	}
	gemm(false, !trans, 1, lenY, lenX, alpha, x, max(1, lenX), a, lda, beta, y, max(1, lenY))
}
