package engine

import "github.com/mlaconvert/mlaconvert/internal/arch"

// mlx is mlx-lm's deepseek_v3. It leaves out every tensor whose name begins with model.layers.61, DeepSeek-V3's layer of
// multi-token prediction, does not tie, and reads none of what transformers 5 saves as rope_parameters.
var mlx = Engine{
	Name: "mlx", Biases: true, LatentEps: arch.LatentNormEps, Activations: []string{"silu"}, MaxLayers: 61, TopLevelRope: true,
	Ropes: []arch.RopeType{arch.RopeDefault, arch.RopeLinear, arch.RopeLlama3, arch.RopeYarn},
}
