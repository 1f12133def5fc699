package svd

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

const (
	// A narrow block needs fewer vectors for a given accuracy, a wide one gives
	// faster products; both stop mattering beyond these bounds.
	minBlock, maxBlock = 16, 64
	// restartAt is the size of the basis, in units of k, at which it is
	// compressed to the leading Ritz vectors.
	restartAt = 5
)

// blockKrylov finds the k leading eigenpairs of g by Rayleigh-Ritz over a block
// Krylov space (Golub and Underwood 1977; Musco and Musco 2015 on its advantage
// over subspace iteration), with full orthogonalization and thick restarts. It
// stops when an estimate of the energy still to be gained falls below tol times
// the discarded energy.
func blockKrylov(g *operator, k int, opt Options) (*leadingSpace, error) {
	e, n := opt.Engine, g.n
	width := min(n, max(minBlock, min(maxBlock, k/8/8*8)))
	capacity := min(n, max(restartAt*k, k+8*width))
	s := &krylov{
		g: g, e: e, k: k, width: width,
		basis: NewMatrix(min(n, capacity+width), n), t: NewMatrix(capacity, capacity), images: NewMatrix(capacity, 0),
		rng: rand.New(rand.NewPCG(opt.Seed, 0x5bd1e995)),
	}
	if g.single != nil {
		s.basis32 = newMatrix32(capacity, n)
	}
	if !g.formed() {
		s.images = NewMatrix(capacity, g.images)
	}
	if err := s.start(opt.Start); err != nil {
		return nil, err
	}
	watch := &convergence{total: g.trace, tol: opt.Tol, longest: max(width, k/4)}
	nextCheck := min(capacity, k+5*k/8)
	out := &leadingSpace{total: g.trace}
	for {
		full, err := s.step()
		if err != nil {
			return nil, err
		}
		out.blocks++
		last := out.blocks >= opt.MaxIterations && s.size >= k
		if s.size < nextCheck && !full && !last {
			continue
		}
		t, err := tridiagonalise(e, s.t.Slice(0, s.size, 0, s.size))
		if err != nil {
			return nil, err
		}
		values, err := t.values()
		if err != nil {
			return nil, err
		}
		if low := values[len(values)-1]; low < -notPositive*math.Abs(values[0]) {
			return nil, notPositiveError(low, values[0])
		}
		more := watch.add(s.size, sum(values[:min(k, s.size)]))
		if s.size >= k && more == 0 || s.size == n {
			out.converged = true
		}
		if out.converged || last {
			return out, s.finish(t, out)
		}
		if full {
			if err := s.restart(t); err != nil {
				return nil, err
			}
			watch.forget(s.size)
		}
		nextCheck = s.size + more
	}
}

// convergence watches the energy that a growing space captures.
type convergence struct {
	total, tol float64
	longest    int // size to grow by where nothing better is known
	checks     []check
}

type check struct {
	size     int
	captured float64
}

// add records a check and returns by how much the space should grow before
// the next one, or 0 if the energy still to come is below tol times the
// discarded energy. That is estimated from the last three checks: what is to come falls off
// exponentially with the size, or faster.
func (c *convergence) add(size int, captured float64) (more int) {
	c.checks = append(c.checks, check{size, captured})
	n := len(c.checks)
	discarded := c.total - captured
	if discarded <= 1e-14*c.total {
		return 0
	}
	if n < 2 {
		return c.longest
	}
	rate := c.rate(n - 1)
	if rate*float64(c.longest) <= 0.1*c.tol*discarded {
		return 0
	}
	if n < 3 {
		return c.longest
	}
	before := c.rate(n - 2)
	if rate >= before {
		return c.longest
	}
	// The rate at the middle of each interval gives the decay, and with it the
	// rate at the end and its integral.
	decay := math.Log(before/rate) / (float64(size-c.checks[n-3].size) / 2)
	coming := rate * math.Exp(-decay*float64(size-c.checks[n-2].size)/2) / decay
	if coming <= c.tol*discarded {
		return 0
	}
	return min(c.longest, 1+int(math.Log(coming/(c.tol*discarded))/decay))
}

// rate is the energy gained for each vector between check i-1 and check i.
func (c *convergence) rate(i int) float64 {
	a, b := c.checks[i-1], c.checks[i]
	return max(0, b.captured-a.captured) / float64(b.size-a.size)
}

// forget starts again from a space compressed to the given size, which has
// captured what it had before.
func (c *convergence) forget(size int) {
	c.checks = []check{{size, c.checks[len(c.checks)-1].captured}}
}

// krylov is the state of blockKrylov: an orthonormal basis in rows, the
// projection T = basis G basis^T of its first size rows, and the block
// that comes next, which is in the basis behind those already.
type krylov struct {
	g        *operator
	e        *blas.Engine
	k, width int
	basis, t Matrix
	basis32  matrix32 // its rows in T rounded, where G is in float32
	images   Matrix   // of the rows of basis in T, while G is not formed
	size     int      // rows of basis that are in T
	next     int      // rows of the coming block
	coupled  int      // first row of the basis that T couples the coming block with
	rng      *rand.Rand
}

