package engine

import "github.com/mlaconvert/mlaconvert/internal/arch"

// transformers is Hugging Face's DeepseekV3ForCausalLM. kv_a_layernorm has the default epsilon of its class, not
// rms_norm_eps.
var transformers = Engine{
	Name: "transformers", Biases: true, LatentEps: arch.LatentNormEps, Ties: true, Strict: true, ScalesRotation: true,
	Ropes: []arch.RopeType{arch.RopeDefault, arch.RopeLinear, arch.RopeLlama3, arch.RopeYarn},
}
