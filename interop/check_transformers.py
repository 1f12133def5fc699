"""Checks converted checkpoints against transformers: check_transformers.py CASE_DIR...

A case folder holds
    mla/               what mlaconvert made of a checkpoint; it is computed in float32
    ids.npy            token ids [sequences, length]
    mla_logits.npy     mlaconvert's own forward pass of mla/ on ids: float32, [sequences, length, vocab], flat
and, if it is to be compared with its source,
    source/            the source checkpoint
    source_logits.npy  the same as mla_logits.npy, of source/
    share.txt          how much of what attention does for the model the conversion may cost, 0 to 1 (check_conversion)

Prints one line a check and "N passed, N failed" at the end; exits 1 if a check failed.
"""

import argparse
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import numpy as np
import torch
import transformers
from checks import require, run
from transformers import AutoModelForCausalLM, AutoTokenizer

LOGIT_TOLERANCE = 1e-3  # float32 on both sides, another order of summation, logits of some 10
# nats; far below what conversion costs at any rank worth having, far above the rounding of a sound model (1e-4 seen). A constant
# channel, scale or norm that bfloat16 cannot hold costs tenths of nats.
BF16_KL = 0.01
NEW_TOKENS = 16
TEXT = "func (b *Buffer) Write(p []byte) (n int, err error)\n\n\t\u00e9\u4e2d\U0001f600  1234 it's<|endoftext|>x"


def load(folder, dtype, expected_class):
    """Loads a checkpoint and requires that file and model agree on every tensor."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that a wrong shape is listed, below, with the tensor's name
    )
    for key, found in info.items():
        require(not found, f"{key}: {found if isinstance(found, str) else sorted(map(str, found))}")
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        require(key in info, f"this version of transformers reports no {key}")
    name = type(model).__name__
    require(name == expected_class, f"loaded as {name}, expected {expected_class}")
    wrong = [n for n, p in model.named_parameters() if p.dtype != dtype]
    require(not wrong, f"not {dtype}: {wrong}")
    return model.eval()


@torch.no_grad()
def logits_of(model, ids):
    return model(input_ids=ids, use_cache=False).logits.float()


def compare(theirs, ours, what, tolerance=LOGIT_TOLERANCE):
    require(ours.shape == theirs.shape, f"{what}: ours have shape {tuple(ours.shape)}, transformers' {tuple(theirs.shape)}")
    require(bool(torch.isfinite(theirs).all()), f"{what}: transformers' logits are not finite")
    difference = (theirs - ours).abs()
    worst = float(difference.max())  # NaN, and so a failure, if ours hold one
    at = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
    require(worst <= tolerance, f"{what}: max abs difference {worst:.3g} at {at}, allowed {tolerance:g}")
    return f"max abs difference {worst:.2g}, logits {float(theirs.min()):.1f} to {float(theirs.max()):.1f}"


def mean_kl(p_logits, q_logits):
    """Mean over positions of KL(p || q) in nats."""
    p, q = p_logits.double().log_softmax(-1), q_logits.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


class Case:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.ids = torch.from_numpy(np.load(self.folder / "ids.npy").astype(np.int64))

    def ours(self, name):
        flat = np.load(self.folder / name)
        require(flat.dtype == np.float32, f"{name} holds {flat.dtype}, expected float32")
        require(flat.size % self.ids.numel() == 0, f"{name} holds {flat.size} floats, no multiple of {self.ids.numel()} tokens")
        return torch.from_numpy(flat).reshape(*self.ids.shape, -1)

    def source(self, dtype):
        return AutoModelForCausalLM.from_pretrained(self.folder / "source", dtype=dtype).eval()

    def mla(self, dtype):
        return load(self.folder / "mla", dtype, "DeepseekV3ForCausalLM")

    def check_load(self):
        model = self.mla(torch.float32)
        return f"{sum(1 for _ in model.named_parameters())} tensors"

    def check_source_logits(self):
        theirs = logits_of(self.source(torch.float32), self.ids)
        return compare(theirs, self.ours("source_logits.npy"), "source logits")

    def check_logits(self):
        theirs = logits_of(self.mla(torch.float32), self.ids)
        return compare(theirs, self.ours("mla_logits.npy"), "logits")

    def check_conversion(self):
        """Converting costs a small share of what attention does for the model."""
        share = float((self.folder / "share.txt").read_text())
        source = self.source(torch.float32)
        exact = logits_of(source, self.ids)
        cost = mean_kl(exact, logits_of(self.mla(torch.float32), self.ids))
        for layer in source.model.layers:
            layer.self_attn.o_proj.weight.data.zero_()
        attention = mean_kl(exact, logits_of(source, self.ids))
        told = f"mean KL of the conversion to the source {cost:.3f}, of the source without attention {attention:.3f}"
        require(cost <= share * attention, told)
        return told

    def check_generate(self):
        """Greedy continuation with the latent cache against recomputing the whole prefix for every token."""
        model = self.mla(torch.float32)
        prompt = self.ids[:, : self.ids.shape[1] // 2]
        runs = [
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                min_new_tokens=NEW_TOKENS,
                max_new_tokens=NEW_TOKENS,
                use_cache=use_cache,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
            )
            for use_cache in (True, False)
        ]
        cached, plain = runs
        expected = prompt.shape[1] + NEW_TOKENS
        for run in runs:
            require(run.sequences.shape[1] == expected, f"generated up to {run.sequences.shape[1]} tokens, expected {expected}")
        require(
            torch.equal(cached.sequences, plain.sequences),
            f"with cache {cached.sequences[:, prompt.shape[1] :].tolist()}, without {plain.sequences[:, prompt.shape[1] :].tolist()}",
        )
        both = [torch.stack(run.logits, 1).float() for run in runs]
        told = compare(both[0], both[1], "logits with and without cache")
        ours = self.ours("mla_logits.npy")[:, prompt.shape[1] - 1]
        compare(both[0][:, 0], ours, "logits of the first generated token")
        return f"{NEW_TOKENS} tokens, {told}"

    def check_bf16(self):
        """The checkpoint also works in bfloat16, weights and arithmetic."""
        exact = logits_of(self.mla(torch.float32), self.ids)
        rounded = logits_of(self.mla(torch.bfloat16), self.ids)
        require(bool(torch.isfinite(rounded).all()), "bfloat16 logits are not finite")
        kl = mean_kl(exact, rounded)
        require(kl <= BF16_KL, f"mean KL of bfloat16 to float32 {kl:.2g}, allowed {BF16_KL:g}")
        return f"mean KL of bfloat16 to float32 {kl:.2g}"

    def check_tokenizer(self):
        source, mla = (AutoTokenizer.from_pretrained(self.folder / name) for name in ("source", "mla"))
        a, b = source(TEXT)["input_ids"], mla(TEXT)["input_ids"]
        require(a == b, f"ids {b}, of the source {a}")
        require((source.bos_token_id, source.eos_token_id) == (mla.bos_token_id, mla.eos_token_id), "BOS or EOS differ")
        return f"{len(a)} ids"


def names(folder):
    """The checks of a case folder, with or without a source."""
    if (pathlib.Path(folder) / "source").exists():
        return "load", "source_logits", "logits", "conversion", "generate", "bf16", "tokenizer"
    return "load", "logits", "generate", "bf16"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", metavar="CASE_DIR")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, numpy {np.__version__}")
    return run("transformers", Case, args.cases, names)


if __name__ == "__main__":
    sys.exit(main())
