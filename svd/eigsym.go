package svd

import (
	"fmt"
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	lapackgonum "gonum.org/v1/gonum/lapack/gonum"
)

// EigSym returns all eigenpairs of the symmetric matrix c, of which only the
// lower triangle is read: reduction to tridiagonal form, divide and conquer,
// back-transformation, with GEMM for all but half of the reduction.
func EigSym(c Matrix, opt Options) (*Eigen, error) {
	return eigSymTop(orShared(opt.Engine), c, c.Rows)
}

// eigSymTop is EigSym for the want largest eigenvalues and their vectors.
func eigSymTop(e *blas.Engine, c Matrix, want int) (*Eigen, error) {
	c.checkSquare()
	n := c.Rows
	if n == 0 {
		return &Eigen{Vectors: NewMatrix(0, 0), Converged: true}, nil
	}
	t, unit, err := tridiagonalise(e, c)
	if err != nil {
		return nil, err
	}
	values, zt, err := tridiagonalEigen(e, t.d, slices.Clone(t.e), want)
	if err != nil {
		return nil, fmt.Errorf("%w of order %d", err, n)
	}
	t.applyQ(e, zt)
	positiveRows(zt)

	out := &Eigen{
		Values: values[n-want:], Vectors: NewMatrix(n, want), Trace: trace(c), Converged: true,
		lowest: values[0] * unit,
	}
	slices.Reverse(out.Values)
	scale(unit, out.Values)
	reverseRows(zt)
	transposeInto(out.Vectors, zt)
	return out, nil
}

// eigenvalues returns all eigenvalues of c, descending, by the root-free QL
// method on its tridiagonal form.
func eigenvalues(e *blas.Engine, c Matrix) ([]float64, error) {
	c.checkSquare()
	if c.Rows == 0 {
		return nil, nil
	}
	t, unit, err := tridiagonalise(e, c)
	if err != nil {
		return nil, err
	}
	for _, x := range [][]float64{t.d, t.e} {
		for i, v := range x {
			// Beside a norm of one these are zeros, and gonum 0.17's Dsterf panics
			// on a block that it has to scale up.
			if math.Abs(v) < 1e-100 {
				x[i] = 0
			}
		}
	}
	if ok := (lapackgonum.Implementation{}).Dsterf(c.Rows, t.d, t.e); !ok {
		return nil, fmt.Errorf("%w: eigenvalues of order %d", ErrNoConvergence, c.Rows)
	}
	slices.Reverse(t.d)
	scale(unit, t.d)
	return t.d, nil
}

// tridiagonalise reduces a copy of the lower triangle of c, scaled by a power of
// two to elements below one. T times unit is similar to c.
func tridiagonalise(e *blas.Engine, c Matrix) (t *tridiagonal, unit float64, err error) {
	big, err := c.lowerMaxAbs()
	if err != nil {
		return nil, 0, err
	}
	inv, unit := powerOfTwoScale(big)
	n := c.Rows
	stride := n
	if stride%64 == 0 { // rows a multiple of 512 bytes apart share few cache sets
		stride += 8
	}
	a := Matrix{Rows: n, Cols: n, Stride: stride, Data: make([]float64, n*stride)}
	transposeInto(a, c)
	for i := range n {
		scale(inv, a.Row(i)[i:])
	}
	return reduceTridiagonal(e, a), unit, nil
}

func reverseRows(a Matrix) {
	tmp := make([]float64, a.Cols)
	for i, j := 0, a.Rows-1; i < j; i, j = i+1, j-1 {
		copy(tmp, a.Row(i))
		copy(a.Row(i), a.Row(j))
		copy(a.Row(j), tmp)
	}
}
