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
	if g.gram == nil {
		s.images = NewMatrix(capacity, g.images)
	}
	if err := s.start(opt.Start); err != nil {
		return nil, err
	}
	checkEvery := max(width, k/4)
	nextCheck := min(capacity, k+k/4)
	var history []float64 // captured energy at the checks
	out := &leadingSpace{total: g.trace}
	for {
		full, err := s.step()
		if err != nil {
			return nil, err
		}
		out.blocks++
		if s.size < nextCheck && !full && out.blocks < opt.MaxIterations {
			continue
		}
		nextCheck = s.size + checkEvery
		values, err := eigenvalues(e, s.t.Slice(0, s.size, 0, s.size))
		if err != nil {
			return nil, err
		}
		if low := values[len(values)-1]; low < -notPositive*math.Abs(values[0]) {
			return nil, notPositiveError(low, values[0])
		}
		var captured float64
		for _, v := range values[:min(k, len(values))] {
			captured += v
		}
		history = append(history, captured)
		if s.size >= k && settled(history, g.trace, opt.Tol) || s.size == n {
			out.converged = true
			break
		}
		if out.blocks >= opt.MaxIterations && s.size >= k {
			break
		}
		if full {
			if err := s.restart(); err != nil {
				return nil, err
			}
			nextCheck = s.size + checkEvery
		}
	}
	if err := s.finish(out); err != nil {
		return nil, err
	}
	return out, nil
}

// settled reports whether the captured energy has stopped changing: the
// differences between checks fall about geometrically or faster, so the last one
// times ratio / (1 - ratio) bounds what is still to come.
func settled(history []float64, total, tol float64) bool {
	n := len(history)
	discarded := total - history[n-1]
	if discarded <= 1e-14*total {
		return true
	}
	if n < 2 {
		return false
	}
	gain := history[n-1] - history[n-2]
	if gain <= 0.1*tol*discarded {
		return true
	}
	if n < 3 {
		return false
	}
	before := history[n-2] - history[n-3]
	if gain >= before {
		return false
	}
	ratio := gain / before
	return gain*ratio/(1-ratio) <= tol*discarded
}

// krylov is the state of blockKrylov: an orthonormal basis in rows, the
// projection T = basis G basis^T of its first size rows, and the block
// that comes next, which is in the basis behind those already.
type krylov struct {
	g        *operator
	e        *blas.Engine
	k, width int
	basis, t Matrix
	images   Matrix // of the rows of basis in T, while G is not formed
	size     int    // rows of basis that are in T
	next     int    // rows of the coming block
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
func (s *krylov) step() (full bool, err error) {
	n, b := s.g.n, s.next
	x := s.basis.Slice(s.size, s.size+b, 0, n)
	w := NewMatrix(b, n)
	s.g.apply(x, w, s.images.Slice(s.size, s.size+b, 0, s.images.Cols))
	old := s.size
	s.size += b
	known := s.basis.Slice(0, s.size, 0, n)
	c := Product(s.e, false, true, w, known) // b x size
	s.t.Slice(old, s.size, 0, s.size).copyFrom(c)
	for i := range b {
		for j := range s.size {
			s.t.Set(j, old+i, c.At(i, j))
		}
	}
	for i := range b { // the diagonal block is symmetric but for rounding
		for j := range i {
			v := (c.At(i, old+j) + c.At(j, old+i)) / 2
			s.t.Set(old+i, old+j, v)
			s.t.Set(old+j, old+i, v)
		}
	}
	s.next = min(s.width, n-s.size)
	if s.next > 0 {
		Gemm(s.e, false, false, -1, c, known, 1, w)
		s.basis.Slice(s.size, s.size+s.next, 0, n).copyFrom(w.Slice(0, min(b, s.next), 0, n))
		err = s.orthonormalise(true)
	}
	return s.next == 0 || s.size+s.next > s.t.Rows, err
}

// orthonormalise makes the coming block orthonormal and orthogonal to the
// rows before it.
func (s *krylov) orthonormalise(projected bool) error {
	known, next := s.basis.Slice(0, s.size, 0, s.g.n), s.basis.Slice(s.size, s.size+s.next, 0, s.g.n)
	return orthonormaliseRows(s.e, known, next, projected, s.rng)
}

// restart compresses the basis to its leading Ritz vectors, which with the
// coming block span what matters of the space (Wu and Simon 2000, thick restart).
func (s *krylov) restart() error {
	keep := min(s.size, s.k+2*s.width)
	eig, err := eigSymTop(s.e, s.t.Slice(0, s.size, 0, s.size), keep)
	if err != nil {
		return err
	}
	basis := Product(s.e, true, false, eig.Vectors, s.basis.Slice(0, s.size, 0, s.g.n))
	images := Product(s.e, true, false, eig.Vectors, s.images.Slice(0, s.size, 0, s.images.Cols))
	s.images.Slice(0, keep, 0, s.images.Cols).copyFrom(images)
	next := s.basis.Slice(s.size, s.size+s.next, 0, s.g.n).Clone()
	s.basis.Slice(0, keep, 0, s.g.n).copyFrom(basis)
	s.basis.Slice(keep, keep+s.next, 0, s.g.n).copyFrom(next)
	clear(s.t.Data)
	for i, v := range eig.Values {
		s.t.Set(i, i, v)
	}
	s.size = keep
	return nil
}

// finish computes the k leading Ritz pairs.
func (s *krylov) finish(out *leadingSpace) error {
	eig, err := eigSymTop(s.e, s.t.Slice(0, s.size, 0, s.size), s.k)
	if err != nil {
		return err
	}
	out.values = eig.Values
	out.vectors = Product(s.e, true, false, eig.Vectors, s.basis.Slice(0, s.size, 0, s.g.n))
	if s.g.gram != nil {
		out.findImages(s.g)
	} else {
		out.images = Product(s.e, true, false, eig.Vectors, s.images.Slice(0, s.size, 0, s.g.images))
	}
	return nil
}
