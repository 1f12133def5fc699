package engine

import "github.com/mlaconvert/mlaconvert/internal/arch"

// llamacpp is llama.cpp's architecture deepseek2, through a GGUF file. A tensor that it does not know, such as a bias, makes
// it refuse the file; the activation is silu whatever the file says, and the betas of YaRN are the defaults: this architecture
// does not read the keys yarn_beta_fast and yarn_beta_slow. A file without output.weight has the embedding in its place.
var llamacpp = Engine{
	Name: "llama.cpp", Activations: []string{"silu"}, Ties: true, DefaultBetas: true, ScalesRotation: true,
	Ropes: []arch.RopeType{arch.RopeDefault, arch.RopeLinear, arch.RopeYarn},
}
