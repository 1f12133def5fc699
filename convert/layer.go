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
	// from several goroutines at once. If a layer's queries and output are there before its latent, known is called with
	// them, and not more than once.
	convert(e *blas.Engine, layer, rank int, known func(*mla.Attention)) (*result, error)
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

func (c *dataFree) convert(e *blas.Engine, layer, rank int, known func(*mla.Attention)) (*result, error) {
	source, gamma, err := loadAttention(c.plan, layer)
	if err != nil {
		return nil, err
	}
	converted, err := mla.Convert(source, mla.DataFree(e, source, gamma, c.plan.Recipe.Context), mla.Options{
		Rank: rank, Frequencies: c.frequencies, Slots: mla.DataFreeSlots(source, len(c.frequencies), c.plan.Recipe.Context), Engine: e, Known: known,
	})
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
		energy, err := mla.FitEnergy(mla.EnergyOptions{Down: attention.Down, Gamma: gamma, Rows: c.plan.Target.Rank, Engine: e})
		if err != nil {
			return nil, fmt.Errorf("layer %d: latent norm: %w", layer, err)
		}
		attention = attention.WithEnergy(e, energy)
		record.Norm = &calibrate.NormReport{Content: joint.Rank, Energy: attention.Rank() - joint.Rank, Fluctuation: energy.Fluctuation}
	}
	return &result{attention: attention, inputNorm: gamma, record: record, values: joint.Values}, nil
}

// loadAttention reads a layer's attention and the weight of its input norm, and lets the mapped pages go.
func loadAttention(p *Plan, layer int) (*mla.Source, []float64, error) {
	m, names := p.Source, &p.Source.Family.Tensors
	s := &mla.Source{Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, Frequencies: m.Rope.Frequencies(m.HeadDim)}
	for _, load := range []struct {
		name string
		to   *svd.Matrix
	}{{names.Q, &s.Q}, {names.K, &s.K}, {names.V, &s.V}, {names.O, &s.O}} {
		t, err := p.src.Want(names.Layer(layer, load.name))
		if err != nil {
			return nil, nil, err
		}
		if *load.to, err = loadMatrix(t); err != nil {
			return nil, nil, err
		}
	}
	gamma, err := loadInputNorm(p, layer)
	return s, gamma, err
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

// loadMatrix widens a 2-dimensional tensor, some rows at a time, and releases its pages.
func loadMatrix(t *checkpoint.Tensor) (svd.Matrix, error) {
	defer t.Release()
	m := svd.NewMatrix(t.Shape[0], t.Shape[1])
	const elements = 1 << 18
	step := max(1, elements/max(1, m.Cols))
	var part []float32
	for lo := 0; lo < m.Rows; lo += step {
		hi := min(m.Rows, lo+step)
		var err error
		if part, err = t.Rows(lo, hi, part); err != nil {
			return m, err
		}
		for i, v := range part {
			m.Data[lo*m.Cols+i] = float64(v) // NewMatrix has no padding between rows
		}
	}
	return m, nil
}
