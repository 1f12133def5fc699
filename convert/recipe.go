package convert

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/engine"
)

// DTypeKeep is the dtype that leaves every tensor as the source has it.
const DTypeKeep = "keep"

// DTypes lists what [Recipe.DType] may be.
var DTypes = []string{DTypeKeep, "bf16", "f16", "f32"}

// DataFree is the method that uses no calibration data: the weights alone, the input norm's weight for the covariance of
// the attention input, and a prior for the distances (see mla.DataFree).
const DataFree = "data-free"

// Calibrated is the method that measures the source on calibration tokens, its own samples or given ones (see
// internal/calibrate).
const Calibrated = "calibrated"

// Calibration is the part of a recipe that belongs to the method [Calibrated].
type Calibration struct {
	// Source is where the tokens come from: CalibrationSelf, or the base name of a file.
	Source string `json:"source"`
	// SHA256 is the digest of the tokens of a file, as ids; empty for samples, which follow from the seed.
	SHA256 string           `json:"sha256,omitempty"`
	Tokens int              `json:"tokens"`
	Window int              `json:"window"`
	Effort calibrate.Effort `json:"effort"`
	Seed   uint64           `json:"seed"`
}

// CalibrationSelf says that the source writes its own calibration tokens; CalibrationNone that there are none.
const (
	CalibrationSelf = "self"
	CalibrationNone = "none"
)

// preset are the options of the calibration's effort. What people write repeats itself, so that no copies are put into it.
func (c *Calibration) preset(pairs, slots int) calibrate.Options {
	o := calibrate.Preset(c.Effort, pairs, slots)
	if c.Source != CalibrationSelf {
		o.Copies = calibrate.Copies{}
		for i := range o.Distill {
			o.Distill[i].Share = 0
		}
	}
	return o
}

const (
	// DefaultRank is the kv_lora_rank that engines have kernels for.
	DefaultRank = 512
	// DefaultRopeDim is the qk_rope_head_dim that engines have kernels for.
	DefaultRopeDim = 64
	// DefaultMaxShardBytes is transformers' default as well.
	DefaultMaxShardBytes = 5_000_000_000
	// maxContext caps the default context: distances beyond it say little about how a model is used.
	maxContext = 32768
	// maxWidth bounds rank and rope-dim, far above anything useful.
	maxWidth = 1 << 20
)

// Recipe is everything besides the source that the output depends on.
type Recipe struct {
	// Method says how the factorization is weighted: [DataFree] or [Calibrated].
	Method string `json:"method"`
	// Calibration is set for the method [Calibrated] alone.
	Calibration *Calibration `json:"calibration,omitempty"`
	// Engine is the name of the engine that the output is for (see internal/engine).
	Engine string `json:"engine"`
	// Rank is kv_lora_rank, the row that neutralises the norm included; what is written is wider if the engine needs it.
	Rank int `json:"rank"`
	// RopeDim is qk_rope_head_dim; 0 in the recipe given to [NewPlan] stands for the engine's, or the default.
	RopeDim int `json:"rope_dim"`
	// DType is one of [DTypes].
	DType string `json:"dtype"`
	// Context is the length, in tokens, over which distances are distributed; 0 in the recipe given to [NewPlan] stands
	// for the source's, at most 32,768, and calibrated at most the window.
	Context int `json:"context"`
	// MaxShardBytes is the size that a shard's tensors stay below.
	MaxShardBytes int64 `json:"max_shard_bytes"`
}

// DefaultRecipe returns the recipe of a conversion without options.
func DefaultRecipe() Recipe {
	return Recipe{Method: DataFree, Engine: engine.Default, Rank: DefaultRank, DType: DTypeKeep, MaxShardBytes: DefaultMaxShardBytes}
}

// Check reports the first setting that makes no sense for any source.
func (r *Recipe) Check() error {
	switch {
	case r.Method != DataFree && r.Method != Calibrated:
		return fmt.Errorf("method %q: expected %s or %s", r.Method, DataFree, Calibrated)
	case (r.Calibration != nil) != (r.Method == Calibrated):
		return fmt.Errorf("method %s: calibration settings go with the method %s", r.Method, Calibrated)
	case r.Calibration != nil && (r.Calibration.Tokens < 1 || r.Calibration.Window < 2 || !slices.Contains(calibrate.Efforts, r.Calibration.Effort)):
		return fmt.Errorf("calibration of %d tokens in windows of %d, effort %q: expected at least 1, 2, and one of %v", r.Calibration.Tokens, r.Calibration.Window, r.Calibration.Effort, calibrate.Efforts)
	case engine.Lookup(r.Engine) == nil:
		return fmt.Errorf("engine %q: expected %s", r.Engine, strings.Join(engine.Names(), ", "))
	case r.Rank < 2 || r.Rank > maxWidth:
		return fmt.Errorf("rank %d: expected from 2 to %d (one row neutralises the latent norm)", r.Rank, maxWidth)
	case r.RopeDim < 0 || r.RopeDim > maxWidth || r.RopeDim%2 != 0:
		return fmt.Errorf("rope-dim %d: expected an even number from 2 to %d", r.RopeDim, maxWidth)
	case !slices.Contains(DTypes, r.DType):
		return fmt.Errorf("dtype %q: expected %s", r.DType, strings.Join(DTypes, ", "))
	case r.Context < 0:
		return fmt.Errorf("context %d: expected a number of tokens", r.Context)
	case r.MaxShardBytes < 1:
		return fmt.Errorf("max-shard-size %d: expected a number of bytes above 0", r.MaxShardBytes)
	}
	return nil
}

// resolve fills in the settings that depend on the source.
func (r *Recipe) resolve(m *arch.Model) {
	if r.RopeDim == 0 {
		r.RopeDim = engine.Lookup(r.Engine).RopeDim(min(DefaultRopeDim, m.HeadDim))
	}
	if r.Context == 0 {
		r.Context = min(m.Context, maxContext)
		if r.Calibration != nil {
			r.Context = min(r.Context, r.Calibration.Window)
		}
	}
}

// dtype is the type that a tensor of the given source type is written in.
func (r *Recipe) dtype(source checkpoint.DType) checkpoint.DType {
	if r.DType == DTypeKeep {
		return source
	}
	d, err := checkpoint.ParseDType(r.DType)
	if err != nil {
		panic("convert: " + err.Error()) // Check came first
	}
	return d
}
