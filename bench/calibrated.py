"""Calibrated conversion: mlaconvert beside the prototype in torch whose folder --prototype names (it is not part of this
repository), on the same tokens.

Both run at the same time, each on one processor of its own, so that what disturbs the machine disturbs both. Then
mlaconvert runs once more on both processors.
"""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np

from common import child, report, wall


def compare(run):
    o = run.options
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        sys.exit("the part calibrated needs two processors")
    fit, held, window = (9, 1, 64) if o.small else (72, 8, 512)
    # The prototype takes windows from the front to fit and the last ones to decide, mlaconvert the last tenth.
    windows = fit + held
    ids = run.folder / "samples"
    run.ask("sample", o.model, ids, windows, window, 7)
    tokens = run.folder / "calibration.npy"
    np.save(tokens, np.fromfile(ids, np.int32).reshape(windows, window))

    binary, out = run.build(".", "mlaconvert"), run.folder / "calibrated-mla"
    convert = [binary, "convert", o.model, "--out", out, "--force", "--quiet", "--json", "--rank", o.rank, "--rope-dim", o.rope_dim,
               "--calibration", tokens, "--calibration-tokens", windows * window, "--effort", "fast"]
    weights = run.folder / "prototype.pt"
    prototype = [sys.executable, "conv2.py", os.path.abspath(o.model), tokens, "--S", o.rope_dim // 2, "--r", o.rank - 1, "--n", fit, "--nh", held,
                 "--out", weights]
    # One thread each.
    single = dict(os.environ, NT="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", GOMAXPROCS="1")
    sides = {
        "ours": child([*convert, "--jobs", 1], processors=processors[:1], env=single, stdout=subprocess.DEVNULL),
        "prototype": child(prototype, processors=processors[1:2], env=single, cwd=o.prototype, stdout=subprocess.DEVNULL),
    }
    start, seconds = time.perf_counter(), {}
    while len(seconds) < len(sides):
        time.sleep(0.2)
        for name, process in sides.items():
            if name not in seconds and process.poll() is not None:
                if process.returncode:
                    for other in sides.values():
                        other.kill()
                    sys.exit(f"{name} failed with {process.returncode}")
                seconds[name] = time.perf_counter() - start
    report(f"calibrated, {windows * window} tokens, a core each", [seconds["prototype"]], [seconds["ours"]], "prototype")

    ours = json.loads(subprocess.run([str(x) for x in (binary, "verify", out, "--text", o.text, "--context", window, "--max-tokens", 8 * window, "--json", "--quiet")],
                                     stdout=subprocess.PIPE, check=True).stdout)
    print("perplexity, ours:", json.dumps({k: v for k, v in flatten(ours).items() if "perplexity" in k}))
    text = subprocess.run([sys.executable, "ev2.py", os.path.abspath(o.model), os.path.abspath(o.text), str(window), "8", str(weights)],
                          cwd=o.prototype, env=dict(os.environ, NT="2"), stdout=subprocess.PIPE, text=True, check=True).stdout
    print("perplexity, prototype:", re.search(r"ppl [\d.]+", text).group())
    two, _ = wall([*convert, "--jobs", 2])
    report("calibrated, --jobs 2 over one core", [seconds["ours"]], [two], "one core")


def flatten(value, prefix=""):
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}
