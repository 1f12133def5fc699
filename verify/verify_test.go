package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/report"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// shape has one key/value head, so that an MLA with one shared rotary key and the values as its latent is the same model.
var shape = testmodel.Shape{Hidden: 24, Intermediate: 40, Layers: 3, Heads: 4, KVHeads: 1, HeadDim: 8, Vocab: 50, DType: "F32", Seed: 3}

// values are a tensor's elements, of a model in F32.
func values(t *testmodel.Tensor) []float32 {
	out := make([]float32, len(t.Data)/4)
	checkpoint.F32ToFloat32(out, t.Data)
	return out
}

// planted returns the MLA form of a model of shape, equal to it in exact arithmetic: the rotary key with its halves
// interleaved, the values as the latent, and the constant channel that makes kv_a_layernorm the identity.
func planted(src *testmodel.Model) *testmodel.Model {
	const nope, channel = 2, 4096
	rope, hidden := shape.HeadDim, shape.Hidden
	rank := shape.HeadDim + 1
	config, err := json.Marshal(src.Config)
	if err != nil {
		panic(err)
	}
	m, err := arch.Parse(config)
	if err != nil {
		panic(err)
	}
	target := &arch.MLA{Shape: m.Shape, Rank: rank, NoPEDim: nope, RopeDim: rope, VDim: shape.HeadDim, Bias: true}
	if config, err = target.MarshalConfig("float32"); err != nil {
		panic(err)
	}
	out := &testmodel.Model{}
	if err := json.Unmarshal(config, &out.Config); err != nil {
		panic(err)
	}
	add := func(name string, data []float32, shape ...int) {
		out.Tensors = append(out.Tensors, testmodel.Tensor{Name: name, DType: "F32", Shape: shape, Data: testmodel.Encode("F32", data)})
	}
	// interleave puts rows i and i+rope/2 of one head side by side.
	interleave := func(to, from []float32, scale float32) {
		for i := range rope {
			for j := range hidden {
				to[i*hidden+j] = scale * from[(i%2*rope/2+i/2)*hidden+j]
			}
		}
	}
	for _, t := range src.Tensors {
		if !strings.Contains(t.Name, "self_attn") || strings.Contains(t.Name, "o_proj") {
			out.Tensors = append(out.Tensors, t)
		}
	}
	for layer := range shape.Layers {
		name := func(s string) string { return fmt.Sprintf("model.layers.%d.self_attn.%s", layer, s) }
		from := func(s string) []float32 { return values(src.Get(name(s))) }
		q := make([]float32, shape.Heads*(nope+rope)*hidden)
		up := make([]float32, shape.Heads*(nope+shape.HeadDim)*rank)
		for h := range shape.Heads {
			interleave(q[(h*(nope+rope)+nope)*hidden:], from("q_proj.weight")[h*rope*hidden:], float32(math.Sqrt(float64(nope+rope)/float64(rope))))
			for i := range shape.HeadDim {
				up[(h*(nope+shape.HeadDim)+nope+i)*rank+i] = 1
			}
		}
		down := make([]float32, (rank+rope)*hidden)
		copy(down, from("v_proj.weight"))
		interleave(down[rank*hidden:], from("k_proj.weight"), 1)
		bias := make([]float32, rank+rope)
		bias[rank-1] = channel
		norm := make([]float32, rank)
		for i := range norm {
			norm[i] = float32(channel / math.Sqrt(float64(rank)))
		}
		add(name("q_proj.weight"), q, shape.Heads*(nope+rope), hidden)
		add(name("kv_a_proj_with_mqa.weight"), down, rank+rope, hidden)
		add(name("kv_a_proj_with_mqa.bias"), bias, rank+rope)
		add(name("kv_a_layernorm.weight"), norm, rank)
		add(name("kv_b_proj.weight"), up, shape.Heads*(nope+shape.HeadDim), rank)
		add(name("o_proj.bias"), make([]float32, hidden), hidden)
	}
	return out
}

