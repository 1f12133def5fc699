"""Times the products of package blas beside numpy's BLAS, in turn, in one run.

    python compare.py [--cpu] [filter ...]

Only products whose line contains a filter are run. With --cpu both sides use
one thread and processor time is measured: for a machine with other work to do.
Needs numpy and, to name numpy's kernel, threadpoolctl. The figures are the
median time of the repeats of both, GFLOP/s, and the ratio numpy / ours.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

CPU = "--cpu" in sys.argv
FILTERS = [a for a in sys.argv[1:] if a != "--cpu"]
if CPU:
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["GOMAXPROCS"] = "1"
clock = time.process_time if CPU else time.perf_counter

import numpy as np
from threadpoolctl import threadpool_info

PRODUCTS = [
    "sgemm nn 2048 2048 2048", "sgemm nn 4096 4096 4096", "sgemm nt 2048 2048 2048",
    "dgemm nn 2048 2048 2048", "dgemm nn 4096 4096 4096", "dgemm nt 2048 2048 2048",
    "ssyrk n 2048 2048", "ssyrk t 2048 2048", "ssyrk n 4096 14336", "ssyrk t 4096 14336", "asyrk t 4096 4096",
    "dsyrk n 2048 2048", "dsyrk t 2048 2048", "dsyrk n 4096 14336",
    # forward pass: tokens x out x in, weights stored out x in
    *(f"sgemm nt {tokens} {out} {inner}"
      for tokens in (64, 256, 512, 2048)
      for out, inner in ((576, 576), (1536, 576), (576, 1536), (2048, 2048), (4096, 4096), (14336, 4096), (4096, 14336))),
    "bgemm nt 64 4096 4096", "bgemm nt 512 4096 4096", "bgemm nt 512 1536 576",
    # attention scores and values, one head
    "sgemm nt 512 512 64", "sgemm nn 512 64 512", "sgemm nt 2048 2048 64", "sgemm nn 2048 64 2048",
    # decoding
    *(f"{kind} nt {rows} {out} {inner}" for kind in ("sgemm", "bgemm") for rows in (1, 2, 4, 8, 12, 16, 24, 32, 48)
      for out, inner in ((576, 576), (4096, 4096))),
    "sgemm nn 1 64 512", "sgemm nn 4 64 512", "sgemm nn 1 4096 4096", "sgemm nn 8 4096 4096",
    # subspace iteration
    "dgemm nn 4096 576 576", "dgemm nn 4096 576 4096", "dgemm tn 576 576 4096", "sgemm nn 4096 576 576", "sgemm nn 4096 576 4096",
]


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


def main():
    for i in threadpool_info():
        print(f"numpy: {i['internal_api']} {i['version']} kernel {i.get('architecture')} threads {i['num_threads']}")
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        binary = os.path.join(folder, "compare")
        subprocess.run(["go", "build", "-o", binary, "."], cwd=here, check=True)
        ours = subprocess.Popen([binary, f"-cpu={CPU}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        print("ours:", ours.stdout.readline().strip())
        print(f"{'product':34} {'numpy':>9} {'ours':>9} {'numpy':>7} {'ours':>7} ratio")
        print(f"{'':34} {'ms':>9} {'ms':>9} {'GFLOP/s':>7} {'GFLOP/s':>7}")
        for line in PRODUCTS:
            if FILTERS and not any(f in line for f in FILTERS):
                continue
            flops, job = numpy_job(line)
            job()
            start = clock()
            job()
            once = clock() - start
            inner = 1 + int(200e-6 / (once + 1e-6))
            repeats = max(1, min(200, int(0.15 / once / inner)))
            theirs_all, ours_all = [], []
            for _ in range(3 if once > 0.5 else 7):
                for _ in range(repeats):
                    start = clock()
                    for _ in range(inner):
                        job()
                    theirs_all.append((clock() - start) / inner)
                time.sleep(0.06)  # OpenBLAS's threads spin for a while before they sleep
                print(line, repeats + 1, file=ours.stdin, flush=True)
                ours_all += map(float, ours.stdout.readline().split()[1:])
            theirs, mine = statistics.median(theirs_all), statistics.median(ours_all)
            print(f"{line:34} {theirs*1e3:9.3f} {mine*1e3:9.3f} {flops/theirs/1e9:7.1f} {flops/mine/1e9:7.1f} {theirs/mine:5.2f}", flush=True)
        ours.stdin.close()
        ours.wait()


main()
