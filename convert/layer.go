package convert

import (
	"context"
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// result is the attention of one converted layer with what the target's layout and the record need besides.
type result struct {
	attention *mla.Attention
	// inputNorm is the weight [hidden] of the norm before the attention.
	inputNorm []float64
	record    Layer
	// values are the leading eigenvalues of the joint factorization: rank r discards record.Energy less the first r.
	values []float64
}

// converter turns the attention of layers into MLA. The method of a [Recipe] chooses the implementation.
type converter interface {
	// prepare does what comes before the first layer, with so many layers left to convert. It may change the target's rotary base.
	prepare(ctx context.Context, e *blas.Engine, progress Progress, left int) error
	// convert does one layer, with a factorization of at most rank latent rows. Layers are asked for in ascending order,
	// from several goroutines at once. If a layer's queries and output can be had before its latent, known, if not nil, is
	// called with them, and not more than once; the attention of the result is then without them.
	convert(e *blas.Engine, layer, rank int, known func(*outer)) (*result, error)
}

// newConverter returns the converter for the plan's method, which keeps its work with w.
func newConverter(p *Plan, o *RunOptions, w *checkpoint.Writer) converter {
	if p.Recipe.Method == Calibrated {
		return &calibrated{plan: p, options: o, writer: w}
	}
	c := newDataFree(p)
	c.neutral = true
	return c
}

func newDataFree(p *Plan) *dataFree {
	return &dataFree{plan: p, frequencies: p.Target.Rope.Frequencies(p.Recipe.RopeDim)}
}

// dataFree is the method [DataFree].
type dataFree struct {
	plan        *Plan
	frequencies []float64
	// neutral gives the latent a constant length where the engine has no biases; a spectrum needs none.
	neutral bool
}

func (*dataFree) prepare(context.Context, *blas.Engine, Progress, int) error { return nil }

func (c *dataFree) convert(e *blas.Engine, layer, rank int, known func(*outer)) (*result, error) {
	source, err := openLayer(c.plan, layer)
	if err != nil {
		return nil, err
	}
	metrics, err := source.metrics(e, c.plan.Recipe.Context)
	if err != nil {
		return nil, err
	}
	o := mla.Options{
		Rank: rank, Frequencies: c.frequencies, Slots: mla.DataFreeSlots(&source.Source, len(c.frequencies), c.plan.Recipe.Context), Engine: e,
	}
	if known != nil {
		o.Known = func(slots *mla.Slots) { known(source.outer(e, slots)) }
	}
	converted, err := mla.Convert(&source.Source, metrics, o)
	if err != nil {
		return nil, fmt.Errorf("layer %d: %w", layer, err)
	}
	joint := converted.Joint
	record := Layer{Layer: layer, Rank: joint.Rank, Energy: joint.Total, Discarded: joint.Discarded, RotaryShare: converted.RotaryShare}
	if joint.Total > 0 {
		record.DiscardedShare = joint.Discarded / joint.Total
	}
	attention := converted.Attention
	if !c.plan.Target.Bias && c.neutral {
		energy, err := mla.FitEnergy(mla.EnergyOptions{Down: attention.Down, Gamma: source.gamma, Rows: c.plan.Target.Rank, Engine: e})
		if err != nil {
			return nil, fmt.Errorf("layer %d: latent norm: %w", layer, err)
		}
		attention = attention.WithEnergy(e, energy)
		record.Norm = &calibrate.NormReport{Content: joint.Rank, Energy: attention.Rank() - joint.Rank, Fluctuation: energy.Fluctuation}
	}
	return &result{attention: attention, inputNorm: source.gamma, record: record, values: joint.Values}, nil
}

// sourceLayer is the attention of a layer of the source, with keys and values in memory and queries and output, which are most
// of it, in the file.
type sourceLayer struct {
	mla.Source
	q, o  *checkpoint.Tensor
	gamma []float64 // the weight [d] of its input norm
}

// openLayer reads a layer's keys, values and input norm.
func openLayer(p *Plan, layer int) (*sourceLayer, error) {
	m, names := p.Source, &p.Source.Family.Tensors
	s := &sourceLayer{Source: mla.Source{Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, Frequencies: m.Rope.Frequencies(m.HeadDim)}}
	var k, v *checkpoint.Tensor
	for _, find := range []struct {
		name string
		to   **checkpoint.Tensor
	}{{names.Q, &s.q}, {names.K, &k}, {names.V, &v}, {names.O, &s.o}} {
		var err error
		if *find.to, err = p.src.Want(names.Layer(layer, find.name)); err != nil {
			return nil, err
		}
	}
	var err error
	if s.K, err = widen(k); err != nil {
		return nil, err
	}
	if s.V, err = widen(v); err != nil {
		return nil, err
	}
	s.gamma, err = loadInputNorm(p, layer)
	return s, err
}

// metrics returns the layer's metrics (see [mla.DataFree]), and reads queries and output for them.
func (s *sourceLayer) metrics(e *blas.Engine, context int) (*mla.Metrics, error) {
	m := mla.DataFree(e, &s.Source, s.gamma, context)
	queries, output := widener{tensor: s.q}, widener{tensor: s.o}
	for h := range s.Heads {
		head, err := queries.rows(h*s.HeadDim, (h+1)*s.HeadDim)
		if err != nil {
			return nil, err
		}
		m.AddQuery(e, head)
	}
	step := partRows(s.Heads * s.HeadDim)
	for lo := 0; lo < s.Hidden(); lo += step {
		rows, err := output.rows(lo, min(lo+step, s.Hidden()))
		if err != nil {
			return nil, err
		}
		m.AddOutput(e, &s.Source, rows)
	}
	return m, nil
}

// outer is the layer's outer part with the given slots. It reads queries and output again.
func (s *sourceLayer) outer(e *blas.Engine, slots *mla.Slots) *outer {
	queries, output := widener{tensor: s.q}, widener{tensor: s.o}
	return &outer{
		nopeDim: s.HeadDim, vDim: s.HeadDim, scale: s.Scale(),
		queries: func(h int) (nope, rope svd.Matrix, err error) {
			if nope, err = queries.rows(h*s.HeadDim, (h+1)*s.HeadDim); err != nil {
				return nope, rope, err
			}
			return nope, slots.Queries(e, s.Group(h), nope), nil
		},
		output: output.rows,
	}
}

// loadInputNorm reads the weight of the norm before a layer's attention.
func loadInputNorm(p *Plan, layer int) ([]float64, error) {
	names := &p.Source.Family.Tensors
	t, err := p.src.Want(names.Layer(layer, names.AttnNorm))
	if err != nil {
		return nil, err
	}
	weight, err := t.Float32(nil)
	if err != nil {
		return nil, err
	}
	gamma := make([]float64, len(weight))
	for i, v := range weight {
		gamma[i] = float64(v)
	}
	return gamma, nil
}

// widen reads a 2-dimensional tensor and releases its pages.
func widen(t *checkpoint.Tensor) (svd.Matrix, error) {
	m := svd.NewMatrix(t.Shape[0], t.Shape[1])
	w := widener{tensor: t}
	return m, w.into(m, 0)
}

// widener reads rows of a 2-dimensional tensor.
type widener struct {
	tensor *checkpoint.Tensor
	part   []float32
	wide   svd.Matrix
}

// rows returns rows lo to hi-1, in memory that the next call uses again.
func (w *widener) rows(lo, hi int) (svd.Matrix, error) {
	cols := w.tensor.Shape[1]
	if hi-lo > w.wide.Rows {
		w.wide = svd.NewMatrix(hi-lo, cols)
	}
	out := w.wide.Slice(0, hi-lo, 0, cols)
	return out, w.into(out, lo)
}

// into reads the rows from lo on into m, which has no padding between rows, a few at a time, for the cache. Behind the last
// row it releases the tensor's pages.
func (w *widener) into(m svd.Matrix, lo int) error {
	if lo+m.Rows == w.tensor.Shape[0] {
		defer w.tensor.Release()
	}
	step := max(1, 1<<15/m.Cols)
	for i := 0; i < m.Rows; i += step {
		j := min(i+step, m.Rows)
		var err error
		if w.part, err = w.tensor.Rows(lo+i, lo+j, w.part); err != nil {
			return err
		}
		to := m.Data[i*m.Cols : j*m.Cols]
		for k, v := range w.part {
			to[k] = float64(v)
		}
	}
	return nil
}
