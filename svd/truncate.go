package svd

import (
	"fmt"
	"math"
)

// Truncation is A = U diag(S) V^T + E for an m x n matrix A, with A V = U diag(S)
// if m >= n and A^T U = V diag(S) otherwise.
type Truncation struct {
	U Matrix    // m x r, orthonormal columns
	S []float64 // r singular values, descending
	V Matrix    // n x r, orthonormal columns, the largest component of each positive

	Total     float64 // |A|_F^2
	Captured  float64 // sum of S^2
	Discarded float64 // |E|_F^2 = Total - Captured, the error of the truncation

	Iterations int  // products with A^T A over a whole block; 0 for Exact
	Converged  bool // false when MaxIterations came before Tol; Discarded is true all the same
}

// Truncate returns the truncated singular value decomposition of a to the given
// rank, which is lowered to min(m, n): exactly if the smaller side is short,
// else by block Krylov iteration on A^T A or A A^T, whichever is the smaller.
// That product is formed only where this saves time.
//
// Singular values below about 1e-8 of the largest are only resolved as a
// group, since their squares are lost in the rounding of the largest one's;
// Discarded is the true error all the same.
func Truncate(a Matrix, rank int, opt Options) (*Truncation, error) {
	if min(a.Rows, a.Cols) <= exactBelow {
		return Exact(a, rank)
	}
	short := min(a.Rows, a.Cols)
	return truncate(a, rank, gramIsCheaper(max(a.Rows, a.Cols), short, min(rank, short)), opt)
}

// exactBelow is the length of a matrix's smaller side up to which Truncate
// calls Exact.
const exactBelow = 32

// truncate is Truncate by the iteration whatever the sizes, with gram through A^T A
// or A A^T, formed.
func truncate(a Matrix, rank int, gram bool, opt Options) (*Truncation, error) {
	a.check()
	if rank < 0 {
		panic(badRank)
	}
	opt = opt.withDefaults()
	opt.checkStart(a.Cols)
	big, err := a.maxAbs()
	if err != nil {
		return nil, err
	}
	rank = min(rank, a.Rows, a.Cols)
	inv, unit := safeScale(big)
	if inv != 1 {
		a = a.Clone()
		scale(inv, a.Data)
	}
	e := opt.Engine
	tall := a.Rows >= a.Cols
	if !tall && opt.Start.Cols > 0 {
		opt.Start = Product(e, false, false, a, opt.Start)
	}
	g := productOperator(e, a, tall)
	if gram {
		g.formNow()
	}
	s, err := leadingEigen(g, rank, opt)
	if err != nil {
		return nil, fmt.Errorf("truncation of a %d x %d matrix to rank %d: %w", a.Rows, a.Cols, rank, err)
	}
	t := &Truncation{S: make([]float64, rank), Total: g.trace, Iterations: s.blocks, Converged: s.converged}
	f := &rowFactors{e: e, narrow: s.vectors, wide: s.images, s: t.S}
	if err := f.finish(); err != nil {
		return nil, err
	}
	u, v := f.wide, f.narrow
	if !tall {
		u, v = v, u
	}
	for i := range rank {
		if positiveRow(v.Row(i)) {
			scale(-1, u.Row(i))
		}
		t.Captured += t.S[i] * t.S[i]
	}
	t.U, t.V = u.T(), v.T()
	t.Discarded = max(0, t.Total-t.Captured)
	if t.Discarded < cancelled*t.Total {
		rest := a.Clone()
		for i := range rank {
			scale(t.S[i], u.Row(i))
		}
		Gemm(e, true, false, -1, u, v, 1, rest)
		t.Discarded = energy(rest)
	}
	scale(unit, t.S)
	t.Total *= unit * unit
	t.Captured *= unit * unit
	t.Discarded *= unit * unit
	return t, nil
}

// cancelled is the share of the total energy below which Total - Captured is
// mostly rounding, and the error is computed from the residual instead.
const cancelled = 1e-6

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