// change replaces a tensor's elements by f of them.
func change(m *testmodel.Model, name string, f func(i int, v float32) float32) {
	t := m.Get(name)
	data := values(t)
	for i, v := range data {
		data[i] = f(i, v)
	}
	t.Data = testmodel.Encode("F32", data)
}

// network writes a model and opens it, as a converted checkpoint if mla is set.
func network(t *testing.T, m *testmodel.Model, mla bool) *model.Network {
	t.Helper()
	src := m.Open(t)
	var n *model.Network
	if mla {
		a, err := arch.ParseMLA(src.Config())
		if err != nil {
			t.Fatal(err)
		}
		n, err = model.OpenMLA(src, a)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, err := arch.Parse(src.Config())
	if err != nil {
		t.Fatal(err)
	}
	if n, err = model.OpenSource(src, a); err != nil {
		t.Fatal(err)
	}
	return n
}

// pair is a source and its planted form, changed by spoil.
func pair(t *testing.T, spoil func(source, target *testmodel.Model)) Options {
	t.Helper()
	s := testmodel.New(shape)
	m := planted(s)
	if spoil != nil {
		spoil(s, m)
	}
	return Options{Source: network(t, s, false), Target: network(t, m, true), Batch: testBatch(), Engine: blas.New(2)}
}

func testBatch() model.Batch {
	r := rand.New(rand.NewPCG(11, 12))
	var sequences [][]int
	for _, n := range []int{17, 1, 40, 5, 33} {
		ids := make([]int, n)
		for i := range ids {
			ids[i] = r.IntN(shape.Vocab)
		}
		sequences = append(sequences, ids)
	}
	return model.NewBatch(sequences)
}

func mustRun(t *testing.T, o Options) *Result {
	t.Helper()
	v, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// noise changes a tensor by a share of its own spread.
func noise(m *testmodel.Model, name string, share float64) {
	r := rand.New(rand.NewPCG(5, 5))
	change(m, name, func(_ int, v float32) float32 {
		return v + float32(share*r.NormFloat64()/math.Sqrt(float64(shape.Hidden)))
	})
}

func TestLossless(t *testing.T) {
	v := mustRun(t, pair(t, nil))
	for _, l := range v.Layers {
		if l.AttentionError > 1e-5 || l.StreamError > 1e-5 || l.NormError > 1e-5 {
			t.Errorf("%+v", l)
		}
	}
	if v.Logits.KLMean > 1e-7 || v.Logits.KLP99 > 1e-6 || v.Logits.Top1 != 1 || math.Abs(float64(v.Perplexity.Ratio)-1) > 1e-6 {
		t.Errorf("%+v, %+v", v.Logits, v.Perplexity)
	}
	if !v.Passed || len(v.Failures)+len(v.Warnings) > 0 {
		t.Errorf("not passed: %v %v", v.Failures, v.Warnings)
	}
	if v.Tokens != 96 || v.Data.Sequences != 5 || v.Data.Context != 40 || len(v.Layers) != 3 || v.Cache.Source != 16 || v.Cache.Target != 17 || v.Cache.Ratio != 17.0/16 {
		t.Errorf("%+v", v)
	}
}

// TestSelf: a network against itself gives exact zeros.
func TestSelf(t *testing.T) {
	o := pair(t, nil)
	o.Target = o.Source
	v := mustRun(t, o)
	for i, l := range v.Layers {
		if l != (report.Layer{Layer: i}) {
			t.Errorf("%+v", l)
		}
	}
	if v.Logits != (report.Logits{Top1: 1}) || v.Perplexity.Ratio != 1 {
		t.Errorf("%+v, %+v", v.Logits, v.Perplexity)
	}
}

// TestOneLayer: what is wrong with one layer's attention shows in that layer's attention error and no other's, and in the
// residual stream from there on.
func TestOneLayer(t *testing.T) {
	for spoiled := range shape.Layers {
		v := mustRun(t, pair(t, func(_, m *testmodel.Model) {
			noise(m, fmt.Sprintf("model.layers.%d.self_attn.o_proj.weight", spoiled), 0.1)
		}))
		for i, l := range v.Layers {
			if wrong := l.AttentionError > 0.01; wrong != (i == spoiled) {
				t.Errorf("layer %d spoiled: layer %d has attention error %g", spoiled, i, l.AttentionError)
			}
			if drifted := l.StreamError > 1e-3; drifted != (i >= spoiled) {
				t.Errorf("layer %d spoiled: layer %d has stream error %g", spoiled, i, l.StreamError)
			}
		}
	}
}

// TestKnownError: an attention output that is scaled by a has the error |a-1| exactly, whatever the weights.
func TestKnownError(t *testing.T) {
	v := mustRun(t, pair(t, func(_, m *testmodel.Model) {
		change(m, "model.layers.1.self_attn.o_proj.weight", func(_ int, v float32) float32 { return 1.25 * v })
	}))
	if got := float64(v.Layers[1].AttentionError); math.Abs(got-0.25) > 1e-5 {
		t.Errorf("attention error %g, want 0.25", got)
	}
}

// double is a row in float64.
func double(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

func squares(x []float64) (sum float64) {
	for _, v := range x {
		sum += v * v
	}
	return sum
}

func minus(x, y []float64) []float64 {
	out := make([]float64, len(x))
	for i := range x {
		out[i] = x[i] - y[i]
	}
	return out
}

// direct computes every figure by its definition: one sequence after the other, whole logits, float64.
func direct(t *testing.T, o Options) (layers []report.Layer, logits report.Logits, perplexity report.Perplexity) {
	t.Helper()
	d, vocab := o.Source.Hidden, o.Source.Vocab
	sums := make([][4]float64, o.Source.Layers)
	latent := make([][]float64, o.Source.Layers)
	weights := make([][]float64, o.Source.Layers)
	var kls []float64
	var nllS, nllT, agree, labels float64
	for s := range o.Batch.Sequences() {
		b := o.Batch.Slice(s, s+1)
		n := b.Tokens()
		xs, err := o.Source.Embed(&b)
		if err != nil {
			t.Fatal(err)
		}
		xt, err := o.Target.Embed(&b)
		if err != nil {
			t.Fatal(err)
		}
		for l := range sums {
			sb, err := o.Source.Block(l)
			if err != nil {
				t.Fatal(err)
			}
			tb, err := o.Target.Block(l)
			if err != nil {
				t.Fatal(err)
			}
			h, y, z := make([]float32, n*d), make([]float32, n*d), make([]float32, n*d)
			model.RMSNorm(o.Engine, n, xs, sb.AttnNorm, sb.Eps, h)
			sb.Attention.Forward(o.Engine, &b, h, y)
			tb.Attention.Forward(o.Engine, &b, h, z)
			a := tb.Attention.(*model.MLA)
			for i := range n {
				yi, zi, xi := double(y[i*d:(i+1)*d]), double(z[i*d:(i+1)*d]), double(xs[i*d:(i+1)*d])
				for j := range xi {
					xi[j] += yi[j]
				}
				w := float64(d) / squares(xi)
				sums[l][0] += w * squares(minus(zi, yi))
				sums[l][1] += w * squares(yi)
				weights[l] = append(weights[l], w)
				row := double(h[i*d : (i+1)*d])
				c := 0.0
				for r := range a.Rank {
					v := float64(a.KVDownBias[r])
					for j, x := range row {
						v += x * float64(a.KVDown.F32[r*d+j])
					}
					c += v * v
				}
				latent[l] = append(latent[l], 1/math.Sqrt(c/float64(a.Rank)+1e-6))
			}
			sb.Forward(o.Engine, &b, xs)
			tb.Forward(o.Engine, &b, xt)
			for i := range n {
				x, x1 := double(xs[i*d:(i+1)*d]), double(xt[i*d:(i+1)*d])
				sums[l][2] += squares(minus(x1, x)) / squares(x)
				sums[l][3]++
			}
		}
		whole := func(net *model.Network, x []float32) [][]float64 {
			var rows [][]float64
			net.Logits(o.Engine, n, x, func(_, m int, part []float32) {
				for i := range m {
					rows = append(rows, logSoftmax(double(part[i*vocab:(i+1)*vocab])))
				}
			})
			return rows
		}
		ls, lt := whole(o.Source, xs), whole(o.Target, xt)
		for i := range n {
			kl, best, bestT := 0.0, 0, 0
			for j, p := range ls[i] {
				kl += math.Exp(p) * (p - lt[i][j])
				if p > ls[i][best] {
					best = j
				}
				if lt[i][j] > lt[i][bestT] {
					bestT = j
				}
			}
			kls = append(kls, kl)
			if best == bestT {
				agree++
			}
			if i+1 < n {
				labels++
				nllS -= ls[i][b.IDs[i+1]]
				nllT -= lt[i][b.IDs[i+1]]
			}
		}
	}
	for l, s := range sums {
		var w, m1, m2 float64
		for i, f := range latent[l] {
			w += weights[l][i]
			m1 += weights[l][i] * f
		}
		m1 /= w
		for i, f := range latent[l] {
			m2 += weights[l][i] * (f - m1) * (f - m1)
		}
		layers = append(layers, report.Layer{
			Layer: l, AttentionError: report.Number(math.Sqrt(s[0] / s[1])), NormError: report.Number(math.Sqrt(m2/w) / m1),
			StreamError: report.Number(math.Sqrt(s[2] / s[3])),
		})
	}
	mean := 0.0
	for _, v := range kls {
		mean += v / float64(len(kls))
	}
	slices.Sort(kls)
	logits = report.Logits{KLMean: report.Number(mean), KLP99: report.Number(kls[int(math.Ceil(0.99*float64(len(kls))))-1]), Top1: report.Number(agree / float64(len(kls)))}
	ps, pt := math.Exp(nllS/labels), math.Exp(nllT/labels)
	return layers, logits, report.Perplexity{Source: report.Number(ps), Target: report.Number(pt), Ratio: report.Number(pt / ps)}
}

func logSoftmax(x []float64) []float64 {
	most, sum := slices.Max(x), 0.0
	for _, v := range x {
		sum += math.Exp(v - most)
	}
	for i := range x {
		x[i] -= most + math.Log(sum)
	}
	return x
}

// spoilAll changes every layer, weakens the constant channels so that the norm does something, and sharpens the logits.
func spoilAll(_, m *testmodel.Model) {
	for l := range shape.Layers {
		for _, s := range []string{"q_proj.weight", "kv_a_proj_with_mqa.weight", "o_proj.weight"} {
			noise(m, fmt.Sprintf("model.layers.%d.self_attn.%s", l, s), 0.2)
		}
		change(m, fmt.Sprintf("model.layers.%d.self_attn.kv_a_proj_with_mqa.bias", l), func(_ int, v float32) float32 { return v / 4096 * 3 })
	}
	change(m, "lm_head.weight", func(_ int, v float32) float32 { return 3 * v })
}

// TestDirect compares every figure with its definition.
func TestDirect(t *testing.T) {
	o := pair(t, spoilAll)
	v := mustRun(t, o)
	layers, logits, perplexity := direct(t, o)
	near := func(what string, got, want report.Number, tolerance float64) {
		t.Helper()
		if want < 1e-3 {
			t.Errorf("%s is %g: too small to be a test", what, want)
		}
		if !(math.Abs(float64(got-want)) <= tolerance*math.Abs(float64(want))) {
			t.Errorf("%s: got %.12g, want %.12g", what, got, want)
		}
	}
	for i, l := range v.Layers {
		near("attention error", l.AttentionError, layers[i].AttentionError, 1e-6)
		near("norm error", l.NormError, layers[i].NormError, 1e-5)
		near("stream error", l.StreamError, layers[i].StreamError, 1e-6)
	}
	near("mean KL", v.Logits.KLMean, logits.KLMean, 1e-6)
	near("99th percentile", v.Logits.KLP99, logits.KLP99, 1e-6)
	near("source perplexity", v.Perplexity.Source, perplexity.Source, 1e-6)
	near("target perplexity", v.Perplexity.Target, perplexity.Target, 1e-6)
	near("ratio", v.Perplexity.Ratio, perplexity.Ratio, 1e-6)
	if v.Logits.Top1 != logits.Top1 || v.Logits.Top1 == 1 || v.Logits.Top1 == 0 {
		t.Errorf("top-1 agreement: got %g, want %g", v.Logits.Top1, logits.Top1)
	}
}

// TestPieces: neither the number of threads nor how the batch is cut changes the figures; threads change no bit.
func TestPieces(t *testing.T) {
	o := pair(t, spoilAll)
	o.Engine = blas.New(1)
	want := mustRun(t, o)
	for threads := 2; threads <= 3; threads++ {
		o.Engine = blas.New(threads)
		if got := mustRun(t, o); !reflect.DeepEqual(got, want) {
			t.Errorf("%d threads: got %+v, want %+v", threads, got, want)
		}
	}
	for _, most := range []limits{{span: 1, chunk: 1}, {span: 1000, chunk: 1}, {span: 60, chunk: 20}} {
		got, err := runWithin(context.Background(), o, most)
		if err != nil {
			t.Fatal(err)
		}
		near := func(a, b report.Number) {
			t.Helper()
			if math.Abs(float64(a-b)) > 1e-6*math.Abs(float64(b)) {
				t.Errorf("%+v: got %.12g, want %.12g", most, a, b)
			}
		}
		for i, l := range got.Layers {
			near(l.AttentionError, want.Layers[i].AttentionError)
			near(l.NormError, want.Layers[i].NormError)
			near(l.StreamError, want.Layers[i].StreamError)
		}
		near(got.Logits.KLMean, want.Logits.KLMean)
		near(got.Logits.KLP99, want.Logits.KLP99)
		near(got.Perplexity.Ratio, want.Perplexity.Ratio)
	}
}

// TestNotFinite: an overflow is a failure that names the place, and the figures behind it are null in JSON.
func TestNotFinite(t *testing.T) {
	huge := func(m *testmodel.Model, name string) {
		change(m, name, func(_ int, v float32) float32 { return float32(math.Copysign(3e38, float64(v))) })
	}
	for _, c := range []struct {
		name   string
		spoil  func(s, m *testmodel.Model)
		says   string
		layers int
	}{
		{"target attention", func(_, m *testmodel.Model) { huge(m, "model.layers.1.self_attn.o_proj.weight") }, "layer 1: the target's attention output", 2},
		{"source attention", func(s, _ *testmodel.Model) { huge(s, "model.layers.2.self_attn.o_proj.weight") }, "layer 2: the source's attention output", 3},
		{"source MLP", func(s, _ *testmodel.Model) { huge(s, "model.layers.0.mlp.down_proj.weight") }, "layer 0: the source's residual stream", 1},
		{"target MLP", func(_, m *testmodel.Model) { huge(m, "model.layers.1.mlp.down_proj.weight") }, "layer 1: the target's residual stream", 2},
		{"target head", func(_, m *testmodel.Model) { huge(m, "lm_head.weight") }, "the logits of the target", 3},
		{"source head", func(s, _ *testmodel.Model) { huge(s, "lm_head.weight") }, "the logits of the source", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := mustRun(t, pair(t, c.spoil))
			if v.Passed || len(v.Failures) != 1 || !strings.Contains(v.Failures[0], c.says) || len(v.Layers) != c.layers {
				t.Errorf("passed %v, failures %v, %d layers; want one that says %q", v.Passed, v.Failures, len(v.Layers), c.says)
			}
			text, err := json.Marshal(v)
			if err != nil || !strings.Contains(string(text), `"kl_mean":null`) || !strings.Contains(string(text), `"passed":false`) {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	number := func(x float64) *float64 { return &x }
	for _, c := range []struct {
		kl, ratio      float64
		maxKL, maxRise *float64
		passed         bool
		says           string
	}{
		{9, 9, nil, nil, true, ""},
		{0.5, 1.2, number(0.5), number(20.001), true, ""},
		{0.5001, 1.2, number(0.5), nil, false, "mean KL 0.5001 nats, at most 0.5 allowed"},
		{0.5, 1.21, nil, number(20), false, "perplexity increased by 21 %, at most 20 % allowed"},
		{1e-9, 1, number(0), nil, false, "at most 0 allowed"},
		{0, 0.9, number(0), number(0), true, ""},
		{0, 0.9, nil, number(-20), false, "increased by -10 %"},
		{0, math.NaN(), nil, nil, false, "perplexity is not finite"},
		{0, math.Inf(1), nil, nil, false, "perplexity is not finite"},
	} {
		v := &Result{
			Logits: report.Logits{KLMean: report.Number(c.kl)}, Perplexity: report.Perplexity{Source: 10, Target: report.Number(10 * c.ratio), Ratio: report.Number(c.ratio)},
			Thresholds: report.Thresholds{MaxKL: c.maxKL, MaxPerplexityIncrease: c.maxRise},
		}
		judge(v, "")
		if v.Passed != c.passed || v.Passed != (len(v.Failures) == 0) || !strings.Contains(strings.Join(v.Failures, "\n"), c.says) {
			t.Errorf("%+v: passed %v, %v", c, v.Passed, v.Failures)
		}
		if poor := len(v.Warnings) > 0; poor != (c.ratio > 1.5 && !math.IsInf(c.ratio, 0)) {
			t.Errorf("ratio %g: warnings %v", c.ratio, v.Warnings)
		}
	}
	v := &Result{Layers: []report.Layer{{Layer: 4, StreamError: report.Number(math.NaN())}}, Perplexity: report.Perplexity{Source: 1, Target: 1, Ratio: 1}}
	if judge(v, ""); v.Passed || !strings.Contains(v.Failures[0], "layer 4") {
		t.Errorf("%+v", v)
	}
}

func TestRelative(t *testing.T) {
	if relative(0, 0) != 0 || relative(1, 4) != 0.5 || relative(1, 0).Finite() {
		t.Error(relative(0, 0), relative(1, 4), relative(1, 0))
	}
}

// TestFluctuation: the factor of a token that counts for nothing, as that of padding is, leaves the digits of the others.
func TestFluctuation(t *testing.T) {
	var s factorSums
	s.add([]float64{1e6, 2e-3, 2e6}, []float64{0, 1, 0})
	s.add([]float64{2e-3 * (1 + 1e-6), 1e6}, []float64{3, 0})
	// Of 1 and 1+1e-6, weighted 1 to 3: a standard deviation of sqrt(3)/4 of their difference.
	if got, want := s.fluctuation(), 1e-6*math.Sqrt(3)/4; math.Abs(got-want) > 1e-5*want {
		t.Errorf("fluctuation %g, want %g", got, want)
	}
}

// TestPercentile: nearest rank.
func TestPercentile(t *testing.T) {
	for _, c := range []struct {
		n    int
		want float64
	}{{1, 1}, {2, 2}, {99, 99}, {100, 99}, {101, 100}, {199, 198}, {200, 198}, {1000, 990}} {
		values := make([]float64, c.n)
		for i, p := range rand.New(rand.NewPCG(1, 1)).Perm(c.n) {
			values[i] = float64(p + 1)
		}
		if got := percentile(values, 99); got != c.want {
			t.Errorf("of %d values: got %g, want %g", c.n, got, c.want)
		}
	}
}

// TestCompareRow covers what a network's logits rarely are: far apart, extreme, tied.
func TestCompareRow(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, scale := range []float64{0.01, 1, 30, 1000} {
		for _, gap := range []float64{1e-6, 0.1, 10} {
			s, u := make([]float32, 301), make([]float32, 301)
			for i := range s {
				s[i] = float32(scale * r.NormFloat64())
				u[i] = s[i] + float32(gap*r.NormFloat64())
			}
			ls, lt := logSoftmax(double(s)), logSoftmax(double(u))
			kl := 0.0
			for i, p := range ls {
				kl += math.Exp(p) * (p - lt[i])
			}
			got := compareRow(s, u, make([]float32, 301), 7)
			if math.Abs(got.kl-kl) > 1e-6*kl+2e-7 || math.Abs(got.source+ls[7]) > 1e-6*math.Abs(ls[7])+2e-7 || math.Abs(got.target+lt[7]) > 1e-6*math.Abs(lt[7])+2e-7 {
				t.Errorf("scale %g, gap %g: got %+v; want KL %g, %g and %g", scale, gap, got, kl, -ls[7], -lt[7])
			}
		}
	}
	if got := compareRow([]float32{1, 2, 2}, []float32{0, 5, 5}, make([]float32, 3), -1); !got.agree || got.source != 0 {
		t.Errorf("a tie: %+v", got)
	}
	if got := compareRow([]float32{1, 2, 3}, []float32{0, 5, 4}, make([]float32, 3), -1); got.agree {
		t.Errorf("another choice: %+v", got)
	}
}

func TestRefuses(t *testing.T) {
	o := pair(t, nil)
	for name, change := range map[string]func(n *model.Network){
		"layers 2, expected 3":        func(n *model.Network) { n.Layers = 2 },
		"vocabulary 49, expected 50":  func(n *model.Network) { n.Vocab = 49 },
		"hidden width 8, expected 24": func(n *model.Network) { n.Hidden = 8 },
	} {
		other := *o.Target
		change(&other)
		_, err := Run(context.Background(), Options{Source: o.Source, Target: &other, Batch: o.Batch, Engine: o.Engine})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), other.Dir) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
	o.Batch = model.NewBatch([][]int{{1}, {2}})
	if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "two tokens") {
		t.Errorf("single tokens: %v", err)
	}
	o.Batch = model.NewBatch([][]int{{1, 50}})
	if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "id 50") {
		t.Errorf("an id outside the vocabulary: %v", err)
	}
}

// watcher records phases and cancels on the way.
type watcher struct {
	phases []string
	total  int64
	last   int64
	at     int64
	cancel context.CancelFunc
}

func (w *watcher) Phase(name string, total int64, unit ui.Unit) {
	w.phases = append(w.phases, fmt.Sprintf("%s %d %s", name, total, unit))
	w.total, w.last = total, 0
}

func (w *watcher) Done(n int64) {
	if n <= w.last || n > w.total {
		panic("progress goes wrong")
	}
	w.last = n
	if w.cancel != nil && n >= w.at {
		w.cancel()
	}
}

func TestProgressAndCancel(t *testing.T) {
	o := pair(t, nil)
	w := &watcher{}
	o.Progress = w
	if _, err := runWithin(context.Background(), o, limits{span: 60, chunk: 20}); err != nil {
		t.Fatal(err)
	}
	want := []string{"comparing layers (part 1 of 2) 6 steps", "comparing logits (part 1 of 2) 58 tokens", "comparing layers (part 2 of 2) 3 steps", "comparing logits (part 2 of 2) 38 tokens"}
	if !slices.Equal(w.phases, want) || w.last != w.total {
		t.Errorf("got %q", w.phases)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.Progress = &watcher{cancel: cancel, at: 1}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
