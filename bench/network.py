"""The forward pass and sampling: package model beside torch and transformers."""

import os
import sys

import numpy as np
import torch
import transformers

from common import report, take_turns


def load(run):
    transformers.utils.logging.disable_progress_bar()
    dtype = getattr(torch, run.options.torch_dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(run.options.model, dtype=dtype, local_files_only=True)
    return model.eval()


def forward(run):
    """The streams behind the last layer, and the logits, of 8 x 512 tokens."""
    model = load(run)
    sequences, length = (2, 64) if run.options.small else (8, 512)
    ids = np.random.default_rng(4).integers(3, model.config.vocab_size, (sequences, length)).astype(np.int32)
    file = run.folder / "ids"
    ids.tofile(file)
    inputs = torch.from_numpy(ids.astype(np.int64))
    squares = []

    def torch_logits():
        with torch.inference_mode():
            seconds, logits = run.timed(lambda: model(inputs, use_cache=False).logits)
        squares.append(float((logits[0, 0].float() ** 2).mean()))
        return seconds

    def torch_forward():
        with torch.inference_mode():
            return run.timed(lambda: model.model(inputs, use_cache=False).last_hidden_state)[0]

    def ours_logits():
        seconds, mean = run.ask("logits", run.options.model, file, sequences, length)
        squares.append(mean)
        return seconds

    def ours_forward():
        return run.ask("forward", run.options.model, file, sequences, length)[0]

    torch_forward(), ours_forward()  # what is read from the disk is in memory from here on
    name = f"{os.path.basename(run.options.model.rstrip('/'))}, {sequences} x {length} tokens"
    mine, theirs = take_turns(run.options.rounds, ours_forward, torch_forward)
    report(f"forward, {name}", theirs, mine, f"torch {run.options.torch_dtype}")
    mine, theirs = take_turns(run.options.rounds, ours_logits, torch_logits)
    if max(squares) - min(squares) > (0.1 if run.options.torch_dtype == "bfloat16" else 0.01) * max(squares):
        sys.exit(f"the two sides do not compute the same logits: mean squares {squares}")
    report(f"forward and logits, {name}", theirs, mine, f"torch {run.options.torch_dtype}")


def sampling(run):
    """Sequences side by side at temperature 1, from the start token."""
    model = load(run)
    sequences, length = (4, 32) if run.options.small else (run.options.sequences, run.options.length)
    start = model.config.bos_token_id
    prompt = torch.full((sequences, 1), start if start is not None else model.config.eos_token_id)
    file = run.folder / "samples"

    def theirs():
        torch.manual_seed(1)
        with torch.inference_mode():
            seconds, ids = run.timed(lambda: model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                min_new_tokens=length - 1, max_new_tokens=length - 1, pad_token_id=0))
        assert ids.shape == (sequences, length), ids.shape
        return seconds

    def ours():
        return run.ask("sample", run.options.model, file, sequences, length, 1)[0]

    mine, others = take_turns(run.options.rounds, ours, theirs)
    report(f"sampling {sequences} x {length} tokens", others, mine, f"torch generate {run.options.torch_dtype}")
    print(f"{'':44} tokens a second: torch {sequences * (length - 1) / min(others):.0f}, ours {sequences * (length - 1) / min(mine):.0f}")
