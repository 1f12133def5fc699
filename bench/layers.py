"""Data-free conversion of two layers of Llama-3-8B's shape: mlaconvert beside the same steps in numpy."""

import os
import shutil
import sys

import synthetic
from common import report, take_turns, wall


def compare(run):
    source = run.folder / "synthetic"
    small = run.options.small
    synthetic.write(source, layers=2, vocab=1024, **(synthetic.SMALL if small else synthetic.LLAMA_3_8B))
    rank, rope = (49, 32) if small else (512, 64)
    binary = run.build(".", "mlaconvert")
    shape = ("--rank", rank, "--rope-dim", rope)

    def ours(jobs):
        out = run.folder / "synthetic-mla"
        shutil.rmtree(out, ignore_errors=True)
        os.sync()  # before the clock: to replace an output is no part of a conversion
        seconds, result = wall([binary, "convert", source, "--out", out, "--quiet", "--json", "--calibration", "none", "--jobs", jobs, *shape])
        return seconds, result

    def theirs(method):
        script = __file__.replace("layers.py", "datafree_numpy.py")
        out = run.folder / "numpy.safetensors"
        out.unlink(missing_ok=True)
        os.sync()
        return wall([sys.executable, script, source, out, "--method", method, *shape])

    sides = [lambda: ours(2), lambda: ours(1)] + [lambda m=m: theirs(m) for m in run.options.numpy_methods]
    two, one, *numpys = take_turns(run.options.rounds, *sides)
    seconds = lambda results: [s for s, _ in results]
    memory = lambda results: max(r["peak_rss_bytes"] for _, r in results) / 1e9
    shares = [layer["discarded_share"] for layer in two[0][1]["layers"]]
    for method, results in zip(run.options.numpy_methods, numpys):
        got = results[0][1]["discarded"]
        print(f"discarded shares: ours {shares}, numpy {got}")
        for a, b in zip(shares, got, strict=True):
            # With fewer slots than frequencies every second frequency lies between two slots; rounding decides which of them it
            # starts with, and what the alternating updates end with.
            if not abs(a - b) < (1e-3 if small else 0.03) * b:
                sys.exit(f"the two sides do not compute the same: {a} and {b} of a layer's energy are discarded")
        report(f"two layers, numpy by {method}, --jobs 2", seconds(results), seconds(two), "numpy")
        report(f"two layers, numpy by {method}, --jobs 1", seconds(results), seconds(one), "numpy")
        print(f"peak memory: numpy {memory(results):.2f} GB, ours {memory(two):.2f} GB with --jobs 2, {memory(one):.2f} GB with --jobs 1")
    report("two layers, --jobs 2 over --jobs 1", seconds(one), seconds(two), "--jobs 1")
    shutil.rmtree(source)
