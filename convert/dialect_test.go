package convert

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

func randomMatrix(r *rand.Rand, rows, cols int, scale float64) svd.Matrix {
	m := svd.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = scale * r.NormFloat64()
	}
	return m
}

// randomAttention has scores of order 1 and an output bias; its three head widths differ.
func randomAttention(r *rand.Rand, target *arch.MLA, rank int) *mla.Attention {
	d := 1 / math.Sqrt(float64(target.Hidden))
	a := &mla.Attention{
		Heads: target.Heads, NoPEDim: target.NoPEDim, RopeDim: target.RopeDim, VDim: target.VDim,
		Frequencies: target.Rope.Frequencies(target.RopeDim),
		QNoPE:       randomMatrix(r, target.Heads*target.NoPEDim, target.Hidden, 2*d),
		QRope:       randomMatrix(r, target.Heads*target.RopeDim, target.Hidden, 2*d),
		KRope:       randomMatrix(r, target.RopeDim, target.Hidden, 2*d),
		Down:        randomMatrix(r, rank, target.Hidden, 5*d),
		UpK:         randomMatrix(r, target.Heads*target.NoPEDim, rank, 0.2/math.Sqrt(float64(rank))),
		UpV:         randomMatrix(r, target.Heads*target.VDim, rank, 0.2/math.Sqrt(float64(rank))),
		O:           randomMatrix(r, target.Hidden, target.Heads*target.VDim, d),
		Scale:       0.3,
	}
	for range target.Hidden {
		a.Bias = append(a.Bias, 0.1*r.NormFloat64())
	}
	return a
}

var dialectTarget = &arch.MLA{
	Shape: arch.Shape{
		Hidden: 48, Intermediate: 64, Layers: 1, Heads: 4, Vocab: 16, Context: 64, NormEps: 1e-5, Activation: "silu",
		InitializerRange: 0.02, Rope: arch.Rope{Type: arch.RopeDefault, Theta: 100},
	},
	Rank: 20, NoPEDim: 10, RopeDim: 6, VDim: 8, Bias: true,
}

// normedInputs are attention inputs behind an RMSNorm of the given weight: |x/gamma|^2 = d.
func normedInputs(r *rand.Rand, n int, gamma []float64) svd.Matrix {
	x := randomMatrix(r, n, len(gamma), 1)
	for i := range n {
		row, sum := x.Row(i), 0.0
		for _, v := range row {
			sum += v * v
		}
		for j := range row {
			row[j] *= gamma[j] * math.Sqrt(float64(len(gamma))/sum)
		}
	}
	return x
}

func randomGamma(r *rand.Rand, d int) []float64 {
	gamma := make([]float64, d)
	for i := range gamma {
		gamma[i] = math.Exp(r.NormFloat64())
	}
	return gamma
}

// attentionTensors writes a layer's attention in the tensors of [attentionSpecs]: those of [outerTensors], then those of
// [latentTensors].
func attentionTensors(m *arch.MLA, a *mla.Attention, gamma []float64, d checkpoint.DType, emit emitter) error {
	if err := outerTensors(m, outerOf(a), emit); err != nil {
		return err
	}
	return latentTensors(m, a, gamma, d, emit)
}

// TestTensorsInTheEngine writes an attention, reads it back through the engine and compares what that computes with the
// attention itself in float64.
func TestTensorsInTheEngine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	m := dialectTarget
	for _, c := range []struct {
		dtype     checkpoint.DType
		tolerance float64
		rank      int
	}{
		// Each of four weight matrices is off by at most the unit roundoff of its type; float32 adds that of the sums.
		{checkpoint.F32, 2e-6, m.Rank - 1},
		{checkpoint.F32, 2e-6, 7}, // padded
		{checkpoint.F16, 4 * 0x1p-11, m.Rank - 1},
		{checkpoint.BF16, 4 * 0x1p-8, m.Rank - 1},
	} {
		a := randomAttention(r, m, c.rank)
		gamma := randomGamma(r, m.Hidden)
		x := normedInputs(r, 24, gamma)
		want := a.Expanded(x)
		got := engineOutput(t, m, a, gamma, c.dtype, x)
		if e := relativeError(got, want); !(e <= c.tolerance) {
			t.Errorf("%v, rank %d: relative error %g, want at most %g", c.dtype, c.rank, e, c.tolerance)
		}
	}
}

func relativeError(a, b svd.Matrix) float64 {
	var diff, norm float64
	for i := range a.Rows {
		for j, v := range b.Row(i) {
			diff += (a.At(i, j) - v) * (a.At(i, j) - v)
			norm += v * v
		}
	}
	return math.Sqrt(diff / norm)
}

