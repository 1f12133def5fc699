"""Factorizations: package svd beside numpy and torch.

The excess of a truncation is its error over the optimum in Frobenius norm. torch.svd_lowrank runs with the fewest power
iterations that bring it to 0.1 %.
"""

import numpy as np
import torch

from common import report, take_turns

LIMIT = 1e-3  # of excess
OVERSAMPLING = 64

TRUNCATIONS = ((8192, 4096, 512), (2048, 4096, 512), (2048, 1024, 128))
SPECTRA = ("power-0.5", "power-1", "exponential-noise")
ORDERS = (128, 576, 1024, 2048, 4096)


def spectrum(kind, n):
    i = np.arange(1.0, n + 1)
    if kind.startswith("power"):
        return i ** -float(kind.split("-")[1])
    noise = 0.01 * (1 + 0.1 * np.random.default_rng(7).random(n))
    return np.sort(np.exp(-25 * i / n) + noise)[::-1]


def matrix(rows, cols, s, rng):
    """A matrix with the singular values s: diagonal, then orthogonal from both sides."""
    a = np.zeros((rows, cols))
    a[np.arange(len(s)), np.arange(len(s))] = s
    for side in (0, 1):
        q = np.linalg.qr(rng.standard_normal((a.shape[0], 64)))[0]
        a -= 2 * q @ (q.T @ a)
        a = np.ascontiguousarray(a.T)
    return a


def wanted(run, line):
    return not run.options.filter or run.options.filter in line


def truncations(run):
    for rows, cols, rank in ((512, 256, 32),) if run.options.small else TRUNCATIONS:
        for kind in SPECTRA:
            if wanted(run, f"truncate {rows}x{cols} {rank} {kind}"):
                truncation(run, rows, cols, rank, kind)


def truncation(run, rows, cols, rank, kind):
    s = spectrum(kind, min(rows, cols))
    a = matrix(rows, cols, s, np.random.default_rng(1))
    best = np.sum(s[rank:] ** 2)
    name = f"truncate {rows}x{cols} {rank} {kind}"
    file = run.folder / "matrix"
    a.tofile(file)

    def ours(tol):
        seconds, discarded, _, blocks = run.ask("truncate", file, rows, cols, rank, tol)
        return seconds, np.sqrt(discarded / best) - 1, blocks

    def lowrank(niter):
        seconds, (u, _, _) = run.timed(lambda: torch.svd_lowrank(torch.from_numpy(a), q=rank + OVERSAMPLING, niter=niter))
        kept = np.sum((u[:, :rank].numpy().T @ a) ** 2)
        return seconds, np.sqrt((np.sum(s**2) - kept) / best) - 1

    # Energy is the square: 2 * LIMIT of it is LIMIT of the error.
    for tol in (2 * LIMIT, 1e-4):
        seconds, excess, blocks = ours(tol)
        print(f"{name:44} ours, tolerance {tol:g}: {seconds:.3f} s, {blocks:.0f} blocks, excess {100 * excess:.4f} %", flush=True)
    for niter in (2, 4, 6, 8, 12, 16):
        seconds, excess = lowrank(niter)
        print(f"{name:44} torch.svd_lowrank, niter {niter}: {seconds:.3f} s, excess {100 * excess:.4f} %", flush=True)
        if excess <= LIMIT:
            break
    mine, theirs = take_turns(run.options.rounds, lambda: ours(2 * LIMIT)[0], lambda: lowrank(niter)[0])
    report(name, theirs, mine, f"torch.svd_lowrank, niter {niter},")
    if run.options.full_svd:
        seconds, _ = run.timed(lambda: np.linalg.svd(a, full_matrices=False))
        report(name, [seconds], mine, "numpy's full SVD")


def eigenproblems(run):
    for n in (64, 256) if run.options.small else ORDERS:
        if wanted(run, f"eigsym {n}"):
            a = np.random.default_rng(2).standard_normal((n, n))
            a += a.T
            file = run.folder / "matrix"
            a.tofile(file)
            rounds = run.options.rounds if n > 1024 else max(5, run.options.rounds)
            mine, theirs = take_turns(rounds, lambda: run.ask("eigsym", file, n, n)[0], lambda: run.timed(lambda: np.linalg.eigh(a))[0])
            report(f"eigsym {n}", theirs, mine, "numpy's eigh")
