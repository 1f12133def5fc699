"""Compares the gradient of MLA attention that interop/gradient wrote with torch's automatic differentiation.

    check_gradient.py DIR

torch computes the attention in float64 from the same float32 weights; the gradients must agree to 1e-5 of their norm.
"""

import json
import pathlib
import sys

import numpy as np
import torch

TOLERANCE = 1e-5


def attention(w, m, x):
    """MLA of one sequence x [n, hidden]: DeepSeek-V2 (arXiv:2405.04434), equations 9 to 19, without query compression."""
    n, heads, nope, rope, v = len(x), m["heads"], m["nope"], m["rope"], m["v"]
    angle = torch.arange(n, dtype=torch.float64)[:, None] * torch.tensor(m["frequencies"], dtype=torch.float64)
    turn = torch.polar(torch.ones_like(angle), angle)

    def rotate(t):  # [n, ..., rope], pairs interleaved
        z = torch.view_as_complex(t.reshape(*t.shape[:-1], rope // 2, 2).contiguous())
        z = z * turn.reshape(n, *[1] * (z.dim() - 2), rope // 2)
        return torch.view_as_real(z).flatten(-2)

    q = (x @ w["q"].T).reshape(n, heads, nope + rope)
    down = x @ w["kv_down"].T
    kv = (down[:, : m["rank"]] @ w["kv_up"].T).reshape(n, heads, nope + v)
    q = torch.cat([q[..., :nope], rotate(q[..., nope:])], -1)
    shared = rotate(down[:, m["rank"] :])[:, None].expand(n, heads, rope)
    k = torch.cat([kv[..., :nope], shared], -1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / (nope + rope) ** 0.5
    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
    out = torch.einsum("hqk,khd->qhd", scores.softmax(-1), kv[..., nope:])
    return out.reshape(n, heads * v) @ w["o"].T + w["o_bias"]


def main(folder):
    folder = pathlib.Path(folder)
    m = json.loads((folder / "shapes.json").read_text())

    def read(name):
        return torch.tensor(np.load(folder / f"{name}.npy").reshape(m["shapes"][name]), dtype=torch.float64)

    names = [name for name in m["shapes"] if name + ".grad" in m["shapes"]]
    w = {name: read(name).requires_grad_() for name in names}
    pieces = torch.split(w["input"], m["lengths"])
    (torch.cat([attention(w, m, x) for x in pieces]) * read("target")).sum().backward()
    failed = False
    for name in names:
        want, got = w[name].grad, read(name + ".grad")
        error = ((got - want).norm() / want.norm()).item()
        bad = not error < TOLERANCE
        failed |= bad
        print(f"gradient by {name}: relative difference {error:.1e}" + (f", expected below {TOLERANCE:g}" if bad else ""))
    return failed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
