package model

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// FromAttention returns the float32 form of a converted layer, without latent norm; the scale of its scores goes into
// the queries.
func FromAttention(m *mla.Attention) *MLA {
	a := &MLA{
		Heads: m.Heads, NoPEDim: m.NoPEDim, RopeDim: m.RopeDim, VDim: m.VDim, Rank: m.Rank(), Frequencies: m.Frequencies,
		OBias: make([]float32, m.Hidden()),
	}
	var q, up []svd.Matrix
	for h := range m.Heads {
		q = append(q, headBlock(m.QNoPE, h, m.NoPEDim), headBlock(m.QRope, h, m.RopeDim))
		up = append(up, headBlock(m.UpK, h, m.NoPEDim), headBlock(m.UpV, h, m.VDim))
	}
	a.Q, a.KVDown, a.KVUp, a.O = Stacked(q...), Stacked(m.Down, m.KRope), Stacked(up...), Stacked(m.O)
	scale := float32(m.Scale * math.Sqrt(float64(a.qkDim())))
	for i := range a.Q.F32 {
		a.Q.F32[i] *= scale
	}
	for i, v := range m.Bias {
		a.OBias[i] = float32(v)
	}
	return a
}

// Stacked is the rows of matrices of equal width, one below the other, in float32.
func Stacked(parts ...svd.Matrix) Weight {
	w := Weight{In: parts[0].Cols}
	for _, p := range parts {
		w.Out += p.Rows
		for i := range p.Rows {
			for _, v := range p.Row(i) {
				w.F32 = append(w.F32, float32(v))
			}
		}
	}
	return w
}

func headBlock(m svd.Matrix, h, width int) svd.Matrix {
	return m.Slice(h*width, (h+1)*width, 0, m.Cols)
}

// ToAttention is the inverse of [FromAttention]. The attention must have no latent norm and float32 weights.
func (a *MLA) ToAttention() *mla.Attention {
	if a.LatentNorm != nil {
		panic("model: a latent norm has no place in mla.Attention")
	}
	dim, kv := a.qkDim(), a.NoPEDim+a.VDim
	widen := func(w Weight, period, lo, hi int) svd.Matrix {
		out := svd.NewMatrix(w.Out/period*(hi-lo), w.In)
		to := 0
		for i := range w.Out {
			if i%period < lo || i%period >= hi {
				continue
			}
			for j, v := range w.F32[i*w.In : (i+1)*w.In] {
				out.Row(to)[j] = float64(v)
			}
			to++
		}
		return out
	}
	width := a.Rank + a.RopeDim
	m := &mla.Attention{
		Heads: a.Heads, NoPEDim: a.NoPEDim, RopeDim: a.RopeDim, VDim: a.VDim, Frequencies: a.Frequencies,
		QNoPE: widen(a.Q, dim, 0, a.NoPEDim), QRope: widen(a.Q, dim, a.NoPEDim, dim),
		Down: widen(a.KVDown, width, 0, a.Rank), KRope: widen(a.KVDown, width, a.Rank, width),
		UpK: widen(a.KVUp, kv, 0, a.NoPEDim), UpV: widen(a.KVUp, kv, a.NoPEDim, kv),
		O: widen(a.O, a.O.Out, 0, a.O.Out), Scale: 1 / math.Sqrt(float64(dim)),
	}
	for _, v := range a.OBias {
		m.Bias = append(m.Bias, float64(v))
	}
	return m
}

// learned are the float32 weights that a gradient descent moves.
func (a *MLA) learned() [learnedTensors]*[]float32 {
	return [learnedTensors]*[]float32{&a.Q.F32, &a.KVDown.F32, &a.KVUp.F32, &a.O.F32, &a.OBias}
}

const learnedTensors = 5

// CopyWeights sets the float32 weights of a to those of b, which has the same shape.
func (a *MLA) CopyWeights(b *MLA) {
	from := b.learned()
	for i, to := range a.learned() {
		copy(*to, *from[i])
	}
}

// Approach moves the float32 weights of a by the given share of the way to those of b, which has the same shape.
func (a *MLA) Approach(e *blas.Engine, b *MLA, share float32) {
	from := b.learned()
	for i, to := range a.learned() {
		inChunks(e, len(*to), func(lo, hi int) {
			part := (*to)[lo:hi]
			for j, v := range (*from[i])[lo:hi] {
				part[j] += share * (v - part[j])
			}
		})
	}
}

// Clone returns a copy whose weights can be changed.
func (a *MLA) Clone() *MLA {
	c := *a
	for _, w := range []*Weight{&c.Q, &c.KVDown, &c.KVUp, &c.O} {
		w.F32 = append([]float32(nil), w.F32...)
	}
	c.OBias = append([]float32(nil), a.OBias...)
	return &c
}
