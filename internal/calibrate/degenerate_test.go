package calibrate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/mla"
)

// everyStep switches every step on, with a latent norm of the given width (0 for none).
func everyStep(o Options, width int) Options {
	o.Candidates = append(o.Candidates, mla.Candidate{QueryPower: 1, KeyWeight: 1, Loose: true, Flat: looseFlat})
	o.Polish = Polish{Descent: Descent{Steps: 12, Sequences: 2, Rate: 1e-3}, Layers: 2, EarlySteps: 12}
	o.Distill = []Distill{{Descent: Descent{Steps: 8, Sequences: 2, Rate: 1e-3}, Matching: 1}}
	o.Neutral = Neutral{Width: width, Tokens: 600, Steps: 30}
	return o
}

// allFinite fails if a report or a weight is not finite.
func allFinite(t *testing.T, layers []*model.MLA, reports []LayerReport) {
	t.Helper()
	for i, r := range reports {
		figures := []float64{r.Isolated, r.Start, r.Refit, r.Polish, r.Drift, r.Corrected}
		if r.Norm != nil {
			figures = append(figures, r.Norm.Fluctuation, r.Norm.Start, r.Norm.Refit)
		}
		for _, v := range figures {
			if !isFinite(v) {
				t.Errorf("layer %d: %+v, norm %+v", i, r, r.Norm)
				break
			}
		}
	}
	for i, a := range layers {
		for k, w := range [][]float32{a.Q.F32, a.KVDown.F32, a.KVUp.F32, a.O.F32, a.OBias, a.LatentNorm} {
			for _, v := range w {
				if !isFinite(float64(v)) {
					t.Fatalf("layer %d: weight %g in tensor %d", i, v, k)
				}
			}
		}
	}
}

// zero sets a tensor of a model in F32 to zero, from the first element on, so many of them (0 for all).
func zero(m *testmodel.Model, name string, n int) {
	data := m.Get(name).Data
	if n > 0 {
		data = data[:4*n]
	}
	clear(data)
}

// TestPrunedAttention: a layer whose attention gives nothing is converted to one that gives nothing, behind every step.
func TestPrunedAttention(t *testing.T) {
	for _, name := range []string{"v_proj", "o_proj"} {
		for _, pruned := range []int{0, 1} {
			net, a := networkOf(t, 3, func(m *testmodel.Model) {
				zero(m, fmt.Sprintf("model.layers.%d.self_attn.%s.weight", pruned, name), 0)
			})
			sequences := randomSequences(12, 40, net.Vocab)
			o := testOptions(a)
			for _, width := range []int{0, o.Rank + 1} {
				t.Run(fmt.Sprint(name, pruned, width), func(t *testing.T) {
					layers, reports := calibrated(t, net, 2, sequences, everyStep(o, width))
					allFinite(t, layers, reports)
					if r := reports[pruned]; r.Isolated != 0 {
						t.Errorf("isolated error %g", r.Isolated)
					}
					for i, l := range layers {
						_, batch, h := attentionInputs(t, net, i, 0, rand.New(rand.NewPCG(4, 4)), 9, 20)
						y := make([]float32, len(h))
						l.Forward(blas.New(1), &batch, h, y)
						if isZero(y) != (i == pruned) {
							t.Errorf("layer %d gives zeros: %v", i, isZero(y))
						}
					}
				})
			}
			geometries := []Geometry{{Rank: o.Rank, Frequencies: o.Frequencies, Candidates: o.Candidates}, {Rank: 4, Frequencies: o.Frequencies, Candidates: o.Candidates}}
			errors, err := Scout(context.Background(), blas.New(2), net, sequences, geometries, o)
			if err != nil {
				t.Fatalf("%s of layer %d: %v", name, pruned, err)
			}
			if !(errors[0] > 0 && errors[0] < errors[1] && errors[1] < 3) {
				t.Errorf("%s of layer %d: scouted errors %v", name, pruned, errors)
			}
		}
	}
}

// TestZeroStreams: tokens whose stream is zero weigh nothing, the others what they weigh beside any, and no drift is counted there.
func TestZeroStreams(t *testing.T) {
	const d = 3
	x := []float32{1, 2, 2, 0, 0, 0, 0.5, 0, 0}
	w := tokenWeights(x, d)
	// 1/mean(x^2) of 1/3 and 12, a mean of 1 over three tokens.
	want := []float64{1.0 / 3 * 3 / (1.0/3 + 12), 0, 12 * 3 / (1.0/3 + 12)}
	for i, v := range want {
		if math.Abs(w[i]-v) > 1e-12 {
			t.Errorf("token %d weighs %g, want %g", i, w[i], v)
		}
	}
	if w := tokenWeights(make([]float32, 6), d); w[0] != 0 || w[1] != 0 {
		t.Errorf("nothing but zeros weighs %v", w)
	}
	got := []float32{1, 2, 3, 4, 5, 6, 0.5, 0, 1}
	e := blas.New(1)
	loss, pull := match(e, got, x, d, 2)
	some := func(x []float32) []float32 { return append(append([]float32(nil), x[:d]...), x[2*d:]...) }
	fewer, fewerPull := match(e, some(got), some(x), d, 2)
	if loss != fewer || !slices.Equal(some(pull), fewerPull) || !isZero(pull[d:2*d]) {
		t.Errorf("loss %g and pull %v, %g and %v without the token", loss, pull, fewer, fewerPull)
	}
}

// TestPaddedTokens: on sequences that begin with tokens of a zero embedding, as padding has it, layers are fitted to the others.
func TestPaddedTokens(t *testing.T) {
	net, a := networkOf(t, 2, func(m *testmodel.Model) { zero(m, "model.embed_tokens.weight", 32) })
	plain := randomSequences(16, 40, net.Vocab-1)
	var padded [][]int
	for i, s := range plain {
		for j := range s {
			s[j]++ // all but padding, which is 0
		}
		padded = append(padded, slices.Concat(make([]int, 3*(i%4)), s))
	}
	o := testOptions(a)
	for _, width := range []int{0, o.Rank + 1} {
		layers, reports := calibrated(t, net, 2, padded, everyStep(o, width))
		allFinite(t, layers, reports)
		without, _ := calibrated(t, net, 2, plain, everyStep(o, width))
		fresh := randomSequences(20, 30, net.Vocab-1)[16:]
		if got, want := divergence(t, net, layers, fresh, 0), divergence(t, net, without, fresh, 0); !(got < 2*want) {
			t.Errorf("width %d: divergence %g, %g without padding", width, got, want)
		}
	}
}

// TestTokensAlike: of one token throughout there is nothing to calibrate with, which is said; where every sequence repeats one of
// its own, the layers are finite.
func TestTokensAlike(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	same := slices.Repeat([][]int{slices.Repeat([]int{7}, 40)}, 8)
	_, _, runs := Run(context.Background(), blas.New(2), net, same, o)
	_, scouts := Scout(context.Background(), blas.New(2), net, same, nil, o)
	for _, err := range []error{runs, scouts} {
		if err == nil || !strings.Contains(err.Error(), "all of id 7") {
			t.Errorf("error %v, want one that names the token", err)
		}
	}
	two := slices.Repeat([][]int{slices.Repeat([]int{7}, 40), slices.Repeat([]int{9}, 40)}, 4)
	for _, width := range []int{0, o.Rank + 1} {
		layers, reports := calibrated(t, net, 2, two, everyStep(o, width))
		allFinite(t, layers, reports)
	}
}
