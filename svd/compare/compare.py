"""Times package svd beside numpy and torch, in turn, in one run.

    python compare.py [--cpu] [--no-full] [filter ...]

Only jobs whose line contains a filter are run. With --cpu every side uses one
thread and processor time is measured: for a machine with other work to do.
--no-full leaves out numpy's full SVD, which takes minutes. Needs numpy, torch and, to
name numpy's kernel, threadpoolctl.

The excess of a truncation is its error over the optimum in Frobenius norm. torch.svd_lowrank runs with
the fewest power iterations that bring it to 0.1 %.
"""

import os
import subprocess
import sys
import tempfile
import time

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

FLAGS = {a for a in sys.argv[1:] if a.startswith("--")}
FILTERS = [a for a in sys.argv[1:] if not a.startswith("--")]
CPU = "--cpu" in FLAGS
if CPU:
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["GOMAXPROCS"] = "1"
clock = time.process_time if CPU else time.perf_counter

import numpy as np
import torch
from threadpoolctl import threadpool_info

LIMIT = 1e-3  # of excess
OVERSAMPLING = 64

TRUNCATIONS = [
    (rows, cols, rank, kind)
    for rows, cols, rank in ((2048, 1024, 128), (2048, 4096, 512), (8192, 4096, 512))
    for kind in ("power-0.5", "power-1", "exponential-noise")
]
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


def timed(job):
    start = clock()
    result = job()
    return clock() - start, result


class Ours:
    def __init__(self, folder):
        self.file = os.path.join(folder, "matrix")
        binary = os.path.join(folder, "compare")
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run(["go", "build", "-o", binary, "."], cwd=here, check=True)
        self.process = subprocess.Popen([binary, f"-cpu={CPU}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        print("ours:", self.process.stdout.readline().strip())

    def ask(self, job, a, *rest):
        a.tofile(self.file)
        print(job, self.file, *a.shape, *rest, file=self.process.stdin, flush=True)
        return [float(x) for x in self.process.stdout.readline().split()]


def truncation(ours, rows, cols, rank, kind):
    s = spectrum(kind, min(rows, cols))
    a = matrix(rows, cols, s, np.random.default_rng(1))
    best = np.sum(s[rank:] ** 2)
    name = f"truncate {rows}x{cols} {rank} {kind}"

    mine = None
    for tol in (2 * LIMIT, 1e-4):
        seconds, discarded, _, blocks = ours.ask("truncate", a, rank, tol)
        print(f"{name:46} ours, tol {tol:g}: {seconds:8.2f} s, {blocks:.0f} blocks, excess {100 * (np.sqrt(discarded / best) - 1):.4f} %", flush=True)
        mine = mine or seconds  # energy is the square: 2 * LIMIT of it is LIMIT of the error
    for niter in (2, 4, 6, 8, 12, 16):
        seconds, (u, _, _) = timed(lambda: torch.svd_lowrank(torch.from_numpy(a), q=rank + OVERSAMPLING, niter=niter))
        u = u[:, :rank].numpy()
        excess = np.sqrt((np.sum(s**2) - np.sum((u.T @ a) ** 2)) / best) - 1
        print(f"{name:46} torch.svd_lowrank, niter {niter}: {seconds:8.2f} s, excess {100 * excess:.4f} %, {seconds / mine:.2f} times ours", flush=True)
        if excess <= LIMIT:
            break
    if "--no-full" not in FLAGS:
        seconds, _ = timed(lambda: np.linalg.svd(a, full_matrices=False))
        print(f"{name:46} numpy's full SVD: {seconds:8.2f} s, {seconds / mine:.2f} times ours", flush=True)


def eigen(ours, n):
    a = np.random.default_rng(2).standard_normal((n, n))
    a += a.T
    repeats = 1 if n > 1024 else 5
    mine = min(ours.ask("eigsym", a)[0] for _ in range(repeats))
    theirs = min(timed(lambda: np.linalg.eigh(a))[0] for _ in range(repeats))
    print(f"eigsym {n:<39} ours {mine:8.3f} s, numpy {theirs:8.3f} s, ratio {theirs / mine:.2f}", flush=True)


def wanted(line):
    return not FILTERS or any(f in line for f in FILTERS)


def main():
    for i in threadpool_info():
        print(f"{i['internal_api']} {i['version']} kernel {i.get('architecture')} threads {i['num_threads']}")
    print("torch", torch.__version__, "threads", torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(folder)
        for n in ORDERS:
            if wanted(f"eigsym {n}"):
                eigen(ours, n)
        for rows, cols, rank, kind in TRUNCATIONS:
            if wanted(f"truncate {rows}x{cols} {rank} {kind}"):
                truncation(ours, rows, cols, rank, kind)
        ours.process.stdin.close()
        ours.process.wait()


main()
