package svd

import (
	"errors"
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// The search for a leading subspace does not need the precision of what is computed from it. Where the energy that is
// discarded is large beside the rounding of float32, the Gram matrix and the products with it are done in float32, at twice
// the rate. What is returned (the orthonormal Down, the Up that is the best for it, their energies) is computed in float64
// from the rows that were found, so that only the choice of the subspace is touched.
//
// By how much: let M' = M + E be what float32 makes of M, P the projection to the k leading eigenvectors of M and P' that of
// M'. As tr(P' M') >= tr(P M'), the captured energy falls short by
//
//	tr((P - P') M) <= tr((P' - P) E) <= |P' - P| |E| <= sqrt(2k) |E|   (Frobenius norms),
//
// and |E| is at most singleError tr M, since |E_ij| <= singleError |b_i| |b_j| for the Gram matrix of rows b_i. (That is for
// errors that conspire. Those of rounding do not, and cost the square of |E| instead.)

const (
	// singleError bounds the relative error of a float32 inner product, summed in blocks.
	singleError = 0x1p-22
	// singleExcess is the share of the discarded energy by which float32 may raise it.
	singleExcess = 1e-3
	// singleOrder is the order of the Gram matrix from which float32 pays.
	singleOrder = 512
)

// singleSuffices says whether float32 may have found the k leading eigenvectors, for the energy they discard of the total.
func singleSuffices(k int, discarded, total float64) bool {
	return math.Sqrt(2*float64(k))*singleError*total <= singleExcess*discarded
}

// matrix32 is a dense row-major float32 matrix without padding between its rows.
type matrix32 struct {
	rows, cols int
	data       []float32
}

func newMatrix32(rows, cols int) matrix32 {
	return matrix32{rows, cols, make([]float32, rows*cols)}
}

// slice is the view of rows [i, j).
func (a matrix32) slice(i, j int) matrix32 {
	return matrix32{j - i, a.cols, a.data[i*a.cols : j*a.cols]}
}

// narrow rounds a to float32.
func narrow(a Matrix) matrix32 {
	out := newMatrix32(a.Rows, a.Cols)
	out.set(a)
	return out
}

// set replaces a by b, rounded.
func (a matrix32) set(b Matrix) {
	for i := range b.Rows {
		to := a.data[i*a.cols:][:b.Cols]
		for j, v := range b.Row(i) {
			to[j] = float32(v)
		}
	}
}

// addTo adds f a to b.
func (a matrix32) addTo(b Matrix, f float64) {
	for i := range a.rows {
		row := b.Row(i)
		for j, v := range a.data[i*a.cols : (i+1)*a.cols] {
			row[j] += f * float64(v)
		}
	}
}

func (a matrix32) transposed() matrix32 {
	out := newMatrix32(a.cols, a.rows)
	for i := range a.rows {
		for j, v := range a.data[i*a.cols : (i+1)*a.cols] {
			out.data[j*a.rows+i] = v
		}
	}
	return out
}

func (a matrix32) widened() Matrix {
	out := NewMatrix(a.rows, a.cols)
	for i, v := range a.data {
		out.Data[i] = float64(v)
	}
	return out
}

// product32 is A B, or A B^T.
func product32(e *blas.Engine, transB bool, a, b matrix32) matrix32 {
	n := b.cols
	if transB {
		n = b.rows
	}
	out := newMatrix32(a.rows, n)
	if a.rows > 0 && n > 0 {
		e.Sgemm(false, transB, a.rows, n, a.cols, 1, a.data, max(1, a.cols), b.data, max(1, b.cols), 0, out.data, max(1, n))
	}
	return out
}

// singleStack is a weighted stack B = stack diag(g) in float32, scaled by a power of two.
type singleStack struct {
	b     matrix32
	unit  float64 // of the Gram matrix: B B^T is unit times that of b
	trace float64 // of b's Gram matrix before rounding
	tall  bool    // the Gram matrix is B^T B
}

// newSingleStack rounds the stack times the root of the diagonal metric c to float32.
func newSingleStack(stack Matrix, c Metric, tall bool) singleStack {
	most := 0.0
	row := NewMatrix(1, stack.Cols)
	weighted := func(i int) []float64 {
		c.scaleInto(row, stack.Slice(i, i+1, 0, stack.Cols), 0, 1)
		return row.Data
	}
	for i := range stack.Rows {
		for _, v := range weighted(i) {
			most = max(most, math.Abs(v))
		}
	}
	inv, unit := powerOfTwoScale(most)
	s := singleStack{b: newMatrix32(stack.Rows, stack.Cols), unit: unit * unit * c.scale, tall: tall}
	for i := range stack.Rows {
		row := weighted(i)
		scale(inv, row)
		s.trace += dot(row, row)
		to := s.b.data[i*s.b.cols : (i+1)*s.b.cols]
		for j, v := range row {
			to[j] = float32(v)
		}
	}
	return s
}

// operator is the Gram matrix.
func (s singleStack) operator(e *blas.Engine) *operator {
	n := s.b.rows
	if s.tall {
		n = s.b.cols
	}
	m := newMatrix32(n, n)
	if n > 0 {
		e.Ssyrk(s.tall, n, s.b.rows+s.b.cols-n, 1, s.b.data, max(1, s.b.cols), 0, m.data, n)
	}
	return &operator{e: e, n: n, trace: s.trace, single: &m}
}

// leadingRowsSingle is leadingRows through float32; ok is false where that does not suffice.
func leadingRowsSingle(stack Matrix, c Metric, tall bool, rank int, opt Options) (lead *leadingSpace, y Matrix, ok bool, err error) {
	e := opt.Engine
	s := newSingleStack(stack, c, tall)
	g := s.operator(e)
	opt.checkStart(g.n)
	lead, err = blockKrylov(g, min(rank, g.n), opt)
	if errors.Is(err, ErrNotPositive) { // by rounding, or float64 will say so too
		return nil, Matrix{}, false, nil
	}
	if err != nil {
		return nil, Matrix{}, false, err
	}
	k := len(lead.values)
	if !singleSuffices(k, lead.total-sum(lead.values), lead.total) {
		return nil, Matrix{}, false, nil
	}
	rows := narrow(lead.vectors)
	if tall {
		rows = product32(e, true, rows, s.b)
	}
	s.b.set(stack)
	y = product32(e, false, rows, s.b).widened()
	for i, v := range lead.values {
		f := math.Sqrt(1 / (s.unit * v))
		if tall { // the rows are images, of length sqrt(v)
			f = math.Sqrt(1/s.unit) / v
		}
		scale(f, y.Row(i))
	}
	scale(s.unit, lead.values)
	lead.total *= s.unit
	return lead, y, true, nil
}
