package mla

import (
	"math"
	"math/cmplx"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/svd"
)

func randomMatrix(r *rand.Rand, rows, cols int, scale float64) svd.Matrix {
	m := svd.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = scale * r.NormFloat64()
	}
	return m
}

func frequencies(pairs int) []float64 {
	out := make([]float64, pairs)
	for i := range out {
		out[i] = math.Pow(10000, -float64(i)/float64(pairs))
	}
	return out
}

// randomSource has scores of order 1, so that the softmax is neither flat nor a step.
func randomSource(r *rand.Rand, heads, kvHeads, headDim, hidden int) *Source {
	scale := 1 / math.Sqrt(float64(hidden))
	return &Source{
		Heads: heads, KVHeads: kvHeads, HeadDim: headDim, Frequencies: frequencies(headDim / 2),
		Q: randomMatrix(r, heads*headDim, hidden, 1.5*scale), K: randomMatrix(r, kvHeads*headDim, hidden, 1.5*scale),
		V: randomMatrix(r, kvHeads*headDim, hidden, scale), O: randomMatrix(r, hidden, heads*headDim, scale),
	}
}

func ones(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = 1
	}
	return out
}

// relative is |a-b| / |b| in the Frobenius norm.
func relative(a, b svd.Matrix) float64 {
	var diff, norm float64
	for i := range a.Rows {
		for j, v := range b.Row(i) {
			e := a.At(i, j) - v
			diff += e * e
			norm += v * v
		}
	}
	return math.Sqrt(diff / norm)
}

func convertError(t *testing.T, s *Source, x svd.Matrix, o Options) float64 {
	t.Helper()
	r, err := Convert(s, DataFree(nil, s, ones(s.Hidden()), 4096), o)
	if err != nil {
		t.Fatal(err)
	}
	want := s.Forward(x)
	got := r.Attention.Expanded(x)
	if e := relative(r.Attention.Absorbed(x), got); e > 1e-12 {
		t.Errorf("absorbed and expanded forward differ by %g", e)
	}
	return relative(got, want)
}

func repeat(frequencies []float64, times int) []float64 {
	var out []float64
	for _, f := range frequencies {
		for range times {
			out = append(out, f)
		}
	}
	return out
}

// TestLossless: with a slot for every KV head and frequency, or without rotation, and the full rank, nothing is lost.
func TestLossless(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		name                           string
		heads, kvHeads, headDim, slots int
		rotate                         bool
	}{
		{"MHA, every frequency repeated", 4, 4, 8, 4, true},
		{"GQA, every frequency repeated", 8, 2, 8, 2, true},
		{"more slots than components", 4, 2, 8, 3, true},
		{"MHA without rotation", 4, 4, 8, 1, false},
		{"GQA without rotation", 6, 3, 4, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := randomSource(r, c.heads, c.kvHeads, c.headDim, 48)
			if !c.rotate {
				clear(s.Frequencies)
			}
			o := Options{Rank: 2 * c.kvHeads * c.headDim, Frequencies: repeat(s.Frequencies, c.slots)}
			if e := convertError(t, s, randomMatrix(r, 12, 48, 1), o); e > 1e-9 {
				t.Errorf("relative error %g", e)
			}
		})
	}
}

// plantShared replaces the keys by complex multiples of one rotary key that all heads share, and the values by a stack
// of the given rank.
func plantShared(r *rand.Rand, s *Source, rank int) {
	pairs := s.Pairs()
	shared := randomMatrix(r, 2*pairs, s.Hidden(), 1.5/math.Sqrt(float64(s.Hidden())))
	clear(s.K.Data)
	for g := range s.KVHeads {
		for f := range pairs {
			c := complex(r.NormFloat64(), r.NormFloat64())
			addComplex(s.K.Row(g*s.HeadDim+f), s.K.Row(g*s.HeadDim+pairs+f), c, shared.Row(f), shared.Row(pairs+f))
		}
	}
	up := randomMatrix(r, s.V.Rows, rank, 1/math.Sqrt(float64(rank)))
	s.V = svd.Product(nil, false, false, up, randomMatrix(r, rank, s.Hidden(), 1/math.Sqrt(float64(s.Hidden()))))
}

