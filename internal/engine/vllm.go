package engine

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/arch"
)

// vllm is vLLM. It drops biases without a word, and computes every scaled rotary embedding as deepseek_yarn. Its decoding
// kernels are built for 512 + 64 and 256 + 64 (on the CPU for 512 + 64 alone), its prefill on Hopper and older for three
// kinds of heads.
var vllm = Engine{
	Name: "vllm", Activations: []string{"silu"},
	Ropes:         []arch.RopeType{arch.RopeDefault, arch.RopeYarn},
	Widths:        []Width{{512, 64}, {256, 64}},
	HeadWidths:    []HeadWidth{{128, 64, 128}, {192, 64, 256}, {64, 64, 128}},
	PreferredRank: 512,
	Advice:        "vLLM runs other widths as ordinary attention, with the whole cache, under VLLM_MLA_DISABLE=1",
	Remarks: func(m *arch.MLA) []string {
		if m.Rank == 256 {
			return []string{fmt.Sprintf("kv_lora_rank %d: vLLM's CPU backend has kernels for 512 alone", m.Rank)}
		}
		return nil
	},
}
