package svd

import "github.com/mlaconvert/mlaconvert/internal/blas"

// triBlock is the largest triangle solved by scalar loops.
const triBlock = 32

// SolveLower overwrites b (n x p) with L^-1 B, or with L^-T B if trans, for
// the lower triangular n x n matrix l. A zero on the diagonal gives infinities.
func SolveLower(e *blas.Engine, l Matrix, trans bool, b Matrix) {
	l.checkSquare()
	b.check()
	if b.Rows != l.Rows {
		panic(badShape)
	}
	if b.Cols > 0 {
		solveLeft(orShared(e), l, trans, b)
	}
}

// SolveLowerRight overwrites b (p x n) with B L^-1, or with B L^-T if trans,
// for the lower triangular n x n matrix l.
func SolveLowerRight(e *blas.Engine, l Matrix, trans bool, b Matrix) {
	l.checkSquare()
	b.check()
	if b.Cols != l.Rows {
		panic(badShape)
	}
	if b.Rows > 0 {
		solveRight(orShared(e), l, trans, b)
	}
}

// solveLeft splits the triangle in two, so that all but the small triangles
// on the diagonal is GEMM.
func solveLeft(e *blas.Engine, l Matrix, trans bool, b Matrix) {
	n := l.Rows
	if n <= triBlock {
		const width = 256 // columns of B per task
		e.For((b.Cols+width-1)/width, func(t int) {
			solveLeftSmall(l, trans, b.Slice(0, n, t*width, min((t+1)*width, b.Cols)))
		})
		return
	}
	h := splitTriangle(n)
	l11, l21, l22 := l.Slice(0, h, 0, h), l.Slice(h, n, 0, h), l.Slice(h, n, h, n)
	b1, b2 := b.Slice(0, h, 0, b.Cols), b.Slice(h, n, 0, b.Cols)
	if trans {
		solveLeft(e, l22, true, b2)
		Gemm(e, true, false, -1, l21, b2, 1, b1)
		solveLeft(e, l11, true, b1)
		return
	}
	solveLeft(e, l11, false, b1)
	Gemm(e, false, false, -1, l21, b1, 1, b2)
	solveLeft(e, l22, false, b2)
}

func solveLeftSmall(l Matrix, trans bool, b Matrix) {
	n := l.Rows
	if trans {
		for i := n - 1; i >= 0; i-- {
			scale(1/l.At(i, i), b.Row(i))
			for k := range i {
				axpy(-l.At(i, k), b.Row(i), b.Row(k))
			}
		}
		return
	}
	for i := range n {
		for k := range i {
			axpy(-l.At(i, k), b.Row(k), b.Row(i))
		}
		scale(1/l.At(i, i), b.Row(i))
	}
}

func solveRight(e *blas.Engine, l Matrix, trans bool, b Matrix) {
	n := l.Rows
	if n <= triBlock {
		const height = 64 // rows of B per task
		e.For((b.Rows+height-1)/height, func(t int) {
			solveRightSmall(l, trans, b.Slice(t*height, min((t+1)*height, b.Rows), 0, n))
		})
		return
	}
	h := splitTriangle(n)
	l11, l21, l22 := l.Slice(0, h, 0, h), l.Slice(h, n, 0, h), l.Slice(h, n, h, n)
	b1, b2 := b.Slice(0, b.Rows, 0, h), b.Slice(0, b.Rows, h, n)
	if trans {
		solveRight(e, l11, true, b1)
		Gemm(e, false, true, -1, b1, l21, 1, b2)
		solveRight(e, l22, true, b2)
		return
	}
	solveRight(e, l22, false, b2)
	Gemm(e, false, false, -1, b2, l21, 1, b1)
	solveRight(e, l11, false, b1)
}

func solveRightSmall(l Matrix, trans bool, b Matrix) {
	n := l.Rows
	for i := range b.Rows {
		x := b.Row(i)
		if trans { // x L^-T: forward substitution with L
			for j := range n {
				lj := l.Row(j)
				x[j] = (x[j] - dot(x[:j], lj[:j])) / lj[j]
			}
			continue
		}
		for j := n - 1; j >= 0; j-- { // x L^-1
			lj := l.Row(j)
			x[j] /= lj[j]
			axpy(-x[j], lj[:j], x[:j])
		}
	}
}

// splitTriangle returns a multiple of triBlock near n/2.
func splitTriangle(n int) int {
	return max(triBlock, (n/2+triBlock-1)/triBlock*triBlock)
}

func scale(f float64, x []float64) {
	for i := range x {
		x[i] *= f
	}
}