// engineOutput writes a one-layer checkpoint whose attention is a and runs that through internal/model.
func engineOutput(t *testing.T, m *arch.MLA, a *mla.Attention, gamma []float64, d checkpoint.DType, x svd.Matrix) svd.Matrix {
	t.Helper()
	names := &arch.MLATensors
	rest := []checkpoint.Spec{
		{Name: names.Embed, DType: d, Shape: []int{m.Vocab, m.Hidden}},
		{Name: names.FinalNorm, DType: d, Shape: []int{m.Hidden}},
		{Name: names.Head, DType: d, Shape: []int{m.Vocab, m.Hidden}},
		{Name: names.Layer(0, names.AttnNorm), DType: d, Shape: []int{m.Hidden}},
		{Name: names.Layer(0, names.MLPNorm), DType: d, Shape: []int{m.Hidden}},
		{Name: names.Layer(0, names.Gate), DType: d, Shape: []int{m.Intermediate, m.Hidden}},
		{Name: names.Layer(0, names.Up), DType: d, Shape: []int{m.Intermediate, m.Hidden}},
		{Name: names.Layer(0, names.Down), DType: d, Shape: []int{m.Hidden, m.Intermediate}},
	}
	specs := rest
	for _, s := range attentionSpecs(m, d) {
		s.Name = names.Layer(0, s.Name)
		specs = append(specs, s)
	}
	layout, err := checkpoint.PlanLayout(specs, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "mla")
	w, err := checkpoint.Create(dir, layout, checkpoint.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range rest {
		n := 1
		for _, k := range s.Shape {
			n *= k
		}
		if err := w.WriteTensor(s.Name, make([]float32, n)); err != nil {
			t.Fatal(err)
		}
	}
	err = attentionTensors(m, a, gamma, d, func(name string, parts func(func([]float32) error) error) error {
		return w.WriteParts(names.Layer(0, name), parts)
	})
	if err != nil {
		t.Fatal(err)
	}
	config, err := m.MarshalConfig(configDType[d])
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFile("config.json", config); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}

	src := testmodel.OpenDir(t, dir)
	parsed, err := arch.ParseMLA(src.Config())
	if err != nil {
		t.Fatal(err)
	}
	net, err := model.OpenMLA(src, parsed)
	if err != nil {
		t.Fatal(err)
	}
	block, err := net.Block(0)
	if err != nil {
		t.Fatal(err)
	}
	defer block.Close()
	h := make([]float32, x.Rows*x.Cols)
	for i, v := range x.Data {
		h[i] = float32(v)
	}
	y := make([]float32, len(h))
	batch := model.NewBatch([][]int{make([]int, x.Rows)})
	block.Attention.Forward(blas.New(1), &batch, h, y)
	out := svd.NewMatrix(x.Rows, x.Cols)
	for i, v := range y {
		out.Data[i] = float64(v)
	}
	return out
}

// TestEnergyInTheEngine is the same without biases: with an energy row for every direction that the content leaves the norm
// takes nothing away; heads are padded, the scores carry YaRN's factor, and no tensor is a bias.
func TestEnergyInTheEngine(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	yarn := arch.Rope{Type: arch.RopeLlama3, Theta: 100, Factor: 4, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 32}.FitYarn(6, 64)
	for _, c := range []struct {
		dtype     checkpoint.DType
		tolerance float64
		change    func(*arch.MLA)
	}{
		{checkpoint.F32, 3e-6, func(*arch.MLA) {}},
		{checkpoint.F32, 3e-6, func(m *arch.MLA) { m.Rank = 77 }},
		{checkpoint.F32, 3e-6, func(m *arch.MLA) { m.NoPEDim, m.VDim = 16, 12 }},
		{checkpoint.F32, 3e-6, func(m *arch.MLA) { m.Rope = yarn }},
		{checkpoint.F16, 4 * 0x1p-11, func(m *arch.MLA) { m.Rank = 64 }},
		{checkpoint.BF16, 4 * 0x1p-8, func(*arch.MLA) {}},
	} {
		m := *dialectTarget
		m.Bias, m.Rank = false, m.Hidden
		c.change(&m)
		narrow := m // the attention's own head widths
		narrow.NoPEDim, narrow.VDim = dialectTarget.NoPEDim, dialectTarget.VDim
		a := randomAttention(r, &narrow, 13)
		a.Bias = nil
		gamma := randomGamma(r, m.Hidden)
		x := normedInputs(r, 24, gamma)
		want := a.Expanded(x)
		energy, err := mla.FitEnergy(mla.EnergyOptions{Down: a.Down, Gamma: gamma, Rows: m.Rank})
		if err != nil {
			t.Fatal(err)
		}
		got := engineOutput(t, &m, a.WithEnergy(nil, energy), gamma, c.dtype, x)
		if e := relativeError(got, want); !(e <= c.tolerance) {
			t.Errorf("%v, %+v: relative error %g, want at most %g", c.dtype, m, e, c.tolerance)
		}
		for _, s := range attentionSpecs(&m, c.dtype) {
			if strings.HasSuffix(s.Name, "bias") {
				t.Errorf("%s without attention_bias", s.Name)
			}
		}
	}
}

