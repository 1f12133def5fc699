"""Checks converted checkpoints against vLLM on the CPU: check_vllm.py CASE_DIR...

A case folder holds
    mla/             a converted checkpoint for vLLM, with a cache of 512 + 64 floats, which its CPU kernel is compiled for
    ids.npy          token ids [sequences, length]
    mla_logits.npy   mlaconvert's own forward pass of mla/ on ids: float32, [sequences, length, vocab], flat
    mla_greedy.npy   the tokens that it continues the first half of each sequence with: int32, [sequences, tokens], flat

Prints one line a check and "N passed, N failed" at the end; exits 1 if a check failed.
"""

import os
import pathlib
import sys

os.environ.update(
    HF_HUB_OFFLINE="1",
    VLLM_NO_USAGE_STATS="1",
    VLLM_CPU_KVCACHE_SPACE="1",  # GiB
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_CONFIGURE_LOGGING="1",
)

import numpy as np
import torch
import vllm
from checks import require, run

TOLERANCE = 1e-3  # of log-probabilities: float32 on both sides, another order of summation
BF16_KL = 0.01


class Case:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.ids = np.load(self.folder / "ids.npy").astype(np.int64)
        logits = torch.from_numpy(np.load(self.folder / "mla_logits.npy")).reshape(*self.ids.shape, -1)
        self.ours = logits.double().log_softmax(-1)
        self.vocab = logits.shape[-1]
        self.greedy = np.load(self.folder / "mla_greedy.npy").reshape(len(self.ids), -1)
        self.models = {}

    def model(self, dtype):
        if dtype not in self.models:
            self.models[dtype] = vllm.LLM(
                str(self.folder / "mla"),
                dtype=dtype,
                max_model_len=self.ids.shape[1] + 1,
                max_num_seqs=len(self.ids),
                max_logprobs=self.vocab,
                disable_log_stats=True,
                seed=0,
            )
        return self.models[dtype]

    def generate(self, dtype, prompts, **options):
        parameters = vllm.SamplingParams(temperature=0, ignore_eos=True, detokenize=False, **options)
        prompts = [{"prompt_token_ids": p.tolist()} for p in prompts]
        return self.model(dtype).generate(prompts, parameters, use_tqdm=False)

    def prompt_log_probabilities(self, dtype):
        """[sequences, length - 1, vocab]: of the token behind each but the last."""
        theirs = torch.full((*self.ids.shape, self.vocab), torch.nan, dtype=torch.float64)
        for s, output in enumerate(self.generate(dtype, self.ids, prompt_logprobs=self.vocab, max_tokens=1)):
            for i, row in enumerate(output.prompt_logprobs[1:]):
                for token, entry in row.items():
                    theirs[s, i, token] = entry.logprob
        return theirs[:, :-1]

    def check_backend(self):
        """The attention that ran is vLLM's own MLA, not the expanded form."""
        names = set()
        runner = self.model("float32").llm_engine.model_executor.driver_worker.worker.model_runner
        for layer in runner.compilation_config.static_forward_context.values():
            names.add(layer.get_attn_backend().get_name())
        require(names == {"CPU_MLA"}, f"attention backends {sorted(names)}")
        return "CPU_MLA"

    def check_prefill(self):
        theirs, ours = self.prompt_log_probabilities("float32"), self.ours[:, :-1]
        # A token of probability 0 in float32 has no logarithm to compare.
        likely = ours > -60
        worst = float((theirs - ours).abs()[likely].max())
        told = f"max abs difference of prompt log-probabilities {worst:.2g}, of {int(likely.sum())}"
        require(worst <= TOLERANCE, f"{told}, allowed {TOLERANCE:g}")
        return told

    def check_decode(self):
        half, new = self.ids.shape[1] // 2, self.greedy.shape[1]
        for s, output in enumerate(self.generate("float32", self.ids[:, :half], max_tokens=new)):
            got, want = list(output.outputs[0].token_ids), self.greedy[s].tolist()
            require(got == want, f"sequence {s}: {got}, expected {want}")
        return f"{len(self.ids)} x {new} greedy tokens equal"

    def check_bf16(self):
        theirs, ours = self.prompt_log_probabilities("bfloat16"), self.ours[:, :-1]
        kl = float((ours.exp() * (ours - theirs)).sum(-1).mean())
        require(kl <= BF16_KL, f"mean KL to ours in float32 {kl:.2g}, allowed {BF16_KL:g}")
        return f"mean KL to ours in float32 {kl:.2g}"


def main():
    print(f"vLLM {vllm.__version__}, torch {torch.__version__}")
    return run("vLLM", Case, sys.argv[1:], ("backend", "prefill", "decode", "bf16"))


if __name__ == "__main__":
    sys.exit(main())
