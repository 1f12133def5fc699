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
	// sweeps and conjugateSteps are the alternating updates of the up- and the down-projections; two or three sweeps
	// take most of what there is to gain.
	sweeps         = 2
	conjugateSteps = 8
)

// ConvertCalibrated turns a layer into MLA under measured metrics, one pair for each head, by alternating least squares:
//
//	minimise  sum_h lambda_h E|q_h^T (K_h - UK_h D)|^2_{S_h} + |W_O,h (V_g(h) - UV_h D)|^2_{B_h}
//
// over D [rank, d], UK_h and UV_h, with K_h the position-free keys of head h, S_h its softmax metric, B_h the centred
// covariance of its averaged inputs, and the natural weight
//
//	lambda_h = tr(W_O,h V_g S_h V_g^T W_O,h^T) / HeadDim * E[sum_n a_mn^2]
//
// times the candidate's. The constant part of the value error goes into the output bias exactly.
func ConvertCalibrated(s *Source, st *Statistics, rank int, frequencies []float64, c Candidate, e *blas.Engine) (*Attention, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	slots, err := calibratedSlots(s, st, frequencies, c, e)
	if err != nil {
		return nil, err
	}
	keyRows := slots.keys(s)
	p := &problem{rank: rank, e: e}
	softmax, averaged := svd.NewMatrix(s.Hidden(), s.Hidden()), svd.NewMatrix(s.Hidden(), s.Hidden())
	for h := range st.Heads {
		head := &st.Heads[h]
		var d Distances
		if !c.NoPhase {
			d = head.Distances
		}
		w := headCols(s.O, h, s.HeadDim)
		term := headTerm{
			key: slots.positionFree(s, s.Group(h), d, keyRows), value: headRows(s.V, s.Group(h), s.HeadDim),
			output: svd.Product(e, true, false, w, w), softmax: head.Softmax, averaged: head.Averaged,
		}
		spread := svd.GramMetric(term.output).Inner(svd.GramMetric(head.Softmax).Congruence(e, term.value))
		term.query = scaled(head.Query, c.KeyWeight*spread/float64(s.HeadDim)*head.Squared)
		accumulate(softmax, term.softmax)
		accumulate(averaged, term.averaged)
		p.heads = append(p.heads, term)
	}
	if err := p.solve(normalised(softmax), normalised(averaged)); err != nil {
		return nil, err
	}

	a := &Attention{
		Heads: s.Heads, NoPEDim: s.HeadDim, RopeDim: 2 * len(frequencies), VDim: s.HeadDim, Frequencies: frequencies,
		QNoPE: s.Q, QRope: slots.queries(s), KRope: keyRows, Down: p.down,
		UpK: svd.NewMatrix(s.Heads*s.HeadDim, rank), UpV: svd.NewMatrix(s.Heads*s.HeadDim, rank),
		O: s.O, Bias: make([]float64, s.Hidden()), Scale: sourceScale(s.HeadDim),
	}
	for h := range p.heads {
		term := &p.heads[h]
		for i := range s.HeadDim {
			copy(a.UpK.Row(h*s.HeadDim+i), term.upK.Row(i))
			copy(a.UpV.Row(h*s.HeadDim+i), term.upV.Row(i))
		}
		// W_O,h (V - UV D) E[xbar]
		rest := term.value.Clone()
		svd.Gemm(e, false, false, -1, term.upV, p.down, 1, rest)
		for i := range s.HeadDim {
			v := dot(rest.Row(i), st.Heads[h].Mean)
			for j := range a.Bias {
				a.Bias[j] += s.O.At(j, h*s.HeadDim+i) * v
			}
		}
	}
	return a, nil
}

// calibratedSlots finds the slots under the candidate's covariance.
func calibratedSlots(s *Source, st *Statistics, frequencies []float64, c Candidate, e *blas.Engine) (*Slots, error) {
	input := normalised(st.Input)
	if c.SlotInput == MixedInput {
		softmax := svd.NewMatrix(s.Hidden(), s.Hidden())
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
		o.Distances, o.Sweeps = meanDistances(st, c.Flat), c.Sweeps
	}
	return FindSlots(s, frequencies, svd.GramMetric(input), queries, o)
}

