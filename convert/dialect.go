package convert

import (
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// The layout of DeepseekV3ForCausalLM has an RMSNorm between the down- and the up-projection, which mla.Attention has not:
//
//	y = w * c~ / sqrt(|c~|^2/r + eps),   c~ in R^r.
//
// It is neutralised in one of two ways. Powers of two scale what they can, since every dtype holds them exactly and they
// change no rounding.
//
// With biases (DialectBias), c~ = [s c; 0; B]: the last row of kv_a_proj_with_mqa is zero with the bias B, so that with
// w = B/sqrt(r) in every place the norm is the identity up to the relative error |s c|^2 / (2 B^2). w is rounded to the dtype
// of the output; what it became divides kv_b_proj, so that its rounding costs nothing.
//
// Without (DialectEnergy), c~ = s T x with |T x| near 1 for every input (see mla.FitEnergy), and w = 1: y = sqrt(r) T x / |T x|,
// and kv_b_proj is divided by sqrt(r). s makes |c~|^2/r large beside the epsilon of any engine.
const (
	// DialectBias and DialectEnergy name the ways in the record.
	DialectBias   = "bias"
	DialectEnergy = "energy"

	// constantChannel is B: large beside the latent, and exact in float16 as well as in bfloat16.
	constantChannel = 1 << 14
	// latentBound is what s keeps |s c| below, so that the norm's error stays below 2^-21.
	latentBound = 1 << 4
	// energyRMS is the least root mean square of the elements of s T x: an epsilon of 1e-5 changes the norm by 2e-8.
	energyRMS = 1 << 4
)

// Dialect is the way in which the norm is neutralised: [DialectBias] or [DialectEnergy].
func (p *Plan) Dialect() string {
	if p.Target.Bias {
		return DialectBias
	}
	return DialectEnergy
}

// attentionSpecs lists the tensors of a layer's attention, by their names in the layer, in the order in which they lie in the
// output.
func attentionSpecs(m *arch.MLA, d checkpoint.DType) []checkpoint.Spec {
	t := &arch.MLATensors
	specs := []checkpoint.Spec{
		{Name: t.Q, DType: d, Shape: []int{m.Heads * (m.NoPEDim + m.RopeDim), m.Hidden}},
		{Name: t.KVDown, DType: d, Shape: []int{m.Rank + m.RopeDim, m.Hidden}},
		{Name: t.KVDownBias, DType: d, Shape: []int{m.Rank + m.RopeDim}},
		{Name: t.LatentNorm, DType: d, Shape: []int{m.Rank}},
		{Name: t.KVUp, DType: d, Shape: []int{m.Heads * (m.NoPEDim + m.VDim), m.Rank}},
		{Name: t.O, DType: d, Shape: []int{m.Hidden, m.Heads * m.VDim}},
		{Name: t.OBias, DType: d, Shape: []int{m.Hidden}},
	}
	if !m.Bias {
		specs = slices.DeleteFunc(specs, func(s checkpoint.Spec) bool { return s.Name == t.KVDownBias || s.Name == t.OBias })
	}
	return specs
}

// An emitter takes one tensor of a layer, as [checkpoint.Writer.WriteParts] does.
type emitter func(name string, parts func(put func(data []float32) error) error) error

// whole emits a tensor in one part.
func (e emitter) whole(name string, data []float32) error {
	return e(name, func(put func([]float32) error) error { return put(data) })
}

// outer is what of a layer's attention does not depend on its latent: queries and output, of which a part is in memory at a
// time. What its functions return holds until their next call.
type outer struct {
	// nopeDim and vDim are the widths of its heads.
	nopeDim, vDim int
	// scale multiplies the scores before the softmax.
	scale float64
	// queries returns the rows of W_Q of query head h: those without a position [nopeDim, d] and the rotary [RopeDim, d].
	queries func(h int) (nope, rope svd.Matrix, err error)
	// output returns rows lo to hi-1 of W_O, [hi-lo, Heads*vDim].
	output func(lo, hi int) (svd.Matrix, error)
	// bias, if not nil, is added to the output [d].
	bias []float64
}

// outerOf is the outer part of an attention that is in memory.
func outerOf(a *mla.Attention) *outer {
	rows := func(m svd.Matrix, lo, hi int) svd.Matrix { return m.Slice(lo, hi, 0, m.Cols) }
	return &outer{
		nopeDim: a.NoPEDim, vDim: a.VDim, scale: a.Scale, bias: a.Bias,
		queries: func(h int) (nope, rope svd.Matrix, err error) {
			return rows(a.QNoPE, h*a.NoPEDim, (h+1)*a.NoPEDim), rows(a.QRope, h*a.RopeDim, (h+1)*a.RopeDim), nil
		},
		output: func(lo, hi int) (svd.Matrix, error) { return rows(a.O, lo, hi), nil },
	}
}

// partRows is how many rows of the given width are worked on at a time where a matrix is not in memory as a whole.
func partRows(cols int) int { return max(1, 1<<19/cols) }

// outerTensors writes the outer part of a layer's attention. Heads narrower than the target's are padded with zeros.
func outerTensors(m *arch.MLA, a *outer, emit emitter) error {
	t := &arch.MLATensors
	var buf buffer
	// The engine multiplies scores by 1/sqrt(nope+rope), and for some rotary scalings by a factor of its own.
	scale := a.scale * math.Sqrt(float64(m.NoPEDim+m.RopeDim)) / m.Rope.ScoreFactor()
	err := emit(t.Q, func(put func([]float32) error) error {
		for h := range m.Heads {
			nope, rope, err := a.queries(h)
			if err != nil {
				return err
			}
			q := buf.zero(m.NoPEDim+m.RopeDim, m.Hidden)
			q.put(0, scale, nope, 0, nope.Rows)
			q.put(m.NoPEDim, scale, rope, 0, rope.Rows)
			if err := put(q.data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = emit(t.O, func(put func([]float32) error) error {
		step := partRows(m.Heads * m.VDim)
		for lo := 0; lo < m.Hidden; lo += step {
			rows, err := a.output(lo, min(lo+step, m.Hidden))
			if err != nil {
				return err
			}
			o := buf.zero(rows.Rows, m.Heads*m.VDim)
			for i := range rows.Rows {
				for h := range m.Heads {
					to := o.data[i*o.cols+h*m.VDim:][:a.vDim]
					for j, v := range rows.Row(i)[h*a.vDim : (h+1)*a.vDim] {
						to[j] = float32(v)
					}
				}
			}
			if err := put(o.data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !m.Bias {
		return err
	}
	bias := buf.zero(1, m.Hidden)
	for i, b := range a.bias {
		bias.data[i] = float32(b)
	}
	return emit.whole(t.OBias, bias.data)
}

// latentTensors writes the latent of a layer's attention and what is made of it. gamma [d] is the weight of the input norm:
// |x/gamma|^2 = d for every input x of the attention.
//
// With biases a has at most m.Rank-1 latent rows. Without, it has at most m.Rank, the energy rows of an mla.Energy among
// them, and no bias. Heads narrower than the target's are padded with zeros.
func latentTensors(m *arch.MLA, a *mla.Attention, gamma []float64, d checkpoint.DType, emit emitter) error {
	t := &arch.MLATensors
	s, w, up := normScales(m, a, gamma, d)
	var buf buffer
	down := buf.zero(m.Rank+m.RopeDim, m.Hidden)
	down.put(0, s, a.Down, 0, a.Rank())
	down.put(m.Rank, 1, a.KRope, 0, m.RopeDim)
	if err := emit.whole(t.KVDown, down.data); err != nil {
		return err
	}
	if m.Bias {
		bias := buf.zero(1, m.Rank+m.RopeDim)
		bias.data[m.Rank-1] = constantChannel
		if err := emit.whole(t.KVDownBias, bias.data); err != nil {
			return err
		}
	}
	norm := buf.zero(1, m.Rank)
	for i := range norm.data {
		norm.data[i] = w
	}
	if err := emit.whole(t.LatentNorm, norm.data); err != nil {
		return err
	}
	kv := buf.zero(m.Heads*(m.NoPEDim+m.VDim), m.Rank)
	for h := range m.Heads {
		first := h * (m.NoPEDim + m.VDim)
		kv.put(first, up, a.UpK, h*a.NoPEDim, a.NoPEDim)
		kv.put(first+m.NoPEDim, up, a.UpV, h*a.VDim, a.VDim)
	}
	return emit.whole(t.KVUp, kv.data)
}

// normScales returns the factor s of the latent's rows, the weight w of the norm and the factor of kv_b_proj.
func normScales(m *arch.MLA, a *mla.Attention, gamma []float64, d checkpoint.DType) (s float64, w float32, up float64) {
	root := math.Sqrt(float64(m.Rank))
	if m.Bias {
		s = latentScale(a.Down, gamma)
		w = roundTo(d, float32(constantChannel/root))
		return s, w, constantChannel / (s * float64(w) * root)
	}
	return math.Ldexp(1, int(math.Ceil(math.Log2(energyRMS*root)))), 1, 1 / root
}

// latentScale returns the power of two s for which the largest |s c| that an input can cause is in (latentBound/2,
// latentBound]: c = D x with |x/gamma| = sqrt(d), so that |c| <= |D diag(gamma)|_2 sqrt(d). The spectral norm is bounded
// by the largest row sum of the Gram matrix, which is exact for orthogonal rows.
func latentScale(down svd.Matrix, gamma []float64) float64 {
	gram := svd.DiagonalMetric(gamma).Congruence(nil, down)
	most := 0.0
	for i := range gram.Rows {
		sum := 0.0
		for _, v := range gram.Row(i) {
			sum += math.Abs(v)
		}
		most = math.Max(most, sum)
	}
	bound := math.Sqrt(most * float64(len(gamma)))
	if bound == 0 {
		return 1
	}
	return math.Ldexp(1, int(math.Floor(math.Log2(latentBound/bound))))
}

// roundTo returns x as a tensor of type d holds it.
func roundTo(d checkpoint.DType, x float32) float32 {
	var b [4]byte
	out := []float32{x}
	switch d {
	case checkpoint.BF16:
		checkpoint.Float32ToBF16(b[:], out)
		checkpoint.BF16ToFloat32(out, b[:])
	case checkpoint.F16:
		checkpoint.Float32ToF16(b[:], out)
		checkpoint.F16ToFloat32(out, b[:])
	}
	return out[0]
}

// buffer is the memory of one float32 matrix after the other.
type buffer struct{ data []float32 }

// matrix32 is a row-major float32 matrix without padding.
type matrix32 struct {
	cols int
	data []float32
}

// zero returns a zero matrix in place of the last one.
func (b *buffer) zero(rows, cols int) matrix32 {
	n := rows * cols
	if cap(b.data) < n {
		b.data = make([]float32, n)
	}
	b.data = b.data[:n]
	clear(b.data)
	return matrix32{cols, b.data}
}

// put sets rows row.. to f times count rows of a, from row first on.
func (m matrix32) put(row int, f float64, a svd.Matrix, first, count int) {
	for i := range count {
		to := m.data[(row+i)*m.cols:][:a.Cols]
		for j, v := range a.Row(first + i) {
			to[j] = float32(f * v)
		}
	}
}
