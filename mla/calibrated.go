package mla

import (
	"errors"
	"fmt"
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

const (
	// metricRidge is the share of the mean variance that is added to every direction of a metric before it is inverted.
	metricRidge = 1e-5
	// conjugateSteps is the number of conjugate-gradient steps of one update of the down-projection.
	conjugateSteps = 8
)

// Fit is the factorization of a layer under measured metrics, one pair for each head:
//
//	minimise  sum_h lambda_h E|q_h^T (K_h - UK_h D)|^2_{S_h} + |W_O,h (V_g(h) - UV_h D)|^2_{B_h}
//
// over D [rank, d], UK_h and UV_h, with K_h the position-free keys of head h, S_h its softmax metric, B_h the centred
// covariance of its averaged inputs, and the natural weight
//
//	lambda_h = tr(W_O,h V_g S_h V_g^T W_O,h^T) / HeadDim * E[sum_n a_mn^2]
//
// times the candidate's. It starts from the joint SVD in the heads' mean metric, which [Fit.Sweep] improves. If the statistics
// have a [Basis], D and the position-free keys are in its coordinates until [Fit.Attention].
type Fit struct {
	source      *Source
	statistics  *Statistics
	frequencies []float64
	slots       *Slots
	keyRows     svd.Matrix
	problem     problem
}

// NewFit finds the slots and the start of one candidate. The statistics must stay as they are while the fit is used.
func NewFit(s *Source, st *Statistics, rank int, frequencies []float64, c Candidate, e *blas.Engine) (*Fit, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	slots, err := calibratedSlots(s, st, frequencies, c, e)
	if err != nil {
		return nil, err
	}
	inner := st.Basis.reduced(s)
	f := &Fit{source: s, statistics: st, frequencies: frequencies, slots: slots, keyRows: slots.keys(e, inner), problem: problem{rank: rank, e: e}}
	softmax, averaged := svd.NewMatrix(st.Input.Rows, st.Input.Rows), svd.NewMatrix(st.Input.Rows, st.Input.Rows)
	for h := range st.Heads {
		head := &st.Heads[h]
		var d Distances
		if !c.NoPhase {
			d = head.Distances.Within(c.Reach)
		}
		w := headCols(s.O, h, s.HeadDim)
		term := headTerm{
			key: slots.positionFree(e, inner, s.Group(h), slots.expect(s, d), f.keyRows), value: headRows(inner.V, s.Group(h), s.HeadDim),
			output: svd.Product(e, true, false, w, w), softmax: head.Softmax, averaged: head.Averaged,
		}
		spread := svd.GramMetric(term.output).Inner(svd.GramMetric(head.Softmax).Congruence(e, term.value))
		term.query = scaled(head.Query, c.KeyWeight*spread/float64(s.HeadDim)*head.Squared)
		accumulate(softmax, term.softmax)
		accumulate(averaged, term.averaged)
		f.problem.heads = append(f.problem.heads, term)
	}
	return f, f.problem.start(normalised(softmax), normalised(averaged))
}

// Sweep alternates n times between the best down-projection for the up-projections and the reverse. Two or three sweeps
// take most of what there is to gain.
func (f *Fit) Sweep(n int) error {
	for range n {
		if err := f.problem.sweep(); err != nil {
			return err
		}
	}
	return nil
}

// Attention is the layer as factorized so far. The constant part of the value error goes into its output bias exactly, in a
// basis that of the values there.
func (f *Fit) Attention() *Attention {
	s, p, basis := f.source, &f.problem, f.statistics.Basis
	keyRows := f.keyRows
	if basis != nil {
		keyRows = f.slots.keys(p.e, s) // whatever the basis leaves out of them
	}
	a := &Attention{
		Heads: s.Heads, NoPEDim: s.HeadDim, RopeDim: 2 * len(f.frequencies), VDim: s.HeadDim, Frequencies: f.frequencies,
		QNoPE: s.Q, QRope: f.slots.queries(p.e, s), KRope: keyRows, Down: svd.NewMatrix(p.rank, s.Hidden()),
		UpK: svd.NewMatrix(s.Heads*s.HeadDim, p.rank), UpV: svd.NewMatrix(s.Heads*s.HeadDim, p.rank),
		O: s.O, Bias: make([]float64, s.Hidden()), Scale: sourceScale(s.HeadDim),
	}
	// The problem's rank is less where everything fits in fewer rows; the others stay zero.
	down := basis.full(p.e, p.down)
	for i := range down.Rows {
		copy(a.Down.Row(i), down.Row(i))
	}
	latent := make([]float64, p.down.Rows) // D E[xbar]
	for h := range p.heads {
		term := &p.heads[h]
		mean := f.statistics.Heads[h].Mean
		for i := range latent {
			latent[i] = dot(p.down.Row(i), mean)
		}
		for i := range s.HeadDim {
			copy(a.UpK.Row(h*s.HeadDim+i), term.upK.Row(i))
			copy(a.UpV.Row(h*s.HeadDim+i), term.upV.Row(i))
			// W_O,h (V - UV D) E[xbar]
			v := dot(term.value.Row(i), mean) - dot(term.upV.Row(i), latent)
			for j := range a.Bias {
				a.Bias[j] += s.O.At(j, h*s.HeadDim+i) * v
			}
		}
	}
	return a
}

// calibratedSlots finds the slots under the candidate's covariance.
func calibratedSlots(s *Source, st *Statistics, frequencies []float64, c Candidate, e *blas.Engine) (*Slots, error) {
	input := normalised(st.Input)
	if c.SlotInput == MixedInput {
		softmax := svd.NewMatrix(input.Rows, input.Rows)
		for h := range st.Heads {
			accumulate(softmax, st.Heads[h].Softmax)
		}
		accumulate(input, normalised(softmax))
	}
	queries := make([]svd.Matrix, len(st.Heads))
	for h := range queries {
		queries[h] = st.Heads[h].Query
	}
	o := SlotOptions{QueryPower: c.QueryPower, Matched: c.Matched}
	if c.Refine {
		o.Distances, o.Sweeps = meanDistances(st, c.Reach, c.Flat), c.Sweeps
	}
	return FindSlots(e, st.Basis.reduced(s), frequencies, svd.GramMetric(input), queries, o)
}

// meanDistances is the mean of the heads' distributions within reach, with a share of the availability over the same context.
func meanDistances(st *Statistics, reach int, flat float64) Distances {
	sum := Weights{}
	for h := range st.Heads {
		sum = Mixture(sum, st.Heads[h].Distances.Within(reach), 1/float64(h+1))
	}
	return Mixture(sum, Available(len(sum)), flat)
}

// headTerm is one head's part of the objective.
type headTerm struct {
	key, value svd.Matrix // [HeadDim, d]
	// query is lambda_h C_q,h and output W_O,h^T W_O,h, both [HeadDim, HeadDim].
	query, output svd.Matrix
	// softmax and averaged are S_h and B_h, [d, d].
	softmax, averaged svd.Matrix
	upK, upV          svd.Matrix // [HeadDim, rank]
}

// problem is the alternating least squares of one layer.
type problem struct {
	rank  int
	e     *blas.Engine
	heads []headTerm
	down  svd.Matrix // [at most rank, d]
	// mean is the heads' mean metric and lower its Cholesky factor.
	mean, lower svd.Matrix
}

// start is the joint SVD in the mean metric, with the up-projections refitted to the heads' own. softmax and averaged
// are the heads' mean metrics, of trace 1.
func (p *problem) start(softmax, averaged svd.Matrix) error {
	p.mean = softmax.Clone()
	accumulate(p.mean, averaged)
	addRidge(p.mean, metricRidge)

	var blocks []svd.Block
	for _, t := range p.heads {
		blocks = append(blocks,
			svd.Block{A: t.key, Q: svd.GramMetric(t.query).Scaled(trace(t.softmax))},
			svd.Block{A: t.value, Q: svd.GramMetric(t.output).Scaled(trace(t.averaged))})
	}
	joint, err := svd.Joint(blocks, svd.GramMetric(p.mean), p.rank, svd.Options{Engine: p.e})
	if err != nil {
		return fmt.Errorf("joint factorization of keys and values: %w", err)
	}
	p.down = joint.Down
	if joint.Rank < p.rank {
		// Everything fits: there is nothing to trade, and the systems below would be singular.
		p.down = p.down.Slice(0, max(joint.Rank, 1), 0, p.down.Cols).Clone()
	}
	var ok bool
	if p.lower, _, ok = svd.Cholesky(p.e, p.mean); !ok {
		return fmt.Errorf("mean metric of the inputs: %w", svd.ErrNotPositive)
	}
	return p.fitUp()
}

func (p *problem) sweep() error {
	if err := p.fitDown(); err != nil {
		return err
	}
	if err := p.normaliseDown(); err != nil {
		return err
	}
	return p.fitUp()
}

// fitUp sets every head's up-projections to their optimum for the down-projection:
// UK_h = K_h S_h D^T (D S_h D^T)^-1, and UV_h likewise with B_h.
func (p *problem) fitUp() error {
	for h := range p.heads {
		t := &p.heads[h]
		var err error
		if t.upK, err = p.fit(t.key, t.softmax); err != nil {
			return fmt.Errorf("keys of head %d: %w", h, err)
		}
		if t.upV, err = p.fit(t.value, t.averaged); err != nil {
			return fmt.Errorf("values of head %d: %w", h, err)
		}
	}
	return nil
}

func (p *problem) fit(a, metric svd.Matrix) (svd.Matrix, error) {
	reach := svd.Product(p.e, false, false, p.down, metric) // D S
	gram := svd.Product(p.e, false, true, reach, p.down)    // D S D^T
	right := svd.Product(p.e, false, true, reach, a)        // D S A^T
	scale := trace(gram) / float64(gram.Rows)
	if scale <= 0 {
		return svd.NewMatrix(a.Rows, p.down.Rows), nil // the head sees nothing: any up-projection is optimal
	}
	// A head that sees little has a metric whose rounding errors can outweigh the ridge.
	for ridge := metricRidge; ; ridge *= 10 {
		x, err := svd.SolveSPD(p.e, gram, ridge*scale, right)
		if err == nil {
			return x.T(), nil
		}
		if ridge > 1e3 || !errors.Is(err, svd.ErrNotPositive) {
			return svd.Matrix{}, fmt.Errorf("%w (more calibration tokens may help)", err)
		}
	}
}

// fitDown improves the down-projection for the up-projections by preconditioned conjugate gradients on the normal
// equations  sum_h [UK^T Q UK] D S_h + [UV^T W UV] D B_h = sum_h UK^T Q K S_h + UV^T W V B_h.
// The Cholesky factor of the mean metric is the right-hand preconditioner. A term U^T Q U D S is computed as
// (Q U)^T ((U D) S): what meets the metric has a head's rows, fewer than the latent.
func (p *problem) fitDown() error {
	rank, d := p.down.Rows, p.down.Cols
	type side struct{ up, weighted, metric svd.Matrix } // U and Q U, both [HeadDim, rank]
	var sides []side
	rhs := svd.NewMatrix(rank, d)
	summed := svd.NewMatrix(rank, rank)
	for _, t := range p.heads {
		for _, part := range []struct{ up, weight, target, metric svd.Matrix }{
			{t.upK, t.query, t.key, t.softmax}, {t.upV, t.output, t.value, t.averaged},
		} {
			weighted := svd.Product(p.e, false, false, part.weight, part.up)
			sides = append(sides, side{part.up, weighted, part.metric})
			svd.Gemm(p.e, true, false, 1, weighted, svd.Product(p.e, false, false, part.target, part.metric), 1, rhs)
			svd.Gemm(p.e, true, false, trace(part.metric), weighted, part.up, 1, summed)
		}
	}
	apply := func(x svd.Matrix) svd.Matrix {
		y := svd.NewMatrix(rank, d)
		for _, s := range sides {
			reach := svd.Product(p.e, false, false, svd.Product(p.e, false, false, s.up, x), s.metric)
			svd.Gemm(p.e, true, false, 1, s.weighted, reach, 1, y)
		}
		return y
	}
	addRidge(summed, 1e-6)
	left, _, ok := svd.Cholesky(p.e, summed)
	if !ok {
		return fmt.Errorf("summed Gram matrix of the up-projections: %w", svd.ErrNotPositive)
	}
	precondition := func(r svd.Matrix) svd.Matrix {
		z := r.Clone()
		svd.SolveLower(p.e, left, false, z)
		svd.SolveLower(p.e, left, true, z)
		svd.SolveLowerRight(p.e, p.lower, true, z)
		svd.SolveLowerRight(p.e, p.lower, false, z)
		return z
	}

	x := p.down.Clone()
	r := rhs
	subtract(r, apply(x))
	z := precondition(r)
	direction := z.Clone()
	rz := inner(r, z)
	for range conjugateSteps {
		if rz <= 0 || math.IsNaN(rz) {
			break // solved to rounding
		}
		ad := apply(direction)
		curvature := inner(direction, ad)
		if curvature <= 0 {
			break
		}
		step := rz / curvature
		addScaled(x, step, direction)
		addScaled(r, -step, ad)
		z = precondition(r)
		next := inner(r, z)
		for i := range direction.Data {
			direction.Data[i] = z.Data[i] + next/rz*direction.Data[i]
		}
		rz = next
	}
	p.down = x
	return nil
}

// normaliseDown replaces D by L^-1 D, L L^T = D C D^T: the same row space, with latents of unit variance under the mean
// metric C.
func (p *problem) normaliseDown() error {
	gram := svd.GramMetric(p.mean).Congruence(p.e, p.down)
	addRidge(gram, 1e-12)
	l, pivot, ok := svd.Cholesky(p.e, gram)
	if !ok {
		return fmt.Errorf("covariance of the latent at row %d: %w", pivot, svd.ErrNotPositive)
	}
	svd.SolveLower(p.e, l, false, p.down)
	return nil
}
