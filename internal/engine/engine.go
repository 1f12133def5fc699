package engine

import (
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/arch"
)

// Engine is what one inference engine computes.
type Engine struct {
	// Name is that of --engine.
	Name string
	// Biases says that the engine honours attention_bias: kv_a_proj_with_mqa and o_proj have biases. Engines without drop
	// them or refuse the checkpoint.
	Biases bool
	// LatentEps is the epsilon of kv_a_layernorm; 0 stands for rms_norm_eps.
	LatentEps float64
	// Ropes are the rotary scalings that it computes as config.json has them. Any other is written as the YaRN scaling
	// nearest to it.
	Ropes []arch.RopeType
	// DefaultBetas says that it computes YaRN with beta_fast 32 and beta_slow 1, whatever config.json says.
	DefaultBetas bool
	// ScalesRotation says that it scales the rotation of YaRN, beside the scores, where mscale and mscale_all_dim are 0.
	ScalesRotation bool
	// TopLevelRope says that it reads rope_theta and rope_scaling alone; the others read transformers 5's rope_parameters too.
	TopLevelRope bool
	// Activations are the MLP's; nil for any.
	Activations []string
	// Widths are the latent and rotary widths, and HeadWidths the widths of a head, that it has kernels for; nil for any.
	Widths     []Width
	HeadWidths []HeadWidth
	// MaxRank is the widest latent that it takes beside those of Widths, with a rotary key of theirs, if only on some machines,
	// as Remarks says; 0 for none.
	MaxRank int
	// PreferredRank is what a smaller rank is padded to where Widths does not list it.
	PreferredRank int
	// Ties says that it takes tie_word_embeddings; the others need lm_head.weight.
	Ties bool
	// MaxLayers bounds the layers; 0 for none.
	MaxLayers int
	// Strict says that its configuration class refuses whole numbers where it expects floats.
	Strict bool
	// Advice is how to run what its usual kernels do not take, for messages.
	Advice string
	// Remarks are what is right and yet worth knowing about an output.
	Remarks func(m *arch.MLA) []string
}

// Width is a latent and a rotary key, cached together.
type Width struct{ Rank, Rope int }

// HeadWidth is the parts of a head: qk_nope_head_dim, qk_rope_head_dim, v_head_dim.
type HeadWidth struct{ NoPE, Rope, V int }

// Default is the engine that an output is for unless another is named.
const Default = "transformers"

// All lists the engines in the order of the help texts.
var All = []*Engine{&transformers, &vllm, &sglang, &llamacpp, &mlx, &lmdeploy, &exllama}

// Names lists their names.
func Names() []string {
	names := make([]string, len(All))
	for i, e := range All {
		names[i] = e.Name
	}
	return names
}

// Lookup finds an engine by name; nil if there is none.
func Lookup(name string) *Engine {
	i := slices.IndexFunc(All, func(e *Engine) bool { return e.Name == name })
	if i < 0 {
		return nil
	}
	return All[i]
}

// Eps is the epsilon of kv_a_layernorm for a model.
func (e *Engine) Eps(m *arch.Shape) float64 {
	if e.LatentEps != 0 {
		return e.LatentEps
	}
	return m.NormEps
}

// Rope is the rotary scaling to write for r and a rotary key of the given width, as the engine computes it: r itself where it
// has that.
func (e *Engine) Rope(r arch.Rope, dim, context int) arch.Rope {
	if slices.Contains(e.Ropes, r.Type) {
		return r
	}
	if e.DefaultBetas {
		return r.FitYarnContext(dim)
	}
	return r.FitYarn(dim, context)
}

// RopeDim is the width of the rotary key unless one is asked for: that of the engine's kernels, where all have the same, or
// else usual.
func (e *Engine) RopeDim(usual int) int {
	if len(e.Widths) == 0 {
		return usual
	}
	return e.Widths[0].Rope
}

// hasWidth says whether the engine takes a cache of m's widths.
func (e *Engine) hasWidth(m *arch.MLA) bool {
	if len(e.Widths) == 0 {
		return true
	}
	return slices.ContainsFunc(e.Widths, func(w Width) bool {
		return w.Rope == m.RopeDim && (w.Rank == m.Rank || m.Rank <= e.MaxRank)
	})
}

// Pad widens m to what the engine has kernels for, as far as that is a matter of zeros: the rank, and the parts of a head.
// What no padding makes fit is left to [Engine.Check].
func (e *Engine) Pad(m *arch.MLA) {
	if e.PreferredRank > m.Rank && len(e.Widths) > 0 && !slices.Contains(e.Widths, Width{m.Rank, m.RopeDim}) {
		m.Rank = e.PreferredRank
	}
	best := -1
	for i, h := range e.HeadWidths {
		fits := h.NoPE >= m.NoPEDim && h.V >= m.VDim && h.Rope == m.RopeDim
		if fits && (best < 0 || h.NoPE+h.V < e.HeadWidths[best].NoPE+e.HeadWidths[best].V) {
			best = i
		}
	}
	if best >= 0 {
		m.NoPEDim, m.VDim = e.HeadWidths[best].NoPE, e.HeadWidths[best].V
	}
}
