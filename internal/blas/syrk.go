package blas

import "unsafe"

// Ssyrk computes the symmetric rank-k update C = alpha*A*A^T + beta*C, with A
// n x k, or C = alpha*A^T*A + beta*C, with A k x n, if trans. Both triangles of
// the n x n matrix C are written; only the upper one is read, and not even that
// if beta is zero.
func (e *Engine) Ssyrk(trans bool, n, k int, alpha float32, a []float32, lda int, beta float32, c []float32, ldc int) {
	checkSyrk(trans, n, k, len(a), lda, len(c), ldc)
	syrk(e, &e.suite.f32, &pool32, trans, n, k, alpha, a, lda, beta, c, ldc)
}

// Dsyrk is Ssyrk in float64.
func (e *Engine) Dsyrk(trans bool, n, k int, alpha float64, a []float64, lda int, beta float64, c []float64, ldc int) {
	checkSyrk(trans, n, k, len(a), lda, len(c), ldc)
	syrk(e, &e.suite.f64, &pool64, trans, n, k, alpha, a, lda, beta, c, ldc)
}

func syrk[T float](e *Engine, kn *kernels[T, T], p *pool[T], trans bool, n, k int, alpha T, a []T, lda int, beta T, c []T, ldc int) {
	g := product[T, T]{
		engine: e, kn: kn, pool: p, m: n, n: n, k: k, inner: innerBlock[T](),
		alpha: alpha, beta: beta, a: operand[T]{a, lda, !trans}, b: operand[T]{a, lda, !trans},
		c: c, ldc: ldc, part: upper,
	}
	g.run()
	mirror(e, kn, n, c, ldc)
}

// mirror copies the upper triangle of C to the lower.
func mirror[T float](e *Engine, kn *kernels[T, T], n int, c []T, ldc int) {
	const stripe = 64
	size := int(unsafe.Sizeof(c[:1][0]))
	e.run(e.workers(n*n), (n+stripe-1)/stripe, func(s int) {
		r0, r1 := s*stripe, min(n, (s+1)*stripe)
		q := 0
		if blocks := (r1 - r0) / kn.packB.columns; blocks*kn.packB.columns == r1-r0 {
			for ; q+kn.packB.group <= r0; q += kn.packB.group {
				kn.packB.transpose(blocks, &c[q*ldc+r0], ldc*size, &c[r0*ldc+q], ldc*size)
			}
		}
		for i := r0; i < r1; i++ {
			for j := q; j < i; j++ {
				c[i*ldc+j] = c[j*ldc+i]
			}
		}
	})
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
	g := product[float32, float32]{
		engine: e, kn: &e.suite.f32, pool: &pool32, m: n, n: n, k: k, inner: accRows,
		alpha: 1, a: operand[float32]{a, lda, false}, b: operand[float32]{a, lda, false},
		ldc: ldc, part: upper, sum: c, accScale: alpha, addScaled: e.suite.addScaled,
	}
	g.run()
	mirror(e, &e.suite.f64, n, c, ldc)
}
