package engine

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/arch"
)

// sglang is SGLang. It skips biases, and computes every scaled rotary embedding as deepseek_yarn. Its Triton backend takes
// any width.
var sglang = Engine{
	Name: "sglang", Activations: []string{"silu"},
	Ropes: []arch.RopeType{arch.RopeDefault, arch.RopeYarn},
	Remarks: func(m *arch.MLA) []string {
		if m.Rank != 512 || m.RopeDim != 64 {
			return []string{fmt.Sprintf("kv_lora_rank %d and qk_rope_head_dim %d: most of SGLang's MLA backends are built for 512 and 64; serve with --attention-backend triton", m.Rank, m.RopeDim)}
		}
		return nil
	},
}
