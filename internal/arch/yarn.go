package arch

import (
	"fmt"
	"math"
)

// yarnDimension is the rotary dimension, a real number, that turns the given number of times within context tokens
// (Peng et al. 2023, arXiv:2309.00071, appendix A.1).
func yarnDimension(turns, theta float64, dim, context int) float64 {
	return float64(dim) * math.Log(float64(context)/(turns*2*math.Pi)) / (2 * math.Log(theta))
}

// yarnRange is the pairs between which YaRN goes from the frequency itself (up to low) to the frequency divided by the
// factor (from high on), as transformers, vLLM (deepseek_yarn), SGLang and llama.cpp compute it: the bounds are rounded
// outward and kept within the head.
func (r Rope) yarnRange(dim int) (low, high float64) {
	low = math.Max(0, math.Floor(yarnDimension(r.BetaFast, r.Theta, dim, r.OriginalContext)))
	high = math.Min(float64(dim-1), math.Ceil(yarnDimension(r.BetaSlow, r.Theta, dim, r.OriginalContext)))
	if low == high {
		high += 0.001
	}
	return low, high
}

// yarnScale is what YaRN makes of the frequency f of pair i.
func (r Rope) yarnScale(f float64, i int, low, high float64) float64 {
	ramp := math.Min(1, math.Max(0, (float64(i)-low)/(high-low)))
	return f/r.Factor*ramp + f*(1-ramp)
}

// ScoreFactor is what engines multiply the attention's scores by, besides the scale of the head's width: with YaRN
// (0.1 mscale_all_dim ln factor + 1)^2, as DeepSeek's models have it, else 1.
func (r Rope) ScoreFactor() float64 {
	if r.Type != RopeYarn || r.Factor <= 1 {
		return 1
	}
	m := 0.1*r.MScaleAllDim*math.Log(r.Factor) + 1
	return m * m
}

// FitYarn returns the YaRN scaling for a rotary key of the given width that stands for r, a linear or llama3 scaling: the one
// with the least relative error |w'/w - 1| of any frequency. context is the longest position that must be served: engines
// tabulate factor times original_max_position_embeddings of them, and only the ratio of that to the betas counts for the
// frequencies.
//
// YaRN never divides the first frequency, so a linear scaling is moved on by one pair: behind the first, which stays 1, pair i
// turns as pair i-1 of r,
//
//	theta^(-2i/dim) / f' = theta^(-2(i-1)/dim) / f,   f' = f theta^(-2/dim),
//
// and the slowest of r, the nearest to no rotation at all, has no pair of its own.
func (r Rope) FitYarn(dim, context int) Rope {
	out := Rope{Type: RopeYarn, Theta: r.Theta, Factor: r.Factor, MScaleAllDim: 1}
	bestLow, bestHigh := 0, 1
	if r.Type == RopeLinear {
		out.Factor *= math.Pow(r.Theta, -2/float64(dim))
	} else {
		// The frequencies depend on two whole numbers alone, so all pairs of them are tried.
		want := r.Frequencies(dim)
		least := math.Inf(1)
		for low := range dim - 1 {
			for high := low + 1; high < dim; high++ {
				if worst := out.yarnError(want, dim, float64(low), float64(high)); worst < least {
					bestLow, bestHigh, least = low, high, worst
				}
			}
		}
	}
	out.OriginalContext = max(1, int(math.Ceil(float64(context)/out.Factor)))
	// Betas a quarter of a dimension inside the bounds, so that rounding cannot move them.
	turns := func(d float64) float64 {
		return float64(out.OriginalContext) / (2 * math.Pi) * math.Pow(r.Theta, -2*d/float64(dim))
	}
	out.BetaFast, out.BetaSlow = turns(float64(bestLow)+0.25), turns(float64(bestHigh)-0.25)
	return out
}

// The betas of the original YaRN, which are the defaults everywhere.
const (
	DefaultBetaFast = 32
	DefaultBetaSlow = 1
)

// FitYarnContext is [Rope.FitYarn] for engines that compute YaRN with the default betas, whatever the configuration says, and do
// not tabulate positions: original_max_position_embeddings alone is fitted.
func (r Rope) FitYarnContext(dim int) Rope {
	out := Rope{Type: RopeYarn, Theta: r.Theta, Factor: r.Factor, MScaleAllDim: 1, BetaFast: DefaultBetaFast, BetaSlow: DefaultBetaSlow}
	want := r.Frequencies(dim)
	best, least := 1, math.Inf(1)
	// The bounds move with the logarithm of the context: in steps of a twentieth of a pair all there are come by.
	for d := 0.0; d <= float64(dim)+1; d += 0.05 {
		context := 2 * math.Pi * math.Pow(r.Theta, 2*d/float64(dim))
		if context > maxSize {
			break
		}
		out.OriginalContext = max(1, int(math.Round(context)))
		low, high := out.yarnRange(dim)
		if worst := out.yarnError(want, dim, low, high); worst < least {
			best, least = out.OriginalContext, worst
		}
	}
	out.OriginalContext = best
	return out
}

// FrequencyError is the largest relative error |w'/w - 1| of the frequencies wanted, w' being the nearest of those that there
// are.
func FrequencyError(want, have []float64) float64 {
	worst := 0.0
	for _, w := range want {
		least := math.Inf(1)
		for _, h := range have {
			least = math.Min(least, math.Abs(h/w-1))
		}
		worst = math.Max(worst, least)
	}
	return worst
}

// yarnError is the largest relative error |w'/w - 1| of the frequencies with the given bounds, w being those wanted.
func (r Rope) yarnError(want []float64, dim int, low, high float64) float64 {
	worst := 0.0
	for i, w := range want {
		f := math.Pow(r.Theta, -2*float64(i)/float64(dim))
		worst = math.Max(worst, math.Abs(r.yarnScale(f, i, low, high)/w-1))
	}
	return worst
}

// readYarn reads the fields of a YaRN scaling. A factor on cosine and sine, which the two mscales give where they differ, is
// not computed here.
func (r *Rope) readYarn(c *config) {
	r.Factor = c.positive("factor", 1)
	r.BetaFast, r.BetaSlow = c.positive("beta_fast", DefaultBetaFast), c.positive("beta_slow", DefaultBetaSlow)
	r.OriginalContext = c.size("original_max_position_embeddings", 0)
	mscale := c.number("mscale", 1)
	r.MScaleAllDim = c.number("mscale_all_dim", 0)
	if mscale != r.MScaleAllDim {
		c.fail(unsupported("rope_scaling", fmt.Sprintf("mscale %g and mscale_all_dim %g", mscale, r.MScaleAllDim), "equal mscales (no factor on the rotation)", ""))
	}
	if c.has("attention_factor") {
		c.fail(unsupported("attention_factor", show(c.fields["attention_factor"]), "no such field", ""))
	}
}
