package engine

import "github.com/mlaconvert/mlaconvert/internal/arch"

// lmdeploy is LMDeploy's PyTorch engine. Scaled rotary embeddings need a factor, which all of them have here.
var lmdeploy = Engine{
	Name: "lmdeploy", Biases: true, LatentEps: arch.LatentNormEps, Activations: []string{"silu"}, ScalesRotation: true,
	Ropes: []arch.RopeType{arch.RopeDefault, arch.RopeLinear, arch.RopeLlama3, arch.RopeYarn},
}
