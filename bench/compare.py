"""Runs the same work in numpy and torch and in this module, in turn and in one run, and prints the ratios.

    python bench/compare.py gemm syrk skinny decode subspace     products: package blas, numpy's BLAS
    python bench/compare.py eigen svd                            factorizations: package svd, numpy, torch
    python bench/compare.py layers                               data-free conversion of two layers of Llama-3-8B's shape, numpy
    python bench/compare.py forward sampling --model DIR         package model, torch and transformers
    python bench/compare.py calibrated --model DIR --prototype DIR   calibrated conversion, a prototype in torch

The prototype is that of the method in Python, conv2.py and ev2.py, which is not part of this repository: without it there is
no part calibrated. A ratio is their median time over ours: above 1 ours is faster. Needs Go and bench/requirements.txt. The
variables that force numpy's kernels (OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE) are unset, and the kernels it then runs on are
printed. With --cpu both sides use one thread and processor time is measured, for a machine with other work to do; --small runs
small sizes, to see that it works.
"""

import argparse
import os
import tempfile
import time

PARTS = ("gemm", "syrk", "skinny", "decode", "subspace", "eigen", "svd", "layers", "forward", "sampling", "calibrated")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    p.add_argument("--filter", help="only products and factorizations whose line contains this")
    p.add_argument("--rounds", type=int, default=3, help="how often each side has its turn, of what takes seconds (default 3)")
    p.add_argument("--cpu", action="store_true", help="one thread each, processor time")
    p.add_argument("--small", action="store_true", help="small sizes")
    p.add_argument("--no-full", dest="full_svd", action="store_false", help="leave out numpy's full SVD, which takes minutes")
    p.add_argument("--numpy-methods", nargs="+", choices=("svd", "eigh"), default=("svd", "eigh"), help="how numpy factors the joint stack in the part layers")
    p.add_argument("--model", help="folder of a Llama checkpoint such as SmolLM2-135M")
    p.add_argument("--torch-dtype", choices=("float32", "bfloat16"), default="float32", help="of torch's weights (default float32)")
    p.add_argument("--sequences", type=int, default=48, help="sequences side by side in sampling (default 48)")
    p.add_argument("--length", type=int, default=256, help="tokens of a sampled sequence (default 256)")
    p.add_argument("--prototype", help="folder of the prototype of the calibrated method (conv2.py and ev2.py), which is not part of this repository")
    p.add_argument("--rank", type=int, default=129, help="kv_lora_rank of the part calibrated, one row of it the constant channel (default 129)")
    p.add_argument("--rope-dim", type=int, default=64, help="qk_rope_head_dim of the part calibrated (default 64)")
    p.add_argument("--text", default=os.path.join(os.path.dirname(__file__), "..", "testdata", "heldout.txt"), help="text for the perplexities of the part calibrated")
    o = p.parse_args()
    for part in ("forward", "sampling", "calibrated"):
        if part in o.parts and not o.model:
            p.error(f"the part {part} needs --model")
    if "calibrated" in o.parts:
        prototype = "the Python prototype of the method, which is not part of this repository"
        if not o.prototype:
            p.error(f"the part calibrated needs --prototype, the folder of {prototype}")
        for name in ("conv2.py", "ev2.py"):
            if not os.path.isfile(os.path.join(o.prototype, name)):
                p.error(f"there is no {name} in {o.prototype}: it is of {prototype}")
    return o


def main():
    options = parse()
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    if options.cpu:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMAXPROCS"):
            os.environ[name] = "1"
    # numpy reads the variables above when it is loaded, so it and what needs it come after them.
    import numpy
    from threadpoolctl import threadpool_info

    from common import Run

    for i in threadpool_info():
        print(f"numpy {numpy.__version__}: {i['internal_api']} {i['version']}, kernel {i.get('architecture')}, {i['num_threads']} threads")
    if {"eigen", "svd", "forward", "sampling"} & set(options.parts):
        import torch

        print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options, folder)
        run.start()
        try:
            for part in options.parts:
                start = time.perf_counter()
                print(f"\n== {part}", flush=True)
                run_part(run, part)
                print(f"({time.perf_counter() - start:.0f} s)", flush=True)
        finally:
            run.close()


def run_part(run, part):
    # torch is loaded for the parts that need it alone.
    if part in ("eigen", "svd"):
        import factor

        (factor.eigenproblems if part == "eigen" else factor.truncations)(run)
    elif part == "layers":
        import layers

        layers.compare(run)
    elif part in ("forward", "sampling"):
        import network

        getattr(network, part)(run)
    elif part == "calibrated":
        import calibrated

        calibrated.compare(run)
    else:
        import products

        products.compare(run, part)


main()