// start puts the first block into the basis: random combinations of the
// columns of the given start, so that the wanted space is reached in fewer
// steps, with a trace of random vectors for what that start may lack; or
// random vectors.
func (s *krylov) start(from Matrix) error {
	const trace = 1e-3
	if _, err := from.maxAbs(); err != nil {
		return fmt.Errorf("start of the iteration: %w", err)
	}
	s.next = s.width
	block := s.basis.Slice(0, s.next, 0, s.g.n)
	fillRandom(s.rng, block)
	if from.Cols > 0 {
		mix := NewMatrix(s.next, from.Cols)
		fillRandom(s.rng, mix)
		wanted := Product(s.e, false, true, mix, from)
		size := math.Sqrt(energy(wanted) / energy(block))
		for i := range block.Rows {
			scale(trace*size, block.Row(i))
			axpy(1, wanted.Row(i), block.Row(i))
		}
	}
	return s.orthonormalise(false)
}

// step multiplies the coming block by G, extends T by it and makes the part
// of the product outside the basis the next block. It reports whether
// the basis has no room for that.
//
// As G is symmetric, the product has no part in the rows before the block that
// this one came from: G times those lies in the span of what followed them. So
// T is block tridiagonal, but for the rows that a restart kept. What rounding
// leaves there is taken off with the pass over the whole basis that follows.
func (s *krylov) step() (full bool, err error) {
	n, b := s.g.n, s.next
	old := s.size
	x := s.basis.Slice(old, old+b, 0, n)
	w := NewMatrix(b, n)
	s.g.apply(x, w, s.images.Slice(old, old+b, 0, s.images.Cols))
	s.size += b
	if s.g.single != nil {
		s.basis32.slice(old, s.size).set(x)
	}
	first := s.coupled
	c := s.project(w, first) // b x (size - first)
	s.coupled = old
	s.t.Slice(old, s.size, first, s.size).copyFrom(c)
	for i := range b {
		for j := first; j < s.size; j++ {
			s.t.Set(j, old+i, c.At(i, j-first))
		}
	}
	for i := range b { // the diagonal block is symmetric but for rounding
		for j := range i {
			v := (s.t.At(old+i, old+j) + c.At(j, old+i-first)) / 2
			s.t.Set(old+i, old+j, v)
			s.t.Set(old+j, old+i, v)
		}
	}
	s.next = min(s.width, n-s.size)
	if s.next > 0 {
		s.basis.Slice(s.size, s.size+s.next, 0, n).copyFrom(w.Slice(0, min(b, s.next), 0, n))
		err = s.orthonormalise(true)
	}
	return s.next == 0 || s.size+s.next > s.t.Rows, err
}

// project takes off v what rows first .. size-1 of the basis span, and returns
// its coefficients.
func (s *krylov) project(v Matrix, first int) Matrix {
	if s.g.single != nil {
		known := s.basis32.slice(first, s.size)
		c := product32(s.e, true, known, narrow(v)).transposed() // known is multiplied where it lies
		product32(s.e, false, c, known).addTo(v, -1)
		return c.widened()
	}
	return takeOff(s.e, v, s.basis.Slice(first, s.size, 0, s.g.n))
}

// combine returns Z basis, for the rows of the basis in T.
func (s *krylov) combine(z Matrix) Matrix {
	if s.g.single != nil {
		return product32(s.e, false, narrow(z), s.basis32.slice(0, s.size)).widened()
	}
	return Product(s.e, false, false, z, s.basis.Slice(0, s.size, 0, s.g.n))
}

// orthonormalise makes the coming block orthonormal and orthogonal to the
// rows before it.
func (s *krylov) orthonormalise(projected bool) error {
	next := s.basis.Slice(s.size, s.size+s.next, 0, s.g.n)
	return orthonormaliseRows(s.e, func(v Matrix) { s.project(v, 0) }, next, projected, s.rng)
}

// restart compresses the basis to its leading Ritz vectors, which with the
// coming block span what matters of the space (Wu and Simon 2000, thick restart).
func (s *krylov) restart(t *tridiagonal) error {
	keep := min(s.size, s.k+2*s.width)
	values, zt, err := t.top(s.e, keep)
	if err != nil {
		return err
	}
	basis := s.combine(zt)
	images := Product(s.e, false, false, zt, s.images.Slice(0, s.size, 0, s.images.Cols))
	s.images.Slice(0, keep, 0, s.images.Cols).copyFrom(images)
	next := s.basis.Slice(s.size, s.size+s.next, 0, s.g.n).Clone()
	s.basis.Slice(0, keep, 0, s.g.n).copyFrom(basis)
	s.basis.Slice(keep, keep+s.next, 0, s.g.n).copyFrom(next)
	clear(s.t.Data)
	for i, v := range values {
		s.t.Set(i, i, v)
	}
	s.size, s.coupled = keep, 0
	if s.g.single != nil {
		s.basis32.slice(0, keep).set(basis)
	}
	return nil
}

// finish computes the k leading Ritz pairs from the reduced T.
func (s *krylov) finish(t *tridiagonal, out *leadingSpace) error {
	values, zt, err := t.top(s.e, s.k)
	if err != nil {
		return err
	}
	out.values = values
	out.vectors = s.combine(zt)
	if s.g.formed() {
		out.findImages(s.g)
	} else {
		out.images = Product(s.e, false, false, zt, s.images.Slice(0, s.size, 0, s.g.images))
	}
	return nil
}
