package arch

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// yarnGolden is what transformers 5.24's "yarn" initialization gave (float32), with mscale equal to mscale_all_dim.
var yarnGolden = []struct {
	rope Rope
	want map[int]float64
}{
	{Rope{Type: RopeYarn, Theta: 10000, Factor: 40, OriginalContext: 4096, BetaFast: 32, BetaSlow: 1}, map[int]float64{
		0: 1, 5: 0.237137362, 10: 0.0562341288, 11: 0.0390069261, 16: 0.00550000044, 20: 0.000790569407, 22: 0.00017782794,
		23: 3.3338034e-05, 31: 3.33380353e-06,
	}},
	{Rope{Type: RopeYarn, Theta: 500000, Factor: 8, OriginalContext: 8192, BetaFast: 4, BetaSlow: 1}, map[int]float64{
		0: 1, 13: 0.00483942125, 14: 0.00321144611, 15: 0.00166493724, 16: 0.000795495056, 17: 0.00032260039, 18: 7.78465546e-05,
		31: 3.7673226e-07,
	}},
}

func TestYarnFrequencies(t *testing.T) {
	for _, c := range yarnGolden {
		got := c.rope.Frequencies(64)
		for i, w := range c.want {
			if math.Abs(got[i]-w) > 1e-6*w {
				t.Errorf("factor %g, frequency %d: got %.9g, want %.9g", c.rope.Factor, i, got[i], w)
			}
		}
	}
	r := Rope{Type: RopeYarn, Factor: math.E, MScaleAllDim: 1}
	if got := r.ScoreFactor(); math.Abs(got-1.21) > 1e-12 {
		t.Errorf("score factor %g, want 1.1^2", got)
	}
	if got := (Rope{Type: RopeLlama3, Factor: 8}).ScoreFactor(); got != 1 {
		t.Errorf("score factor %g without YaRN", got)
	}
}

// worstFrequency is the largest relative error of a frequency, pair by pair.
func worstFrequency(got, want Rope, dim int) float64 {
	most := 0.0
	have := got.Frequencies(dim)
	for i, w := range want.Frequencies(dim) {
		most = math.Max(most, math.Abs(have[i]/w-1))
	}
	return most
}

// TestFitYarn: the fit is no worse than the published mapping (betas equal to llama3's factors), and the context that engines
// tabulate is long enough.
func TestFitYarn(t *testing.T) {
	for _, c := range []struct {
		rope    Rope
		context int
		most    float64
	}{
		{Rope{Type: RopeLlama3, Theta: 500000, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}, 131072, 0.5},
		{Rope{Type: RopeLlama3, Theta: 500000, Factor: 32, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}, 131072, 0.7},
	} {
		for _, dim := range []int{64, 128} {
			got := c.rope.FitYarn(dim, c.context)
			published := got
			published.BetaFast, published.BetaSlow, published.OriginalContext = c.rope.HighFreqFactor, c.rope.LowFreqFactor, c.rope.OriginalContext
			if worst, least := worstFrequency(got, c.rope, dim), worstFrequency(published, c.rope, dim); worst > least || worst > c.most {
				t.Errorf("factor %g, width %d: error %g, of the published mapping %g", c.rope.Factor, dim, worst, least)
			}
			if served := float64(got.OriginalContext) * got.Factor; served < float64(c.context) {
				t.Errorf("%g positions are tabulated, of %d", served, c.context)
			}
		}
	}
}

// TestFitYarnLinear: behind the first pair come all frequencies of the linear scaling but the slowest, divided by less than 1
// too.
func TestFitYarnLinear(t *testing.T) {
	for _, dim := range []int{8, 16, 64, 128} {
		for _, factor := range []float64{1.5, 2, 4, 16} {
			linear := Rope{Type: RopeLinear, Theta: 10000, Factor: factor}
			got := linear.FitYarn(dim, 16384)
			have, want := got.Frequencies(dim), linear.Frequencies(dim)
			for i, w := range want[:len(want)-1] {
				if math.Abs(have[i+1]-w) > 1e-12*w {
					t.Errorf("factor %g, width %d: pair %d turns by %g, want %g", factor, dim, i+1, have[i+1], w)
				}
			}
			if got.BetaFast <= got.BetaSlow {
				t.Errorf("factor %g, width %d: betas %g and %g", factor, dim, got.BetaFast, got.BetaSlow)
			}
			if served := float64(got.OriginalContext) * got.Factor; served < 16384 {
				t.Errorf("factor %g, width %d: %g positions are tabulated", factor, dim, served)
			}
			// The slowest is nearest to the slowest but one.
			if e, next := FrequencyError(want, have), math.Pow(10000, 2/float64(dim))-1; math.Abs(e-next) > 1e-9*next {
				t.Errorf("factor %g, width %d: error %g, want %g", factor, dim, e, next)
			}
		}
	}
}

// TestFitYarnContext: with the default betas, no context of any length is better.
func TestFitYarnContext(t *testing.T) {
	for _, factor := range []float64{8, 32} {
		for _, dim := range []int{16, 64, 128} {
			want := Rope{Type: RopeLlama3, Theta: 500000, Factor: factor, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}
			got := want.FitYarnContext(dim)
			if got.BetaFast != 32 || got.BetaSlow != 1 || got.MScaleAllDim != 1 || got.Factor != factor {
				t.Errorf("%+v", got)
			}
			least := worstFrequency(got, want, dim)
			for c := 1.0; c < 1<<28; c *= 1.01 {
				other := got
				other.OriginalContext = int(c)
				if e := worstFrequency(other, want, dim); e < least-1e-12 {
					t.Errorf("factor %g, width %d: error %g, at context %d %g", factor, dim, least, int(c), e)
					break
				}
			}
		}
	}
}

func TestParseYarn(t *testing.T) {
	const target = `{"model_type":"deepseek_v3","hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,"first_k_dense_replace":5,` +
		`"num_attention_heads":8,"vocab_size":512,"kv_lora_rank":32,"qk_nope_head_dim":8,"qk_rope_head_dim":8,"v_head_dim":8,"rope_theta":10000.0,"rope_scaling":%s}`
	for _, c := range []struct{ scaling, says string }{
		{`{"type":"yarn","factor":4,"mscale":1.0,"mscale_all_dim":1.0,"original_max_position_embeddings":4096}`, ""},
		{`{"type":"yarn","factor":4,"mscale":1.0,"original_max_position_embeddings":4096}`, "mscale"},
		{`{"type":"yarn","factor":4,"mscale":1.0,"mscale_all_dim":1.0}`, "original_max_position_embeddings"},
		{`{"type":"yarn","factor":4,"mscale":1.0,"mscale_all_dim":1.0,"attention_factor":1.2,"original_max_position_embeddings":4096}`, "attention_factor"},
	} {
		_, err := ParseMLA([]byte(fmt.Sprintf(target, c.scaling)))
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.scaling, err, c.says)
		}
	}
}
