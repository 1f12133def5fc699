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
	t, err := tridiagonalise(e, c)
	if err != nil {
		return nil, err
	}
	values, zt, err := t.top(e, want)
	if err != nil {
		return nil, err
	}
	positiveRows(zt)
	return &Eigen{
		Values: values, Vectors: zt.T(), Trace: trace(c), Converged: true, lowest: t.lowest,
	}, nil
}

// tridiagonalise reduces a copy of the lower triangle of c, scaled by a power
// of two to elements below one.
func tridiagonalise(e *blas.Engine, c Matrix) (*tridiagonal, error) {
	big, err := c.lowerMaxAbs()
	if err != nil {
		return nil, err
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
	t := reduceTridiagonal(e, a)
	t.unit = unit
	return t, nil
}

// top returns the want largest eigenvalues of C, descending, and in rows
// their vectors, and notes the smallest.
func (t *tridiagonal) top(e *blas.Engine, want int) ([]float64, Matrix, error) {
	n := len(t.d)
	values, zt, err := tridiagonalEigen(e, slices.Clone(t.d), slices.Clone(t.e), want)
	if err != nil {
		return nil, Matrix{}, fmt.Errorf("%w of order %d", err, n)
	}
	t.applyQ(e, zt)
	reverseRows(zt)
	scale(t.unit, values)
	t.lowest = values[0]
	slices.Reverse(values)
	return values[:want], zt, nil
}

// values returns all eigenvalues of C, descending, by the root-free QL method.
func (t *tridiagonal) values() ([]float64, error) {
	d, off := slices.Clone(t.d), slices.Clone(t.e)
	for _, x := range [][]float64{d, off} {
		for i, v := range x {
			// Beside a norm of one these are zeros, and gonum 0.17's Dsterf panics
			// on a block that it has to scale up.
			if math.Abs(v) < 1e-100 {
				x[i] = 0
			}
		}
	}
	if ok := (lapackgonum.Implementation{}).Dsterf(len(d), d, off); !ok {
		return nil, fmt.Errorf("%w: eigenvalues of order %d", ErrNoConvergence, len(d))
	}
	slices.Reverse(d)
	scale(t.unit, d)
	return d, nil
}

func reverseRows(a Matrix) {
	tmp := make([]float64, a.Cols)
	for i, j := 0, a.Rows-1; i < j; i, j = i+1, j-1 {
		copy(tmp, a.Row(i))
		copy(a.Row(i), a.Row(j))
		copy(a.Row(j), tmp)
	}
}
