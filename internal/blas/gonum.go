package blas

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

// Gonum implements gonum's BLAS interfaces. The routines that gonum's mat and
// lapack packages spend their time in run on an Engine: the matrix products, the
// symmetric updates, products and solutions with triangular matrices, and large
// matrix-vector products. The others are gonum's own.
type Gonum struct {
	gonum.Implementation
	engine *Engine
}

var (
	_ blas.Float64 = Gonum{}
	_ blas.Float32 = Gonum{}
)

// Gonum returns an implementation for blas64.Use and blas32.Use that runs on e.
func (e *Engine) Gonum() Gonum { return Gonum{engine: e} }

func isTrans(t blas.Transpose) bool {
	switch t {
	case blas.NoTrans:
		return false
	case blas.Trans, blas.ConjTrans:
		return true
	}
	panic(badTrans)
}

func triangleOf(u blas.Uplo) part {
	switch u {
	case blas.Upper:
		return upper
	case blas.Lower:
		return lower
	}
	panic(badUplo)
}

func isUnit(d blas.Diag) bool {
	switch d {
	case blas.Unit:
		return true
	case blas.NonUnit:
		return false
	}
	panic(badDiag)
}

func isLeft(s blas.Side) bool {
	switch s {
	case blas.Left:
		return true
	case blas.Right:
		return false
	}
	panic(badSide)
}

