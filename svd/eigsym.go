package svd

import (
	"fmt"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack"
	"gonum.org/v1/gonum/lapack/lapack64"
)

// EigSym returns all eigenpairs of the symmetric matrix c. Only its lower
// triangle is read.
func EigSym(c Matrix, opt Options) (*Eigen, error) {
	c.checkSquare()
	n := c.Rows
	e := &Eigen{Values: make([]float64, n), Vectors: NewMatrix(n, n), Converged: true}
	if n == 0 {
		return e, nil
	}
	if _, err := c.maxAbs(); err != nil {
		return nil, err
	}
	stride := n + 8 // gonum is many times slower on rows that are a power of two apart
	w := Matrix{Rows: n, Cols: n, Stride: stride, Data: make([]float64, n*stride)}
	w.copyFrom(c)
	s := blas64.Symmetric{N: n, Stride: stride, Data: w.Data, Uplo: blas.Lower}
	work := []float64{0}
	lapack64.Syev(lapack.EVCompute, s, e.Values, work, -1)
	work = make([]float64, int(work[0]))
	if !lapack64.Syev(lapack.EVCompute, s, e.Values, work, len(work)) {
		return nil, fmt.Errorf("%w: eigenvalues of a %d x %d matrix", ErrNoConvergence, n, n)
	}
	for j := range n {
		for i := range n {
			e.Vectors.Set(i, j, w.At(i, n-1-j))
		}
	}
	for i, j := 0, n-1; i < j; i, j = i+1, j-1 {
		e.Values[i], e.Values[j] = e.Values[j], e.Values[i]
	}
	for i, v := range e.Values {
		e.Trace += v
		if leadingSign(e.Vectors, i) < 0 {
			negateColumn(e.Vectors, i)
		}
	}
	return e, nil
}
