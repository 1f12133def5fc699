"""Products of matrices: package blas beside numpy's BLAS. The figures are medians of the repeats of both."""

import statistics
import time

import numpy as np

# The layers' shapes of SmolLM2-135M, of a model of width 2,048 and of Llama-3-8B: outputs, inputs.
WEIGHTS = ((576, 576), (1536, 576), (576, 1536), (2048, 2048), (4096, 4096), (14336, 4096), (4096, 14336))

GROUPS = {
    "gemm": [f"{kind} {layout} {n} {n} {n}" for kind in ("sgemm", "dgemm") for layout, n in (("nn", 2048), ("nn", 4096), ("nt", 2048))],
    "syrk": [
        "ssyrk n 2048 2048", "ssyrk t 2048 2048", "dsyrk n 2048 2048", "dsyrk t 2048 2048",
        "ssyrk n 4096 14336", "ssyrk t 4096 14336", "dsyrk n 4096 14336", "asyrk t 4096 4096",
    ],
    # The forward pass: tokens x outputs x inputs, weights stored outputs x inputs. Then scores and values of one head.
    "skinny": [
        *(f"sgemm nt {tokens} {out} {inner}" for tokens in (64, 256, 512, 2048) for out, inner in WEIGHTS),
        "bgemm nt 64 4096 4096", "bgemm nt 512 4096 4096", "bgemm nt 512 1536 576",
        "sgemm nt 512 512 64", "sgemm nn 512 64 512", "sgemm nt 2048 2048 64", "sgemm nn 2048 64 2048",
    ],
    "decode": [
        *(f"{kind} nt {rows} {out} {inner}" for kind in ("sgemm", "bgemm") for rows in (1, 2, 4, 8, 12, 16, 24, 32, 48)
          for out, inner in ((576, 576), (4096, 4096))),
        "sgemm nn 1 64 512", "sgemm nn 4 64 512", "sgemm nn 1 4096 4096", "sgemm nn 8 4096 4096",
    ],
    # A block of vectors times a matrix, and projections on a basis.
    "subspace": ["dgemm nn 4096 576 576", "dgemm nn 4096 576 4096", "dgemm tn 576 576 4096", "sgemm nn 4096 576 576", "sgemm nn 4096 576 4096"],
}
SMALL = {
    "gemm": ["sgemm nn 256 256 256", "dgemm nt 256 256 256"], "syrk": ["ssyrk n 256 256", "asyrk t 256 256"],
    "skinny": ["sgemm nt 64 576 576", "bgemm nt 64 576 576"], "decode": ["bgemm nt 8 576 576"], "subspace": ["dgemm tn 64 64 512"],
}


def numpy_job(line):
    kind, layout, *sizes = line.split()
    t = np.float64 if kind[0] == "d" else np.float32
    rng = np.random.default_rng(1)
    if kind[1:] == "gemm":
        m, n, k = map(int, sizes)
        a = rng.random((k, m) if layout[0] == "t" else (m, k), np.float64).astype(t) - t(0.5)
        b = rng.random((n, k) if layout[1] == "t" else (k, n), np.float64).astype(t) - t(0.5)
        a, b = a.T if layout[0] == "t" else a, b.T if layout[1] == "t" else b
        c = np.empty((m, n), t)
        return 2 * m * n * k, lambda: np.matmul(a, b, out=c)
    n, k = map(int, sizes)
    a = rng.random((k, n) if layout == "t" else (n, k), np.float64).astype(t) - t(0.5)
    a = a.T if layout == "t" else a
    c = np.empty((n, n), t)
    return n * n * k, lambda: np.matmul(a, a.T, out=c)  # numpy calls syrk


def compare(run, group):
    print(f"{'product':34} {'numpy':>9} {'ours':>9} {'numpy':>7} {'ours':>7} ratio")
    print(f"{'':34} {'ms':>9} {'ms':>9} {'GFLOP/s':>7} {'GFLOP/s':>7}")
    for line in (SMALL if run.options.small else GROUPS)[group]:
        if not run.options.filter or run.options.filter in line:
            compare_line(run, line)


def compare_line(run, line):
    flops, job = numpy_job(line)
    job()
    once, _ = run.timed(job)
    inner = 1 + int(200e-6 / (once + 1e-6))
    repeats = max(1, min(200, int(0.15 / once / inner)))
    theirs_all, ours_all = [], []
    for _ in range(3 if once > 0.5 else 7):
        for _ in range(repeats):
            start = run.clock()
            for _ in range(inner):
                job()
            theirs_all.append((run.clock() - start) / inner)
        time.sleep(0.06)  # OpenBLAS's threads spin for a while before they sleep
        ours_all += run.ask(*line.split(), repeats + 1)[1:]
    theirs, ours = statistics.median(theirs_all), statistics.median(ours_all)
    print(f"{line:34} {theirs*1e3:9.3f} {ours*1e3:9.3f} {flops/theirs/1e9:7.1f} {flops/ours/1e9:7.1f} {theirs/ours:5.2f}", flush=True)