// Dgemm computes C = alpha*op(A)*op(B) + beta*C.
func (g Gonum) Dgemm(tA, tB blas.Transpose, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	g.engine.Dgemm(isTrans(tA), isTrans(tB), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// Sgemm computes C = alpha*op(A)*op(B) + beta*C.
func (g Gonum) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	g.engine.Sgemm(isTrans(tA), isTrans(tB), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// Dsyrk computes one triangle of C = alpha*A*A^T + beta*C or, if tA is a
// transposition, C = alpha*A^T*A + beta*C.
func (g Gonum) Dsyrk(ul blas.Uplo, tA blas.Transpose, n, k int, alpha float64, a []float64, lda int, beta float64, c []float64, ldc int) {
	rank(g.engine, &g.engine.suite.f64, &pool64, ul, tA, n, k, alpha, a, lda, a, lda, beta, c, ldc)
}

// Ssyrk is Dsyrk in float32.
func (g Gonum) Ssyrk(ul blas.Uplo, tA blas.Transpose, n, k int, alpha float32, a []float32, lda int, beta float32, c []float32, ldc int) {
	rank(g.engine, &g.engine.suite.f32, &pool32, ul, tA, n, k, alpha, a, lda, a, lda, beta, c, ldc)
}

// Dsyr2k computes one triangle of C = alpha*A*B^T + alpha*B*A^T + beta*C or, if
// tA is a transposition, C = alpha*A^T*B + alpha*B^T*A + beta*C.
func (g Gonum) Dsyr2k(ul blas.Uplo, tA blas.Transpose, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	rank2(g.engine, &g.engine.suite.f64, &pool64, ul, tA, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

// Ssyr2k is Dsyr2k in float32.
func (g Gonum) Ssyr2k(ul blas.Uplo, tA blas.Transpose, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	rank2(g.engine, &g.engine.suite.f32, &pool32, ul, tA, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
}

func rank2[T float](e *Engine, kn *kernels[T, T], p *pool[T], ul blas.Uplo, tA blas.Transpose, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	rank(e, kn, p, ul, tA, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
	rank(e, kn, p, ul, tA, n, k, alpha, b, ldb, a, lda, 1, c, ldc)
}

// rank computes one triangle of C = alpha*A*B^T + beta*C or alpha*A^T*B + beta*C.
func rank[T float](e *Engine, kn *kernels[T, T], p *pool[T], ul blas.Uplo, tA blas.Transpose, n, k int, alpha T, a []T, lda int, b []T, ldb int, beta T, c []T, ldc int) {
	triangle, trans := triangleOf(ul), isTrans(tA)
	checkGemm(trans, !trans, n, n, k, len(a), lda, len(b), ldb, len(c), ldc)
	g := product[T, T]{
		engine: e, kn: kn, pool: p, m: n, n: n, k: k, inner: innerBlock[T](),
		alpha: alpha, beta: beta, a: operand[T]{a, lda, !trans}, b: operand[T]{b, ldb, !trans},
		c: c, ldc: ldc, part: triangle, exact: true,
	}
	g.run()
}

// Dtrsm solves op(A)*X = alpha*B or X*op(A) = alpha*B for X, which replaces B.
// A is triangular.
func (g Gonum) Dtrsm(s blas.Side, ul blas.Uplo, tA blas.Transpose, d blas.Diag, m, n int, alpha float64, a []float64, lda int, b []float64, ldb int) {
	triangularCall(g.engine, &g.engine.suite.f64, &pool64, true, s, ul, tA, d, m, n, alpha, a, lda, b, ldb)
}

// Strsm is Dtrsm in float32.
func (g Gonum) Strsm(s blas.Side, ul blas.Uplo, tA blas.Transpose, d blas.Diag, m, n int, alpha float32, a []float32, lda int, b []float32, ldb int) {
	triangularCall(g.engine, &g.engine.suite.f32, &pool32, true, s, ul, tA, d, m, n, alpha, a, lda, b, ldb)
}

// Dtrmm computes B = alpha*op(A)*B or B = alpha*B*op(A). A is triangular.
func (g Gonum) Dtrmm(s blas.Side, ul blas.Uplo, tA blas.Transpose, d blas.Diag, m, n int, alpha float64, a []float64, lda int, b []float64, ldb int) {
	triangularCall(g.engine, &g.engine.suite.f64, &pool64, false, s, ul, tA, d, m, n, alpha, a, lda, b, ldb)
}

// Strmm is Dtrmm in float32.
func (g Gonum) Strmm(s blas.Side, ul blas.Uplo, tA blas.Transpose, d blas.Diag, m, n int, alpha float32, a []float32, lda int, b []float32, ldb int) {
	triangularCall(g.engine, &g.engine.suite.f32, &pool32, false, s, ul, tA, d, m, n, alpha, a, lda, b, ldb)
}

func triangularCall[T float](e *Engine, kn *kernels[T, T], p *pool[T], solve bool, s blas.Side, ul blas.Uplo, tA blas.Transpose, d blas.Diag, m, n int, alpha T, a []T, lda int, b []T, ldb int) {
	left, trans, low, unit := isLeft(s), isTrans(tA), triangleOf(ul) == lower, isUnit(d)
	switch {
	case m < 0:
		panic(mLT0)
	case n < 0:
		panic(nLT0)
	}
	order, other := m, n
	if !left {
		order, other = n, m
	}
	checkMatrix(order, order, lda, len(a), badLdA, shortA)
	checkMatrix(m, n, ldb, len(b), badLdB, shortB)
	if m == 0 || n == 0 {
		return
	}
	if alpha == 0 {
		for i := range m {
			clear(b[i*ldb : i*ldb+n])
		}
		return
	}
	t := triangular[T]{engine: e, kn: kn, pool: p, solve: solve, left: left, ldb: ldb, other: other}
	t.multiply(triangle[T]{data: a, ld: lda, n: order, trans: trans, lower: low != trans, unit: unit}, alpha, b)
}

// gemvWork is the number of elements from which a matrix-vector product is worth
// more than one goroutine.
const gemvWork = 1 << 16

// Dgemv computes y = alpha*op(A)*x + beta*y.
func (g Gonum) Dgemv(tA blas.Transpose, m, n int, alpha float64, a []float64, lda int, x []float64, incX int, beta float64, y []float64, incY int) {
	if m <= 0 || n < gemvWork/m || incX != 1 || incY != 1 {
		g.Implementation.Dgemv(tA, m, n, alpha, a, lda, x, incX, beta, y, incY)
		return
	}
	g.engine.Dgemv(isTrans(tA), m, n, alpha, a, lda, x, beta, y)
}

// Sgemv is Dgemv in float32.
func (g Gonum) Sgemv(tA blas.Transpose, m, n int, alpha float32, a []float32, lda int, x []float32, incX int, beta float32, y []float32, incY int) {
	if m <= 0 || n < gemvWork/m || incX != 1 || incY != 1 {
		g.Implementation.Sgemv(tA, m, n, alpha, a, lda, x, incX, beta, y, incY)
		return
	}
	g.engine.Sgemv(isTrans(tA), m, n, alpha, a, lda, x, beta, y)
}
