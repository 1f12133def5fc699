package engine

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/arch"
)

// vllm is vLLM. It drops biases without a word, and computes every scaled rotary embedding as deepseek_yarn. All its MLA
// backends have decoding kernels for 512 + 64, that for processors (CPU_MLA) no other. Its prefill takes three kinds of heads on
// GPUs.
//
// TRITON_MLA, for GPUs in 16 bits, takes any latent: the kernel is compiled for the next power of two. That is 1024 above 512,
// where a block takes 102,400 bytes of shared memory (compiled with Triton 3.7.1 for rank 600): compute capabilities 8.0, 9.0
// and 10.0 have them, 8.6, 8.9 and 12.0 do not. vLLM chooses it by itself but for 256 + 64 on Hopper: its selector counts that
// among FlashMLA's widths, whose kernel refuses it.
var vllm = Engine{
	Name: "vllm", Activations: []string{"silu"},
	Ropes:         []arch.RopeType{arch.RopeDefault, arch.RopeYarn},
	Widths:        []Width{{512, 64}, {256, 64}},
	HeadWidths:    []HeadWidth{{128, 64, 128}, {192, 64, 256}, {64, 64, 128}},
	MaxRank:       1024,
	PreferredRank: 512,
	Advice:        "vLLM runs other widths as ordinary attention, with the whole cache, under VLLM_MLA_DISABLE=1",
	Remarks: func(m *arch.MLA) []string {
		switch {
		case m.Rank == 512:
			return nil
		case m.Rank > 512:
			return []string{fmt.Sprintf("kv_lora_rank %d: vLLM runs more than 512 only on GPUs of the data centre (A100, H100, B200), by the backend TRITON_MLA", m.Rank)}
		}
		return []string{fmt.Sprintf("kv_lora_rank %d: vLLM runs less than 512 only on GPUs; serve with --attention-backend TRITON_MLA", m.Rank)}
	},
}
