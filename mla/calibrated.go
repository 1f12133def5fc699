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
//	minimise  sum_h lambda_h E|q_h^T (K_h - UK_h Down)|^2_{S_h} + |W_O,h (V_g(h) - UV_h Down)|^2_{B_h}
//
// over the latent Down [rank, d], UK_h and UV_h, with K_h the position-free keys of head h, S_h its softmax metric, B_h the
// centred covariance of its averaged inputs, and
//
//	lambda_h = tr(W_O,h V_g S_h V_g^T W_O,h^T) / HeadDim * E[sum_n a_mn^2]
//
// its natural weight, times the candidate's. If the candidate is [Candidate.Loose] the slots are fitted together with the latent:
// the error of the keys is that of
//
//	R(D) K_g(h) - UK_h Down - A_h^T R'(D) B
//
// with B [2S, d] the slots' keys and A_h q_h a head's queries of them. R(D) turns the pairs of a key by the source's frequencies
// over the distance D, R'(D) the slots by the engine's, and the error is the expected one over the head's distances, taken as
// independent of what it attends to there.
//
// A fit starts from the candidate's slots and the joint SVD of what they leave in the heads' mean metric, with the up-projections
// refitted to the heads' own; [Fit.Sweep] improves it. If the statistics have a [Basis], Down, B and the keys are in its
// coordinates until [Fit.Attention].
type Fit struct {
	source      *Source
	statistics  *Statistics
	frequencies []float64
	slots       *Slots
	problem     problem
}

// NewFit finds the slots and the start of one candidate. The statistics must stay as they are while the fit is used.
func NewFit(s *Source, st *Statistics, rank int, frequencies []float64, c Candidate, e *blas.Engine) (*Fit, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if len(st.Heads) != s.Heads {
		return nil, fmt.Errorf("statistics of %d heads, want %d", len(st.Heads), s.Heads)
	}
	if rank < 1 {
		return nil, badRank(rank, 1)
	}
	slots, err := calibratedSlots(s, st, frequencies, c, e)
	if err != nil {
		return nil, err
	}
	inner := st.Basis.reduced(s)
	slotKeys := slots.keys(e, inner)
	f := &Fit{source: s, statistics: st, frequencies: frequencies, slots: slots, problem: problem{rank: rank, e: e}}
	softmax, averaged := svd.NewMatrix(st.Input.Rows, st.Input.Rows), svd.NewMatrix(st.Input.Rows, st.Input.Rows)
	for h := range st.Heads {
		head := &st.Heads[h]
		g := s.Group(h)
		w := headCols(s.O, h, s.HeadDim)
		term := headTerm{
			key: slots.positionFree(e, inner, g, slots.expect(s, head.Distances.Within(c.Reach)), slotKeys), value: headRows(inner.V, g, s.HeadDim),
			output: svd.Product(e, true, false, w, w), softmax: head.Softmax, averaged: head.Averaged,
		}
		// Inputs that are all alike leave rounding errors of either sign.
		spread := max(0, svd.GramMetric(term.output).Inner(svd.GramMetric(head.Softmax).Congruence(e, term.value)))
		term.query = scaled(head.Query, c.KeyWeight*spread/float64(s.HeadDim)*head.Squared)
		accumulate(softmax, term.softmax)
		accumulate(averaged, term.averaged)
		f.problem.heads = append(f.problem.heads, term)
	}
	if err := f.problem.start(normalised(softmax), normalised(averaged)); err != nil {
		return nil, err
	}
	if c.Loose {
		f.loosen(inner, slotKeys, c)
		if err := f.problem.normaliseDown(); err != nil {
			return nil, err
		}
	}
	return f, f.problem.fitUp()
}

// loosen puts the slots into the problem, as the candidate has them.
func (f *Fit) loosen(inner *Source, slotKeys svd.Matrix, c Candidate) {
	s, p := f.source, &f.problem
	p.down = stackRows(p.down, slotKeys)
	longest := 0
	for _, head := range f.statistics.Heads {
		longest = max(longest, FlatWindows*len(head.Distances))
	}
	turns := newTurns(p.e, f.frequencies, s.Frequencies[:s.Pairs()], len(p.heads), longest, func(h int) Weights {
		d := f.statistics.Heads[h].Distances
		return Mixture(d.Within(c.Reach), Available(FlatWindows*len(d)), c.Flat)
	})
	for h := range p.heads {
		t, g := &p.heads[h], s.Group(h)
		t.turns = turns[h]
		t.key = headRows(inner.K, g, s.HeadDim)
		reads := realMap(f.slots.Query[g], interleaved, halves(s.Pairs()))
		t.up = stackRows(t.up.T(), reads).T()
	}
}