// TestNormCostsNothing computes kv_b_proj(kv_a_layernorm(kv_a_proj)) in float64 from the tensors before their rounding,
// the norm's weight being rounded as in the checkpoint, and compares it with the up-projected latent.
func TestNormCostsNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, rank := range []int{2, 3, 20, 128, 511} {
		for _, d := range []checkpoint.DType{checkpoint.F32, checkpoint.F16, checkpoint.BF16} {
			target := *dialectTarget
			target.Rank = rank
			a := randomAttention(r, &target, min(rank-1, 19))
			gamma := randomGamma(r, target.Hidden)
			x := normedInputs(r, 8, gamma)
			tensors := make(map[string][]float64)
			err := attentionTensors(&target, a, gamma, d, func(name string, parts func(func([]float32) error) error) error {
				return parts(func(data []float32) error {
					for _, v := range data {
						tensors[name] = append(tensors[name], float64(v))
					}
					return nil
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			names := &arch.MLATensors
			if w := tensors[names.LatentNorm][0]; float64(roundTo(d, float32(w))) != w {
				t.Errorf("%v: norm weight %g is not of that type", d, w)
			}
			down := svd.Matrix{Rows: rank + target.RopeDim, Cols: target.Hidden, Stride: target.Hidden, Data: tensors[names.KVDown]}
			up := svd.Matrix{Rows: target.Heads * (target.NoPEDim + target.VDim), Cols: rank, Stride: rank, Data: tensors[names.KVUp]}
			c := svd.Product(nil, false, true, x, down.Slice(0, rank, 0, down.Cols))
			for i := range c.Rows {
				sum := 0.0
				for j := range c.Cols {
					c.Set(i, j, c.At(i, j)+tensors[names.KVDownBias][j])
					sum += c.At(i, j) * c.At(i, j)
				}
				inv := 1 / math.Sqrt(sum/float64(rank)+arch.LatentNormEps)
				for j := range c.Cols {
					c.Set(i, j, c.At(i, j)*inv*tensors[names.LatentNorm][j])
				}
			}
			got := svd.Product(nil, false, true, c, up)

			want := svd.NewMatrix(x.Rows, up.Rows)
			latent := svd.Product(nil, false, true, x, a.Down)
			width := target.NoPEDim + target.VDim
			for h := range target.Heads {
				svd.Gemm(nil, false, true, 1, latent, a.UpK.Slice(h*target.NoPEDim, (h+1)*target.NoPEDim, 0, a.Rank()), 0, want.Slice(0, want.Rows, h*width, h*width+target.NoPEDim))
				svd.Gemm(nil, false, true, 1, latent, a.UpV.Slice(h*target.VDim, (h+1)*target.VDim, 0, a.Rank()), 0, want.Slice(0, want.Rows, h*width+target.NoPEDim, (h+1)*width))
			}
			// 2^-21 by the norm, and the rounding of the tensors to float32.
			if e := relativeError(got, want); !(e <= 0x1p-21+4*0x1p-24) {
				t.Errorf("%v, rank %d: relative error %g", d, rank, e)
			}
		}
	}
}

// TestLatentScale: no input exceeds the bound, and with orthonormal rows the worst input comes within its half.
func TestLatentScale(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, d := range []int{1, 16, 576, 1000} {
		gamma := randomGamma(r, d)
		down := svd.NewMatrix(1, d) // orthonormal in the metric: down diag(gamma) is a unit vector
		u := randomMatrix(r, 1, d, 1)
		norm := math.Sqrt(svd.Product(nil, false, true, u, u).At(0, 0))
		x := svd.NewMatrix(1, d)
		for j := range d {
			down.Set(0, j, u.At(0, j)/norm/gamma[j])
			x.Set(0, j, u.At(0, j)/norm*gamma[j]*math.Sqrt(float64(d)))
		}
		s := latentScale(down, gamma)
		if c := s * svd.Product(nil, false, true, x, down).At(0, 0); !(c <= latentBound*(1+1e-12) && c > latentBound/2*(1-1e-12)) {
			t.Errorf("width %d: the worst input gives %g, want up to %d", d, c, latentBound)
		}
		if f, _ := math.Frexp(s); f != 0.5 {
			t.Errorf("scale %g is no power of two", s)
		}
	}
	if s := latentScale(svd.NewMatrix(3, 4), []float64{1, 1, 1, 1}); s != 1 {
		t.Errorf("scale %g of a zero projection", s)
	}
}