// meanDistances is the mean of the heads' distributions, with a share of the availability over the same context.
func meanDistances(st *Statistics, flat float64) Distances {
	sum := Weights{}
	for h := range st.Heads {
		sum = Mixture(sum, st.Heads[h].Distances, 1/float64(h+1))
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
	down  svd.Matrix // [rank, d]
}

// solve starts from the joint SVD in the averaged metric and alternates. softmax and averaged are the heads' mean
// metrics, of trace 1.
func (p *problem) solve(softmax, averaged svd.Matrix) error {
	mean := softmax.Clone()
	accumulate(mean, averaged)
	addRidge(mean, metricRidge)

	var blocks []svd.Block
	for _, t := range p.heads {
		blocks = append(blocks,
			svd.Block{A: t.key, Q: svd.GramMetric(t.query).Scaled(trace(t.softmax))},
			svd.Block{A: t.value, Q: svd.GramMetric(t.output).Scaled(trace(t.averaged))})
	}
	joint, err := svd.Joint(blocks, svd.GramMetric(mean), p.rank, svd.Options{Engine: p.e})
	if err != nil {
		return fmt.Errorf("joint factorization of keys and values: %w", err)
	}
	p.down = joint.Down
	if joint.Rank < p.rank {
		// Everything fits: there is nothing to trade, and the systems below would be singular.
		p.useful(joint.Rank)
	}
	lower, _, ok := svd.Cholesky(p.e, mean)
	if !ok {
		return fmt.Errorf("mean metric of the inputs: %w", svd.ErrNotPositive)
	}
	if err := p.fitUp(); err != nil {
		return err
	}
	for range sweeps {
		if err := p.fitDown(lower); err != nil {
			return err
		}
		if err := p.normaliseDown(mean); err != nil {
			return err
		}
		if err := p.fitUp(); err != nil {
			return err
		}
	}
	p.pad()
	return nil
}

// useful cuts the problem to the rows of the down-projection that carry anything; pad puts zeros back.
func (p *problem) useful(rank int) { p.down = p.down.Slice(0, max(rank, 1), 0, p.down.Cols).Clone() }

func (p *problem) pad() {
	if p.down.Rows == p.rank {
		return
	}
	widen := func(m svd.Matrix, rows, cols int) svd.Matrix {
		out := svd.NewMatrix(rows, cols)
		for i := range m.Rows {
			copy(out.Row(i), m.Row(i))
		}
		return out
	}
	p.down = widen(p.down, p.rank, p.down.Cols)
	for h := range p.heads {
		t := &p.heads[h]
		t.upK, t.upV = widen(t.upK, t.upK.Rows, p.rank), widen(t.upV, t.upV.Rows, p.rank)
	}
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
// lower is the Cholesky factor of the mean metric, the right-hand preconditioner.
func (p *problem) fitDown(lower svd.Matrix) error {
	rank, d := p.down.Rows, p.down.Cols
	type side struct{ gram, metric svd.Matrix }
	var sides []side
	rhs := svd.NewMatrix(rank, d)
	summed := svd.NewMatrix(rank, rank)
	for _, t := range p.heads {
		for _, part := range []struct{ up, weight, target, metric svd.Matrix }{
			{t.upK, t.query, t.key, t.softmax}, {t.upV, t.output, t.value, t.averaged},
		} {
			weighted := svd.Product(p.e, true, false, part.up, part.weight) // U^T Q
			gram := svd.Product(p.e, false, false, weighted, part.up)
			sides = append(sides, side{gram, part.metric})
			svd.Gemm(p.e, false, false, 1, svd.Product(p.e, false, false, weighted, part.target), part.metric, 1, rhs)
			accumulate(summed, scaled(gram, trace(part.metric)))
		}
	}
	apply := func(x svd.Matrix) svd.Matrix {
		y := svd.NewMatrix(rank, d)
		for _, s := range sides {
			svd.Gemm(p.e, false, false, 1, svd.Product(p.e, false, false, s.gram, x), s.metric, 1, y)
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
		svd.SolveLowerRight(p.e, lower, true, z)
		svd.SolveLowerRight(p.e, lower, false, z)
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
func (p *problem) normaliseDown(mean svd.Matrix) error {
	gram := svd.GramMetric(mean).Congruence(p.e, p.down)
	addRidge(gram, 1e-12)
	l, pivot, ok := svd.Cholesky(p.e, gram)
	if !ok {
		return fmt.Errorf("covariance of the latent at row %d: %w", pivot, svd.ErrNotPositive)
	}
	svd.SolveLower(p.e, l, false, p.down)
	return nil
}
