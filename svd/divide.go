package svd

import (
	"fmt"
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"gonum.org/v1/gonum/lapack"
	lapackgonum "gonum.org/v1/gonum/lapack/gonum"
)

// leafSize is the order below which a tridiagonal matrix is solved by the
// implicit QL method.
const leafSize = 32

// divider solves symmetric tridiagonal eigenproblems by divide and conquer
// (Cuppen 1981, with the deflation of Dongarra and Sorensen 1987 and the
// stable vectors of Gu and Eisenstat 1995). T is torn into two halves and a
// matrix of rank one,
//
//	T = diag(T_1, T_2) + rho u u^T,   u = e_{m-1} +- e_m,
//
// and with T_i = Q_i D_i Q_i^T the eigenproblem of D + rho z z^T, z = Q^T u, is
// that of the secular equation.
type divider struct {
	e *blas.Engine
	d []float64 // eigenvalues of the solved pieces, ascending in each
	// q holds the eigenvectors of the solved pieces in its rows: block diagonal.
	q, gathered, product, coef Matrix
}

// tridiagonalEigen returns the eigenvalues of the tridiagonal matrix
// (d, off), ascending, and in the rows of a matrix the vectors of the largest
// want of them, ascending. d and off are overwritten.
func tridiagonalEigen(e *blas.Engine, d, off []float64, want int) ([]float64, Matrix, error) {
	n := len(d)
	s := &divider{e: e, d: d, q: NewMatrix(n, n)}
	cuts := leafCuts(n)
	// Tear before solving: the diagonal elements beside every cut change.
	for _, c := range cuts[1 : len(cuts)-1] {
		r := math.Abs(off[c-1])
		d[c-1] -= r
		d[c] -= r
	}
	if err := s.leaves(cuts, off); err != nil {
		return nil, Matrix{}, err
	}
	if len(cuts) > 2 {
		s.gathered, s.product, s.coef = NewMatrix(n, n), NewMatrix(n, n), NewMatrix(n, n)
	}
	for len(cuts) > 2 {
		var pieces [][3]int
		next := []int{0}
		for i := 0; i+2 < len(cuts); i += 2 {
			pieces = append(pieces, [3]int{cuts[i], cuts[i+1], cuts[i+2]})
			next = append(next, cuts[i+2])
		}
		if len(cuts)%2 == 0 { // an odd piece waits for the next level
			next = append(next, cuts[len(cuts)-1])
		}
		rows := n
		if len(next) == 2 {
			rows = want
		}
		// Many small merges run side by side, few large ones on parallel kernels.
		errs := make([]error, len(pieces))
		if len(pieces) >= 4 {
			alone := blas.New(1)
			e.For(len(pieces), func(i int) {
				p := pieces[i]
				errs[i] = s.merge(alone, p[0], p[1], p[2], off[p[1]-1], rows)
			})
		} else {
			for i, p := range pieces {
				errs[i] = s.merge(e, p[0], p[1], p[2], off[p[1]-1], rows)
			}
		}
		for _, err := range errs {
			if err != nil {
				return nil, Matrix{}, err
			}
		}
		cuts = next
	}
	return s.d, s.q.Slice(n-want, n, 0, n), nil
}

// leafCuts returns the bounds of equal pieces of at most leafSize.
func leafCuts(n int) []int {
	pieces := 1
	for (n+pieces-1)/pieces > leafSize {
		pieces *= 2
	}
	cuts := make([]int, pieces+1)
	for i := range cuts {
		cuts[i] = i * n / pieces
	}
	return cuts
}

func (s *divider) leaves(cuts []int, off []float64) error {
	ok := make([]bool, len(cuts)-1)
	s.e.For(len(ok), func(t int) {
		i0, i1 := cuts[t], cuts[t+1]
		n := i1 - i0
		z := NewMatrix(n, n)
		ok[t] = lapackgonum.Implementation{}.Dsteqr(lapack.EVTridiag, n, s.d[i0:i1], slices.Clone(off[i0:i1-1]), z.Data, z.Stride, make([]float64, max(1, 2*n-2)))
		transposeInto(s.q.Slice(i0, i1, i0, i1), z)
	})
	if slices.Contains(ok, false) {
		return fmt.Errorf("%w: tridiagonal leaf", ErrNoConvergence)
	}
	return nil
}

