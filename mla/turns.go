package mla

import (
	"math"
	"math/cmplx"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// turns are the second moments of the rotations of slots and of source pairs over the distances D of one head: a pair of
// frequency w is turned by e^{-iwD}, as keys are against queries.
type turns struct {
	slots, source int
	// mean is E[e^{iwD}] of the slots and then of the source pairs, apart E[e^{i(w-v)D}] and along E[e^{i(w+v)D}] for w of a
	// slot and v of either, [slots, slots+source].
	mean         []complex128
	apart, along svd.CMatrix
}

// newTurns returns the moments of so many heads for the distances of each, at most longest. Sines and cosines are the same for
// all; what is held of a head's distances are the moments.
func newTurns(e *blas.Engine, slots, source []float64, heads, longest int, distances func(head int) Weights) []*turns {
	all := slices.Concat(slots, source)
	n := len(all)
	table := svd.NewMatrix(2*n, longest) // cos wD, and then sin wD
	for i, w := range all {
		cos, sin := table.Row(i), table.Row(n+i)
		for d := range longest {
			sin[d], cos[d] = math.Sincos(w * float64(d))
		}
	}
	weighted := svd.NewMatrix(2*len(slots), longest)
	out := make([]*turns, heads)
	for h := range out {
		p := distances(h)
		out[h] = turnsOver(e, table.Slice(0, 2*n, 0, len(p)), weighted.Slice(0, weighted.Rows, 0, len(p)), p)
	}
	return out
}

// turnsOver takes the moments over the distances p of the rows of cosines and sines in the table [2n, len(p)], the first of
// each those of the slots. It sets weighted, [2 slots, len(p)], to the slots' rows times the probabilities.
func turnsOver(e *blas.Engine, table, weighted svd.Matrix, p Weights) *turns {
	n, slots := table.Rows/2, weighted.Rows/2
	t := &turns{slots: slots, source: n - slots, mean: make([]complex128, n), apart: svd.NewCMatrix(slots, n), along: svd.NewCMatrix(slots, n)}
	for i := range n {
		cos, sin := table.Row(i), table.Row(n+i)
		t.mean[i] = complex(dot(p, cos), dot(p, sin))
		if i < slots {
			for d, v := range p {
				weighted.Row(i)[d], weighted.Row(slots + i)[d] = v*cos[d], v*sin[d]
			}
		}
	}
	product := svd.Product(e, false, true, weighted, table)
	for i := range slots {
		for j := range n {
			cc, cs := product.At(i, j), product.At(i, n+j)
			sc, ss := product.At(slots+i, j), product.At(slots+i, n+j)
			t.apart.Set(i, j, complex(cc+ss, sc-cs))
			t.along.Set(i, j, complex(cc-ss, sc+cs))
		}
	}
	return t
}

// turnBlock replaces the 2 x 2 block x of a real matrix, rows (r, ri) and columns (c, ci), by E[M(e^{-iwD}) x M(e^{-ivD})^T], or
// without back by E[M(e^{-iwD})^T x M(e^{-ivD})]; M(a) is multiplication by a, apart and along are those of w and v. x is
// z -> a z + b conj(z) on the complex plane, of which the first part turns by the difference of the angles and the second by
// their sum.
func turnBlock(x svd.Matrix, r, ri, c, ci int, apart, along complex128, back bool) {
	if back {
		apart, along = cmplx.Conj(apart), cmplx.Conj(along)
	}
	p, q, s, t := x.At(r, c), x.At(r, ci), x.At(ri, c), x.At(ri, ci)
	a := complex((p+t)/2, (s-q)/2) * apart
	b := complex((p-t)/2, (s+q)/2) * along
	x.Set(r, c, real(a)+real(b))
	x.Set(r, ci, imag(b)-imag(a))
	x.Set(ri, c, imag(a)+imag(b))
	x.Set(ri, ci, real(a)-real(b))
}

// turnPair replaces (x, y) by the parts of m (x + iy), of conj(m) with back.
func turnPair(x, y float64, m complex128, back bool) (float64, float64) {
	if back {
		m = cmplx.Conj(m)
	}
	z := m * complex(x, y)
	return real(z), imag(z)
}

// gram takes the expectation, over the rotations, of a symmetric matrix of products of the shared rows and, behind them, of
// the slots, interleaved: with back of keys, which turn backwards, without of what meets them.
func (t *turns) gram(x svd.Matrix, shared int, back bool) {
	for s := range t.slots {
		r := shared + 2*s
		for j := range shared {
			a, b := turnPair(x.At(r, j), x.At(r+1, j), t.mean[s], back)
			x.Set(r, j, a)
			x.Set(r+1, j, b)
			x.Set(j, r, a)
			x.Set(j, r+1, b)
		}
		for u := range t.slots {
			turnBlock(x, r, r+1, shared+2*u, shared+2*u+1, t.apart.At(s, u), t.along.At(s, u), back)
		}
	}
}

// cross does the same for products of the shared rows and the slots with the source's pairs, halves of the columns.
func (t *turns) cross(x svd.Matrix, shared int, back bool) {
	for f := range t.source {
		fi := t.source + f
		for j := range shared {
			a, b := turnPair(x.At(j, f), x.At(j, fi), t.mean[t.slots+f], back)
			x.Set(j, f, a)
			x.Set(j, fi, b)
		}
		for s := range t.slots {
			r := shared + 2*s
			turnBlock(x, r, r+1, f, fi, t.apart.At(s, t.slots+f), t.along.At(s, t.slots+f), back)
		}
	}
}
