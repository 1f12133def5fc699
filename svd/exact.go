package svd

import (
	"fmt"

	"gonum.org/v1/gonum/mat"
)

// Exact returns the truncated singular value decomposition of a by gonum's
// dense SVD. The rank is lowered to min(m, n). It takes O(m n min(m, n)) time
// with a large constant and serves as the oracle of Truncate.
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
