package convert

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// plantedRank is the joint rank of the position-free keys and the values of a planted model.
const plantedRank = 12

// plantShared expands a random MLA model into heads: the keys of every head are complex multiples, one for each frequency,
// of one rotary key that all heads share, and the values have the rank plantedRank.
func plantShared(m *testmodel.Model, s testmodel.Shape) {
	r := rand.New(rand.NewPCG(s.Seed, 1))
	pairs := s.HeadDim / 2
	for layer := range s.Layers {
		shared := randomMatrix(r, s.HeadDim, s.Hidden, 1/math.Sqrt(float64(s.Hidden)))
		keys := make([]float32, s.KVHeads*s.HeadDim*s.Hidden)
		for g := range s.KVHeads {
			for f := range pairs {
				size, angle := 0.5+r.Float64(), 2*math.Pi*r.Float64()
				re, im := size*math.Cos(angle), size*math.Sin(angle)
				for j := range s.Hidden {
					u, v := shared.At(f, j), shared.At(pairs+f, j)
					keys[(g*s.HeadDim+f)*s.Hidden+j] = float32(re*u - im*v)
					keys[(g*s.HeadDim+pairs+f)*s.Hidden+j] = float32(im*u + re*v)
				}
			}
		}
		setTensor(m, layer, "k", keys)
		setTensor(m, layer, "v", lowRank(r, s.KVHeads*s.HeadDim, s.Hidden, randomMatrix(r, plantedRank, s.Hidden, 1)))
	}
}

// plantLatent gives keys and values one latent of the rank plantedRank, and the model no rotation to speak of.
func plantLatent(m *testmodel.Model, s testmodel.Shape) {
	r := rand.New(rand.NewPCG(s.Seed, 2))
	m.Config["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": 1e12}
	for layer := range s.Layers {
		down := randomMatrix(r, plantedRank, s.Hidden, 1)
		setTensor(m, layer, "k", lowRank(r, s.KVHeads*s.HeadDim, s.Hidden, down))
		setTensor(m, layer, "v", lowRank(r, s.KVHeads*s.HeadDim, s.Hidden, down))
	}
}

// lowRank is a random up-projection of down, with rows of length 1 or so.
func lowRank(r *rand.Rand, rows, cols int, down svd.Matrix) []float32 {
	up := randomMatrix(r, rows, down.Rows, 1/math.Sqrt(float64(down.Rows*cols)))
	out := make([]float32, rows*cols)
	for i, v := range svd.Product(nil, false, false, up, down).Data {
		out[i] = float32(v)
	}
	return out
}

func setTensor(m *testmodel.Model, layer int, which string, values []float32) {
	m.Get(fmt.Sprintf("model.layers.%d.self_attn.%s_proj.weight", layer, which)).Data = testmodel.Encode("F32", values)
}

// TestPlanted: a checkpoint that is MLA in disguise converts back without loss, the whole way from file to logits, free
// of data and calibrated, and for shared keys not by real principal components.
func TestPlanted(t *testing.T) {
	for _, c := range []struct {
		name  string
		plant func(*testmodel.Model, testmodel.Shape)
		// slots are few where there is no rotation to carry: those would hide the latent's loss.
		kvHeads, ropeDim int
		realFails        bool
		effort           calibrate.Effort
	}{
		{"MHA of a shared key", plantShared, 8, 8, true, calibrate.Fast},
		{"GQA of a shared key", plantShared, 4, 8, true, calibrate.Balanced},
		{"MHA without rotation", plantLatent, 8, 2, false, calibrate.Fast},
		{"GQA without rotation", plantLatent, 4, 2, false, calibrate.Fast},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testmodel.Shape{Hidden: 64, Intermediate: 96, Layers: 3, Heads: 8, KVHeads: c.kvHeads, HeadDim: 8, Vocab: 64, DType: "F32", Seed: 11}
			m := testmodel.New(s)
			c.plant(m, s)
			src := m.Open(t)
			for _, method := range []string{DataFree, Calibrated} {
				r := recipe(plantedRank+1, c.ropeDim, "f32")
				if method == Calibrated {
					r.Method = Calibrated
					r.Calibration = &Calibration{Source: CalibrationSelf, Tokens: 1024, Window: 64, Effort: c.effort, Seed: 1}
				}
				out := filepath.Join(t.TempDir(), "out")
				if _, err := run1(t, context.Background(), src, r, RunOptions{Out: out, Schedule: Schedule{Jobs: 2}}); err != nil {
					t.Fatal(err)
				}
				if d := logitDifference(t, src, out, nil); d > 1e-4 {
					t.Errorf("%s: logits differ by %g", method, d)
				}
			}
			if d := logitDifference(t, src, "", &mla.SlotOptions{Method: mla.ComplexPCA}); d > 1e-4 {
				t.Errorf("complex principal components in memory: logits differ by %g", d)
			}
			if d := logitDifference(t, src, "", &mla.SlotOptions{Method: mla.RealPCA}); c.realFails && d < 1e-2 {
				t.Errorf("real principal components: logits differ by %g only", d)
			}
		})
	}
}