// The rows of the two halves' vectors, by where they are not zero.
const (
	topRow = iota
	mixedRow
	bottomRow
)

// merge replaces the pieces [i0, m) and [m, i1), torn at the off-diagonal
// element off, by their union, of whose vectors the last want rows are computed.
func (s *divider) merge(e *blas.Engine, i0, m, i1 int, off float64, want int) error {
	n, n1 := i1-i0, m-i0
	want = min(want, n)
	d := s.d[i0:i1]
	q := s.q.Slice(i0, i1, i0, i1)

	// z = Q^T u / sqrt 2 with |u|^2 = 2, so rho doubles.
	rho := 2 * math.Abs(off)
	z := make([]float64, n)
	for i := range n1 {
		z[i] = q.At(i, n1-1) * math.Sqrt2 / 2
	}
	sign := math.Copysign(math.Sqrt2/2, off)
	for i := n1; i < n; i++ {
		z[i] = q.At(i, n1) * sign
	}
	kept, dropped, kind := deflate(d, z, rho, n1, q)
	k := len(kept)

	// The secular equation of the kept pairs.
	dk, zk := make([]float64, k), make([]float64, k)
	for i, r := range kept {
		dk[i], zk[i] = d[r], z[r]
	}
	coef := s.coef.Slice(i0, i0+k, 0, k)
	values, err := secularVectors(e, dk, zk, rho, coef)
	if err != nil {
		return err
	}

	// The order of the union.
	type place struct {
		value float64
		row   int // of product: kept first, then dropped
	}
	order := make([]place, 0, n)
	for i, v := range values {
		order = append(order, place{v, i})
	}
	for i, r := range dropped {
		order = append(order, place{d[r], k + i})
	}
	slices.SortStableFunc(order, func(a, b place) int {
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		}
		return 0
	})
	wanted := order[n-want:]
	first := k // the first kept vector that is wanted; the kept values ascend
	for _, p := range wanted {
		if p.row < k {
			first = min(first, p.row)
		}
	}

	// Vectors: coef times the kept rows, left and right columns apart because
	// most rows are zero in one of them.
	prod := s.product.Slice(i0, i1, i0, i1)
	gathered := s.gathered.Slice(i0, i1, i0, i1)
	s.multiplyHalf(e, q, kept, kind, bottomRow, 0, n1, coef, first, gathered, prod)
	s.multiplyHalf(e, q, kept, kind, topRow, n1, n, coef, first, gathered, prod)
	for i, r := range dropped {
		copy(prod.Row(k+i), q.Row(r))
	}
	for i, p := range order {
		d[i] = p.value
	}
	e.For((want+63)/64, func(t int) {
		for i := t * 64; i < min(want, (t+1)*64); i++ {
			copy(q.Row(n-want+i), prod.Row(wanted[i].row))
		}
	})
	return nil
}

// multiplyHalf writes columns [c0, c1) of the new vectors first .. k-1: the
// rows of one kind are zero there and left out.
func (s *divider) multiplyHalf(e *blas.Engine, q Matrix, kept, kind []int, skip, c0, c1 int, coef Matrix, first int, gathered, prod Matrix) {
	k := len(kept)
	var use []int
	for i, r := range kept {
		if kind[r] != skip {
			use = append(use, i)
		}
	}
	rows := gathered.Slice(0, len(use), c0, c1)
	for i, u := range use {
		copy(rows.Row(i), q.Row(kept[u])[c0:c1])
	}
	// coef is scattered over the kept rows: gather its columns in place of the
	// rows of prod that this product does not fill.
	c := NewMatrix(k-first, len(use))
	for i := range c.Rows {
		from, to := coef.Row(first+i), c.Row(i)
		for j, u := range use {
			to[j] = from[u]
		}
	}
	Gemm(e, false, false, 1, c, rows, 0, prod.Slice(first, k, c0, c1))
}

