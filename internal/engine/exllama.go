package engine

import "github.com/mlaconvert/mlaconvert/internal/arch"

// exllama is ExLlamaV3's DeepseekV3ForCausalLM: no biases, sigmoid routing, silu.
var exllama = Engine{
	Name: "exllama", Activations: []string{"silu"}, ScalesRotation: true,
	Ropes: []arch.RopeType{arch.RopeDefault, arch.RopeYarn},
}