// Sweep alternates n times between the best keys and latent for what the heads make of them and the reverse. Two or three
// sweeps take most of what there is to gain.
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
	a := &Attention{
		Heads: s.Heads, NoPEDim: s.HeadDim, RopeDim: 2 * len(f.frequencies), VDim: s.HeadDim, Frequencies: f.frequencies,
		QNoPE: s.Q, Down: svd.NewMatrix(p.rank, s.Hidden()),
		UpK: svd.NewMatrix(s.Heads*s.HeadDim, p.rank), UpV: svd.NewMatrix(s.Heads*s.HeadDim, p.rank),
		O: s.O, Bias: make([]float64, s.Hidden()), Scale: s.Scale(),
	}
	down := basis.full(p.e, p.down)
	if p.shared == down.Rows {
		a.QRope, a.KRope = f.slots.queries(p.e, s), f.slots.keys(p.e, s) // with whatever a basis leaves out of them
	} else {
		a.QRope, a.KRope = svd.NewMatrix(s.Heads*a.RopeDim, s.Hidden()), down.Slice(p.shared, down.Rows, 0, down.Cols).Clone()
		for h, t := range p.heads {
			svd.Gemm(p.e, true, false, 1, t.up.Slice(0, s.HeadDim, p.shared, t.up.Cols), headRows(s.Q, h, s.HeadDim), 0, headRows(a.QRope, h, a.RopeDim))
		}
	}
	// The problem's rank is less where everything fits in fewer rows; the others stay zero.
	for i := range p.shared {
		copy(a.Down.Row(i), down.Row(i))
	}
	latent := make([]float64, p.shared) // Down E[xbar]
	for h := range p.heads {
		term := &p.heads[h]
		mean := f.statistics.Heads[h].Mean
		for i := range latent {
			latent[i] = dot(p.down.Row(i), mean)
		}
		for i := range s.HeadDim {
			copy(a.UpK.Row(h*s.HeadDim+i), term.up.Row(i)[:p.shared])
			copy(a.UpV.Row(h*s.HeadDim+i), term.upV.Row(i))
			// W_O,h (V - UV Down) E[xbar]
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
	o := SlotOptions{QueryPower: c.QueryPower}
	if c.Refine {
		o.Distances, o.Sweeps = meanDistances(st, c.Reach, c.Flat), c.Sweeps
	}
	return FindSlots(e, st.Basis.reduced(s), frequencies, svd.GramMetric(input), queries, o)
}

// meanDistances is the mean of the heads' distributions within reach, with a share of the availability over the same context.
func meanDistances(st *Statistics, reach int, flat float64) Weights {
	sum := Weights{}
	for h := range st.Heads {
		sum = Mixture(sum, st.Heads[h].Distances.Within(reach), 1/float64(h+1))
	}
	return Mixture(sum, Available(len(sum)), flat)
}

// headTerm is one head's part of the objective.
type headTerm struct {
	// key, [HeadDim, d], is the head's position-free keys, or where the slots are fitted too its keys before the rotation.
	key, value svd.Matrix
	// query is lambda_h C_q,h and output W_O,h^T W_O,h, both [HeadDim, HeadDim].
	query, output svd.Matrix
	// softmax and averaged are S_h and B_h, [d, d].
	softmax, averaged svd.Matrix
	turns             *turns
	// up is UK_h [HeadDim, shared], and where the slots are fitted too beside it A_h^T, [HeadDim, shared + 2S]; upV is UV_h.
	up, upV svd.Matrix
}

// problem is the alternating least squares of one layer.
type problem struct {
	rank  int
	e     *blas.Engine
	heads []headTerm
	// down is the latent, at most rank rows, and where the slots are fitted too below it B: [shared + 2S, d].
	down   svd.Matrix
	shared int
	// mean is the heads' mean metric and lower its Cholesky factor.
	mean, lower svd.Matrix
}

// latent is the rows of a, which has those of down, that are the latent's.
func (p *problem) latent(a svd.Matrix) svd.Matrix { return a.Slice(0, p.shared, 0, a.Cols) }

// start is the joint SVD in the mean metric. softmax and averaged are the heads' mean metrics, of trace 1.
func (p *problem) start(softmax, averaged svd.Matrix) error {
	p.mean = softmax.Clone()
	accumulate(p.mean, averaged)
	addRidge(p.mean, metricRidge)

	var keys, values []svd.Block
	for _, t := range p.heads {
		keys = append(keys, svd.Block{A: t.key, Q: svd.GramMetric(t.query).Scaled(max(0, trace(t.softmax)))})
		values = append(values, svd.Block{A: t.value, Q: svd.GramMetric(t.output).Scaled(max(0, trace(t.averaged)))})
	}
	joint, err := svd.Joint(append(keys, values...), svd.GramMetric(p.mean), p.rank, svd.Options{Engine: p.e})
	if err != nil {
		return fmt.Errorf("joint factorization of keys and values: %w", err)
	}
	// Where everything fits in fewer rows there is nothing to trade, and the systems below would be singular with more.
	p.shared = min(max(joint.Rank, 1), p.rank)
	p.down = joint.Down.Slice(0, p.shared, 0, joint.Down.Cols).Clone()
	for h := range p.heads {
		t := &p.heads[h]
		t.up = joint.Up[h].Slice(0, t.key.Rows, 0, p.shared).Clone()
		t.upV = joint.Up[len(p.heads)+h].Slice(0, t.value.Rows, 0, p.shared).Clone()
	}
	var ok bool
	if p.lower, _, ok = svd.Cholesky(p.e, p.mean); !ok {
		return fmt.Errorf("mean metric of the inputs: %w", svd.ErrNotPositive)
	}
	return nil
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

// fitUp sets what every head makes of the latent, and of the slots, to the optimum for them: E[t z^T] E[z z^T]^-1, for the key
// and the value t, with z the latent and the turned keys of the slots.
func (p *problem) fitUp() error {
	for h := range p.heads {
		t := &p.heads[h]
		if err := p.fit(p.down, t.softmax, t.key, t.turns, t.up); err != nil {
			return fmt.Errorf("keys of head %d: %w", h, err)
		}
		if err := p.fit(p.latent(p.down), t.averaged, t.value, nil, t.upV); err != nil {
			return fmt.Errorf("values of head %d: %w", h, err)
		}
	}
	return nil
}

// fit moves up to the solution of up G = A S Z^T with G = Z S Z^T, for rows z and a target a under a metric S, turned if there
// are turns; where G says nothing, not at all.
func (p *problem) fit(z, metric, a svd.Matrix, turns *turns, up svd.Matrix) error {
	reach := svd.Product(p.e, false, false, z, metric)
	gram, right := svd.Product(p.e, false, true, reach, z), svd.Product(p.e, false, true, reach, a)
	if turns != nil {
		turns.gram(gram, p.shared, true)
		turns.cross(right, p.shared, true)
	}
	scale := trace(gram) / float64(gram.Rows)
	if scale <= 0 {
		return nil // the head sees nothing: any up-projection is optimal
	}
	svd.Gemm(p.e, false, true, -1, gram, up, 1, right)
	// A head that sees little has a metric whose rounding errors can outweigh the ridge.
	for ridge := metricRidge; ; ridge *= 10 {
		x, err := svd.SolveSPD(p.e, gram, ridge*scale, right)
		if err == nil {
			accumulate(up, x.T())
			return nil
		}
		if ridge > 1e3 || !errors.Is(err, svd.ErrNotPositive) {
			return fmt.Errorf("%w (more calibration tokens may help)", err)
		}
	}
}

// fitDown improves the rows Z of the latent, and of the slots' keys, for what the heads make of them by preconditioned conjugate
// gradients on the normal equations,
//
//	sum_h [UK^T Q UK] Z S_h + [UV^T W UV] Z B_h = sum_h UK^T Q K S_h + UV^T W V B_h,
//
// where the slots are fitted too with E[L^T Q L] in place of UK^T Q UK and E[L^T Q R(D)] of UK^T Q, L = [UK, A^T R'(D)]. The
// Cholesky factor of the mean metric is the right-hand preconditioner. A term U^T Q U Z S is computed as (Q U)^T ((U Z) S):
// what meets the metric has a head's rows, fewer than the latent. An expectation has no such factors.
func (p *problem) fitDown() error {
	rows, d := p.down.Rows, p.down.Cols
	type side struct{ up, weighted, metric svd.Matrix } // U and Q U, both [HeadDim, shared]
	type expected struct{ gram, metric svd.Matrix }     // E[L^T Q L]
	var sides []side
	var turned []expected
	rhs, summed := svd.NewMatrix(rows, d), svd.NewMatrix(rows, rows)
	for h := range p.heads {
		t := &p.heads[h]
		for _, part := range []struct {
			up, weight, target, metric svd.Matrix
			turns                      *turns
		}{{t.up, t.query, t.key, t.softmax, t.turns}, {t.upV, t.output, t.value, t.averaged, nil}} {
			weighted := svd.Product(p.e, false, false, part.weight, part.up)
			reach := svd.Product(p.e, false, false, part.target, part.metric)
			if part.turns == nil {
				sides = append(sides, side{part.up, weighted, part.metric})
				svd.Gemm(p.e, true, false, 1, weighted, reach, 1, p.latent(rhs))
				svd.Gemm(p.e, true, false, trace(part.metric), weighted, part.up, 1, summed.Slice(0, p.shared, 0, p.shared))
				continue
			}
			gram, reads := svd.Product(p.e, true, false, weighted, part.up), weighted.T()
			part.turns.gram(gram, p.shared, false)
			part.turns.cross(reads, p.shared, false)
			turned = append(turned, expected{gram, part.metric})
			svd.Gemm(p.e, false, false, 1, reads, reach, 1, rhs)
			addScaled(summed, trace(part.metric), gram)
		}
	}
	apply := func(x svd.Matrix) svd.Matrix {
		y := svd.NewMatrix(rows, d)
		for _, s := range sides {
			reach := svd.Product(p.e, false, false, svd.Product(p.e, false, false, s.up, p.latent(x)), s.metric)
			svd.Gemm(p.e, true, false, 1, s.weighted, reach, 1, p.latent(y))
		}
		for _, t := range turned {
			svd.Gemm(p.e, false, false, 1, t.gram, svd.Product(p.e, false, false, x, t.metric), 1, y)
		}
		return y
	}
	if trace(summed) == 0 {
		return nil // nothing is read of any input
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

// normaliseDown replaces the latent by L^-1 Down, L L^T = Down C Down^T: the same row space, with unit variance under the mean
// metric C. The keys of each slot get unit variance too, and what the heads make of them all changes accordingly.
func (p *problem) normaliseDown() error {
	gram := svd.GramMetric(p.mean).Congruence(p.e, p.down)
	shared := gram.Slice(0, p.shared, 0, p.shared).Clone()
	if trace(shared) == 0 {
		return nil
	}
	addRidge(shared, 1e-12)
	l, pivot, ok := svd.Cholesky(p.e, shared)
	if !ok {
		return fmt.Errorf("covariance of the latent at row %d: %w", pivot, svd.ErrNotPositive)
	}
	svd.SolveLower(p.e, l, false, p.latent(p.down))
	for h := range p.heads {
		t := &p.heads[h]
		keys := t.up.Slice(0, t.up.Rows, 0, p.shared)
		product := svd.Product(p.e, false, false, keys, l)
		for j := range keys.Rows {
			copy(keys.Row(j), product.Row(j))
		}
		t.upV = svd.Product(p.e, false, false, t.upV, l)
	}
	for i := p.shared; i < p.down.Rows; i += 2 {
		size := math.Sqrt((gram.At(i, i) + gram.At(i+1, i+1)) / 2)
		if size == 0 {
			continue // an empty slot
		}
		for row := i; row < i+2; row++ {
			for j, v := range p.down.Row(row) {
				p.down.Set(row, j, v/size)
			}
			for h := range p.heads {
				up := p.heads[h].up
				for j := range up.Rows {
					up.Set(j, row, size*up.At(j, row))
				}
			}
		}
	}
	return nil
}