// TestPlantedSharedKey: an MLA layer expanded into heads converts back without loss, by the complex principal components
// and not by the real ones.
func TestPlantedSharedKey(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, kvHeads := range []int{8, 4} {
		s := randomSource(r, 8, kvHeads, 8, 64)
		plantShared(r, s, 12)
		o := Options{Rank: 12, Frequencies: s.Frequencies}
		x := randomMatrix(r, 16, 64, 1)
		if e := convertError(t, s, x, o); e > 1e-9 {
			t.Errorf("%d KV heads: relative error %g by complex PCA", kvHeads, e)
		}
		o.Slots.Method = RealPCA
		if e := convertError(t, s, x, o); e < 1e-2 {
			t.Errorf("%d KV heads: real PCA lost only %g; the planted phases were meant to defeat it", kvHeads, e)
		}
	}
}

// TestPlantedLatent: without rotation, keys and values of joint rank r need no more than r.
func TestPlantedLatent(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	s := randomSource(r, 8, 4, 8, 64)
	clear(s.Frequencies)
	const rank = 10
	down := randomMatrix(r, rank, 64, 1.0/8)
	s.K = svd.Product(nil, false, false, randomMatrix(r, s.K.Rows, rank, 0.5), down)
	s.V = svd.Product(nil, false, false, randomMatrix(r, s.V.Rows, rank, 0.3), down)
	x := randomMatrix(r, 16, 64, 1)
	o := Options{Rank: rank, Frequencies: []float64{0}}
	if e := convertError(t, s, x, o); e > 1e-9 {
		t.Errorf("relative error %g at the planted rank", e)
	}
	o.Rank = rank - 4
	if e := convertError(t, s, x, o); e < 1e-3 {
		t.Errorf("relative error %g four below the planted rank", e)
	}
}

// TestInvariance: what leaves the source's function unchanged leaves the conversion's error unchanged. A unitary across
// the heads of one frequency (with the query turned along) and k*a with q/a are such changes.
func TestInvariance(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	s := randomSource(r, 4, 4, 8, 40)
	x := randomMatrix(r, 12, 40, 1)
	o := Options{Rank: 16, Frequencies: s.Frequencies, Slots: SlotOptions{QueryPower: 1}}
	want := convertError(t, s, x, o)

	for i := range s.K.Data {
		s.K.Data[i] *= 8
		s.Q.Data[i] /= 8
	}
	if got := convertError(t, s, x, o); math.Abs(got-want) > 1e-9*want {
		t.Errorf("scaled keys: error %g, was %g", got, want)
	}
	// Phases for every head and frequency: the diagonal part of the unitary freedom.
	for h := range 4 {
		for f := range 4 {
			c, sn := math.Cos(float64(3*h+f)), math.Sin(float64(3*h+f))
			for _, m := range []svd.Matrix{s.Q, s.K} {
				re, im := m.Row(h*8+f), m.Row(h*8+4+f)
				for j, u := range re {
					v := im[j]
					re[j], im[j] = c*u-sn*v, sn*u+c*v
				}
			}
		}
	}
	if got := convertError(t, s, x, o); math.Abs(got-want) > 1e-6*want {
		t.Errorf("turned pairs: error %g, was %g", got, want)
	}
}

// TestDiscardedFalls: more rank discards less, and the reported energy is the true one.
func TestDiscardedFalls(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	s := randomSource(r, 4, 2, 8, 32)
	m := DataFree(nil, s, ones(32), 512)
	last := math.Inf(1)
	for rank := 0; rank <= 32; rank += 4 {
		res, err := Convert(s, m, Options{Rank: rank, Frequencies: s.Frequencies})
		if err != nil {
			t.Fatal(err)
		}
		if res.Joint.Discarded > last {
			t.Errorf("rank %d discards %g, a smaller one %g", rank, res.Joint.Discarded, last)
		}
		last = res.Joint.Discarded
		if res.RotaryShare < 0.2 || res.RotaryShare > 1 {
			t.Errorf("rotary share %g", res.RotaryShare)
		}
	}
	if last > 1e-12 {
		t.Errorf("the full rank discards %g", last)
	}
}