// deflate splits the rows of D + rho z z^T into those the secular equation
// couples, in ascending order of d, and those that are eigenpairs already: z_i
// negligible, or made so by rotating two rows of nearly equal d. It rotates d,
// z and the rows of q.
func deflate(d, z []float64, rho float64, n1 int, q Matrix) (kept, dropped, kind []int) {
	n := len(d)
	kind = make([]int, n)
	order := make([]int, n)
	var dMax, zMax float64
	for i := range n {
		order[i] = i
		if i >= n1 {
			kind[i] = bottomRow
		}
		dMax, zMax = max(dMax, math.Abs(d[i])), max(zMax, math.Abs(z[i]))
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case d[a] < d[b]:
			return -1
		case d[a] > d[b]:
			return 1
		}
		return 0
	})
	tol := 8 * epsilon / 2 * max(dMax, zMax)
	prev := -1 // the last kept row so far
	for _, j := range order {
		if rho*math.Abs(z[j]) <= tol {
			dropped = append(dropped, j)
			continue
		}
		if prev < 0 {
			prev = j
			continue
		}
		// A rotation of rows prev and j that makes z_prev zero leaves
		// (d_j - d_prev) c s off the diagonal.
		r := math.Hypot(z[prev], z[j])
		c, sn := z[j]/r, z[prev]/r
		if gap := d[j] - d[prev]; math.Abs(gap*c*sn) <= tol {
			z[prev], z[j] = 0, r
			dp, dj := d[prev], d[j]
			d[prev] = dp*c*c + dj*sn*sn
			d[j] = dp*sn*sn + dj*c*c
			rotate(q.Row(prev), q.Row(j), c, sn)
			if kind[prev] != kind[j] {
				kind[prev], kind[j] = mixedRow, mixedRow
			}
			dropped = append(dropped, prev)
		} else {
			kept = append(kept, prev)
		}
		prev = j
	}
	if prev >= 0 {
		kept = append(kept, prev)
	}
	return kept, dropped, kind
}

// secularVectors returns the eigenvalues of diag(d) + rho z z^T, ascending,
// and writes its eigenvectors into the rows of coef.
func secularVectors(e *blas.Engine, d, z []float64, rho float64, coef Matrix) ([]float64, error) {
	const perTask = 16
	k := len(d)
	values := make([]float64, k)
	failed := make([]bool, k)
	tasks := (k + perTask - 1) / perTask
	e.For(tasks, func(t int) {
		for i := t * perTask; i < min(k, (t+1)*perTask); i++ {
			var ok bool
			values[i], ok = secularRoot(i, d, z, rho, coef.Row(i))
			failed[i] = !ok
		}
	})
	if slices.Contains(failed, true) {
		return nil, fmt.Errorf("%w: secular equation of order %d", ErrNoConvergence, k)
	}

	// The z for which the computed values are exact (Gu and Eisenstat 1995):
	// z_j^2 ~ prod_i (lambda_i - d_j) / prod_{i != j} (d_i - d_j). Row i of
	// coef is d - lambda_i.
	zhat := make([]float64, k)
	e.For(tasks, func(t int) {
		j0, j1 := t*perTask, min(k, (t+1)*perTask)
		w := zhat[j0:j1]
		for j := range w {
			w[j] = 1
		}
		for i := range k {
			row := coef.Row(i)[j0:j1]
			for j, delta := range row {
				if i == j0+j {
					w[j] *= delta
				} else {
					w[j] *= delta / (d[j0+j] - d[i])
				}
			}
		}
		for j := range w {
			w[j] = math.Copysign(math.Sqrt(math.Abs(w[j])), z[j0+j])
		}
	})
	e.For(tasks, func(t int) {
		for i := t * perTask; i < min(k, (t+1)*perTask); i++ {
			row := coef.Row(i)
			for j, delta := range row {
				row[j] = zhat[j] / delta
			}
			scale(1/math.Sqrt(dot(row, row)), row)
		}
	})
	return values, nil
}