// logitDifference is the largest difference of any logit of two random sequences between the source and the converted
// checkpoint out or, if slots is not nil, the source converted in memory with them.
func logitDifference(t *testing.T, src *checkpoint.Source, out string, slots *mla.SlotOptions) float64 {
	t.Helper()
	source, err := arch.Parse(src.Config())
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.OpenSource(src, source)
	if err != nil {
		t.Fatal(err)
	}
	b := a
	if slots == nil {
		converted := testmodel.OpenDir(t, out)
		target, err := arch.ParseMLA(converted.Config())
		if err != nil {
			t.Fatal(err)
		}
		if b, err = model.OpenMLA(converted, target); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(9, 9))
	var sequences [][]int
	for range 2 {
		ids := make([]int, 48)
		for i := range ids {
			ids[i] = r.IntN(source.Vocab)
		}
		sequences = append(sequences, ids)
	}
	batch := model.NewBatch(sequences)
	e := blas.New(2)
	logits := func(net *model.Network, slots *mla.SlotOptions) []float32 {
		x, err := net.Embed(&batch)
		if err != nil {
			t.Fatal(err)
		}
		for layer := range net.Layers {
			block, err := net.Block(layer)
			if err != nil {
				t.Fatal(err)
			}
			if slots != nil {
				block.Attention = inMemory(t, src, source, layer, *slots)
			}
			block.Forward(e, &batch, x)
			block.Close()
		}
		out := make([]float32, batch.Tokens()*net.Vocab)
		net.Logits(e, batch.Tokens(), x, func(lo, m int, part []float32) { copy(out[lo*net.Vocab:], part) })
		return out
	}
	want, got := logits(a, nil), logits(b, slots)
	most := 0.0
	for i, v := range want {
		most = math.Max(most, math.Abs(float64(got[i]-v)))
	}
	return most
}

// inMemory converts one layer of a source without its input norm's weight.
func inMemory(t *testing.T, src *checkpoint.Source, m *arch.Model, layer int, slots mla.SlotOptions) *model.MLA {
	t.Helper()
	read := func(which string) svd.Matrix {
		tensor, err := src.Want(fmt.Sprintf("model.layers.%d.self_attn.%s_proj.weight", layer, which))
		if err != nil {
			t.Fatal(err)
		}
		out := svd.NewMatrix(tensor.Shape[0], tensor.Shape[1])
		for i := range out.Data {
			out.Data[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(tensor.Bytes()[4*i:])))
		}
		return out
	}
	s := &mla.Source{
		Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, Frequencies: m.Rope.Frequencies(m.HeadDim),
		Q: read("q"), K: read("k"), V: read("v"), O: read("o"),
	}
	gamma := make([]float64, m.Hidden)
	for i := range gamma {
		gamma[i] = 1
	}
	r, err := mla.Convert(s, mla.DataFree(nil, s, gamma, 64), mla.Options{Rank: plantedRank, Frequencies: s.Frequencies, Slots: slots})
	if err != nil {
		t.Fatal(err)
	}
	return model.FromAttention(r.Attention)
}
