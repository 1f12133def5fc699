"""Checks converted checkpoints against mlx-lm on the CPU: check_mlx.py CASE_DIR...

A case folder holds
    mla/             what mlaconvert made; it is computed in float32
    ids.npy          token ids [sequences, length]
    mla_logits.npy   mlaconvert's own forward pass of mla/ on ids: float32, [sequences, length, vocab], flat
    mla_greedy.npy   the tokens that it continues the first half of each sequence with: int32, [sequences, tokens], flat

Prints one line a check and "N passed, N failed" at the end; exits 1 if a check failed.
"""

import importlib.metadata
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import mlx.core as mx
import numpy as np
from checks import require, run
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache

mx.set_default_device(mx.cpu)

LOGIT_TOLERANCE = 1e-3  # float32 on both sides, as with transformers


class Case:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.ids = np.load(self.folder / "ids.npy").astype(np.int64)
        self.ours = np.load(self.folder / "mla_logits.npy").reshape(*self.ids.shape, -1)
        self.greedy = np.load(self.folder / "mla_greedy.npy").reshape(len(self.ids), -1)
        self.model, _ = load(str(self.folder / "mla"))
        self.model.set_dtype(mx.float32)

    def check_logits(self):
        theirs = np.array(self.model(mx.array(self.ids)).astype(mx.float32))
        require(theirs.shape == self.ours.shape, f"shape {theirs.shape}, ours {self.ours.shape}")
        require(bool(np.isfinite(theirs).all()), "logits are not finite")
        difference = np.abs(theirs - self.ours)
        told = f"max abs difference {difference.max():.2g}, mean {difference.mean():.1g}, logits {theirs.min():.1f} to {theirs.max():.1f}"
        require(difference.max() <= LOGIT_TOLERANCE, f"{told}, allowed {LOGIT_TOLERANCE:g}")
        return told

    def check_decode(self):
        """Greedy continuation against the latent cache."""
        half, new = self.ids.shape[1] // 2, self.greedy.shape[1]
        for s, ids in enumerate(self.ids):
            cache = make_prompt_cache(self.model)
            step, got = ids[:half], []
            for _ in range(new):
                logits = self.model(mx.array(step)[None], cache=cache)
                got.append(int(mx.argmax(logits[0, -1])))
                step = np.array(got[-1:])
            require(got == self.greedy[s].tolist(), f"sequence {s}: {got}, expected {self.greedy[s].tolist()}")
        return f"{len(self.ids)} x {new} greedy tokens equal"


def main():
    print(f"mlx-lm {importlib.metadata.version('mlx-lm')}, mlx {importlib.metadata.version('mlx')}")
    return run("mlx-lm", Case, sys.argv[1:], ("logits", "decode"))


if __name__ == "__main__":
    sys.exit(main())