// slotError is the objective of the refinement by its definition: the expected squared score error over keys and
// distances, queries' components uncorrelated, summed distance by distance.
func slotError(s *Source, slots *Slots, covariance svd.CMatrix, energy []float64, d Weights) float64 {
	total := 0.0
	for m, w := range energy {
		g, f := m/s.Pairs(), m%s.Pairs()
		for distance, p := range d {
			residual := make([]complex128, len(energy)) // functional on the keys, turned by the distance
			residual[m] = cmplx.Rect(1, -s.Frequencies[f]*float64(distance))
			for slot, omega := range slots.Frequencies {
				a := cmplx.Conj(slots.Query[g].At(slot, f)) * cmplx.Rect(1, -omega*float64(distance))
				for j := range residual {
					residual[j] -= a * slots.Key.At(slot, j)
				}
			}
			for i, u := range residual {
				for j, v := range residual {
					total += w * p * real(u*covariance.At(i, j)*cmplx.Conj(v))
				}
			}
		}
	}
	return total
}

// TestRefine: with half the slots of the frequencies, the refinement of the queries, and then every sweep over keys and
// queries, lowers its objective, and what is left is stationary in the queries.
func TestRefine(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	s := randomSource(r, 8, 4, 16, 64)
	m := DataFree(nil, s, ones(64), 64)
	d := Mixture(PowerLaw(48, 1), Available(48), 0.1)
	var half []float64
	for f := 0; f < len(s.Frequencies); f += 2 {
		half = append(half, s.Frequencies[f])
	}
	covariance, energy := keyCovariance(s, m.Input.Congruence(nil, s.K)), queryEnergy(s, m.Query)
	find := func(o SlotOptions) (*Slots, float64) {
		o.QueryPower = 1
		slots, err := FindSlots(nil, s, half, m.Input, m.Query, o)
		if err != nil {
			t.Fatal(err)
		}
		return slots, slotError(s, slots, covariance, energy, d)
	}
	_, start := find(SlotOptions{})
	_, queries := find(SlotOptions{Distances: d})
	_, one := find(SlotOptions{Distances: d, Sweeps: 1})
	slots, three := find(SlotOptions{Distances: d, Sweeps: 3})
	if !(queries < start && one < 0.999*queries && three < one) {
		t.Errorf("error %g at the start, %g with queries refined, %g after one sweep, %g after three", start, queries, one, three)
	}
	for range 10 {
		g, slot, f := r.IntN(s.KVHeads), r.IntN(len(half)), r.IntN(s.Pairs())
		old := slots.Query[g].At(slot, f)
		slots.Query[g].Set(slot, f, old+complex(r.NormFloat64(), r.NormFloat64())*0.01)
		if moved := slotError(s, slots, covariance, energy, d); moved < three*(1-1e-5) {
			t.Errorf("another query of group %d, slot %d, pair %d lowers the error from %g to %g", g, slot, f, three, moved)
		}
		slots.Query[g].Set(slot, f, old)
	}
}

func TestPowerLaw(t *testing.T) {
	p := PowerLaw(4, 2)
	for d, want := range []float64{144, 36, 16, 9} {
		if want /= 205; math.Abs(p[d]-want) > 1e-15 {
			t.Errorf("distance %d: %g, want %g", d, p[d], want)
		}
	}
}

// TestPhase compares the phase with its definition, summed distance by distance.
func TestPhase(t *testing.T) {
	for _, n := range []int{1, 2, phaseBlock - 1, phaseBlock + 1, 4096} {
		for _, w := range []float64{0, 1e-7, 0.1, 1, 2 * math.Pi, -0.3} {
			p, want := PowerLaw(n, 1), complex128(0)
			for d, v := range p {
				want += complex(v, 0) * cmplx.Rect(1, w*float64(d))
			}
			if got := p.Phase(w); cmplx.Abs(got-want) > 1e-12 {
				t.Errorf("%d distances, w %g: got %v, want %v", n, w, got, want)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for _, spoil := range []func(s *Source){
		func(s *Source) { s.Heads = 5 },
		func(s *Source) { s.HeadDim = 7 },
		func(s *Source) { s.Frequencies = s.Frequencies[1:] },
		func(s *Source) { s.V = s.V.Slice(0, 8, 0, s.V.Cols) },
		func(s *Source) { s.O = s.O.T() },
	} {
		s := randomSource(r, 4, 2, 8, 20)
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		spoil(s)
		if s.Check() == nil {
			t.Errorf("accepted %+v", s)
		}
	}
}
