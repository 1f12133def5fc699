package calibrate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/mla"
)

// TestInvariance: a source can be written in many ways that compute the same. Turning each KV head's frequencies by
// phases of their own, in keys and queries, and scaling its keys by a and its queries by 1/a must not change what the
// conversion computes, with metrics of full width or in a basis; one of all the keys' and values' directions, which here are
// those of the inputs, changes nothing. (Slots that are found without the queries, QueryPower 0, see the scale: they are left
// out.)
func TestInvariance(t *testing.T) {
	net, a := network(t, nil)
	r := rand.New(rand.NewPCG(4, 4))
	plain, batch, h := attentionInputs(t, net, 0, 0, r, 40, 23)
	e := blas.New(2)

	written := rewrite(plain, func(group, frequency int) (phase, scale float64) {
		return r.Float64() * 2 * math.Pi, []float64{1.7, 0.4}[group]
	})
	weights := make([]float64, batch.Tokens())
	for i := range weights {
		weights[i] = 1
	}
	same := func(name string, want, got []float32, tolerance float64) {
		t.Helper()
		if err := relativeError(got, want, weights); !(err < tolerance) {
			t.Errorf("%s: relative difference %g", name, err)
		}
	}
	output := func(at model.Attention) []float32 {
		y := make([]float32, len(h))
		at.Forward(e, &batch, h, y)
		return y
	}
	source := output(plain)
	same("the source itself", source, output(written), 1e-5)

	for _, slots := range []int{8, 4} {
		frequencies := a.Rope.Frequencies(slots)
		for _, c := range []mla.Candidate{
			{QueryPower: 1, KeyWeight: 1}, {SlotInput: mla.MixedInput, QueryPower: 1, KeyWeight: 0.3},
			{QueryPower: 1, KeyWeight: 1, Refine: true, Sweeps: 3, Flat: 0.3},
			{QueryPower: 1, KeyWeight: 1, Reach: 16, Loose: true, Flat: 0.2},
		} {
			convert := func(g *model.GQA, width int) []float32 {
				layer, st := sourceLayer(g), Statistics(e, g, &batch, h, 64)
				if width > 0 {
					var err error
					if st, err = ReducedStatistics(e, g, layer, &batch, h, width, 64); err != nil {
						t.Fatal(err)
					}
				}
				f, err := mla.NewFit(layer, st, 10, frequencies, c, e)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Sweep(2); err != nil {
					t.Fatal(err)
				}
				return output(model.FromAttention(f.Attention()))
			}
			full := convert(plain, 0)
			for _, width := range []int{0, 20, 32} {
				want := full
				if width > 0 {
					want = convert(plain, width)
				}
				name := fmt.Sprintf("rotary key of %d, %s, basis of %d", slots, c, width)
				// Lossy, so that there is something to compare.
				if lost := relativeError(want, source, weights); lost < 0.01 {
					t.Errorf("%s: loses only %g", name, lost)
				}
				same(name, want, convert(written, width), 2e-3)
				if width == plain.Q.In {
					same(name, full, want, 2e-3)
				}
			}
		}
	}
}

// rewrite turns and scales the keys of every KV head, frequency by frequency, and its queries inversely.
func rewrite(a *model.GQA, how func(group, frequency int) (phase, scale float64)) *model.GQA {
	out := *a
	out.Q = model.NewWeight(a.Q.Out, a.Q.In, append([]float32(nil), a.Q.F32...))
	out.K = model.NewWeight(a.K.Out, a.K.In, append([]float32(nil), a.K.F32...))
	half, in := a.HeadDim/2, a.Q.In
	turn := func(w []float32, row int, phase, scale float64) {
		s, c := math.Sincos(phase)
		for j := range in {
			u, v := float64(w[row*in+j]), float64(w[(row+half)*in+j])
			w[row*in+j] = float32(scale * (u*c - v*s))
			w[(row+half)*in+j] = float32(scale * (u*s + v*c))
		}
	}
	for g := range a.KVHeads {
		for f := range half {
			phase, scale := how(g, f)
			turn(out.K.F32, g*a.HeadDim+f, phase, scale)
			for h := g * a.Heads / a.KVHeads; h < (g+1)*a.Heads/a.KVHeads; h++ {
				turn(out.Q.F32, h*a.HeadDim+f, phase, 1/scale)
			}
		}
	}
	return &out
}
