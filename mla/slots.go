package mla

import (
	"errors"
	"fmt"
	"math"
	"math/cmplx"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// Slots is the rotary part of a converted layer: S complex keys that all heads share and, for every query head, the
// combination of its own rotated pairs that meets each of them.
type Slots struct {
	// Frequencies are omega_s, the engine's.
	Frequencies []float64
	// Key is b_s^* as a functional on the source's keys: kappa_s = sum_{g,f} Key[s, g*F+f] k_{g,f}; [S, G*F].
	Key svd.CMatrix
	// Query holds, for each KV group g, A_{g,s,f}: the query of a head of the group in slot s is
	// q'_{h,s} = sum_f Query[g][s, f] q_{h,f}; [S, F] each.
	Query []svd.CMatrix
}

// SlotMethod chooses how the slots are found.
type SlotMethod int

const (
	// ComplexPCA takes, for each frequency, the leading eigenvectors of the Hermitian covariance of the KV heads'
	// complex keys: the optimum over U(G).
	ComplexPCA SlotMethod = iota
	// RealPCA takes those of the covariance's real part, the optimum over the real orthogonal group, which is what
	// TransMLA's RoRoPE uses (Meng et al. 2025, arXiv:2502.07864). It is here to be compared with.
	RealPCA
)

// SlotOptions configures [FindSlots].
type SlotOptions struct {
	Method SlotMethod
	// QueryPower is the power of the queries' energy that weights each head and frequency; 0 weights all alike.
	QueryPower float64
	// Distances, if not nil, refines queries and keys over all frequencies together, for these distances; Sweeps is how
	// often the keys are refined too.
	Distances Weights
	Sweeps    int
}

// keyCovariance is C_k = E[k k^*] over the G*F complex keys of a layer, [G*F, G*F], from the covariance K C K^T
// [G*2F, G*2F] of their real and imaginary parts.
func keyCovariance(s *Source, real svd.Matrix) svd.CMatrix {
	pairs := s.Pairs()
	n := s.KVHeads * pairs
	out := svd.NewCMatrix(n, n)
	part := halves(pairs)
	for i := range n {
		a, ai := part(i)
		for j := range n {
			b, bi := part(j)
			out.Set(i, j, complex(real.At(a, b)+real.At(ai, bi), real.At(ai, b)-real.At(a, bi)))
		}
	}
	return out
}

// queryEnergy is E|q_{h,f}|^2 summed over the heads of each group, [G*F], from the heads' query covariances.
func queryEnergy(s *Source, queries []svd.Matrix) []float64 {
	pairs := s.Pairs()
	out := make([]float64, s.KVHeads*pairs)
	for h, c := range queries {
		for f := range pairs {
			out[s.Group(h)*pairs+f] += c.At(f, f) + c.At(pairs+f, pairs+f)
		}
	}
	return out
}

// FindSlots chooses the slots for the given engine frequencies by principal components across the KV heads, frequency by
// frequency. input is the covariance of the attention input, queries the covariances E[q_h q_h^T] (before the rotation)
// of every head.
//
// With as many slots as source frequencies, slot s carries source frequency s. With fewer, each carries the run of
// frequencies nearest its own; with more, frequencies whose slots repeat carry further components.
func FindSlots(e *blas.Engine, s *Source, frequencies []float64, input svd.Metric, queries []svd.Matrix, o SlotOptions) (*Slots, error) {
	if err := s.check(false); err != nil {
		return nil, err
	}
	if len(queries) != s.Heads {
		return nil, fmt.Errorf("covariances of %d query heads, want %d", len(queries), s.Heads)
	}
	return findSlots(e, s, frequencies, keyCovariance(s, input.Congruence(e, s.K)), queryEnergy(s, queries), o)
}

// findSlots is FindSlots for the covariance and the energy of [keyCovariance] and [queryEnergy].
func findSlots(e *blas.Engine, s *Source, frequencies []float64, covariance svd.CMatrix, energy []float64, o SlotOptions) (*Slots, error) {
	if len(frequencies) == 0 {
		return nil, errors.New("no rotary frequencies for the slots, want one or more")
	}
	pairs := s.Pairs()
	out := &Slots{Frequencies: frequencies, Key: svd.NewCMatrix(len(frequencies), s.KVHeads*pairs), Query: make([]svd.CMatrix, s.KVHeads)}
	for g := range out.Query {
		out.Query[g] = svd.NewCMatrix(len(frequencies), pairs)
	}
	for _, b := range bundle(s.Frequencies, frequencies) {
		// The members are all pairs of the bundle's source frequencies, over every KV head.
		var members []int
		for g := range s.KVHeads {
			for _, f := range b.source {
				members = append(members, g*pairs+f)
			}
		}
		weight := make([]float64, len(members))
		for i, m := range members {
			weight[i] = math.Sqrt(math.Pow(energy[m], o.QueryPower))
		}
		floor(weight)
		c := svd.NewCMatrix(len(members), len(members))
		for i, a := range members {
			for j, bb := range members {
				v := covariance.At(a, bb) * complex(weight[i]*weight[j], 0)
				if o.Method == RealPCA {
					v = complex(real(v), 0)
				}
				c.Set(i, j, v)
			}
		}
		eig, err := svd.EigHermitian(c)
		if err != nil {
			return nil, fmt.Errorf("principal components across KV heads at frequency %g: %w", frequencies[b.slots[0]], err)
		}
		for j, slot := range b.slots {
			if j == len(members) {
				break // more slots than components: the rest stay empty
			}
			for i, m := range members {
				u := eig.Vectors.At(i, j)
				out.Key.Set(slot, m, cmplx.Conj(u)*complex(weight[i], 0))
				// k is reconstructed as W^-1/2 u kappa; the query meets it with the conjugate.
				out.Query[m/pairs].Set(slot, m%pairs, cmplx.Conj(u)/complex(weight[i], 0))
			}
		}
	}
	if o.Distances == nil {
		return out, nil
	}
	return out, out.refine(e, s, covariance, energy, o.Distances, o.Sweeps)
}

// floor keeps weights away from zero relative to the largest, so that they can be divided by.
func floor(w []float64) {
	most := 0.0
	for _, v := range w {
		most = math.Max(most, v)
	}
	if most == 0 {
		most = 1
	}
	for i := range w {
		w[i] = math.Max(w[i]/most, 1e-6)
	}
}

// bundled is source frequencies (by index) that share slots (by index).
type bundled struct{ source, slots []int }

// bundle assigns every source frequency to the slot frequency nearest in logarithm (both descending). Slots of equal
// frequency form one bundle; a slot to which nothing is nearest stays empty. There is at least one slot.
func bundle(source, slots []float64) []bundled {
	var out []bundled
	for s, w := range slots {
		if len(out) > 0 && slots[out[len(out)-1].slots[0]] == w {
			last := &out[len(out)-1]
			last.slots = append(last.slots, s)
			continue
		}
		out = append(out, bundled{slots: []int{s}})
	}
	for f, w := range source {
		best, least := 0, math.Inf(1)
		for i, b := range out {
			if d := logDistance(w, slots[b.slots[0]]); d < least {
				best, least = i, d
			}
		}
		out[best].source = append(out[best].source, f)
	}
	kept := out[:0]
	for _, b := range out {
		if len(b.source) > 0 {
			kept = append(kept, b)
		}
	}
	return kept
}

// logDistance is |log(a/b)|; zero frequencies are equal to each other and far from all others.
func logDistance(a, b float64) float64 {
	if a == b {
		return 0
	}
	if a <= 0 || b <= 0 {
		return math.MaxFloat64
	}
	return math.Abs(math.Log(a / b))
}

// A layout says in which rows of a real matrix the real and the imaginary part of complex row i lie.
type layout func(i int) (re, im int)

// interleaved has them next to each other.
func interleaved(i int) (re, im int) { return 2 * i, 2*i + 1 }

// halves has, of each run of so many complex rows, first all real and then all imaginary parts.
func halves(pairs int) layout {
	return func(i int) (re, im int) {
		re = i/pairs*2*pairs + i%pairs
		return re, re + pairs
	}
}

// realMap is the complex map c as a real matrix, [2 c.Rows, 2 c.Cols], between rows of the given layouts: a+bi becomes
// [a -b; b a].
func realMap(c svd.CMatrix, to, from layout) svd.Matrix {
	out := svd.NewMatrix(2*c.Rows, 2*c.Cols)
	for i := range c.Rows {
		re, im := to(i)
		for j := range c.Cols {
			v := c.At(i, j)
			x, y := from(j)
			out.Set(re, x, real(v))
			out.Set(re, y, -imag(v))
			out.Set(im, x, imag(v))
			out.Set(im, y, real(v))
		}
	}
	return out
}

// keys returns kappa's real rows [2S, d], interleaved: Key applied to the source's key projection.
func (t *Slots) keys(e *blas.Engine, s *Source) svd.Matrix {
	return svd.Product(e, false, false, realMap(t.Key, interleaved, halves(s.Pairs())), s.K)
}

// Queries returns the rotary query projection [2S, d] of one head of KV group g, pairs interleaved, whose query projection
// is head [HeadDim, d].
func (t *Slots) Queries(e *blas.Engine, g int, head svd.Matrix) svd.Matrix {
	return svd.Product(e, false, false, t.queryMap(g), head)
}

// queryMap is the map [2S, HeadDim] from the query of a head of group g to its rotary query.
func (t *Slots) queryMap(g int) svd.Matrix {
	return realMap(t.Query[g], interleaved, halves(t.Query[g].Cols))
}

// queries returns the rotary query projection [Heads*2S, d] of all heads.
func (t *Slots) queries(e *blas.Engine, s *Source) svd.Matrix {
	width := 2 * len(t.Frequencies)
	out := svd.NewMatrix(s.Heads*width, s.Hidden())
	for g := range t.Query {
		m := t.queryMap(g)
		for h := range s.Heads {
			if s.Group(h) == g {
				svd.Gemm(e, false, false, 1, m, headRows(s.Q, h, s.HeadDim), 0, headRows(out, h, width))
			}
		}
	}
	return out
}

// addComplex adds c*(xr + i xi) to yr + i yi.
func addComplex(yr, yi []float64, c complex128, xr, xi []float64) {
	a, b := real(c), imag(c)
	for j, u := range xr {
		v := xi[j]
		yr[j] += a*u - b*v
		yi[j] += a*v + b*u
	}
}

// expected is the expected rotation of every source frequency and of every slot over a distribution of distances,
// rho = E[e^{i w D}].
type expected struct{ source, slots []complex128 }

// expect returns the expected rotations.
func (t *Slots) expect(s *Source, d Weights) *expected {
	over := func(frequencies []float64) []complex128 {
		out := make([]complex128, len(frequencies))
		for i, w := range frequencies {
			out[i] = d.Phase(w)
		}
		return out
	}
	return &expected{over(s.Frequencies[:s.Pairs()]), over(t.Frequencies)}
}

// positionFree returns the keys [HeadDim, d] that query head h of group g meets without a rotation: what the slots do
// not carry, each rotation replaced by its expected value,
//
//	conj(rho_f) k_{g,f} - sum_s conj(A_{g,s,f} rho_s) kappa_s.
//
// slotKeys is [Slots.keys]. Both are of the width of K.
func (t *Slots) positionFree(e *blas.Engine, s *Source, g int, rho *expected, slotKeys svd.Matrix) svd.Matrix {
	pairs := s.Pairs()
	out := svd.NewMatrix(s.HeadDim, s.K.Cols)
	carried := svd.NewCMatrix(pairs, len(rho.slots))
	for f := range pairs {
		i := g*s.HeadDim + f
		addComplex(out.Row(f), out.Row(pairs+f), cmplx.Conj(rho.source[f]), s.K.Row(i), s.K.Row(i+pairs))
		for slot, p := range rho.slots {
			carried.Set(f, slot, cmplx.Conj(t.Query[g].At(slot, f)*p))
		}
	}
	svd.Gemm(e, false, false, -1, realMap(carried, halves(pairs), interleaved), slotKeys, 1, out)
	return out
}

// share is the part of the query-weighted key energy that the slots carry: 1 - E|q (k - k^)|^2 / E|q k|^2 with the
// keys' frequencies taken as the slots' own. With A the queries' coefficients and b_s the rows of Key, the residual of the
// complex key i is e_i - sum_s conj(A_si) b_s, of energy
//
//	C_ii - 2 Re sum_s conj(A_si) (b_s C)_i + sum_ss' conj(A_si) (b_s C b_s'^*) A_s'i.
func (t *Slots) share(e *blas.Engine, covariance svd.CMatrix, energy []float64) float64 {
	reach := complexProduct(e, t.Key, covariance)
	gram := complexProduct(e, reach, adjoint(t.Key))
	pairs := t.Query[0].Cols
	var total, lost float64
	for i := range covariance.Rows {
		whole := real(covariance.At(i, i))
		left := whole
		query := func(slot int) complex128 { return t.Query[i/pairs].At(slot, i%pairs) }
		for slot := range t.Frequencies {
			a := cmplx.Conj(query(slot))
			if a == 0 {
				continue
			}
			sum := -2 * reach.At(slot, i)
			for other := range t.Frequencies {
				sum += gram.At(slot, other) * query(other)
			}
			left += real(a * sum)
		}
		total += energy[i] * whole
		lost += energy[i] * max(0, left)
	}
	if total == 0 {
		return 1
	}
	return 1 - lost/total
}
