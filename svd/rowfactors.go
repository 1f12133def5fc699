package svd

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// rowFactors turns Ritz vectors of A^T A into singular triplets: narrow holds
// r orthonormal vectors in rows, wide their images under A.
type rowFactors struct {
	e            *blas.Engine
	narrow, wide Matrix
	s            []float64
}

// finish scales the rows of wide to length one and their lengths into s, in
// descending order. The images are orthogonal up to rounding times the largest s^2;
// where that shows, beside small s, they are made so.
func (f *rowFactors) finish() error {
	const tolerance = 1e-13
	f.normalise()
	r := len(f.s)
	gram := NewMatrix(r, r)
	Syrk(f.e, false, 1, f.wide, 0, gram)
	for i := range r {
		for j := range i + 1 {
			v := gram.At(i, j)
			if i == j {
				v--
			}
			if math.Abs(v) > tolerance {
				return f.orthogonalise()
			}
		}
	}
	return nil
}

// normalise sorts the rows by the lengths of wide's, and divides by them.
func (f *rowFactors) normalise() {
	for i := range f.s {
		row := f.wide.Row(i)
		f.s[i] = math.Sqrt(dot(row, row))
		if f.s[i] > 0 {
			scale(1/f.s[i], row)
		}
	}
	if !slices.IsSortedFunc(f.s, descending) {
		order := make([]int, len(f.s))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(i, j int) int { return descending(f.s[i], f.s[j]) })
		s := slices.Clone(f.s)
		narrow, wide := f.narrow.Clone(), f.wide.Clone()
		for i, o := range order {
			f.s[i] = s[o]
			copy(f.narrow.Row(i), narrow.Row(o))
			copy(f.wide.Row(i), wide.Row(o))
		}
	}
}

func descending(a, b float64) int { return cmp.Compare(b, a) }

// orthogonalise finds the exact singular triplets of A within the span of
// narrow: wide = R Q with orthonormal rows Q, and one-sided Jacobi rotations
// from the left that make the rows of R orthogonal (Hestenes 1958), which keeps
// small singular values accurate.
func (f *rowFactors) orthogonalise() error {
	const maxSweeps = 40
	r := len(f.s)
	rng := rand.New(rand.NewPCG(0, uint64(r)))
	for i := range r { // undo normalise: the rows of wide are images of those of narrow again
		scale(f.s[i], f.wide.Row(i))
	}
	q := f.wide.Clone()
	if err := orthonormaliseRows(f.e, nil, q, false, rng); err != nil {
		return err
	}
	small := Product(f.e, false, true, f.wide, q)
	rotation := eye(r)
	for sweep := 0; rotateRows(small, rotation); sweep++ {
		if sweep == maxSweeps {
			return fmt.Errorf("%w: one-sided Jacobi of order %d", ErrNoConvergence, r)
		}
	}
	f.narrow = Product(f.e, false, false, rotation, f.narrow)
	f.wide = small
	f.normalise()
	// Rows that are exactly zero take any direction that is left.
	useful := r
	for useful > 0 && f.s[useful-1] == 0 {
		useful--
	}
	if useful < r {
		known := small.Slice(0, useful, 0, r)
		project := func(v Matrix) { takeOff(f.e, v, known) }
		if err := orthonormaliseRows(f.e, project, small.Slice(useful, r, 0, r), false, rng); err != nil {
			return err
		}
	}
	f.wide = Product(f.e, false, false, small, q)
	return nil
}

// rotateRows makes every pair of rows of a orthogonal once, collects the
// rotations in j, and reports whether any was needed.
func rotateRows(a, j Matrix) bool {
	rotated := false
	tolerance := epsilon * math.Sqrt(float64(max(16, a.Cols)))
	for p := range a.Rows {
		for q := p + 1; q < a.Rows; q++ {
			rp, rq := a.Row(p), a.Row(q)
			x, y, c := dot(rp, rp), dot(rq, rq), dot(rp, rq)
			if math.Abs(c) <= tolerance*math.Sqrt(x)*math.Sqrt(y) {
				continue
			}
			rotated = true
			tau := (y - x) / (2 * c)
			t := math.Copysign(1/(math.Abs(tau)+math.Hypot(1, tau)), tau)
			cos := 1 / math.Hypot(1, t)
			rotate(rp, rq, cos, t*cos)
			rotate(j.Row(p), j.Row(q), cos, t*cos)
		}
	}
	return rotated
}

// rotate replaces x, y by c x - s y, s x + c y.
func rotate(x, y []float64, c, s float64) {
	for i, v := range x {
		x[i] = c*v - s*y[i]
		y[i] = s*v + c*y[i]
	}
}
