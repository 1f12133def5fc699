package arch

import (
	"fmt"
	"math"
)

// RopeType names how rotary frequencies are scaled, in Hugging Face's words.
type RopeType string

// The rotary scalings that are read and computed.
const (
	RopeDefault RopeType = "default"
	RopeLinear  RopeType = "linear"
	RopeLlama3  RopeType = "llama3"
	// RopeYarn is read in converted checkpoints only.
	RopeYarn RopeType = "yarn"
)

// Rope is a rotary position embedding: pair i of a head of width dim turns by Frequencies(dim)[i] radians a token.
type Rope struct {
	Type  RopeType
	Theta float64
	// Factor divides the frequencies (linear: all of them; llama3 and YaRN: the long wavelengths).
	Factor float64
	// LowFreqFactor, HighFreqFactor and OriginalContext are llama3's: wavelengths above OriginalContext/LowFreqFactor
	// are scaled fully, those below OriginalContext/HighFreqFactor not at all, those between by interpolation.
	LowFreqFactor, HighFreqFactor float64
	OriginalContext               int
	// BetaFast and BetaSlow are YaRN's: pairs that turn more often than BetaFast in OriginalContext tokens are not scaled,
	// those that turn less often than BetaSlow fully. MScaleAllDim is for [Rope.ScoreFactor].
	BetaFast, BetaSlow, MScaleAllDim float64
}

// Frequencies returns the dim/2 angular frequencies, in radians a token, theta^(-2i/dim) before scaling
// (Su et al. 2021, RoFormer, section 3.2.2; scaling as transformers' modeling_rope_utils defines it).
func (r Rope) Frequencies(dim int) []float64 {
	out := make([]float64, dim/2)
	var low, high float64
	if r.Type == RopeYarn {
		low, high = r.yarnRange(dim)
	}
	for i := range out {
		f := math.Pow(r.Theta, -2*float64(i)/float64(dim))
		if r.Type == RopeYarn {
			out[i] = r.yarnScale(f, i, low, high)
			continue
		}
		out[i] = r.scale(f)
	}
	return out
}

func (r Rope) scale(f float64) float64 {
	switch r.Type {
	case RopeLinear:
		return f / r.Factor
	case RopeLlama3:
		wavelength := 2 * math.Pi / f
		context := float64(r.OriginalContext)
		switch {
		case wavelength < context/r.HighFreqFactor:
			return f
		case wavelength > context/r.LowFreqFactor:
			return f / r.Factor
		}
		smooth := (context/wavelength - r.LowFreqFactor) / (r.HighFreqFactor - r.LowFreqFactor)
		return (1-smooth)*f/r.Factor + smooth*f
	}
	return f
}

// sourceRopes are the scalings that a source may have.
const sourceRopes = "default, linear or llama3"

// rope reads the rotary embedding in both spellings, rope_theta with rope_scaling and transformers 5's rope_parameters, which
// holds both. transformers 5 takes rope_scaling where there are both and an earlier one knows no rope_parameters, so both must
// say the same.
func (c *config) rope() Rope {
	scaling, params := c.sub("rope_scaling"), c.sub("rope_parameters")
	theta := c.theta()
	if scaling == nil || len(scaling.fields) == 0 {
		return c.ropeOf("rope_parameters", params, theta)
	}
	if inside := scaling.theta(); inside != 0 && theta != 0 && inside != theta {
		c.fail(bad("rope_theta", fmt.Sprintf("%g, and %g in rope_scaling", theta, inside), "the same in both, or only one of them"))
	}
	r := c.ropeOf("rope_scaling", scaling, theta)
	if params != nil && len(params.fields) > 0 && c.ropeOf("rope_parameters", params, theta) != r {
		c.fail(bad("rope_scaling", show(scaling.fields)+" beside rope_parameters "+show(params.fields), "the same in both, or only one of them"))
	}
	return r
}

// theta reads rope_theta; 0 stands for an absent field.
func (c *config) theta() float64 {
	if !c.has("rope_theta") {
		return 0
	}
	theta := c.number("rope_theta", 0)
	if theta <= 1 {
		c.fail(bad("rope_theta", show(c.fields["rope_theta"]), "a number above 1"))
	}
	return theta
}

// ropeOf reads the object of a field, nil for none. What it lacks, rope_theta and partial_rotary_factor, is that of c; theta is
// the former, 0 for none.
func (c *config) ropeOf(field string, scaling *config, theta float64) Rope {
	r := Rope{Type: RopeDefault, Theta: theta}
	if scaling == nil {
		scaling = &config{}
	}
	if inside := scaling.theta(); inside != 0 {
		r.Theta = inside
	}
	if r.Theta == 0 {
		r.Theta = 10000 // the default of every Llama-type configuration class
	}
	r.Type = RopeType(scaling.text("rope_type", scaling.text("type", string(RopeDefault))))
	switch r.Type {
	case RopeDefault:
	case RopeLinear:
		r.Factor = scaling.positive("factor", 1)
	case RopeLlama3:
		r.Factor = scaling.positive("factor", 8)
		r.LowFreqFactor = scaling.positive("low_freq_factor", 1)
		r.HighFreqFactor = scaling.positive("high_freq_factor", 4)
		r.OriginalContext = scaling.size("original_max_position_embeddings", 8192)
		if r.HighFreqFactor <= r.LowFreqFactor {
			c.fail(bad(field, fmt.Sprintf("high_freq_factor %g and low_freq_factor %g", r.HighFreqFactor, r.LowFreqFactor), "high_freq_factor above low_freq_factor"))
		}
	case RopeYarn:
		r.readYarn(scaling)
	default:
		c.fail(unsupported(field, fmt.Sprintf("RoPE type %q", r.Type), sourceRopes, ""))
	}
	partial := scaling.number("partial_rotary_factor", c.number("partial_rotary_factor", 1))
	if scaling.err != nil {
		c.fail(scaling.err)
	}
	if partial != 1 {
		c.fail(unsupported("partial_rotary_factor", fmt.Sprint(partial), "1 (every pair of a head rotates)", ""))
	}
	return r
}
