package mla

import (
	"errors"
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// Metrics says what an error in a layer's keys and values costs.
type Metrics struct {
	// Input is the covariance C = E[x x^T] of the attention input, of order d.
	Input svd.Metric
	// Query holds E[q_h q_h^T] before the rotation, [HeadDim, HeadDim], for each query head.
	Query []svd.Matrix
	// Output holds the sum of W_O,h^T W_O,h over the query heads h of each KV head, [HeadDim, HeadDim]: what an error of a
	// head's values costs in the layer's output.
	Output []svd.Matrix
	// Distances is the distribution of the distances at which heads attend.
	Distances Weights
}

// DataFree returns the metrics that need no calibration: behind an RMSNorm of weight gamma [d] the input has unit mean
// square before the weight, so C = diag(gamma^2) and E[q_h q_h^T] = W_Q,h C W_Q,h^T. How far heads look cannot be
// read off the weights; attention that falls with the square of the distance serves far better than attention that is
// uniform over the context, in tokens (perplexity 3.9 against 10.3 on a small trained model, 2.0 before).
//
// Queries and output may be missing in s: [Metrics.AddQuery] and [Metrics.AddOutput] then take them piece by piece.
func DataFree(e *blas.Engine, s *Source, gamma []float64, context int) *Metrics {
	m := &Metrics{Input: svd.DiagonalMetric(gamma), Distances: PowerLaw(context, 2)}
	m.Output = s.zeroOutputs()
	if s.Q.Rows > 0 {
		for h := range s.Heads {
			m.AddQuery(e, headRows(s.Q, h, s.HeadDim))
		}
	}
	if s.O.Rows > 0 {
		m.AddOutput(e, s, s.O)
	}
	return m
}

// AddQuery takes up W_Q,h [HeadDim, d] of the next query head.
func (m *Metrics) AddQuery(e *blas.Engine, head svd.Matrix) {
	m.Query = append(m.Query, m.Input.Congruence(e, head))
}

// AddOutput takes up rows of W_O, [any number, Heads*HeadDim].
func (m *Metrics) AddOutput(e *blas.Engine, s *Source, rows svd.Matrix) {
	s.addOutputs(e, rows, m.Output)
}

// DataFreeSlots returns the slot options that need no calibration, for a number of slots. Where every source frequency has
// a slot of its own these are the plain principal components. Where there are fewer, queries and keys are refined over all
// frequencies, for distances that fall more slowly than those of [DataFree]: a distance that is seldom attended to must
// not get a large score by mistake.
func DataFreeSlots(s *Source, slots, context int) SlotOptions {
	o := SlotOptions{QueryPower: 1}
	if slots < s.Pairs() {
		o.Distances, o.Sweeps = Mixture(PowerLaw(context, 1), Available(context), 0.1), 3
	}
	return o
}

// Options configures [Convert].
type Options struct {
	// Rank is r, the width of the latent. Beyond the useful rank it is padded with zero rows.
	Rank int
	// Frequencies are the engine's rotary frequencies omega_s, one for each pair of the shared rotary key.
	Frequencies []float64
	Slots       SlotOptions
	Engine      *blas.Engine
	// Known, if set, is called with the slots as soon as they are chosen, before the factorization, which is most of the
	// work: queries and output do not depend on it.
	Known func(*Slots)
}

// Result is a converted layer with what its factorization kept.
type Result struct {
	Attention *Attention
	// Joint is the factorization of keys and values; its Discarded is in the metrics' units and exact.
	Joint *svd.JointFactors
	// RotaryShare is the share of the weighted key energy that the slots carry, from 0 to 1.
	RotaryShare float64
}

// Convert turns a layer into MLA under the given metrics. Where queries and output are missing in s, QNoPE, QRope and O are
// missing in the result; the metrics are all that the rest needs of them, and [Slots.Queries] gives the rotary queries.
func Convert(s *Source, m *Metrics, o Options) (*Result, error) {
	whole := s.Q.Rows > 0 || s.O.Rows > 0
	if err := s.check(whole); err != nil {
		return nil, err
	}
	if len(m.Query) != s.Heads || len(m.Output) != s.KVHeads {
		return nil, fmt.Errorf("metrics of %d query and %d KV heads, want %d and %d", len(m.Query), len(m.Output), s.Heads, s.KVHeads)
	}
	if len(m.Distances) == 0 {
		return nil, errors.New("metrics without distances")
	}
	if o.Rank < 0 {
		return nil, badRank(o.Rank, 0)
	}
	e := o.Engine
	keyGram := m.Input.Congruence(e, s.K)
	covariance, energy := keyCovariance(s, keyGram), queryEnergy(s, m.Query)
	slots, err := findSlots(e, s, o.Frequencies, covariance, energy, o.Slots)
	if err != nil {
		return nil, err
	}
	keyRows := slots.keys(e, s)
	rho := slots.expect(s, m.Distances)

	var keys, values []svd.Block
	var keyTrace, valueTrace float64
	for g := range s.KVHeads {
		queries := svd.GramMetric(groupQueries(s, m.Query, g))
		key := svd.Block{A: slots.positionFree(e, s, g, rho, keyRows), Q: queries}
		value := svd.Block{A: headRows(s.V, g, s.HeadDim), Q: svd.GramMetric(m.Output[g])}
		// The keys count as they were before the slots: a residual that is rounding stays rounding.
		keyTrace += queries.Inner(headCols(headRows(keyGram, g, s.HeadDim), g, s.HeadDim))
		valueTrace += value.Energy(e, m.Input)
		keys, values = append(keys, key), append(values, value)
	}
	balance := 1.0
	if keyTrace > 0 && valueTrace > 0 {
		balance = valueTrace / keyTrace
	}
	for g := range keys {
		keys[g].Q = keys[g].Q.Scaled(balance)
	}
	a := Attention{
		Heads: s.Heads, NoPEDim: s.HeadDim, RopeDim: 2 * len(o.Frequencies), VDim: s.HeadDim,
		Frequencies: o.Frequencies,
		KRope:       keyRows, Scale: s.Scale(),
	}
	if o.Known != nil {
		o.Known(slots)
	}
	if whole {
		a.QNoPE, a.QRope, a.O = s.Q, slots.queries(e, s), s.O
	}
	joint, err := svd.Joint(append(keys, values...), m.Input, o.Rank, svd.Options{Engine: e})
	if err != nil {
		return nil, fmt.Errorf("joint factorization of keys and values: %w", err)
	}

	a.Down, a.UpK, a.UpV = joint.Down, svd.NewMatrix(s.Heads*s.HeadDim, o.Rank), svd.NewMatrix(s.Heads*s.HeadDim, o.Rank)
	for h := range s.Heads {
		g := s.Group(h)
		for i := range s.HeadDim {
			copy(a.UpK.Row(h*s.HeadDim+i), joint.Up[g].Row(i))
			copy(a.UpV.Row(h*s.HeadDim+i), joint.Up[s.KVHeads+g].Row(i))
		}
	}
	return &Result{Attention: &a, Joint: joint, RotaryShare: slots.share(e, covariance, energy)}, nil
}

// groupQueries is sum_h E[q_h q_h^T] over the heads of group g.
func groupQueries(s *Source, queries []svd.Matrix, g int) svd.Matrix {
	sum := svd.NewMatrix(s.HeadDim, s.HeadDim)
	for h, q := range queries {
		if s.Group(h) != g {
			continue
		}
		accumulate(sum, q)
	}
	return sum
}

// zeroOutputs is a zero matrix [HeadDim, HeadDim] for each group.
func (s *Source) zeroOutputs() []svd.Matrix {
	out := make([]svd.Matrix, s.KVHeads)
	for g := range out {
		out[g] = svd.NewMatrix(s.HeadDim, s.HeadDim)
	}
	return out
}

// addOutputs adds to the sums of W_O,h^T W_O,h over the heads h of each group what the given rows of W_O contribute.
func (s *Source) addOutputs(e *blas.Engine, rows svd.Matrix, sums []svd.Matrix) {
	for h := range s.Heads {
		svd.Syrk(e, true, 1, headCols(rows, h, s.HeadDim), 1, sums[s.Group(h)])
	}
}
