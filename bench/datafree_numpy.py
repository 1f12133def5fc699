"""The data-free conversion in numpy, step by step as package mla has it, in float64.

    python datafree_numpy.py MODEL OUT --rank R --rope-dim D [--method svd|eigh]

MODEL is a Llama checkpoint in one bfloat16 file, with plain RoPE. Prints a JSON object: the seconds, the peak memory, and of
each layer the share of the energy that the latent does not carry, which must be that of mlaconvert.json. --method says how
the joint factorization is done: by a full SVD of the weighted stack, or by the eigenvectors of its smaller Gram matrix.
"""

import argparse
import hashlib
import json
import pathlib
import time

import numpy as np

import tensorfile
from common import peak_memory


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--rope-dim", type=int, required=True)
    parser.add_argument("--method", choices=("svd", "eigh"), default="svd")
    o = parser.parse_args()
    start = time.perf_counter()
    config = json.loads((o.model / "config.json").read_text())
    with open(o.model / "model.safetensors", "rb") as f:
        hashlib.file_digest(f, "sha256")
    source = tensorfile.read(o.model / "model.safetensors")
    layer = Layer(config, o.rank - 1, o.rope_dim, o.method)
    shapes = layer.target(source, o.rank)
    discarded = []
    tensorfile.write(o.out, shapes, tensors(layer, source, shapes, discarded))
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_rss_bytes": peak_memory(), "discarded": discarded}))


def tensors(layer, source, shapes, discarded):
    done, converted = -1, {}
    for name in shapes:
        if name in source and "self_attn" not in name:
            yield name, source[name]
            continue
        i = int(name.split(".")[2])
        if i != done:
            converted, share = layer.convert(source, i)
            discarded.append(share)
            done = i
        yield name, tensorfile.narrow(converted.pop(name.split("self_attn.")[1]))


class Layer:
    """The sizes of a layer, in the names of package mla, and the target's."""

    def __init__(self, c, rank, rope_dim, method):
        self.d, self.heads, self.groups = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.w, self.rank, self.method = c["head_dim"], rank, method
        self.pairs, self.slots, self.context = self.w // 2, rope_dim // 2, min(c["max_position_embeddings"], 32768)
        self.theta = c["rope_theta"] ** (-np.arange(self.pairs) / self.pairs)
        self.omega = c["rope_theta"] ** (-np.arange(self.slots) / self.slots)

    def target(self, source, rank):
        shapes = {}
        for name, bits in source.items():
            prefix, _, kind = name.rpartition("self_attn.")
            if kind == "q_proj.weight":
                width = self.w + 2 * self.slots
                shapes |= {
                    f"{prefix}self_attn.q_proj.weight": (self.heads * width, self.d),
                    f"{prefix}self_attn.kv_a_proj_with_mqa.weight": (rank + 2 * self.slots, self.d),
                    f"{prefix}self_attn.kv_b_proj.weight": (self.heads * 2 * self.w, rank),
                    f"{prefix}self_attn.o_proj.weight": (self.d, self.heads * self.w),
                }
            elif not prefix:
                shapes[name] = bits.shape
        return shapes

    def convert(self, source, i):
        """The tensors of layer i, and the share of its energy that is discarded."""
        d, w, groups, heads, pairs = self.d, self.w, self.groups, self.heads, self.pairs
        per = heads // groups
        load = lambda name: tensorfile.widen(source[f"model.layers.{i}.{name}.weight"]).astype(np.float64)
        q, k, v, out = (load(f"self_attn.{x}_proj") for x in "qkvo")
        gamma = load("input_layernorm")

        # E[q_h q_h^T] of every head, summed over the heads of a group; W_O,h^T W_O,h likewise.
        scaled = (q * gamma).reshape(heads, w, d)
        queries = (scaled @ scaled.transpose(0, 2, 1)).reshape(groups, per, w, w).sum(1)
        del scaled
        heads_out = out.T.reshape(heads, w, d)
        outputs = (heads_out @ heads_out.transpose(0, 2, 1)).reshape(groups, per, w, w).sum(1)

        key, query = self.find_slots((k * gamma), np.einsum("gii->gi", queries))
        complex_rows = lambda m: m.reshape(-1, 2, pairs, d)[:, 0] + 1j * m.reshape(-1, 2, pairs, d)[:, 1]
        kc = complex_rows(k)  # [groups, pairs, d]
        kappa = key @ kc.reshape(groups * pairs, d)
        q_rope = np.repeat(query, per, axis=0) @ complex_rows(q)  # [heads, slots, d]

        # What the slots leave, each rotation replaced by its expected value.
        near = power_law(self.context, 2)
        rest = np.conj(phase(near, self.theta))[:, None] * kc - np.conj(query * phase(near, self.omega)[:, None]).transpose(0, 2, 1) @ kappa
        keys = np.concatenate([rest.real, rest.imag], axis=1)  # [groups, w, d]
        del kc, rest
        values = v.reshape(groups, w, d)
        energy = lambda rows, metric: np.einsum("gij,gij->", metric, (rows * gamma) @ (rows * gamma).transpose(0, 2, 1))
        balance = energy(values, outputs) / energy(k.reshape(groups, w, d), queries)

        blocks = np.concatenate([keys, values])
        factors = np.linalg.cholesky(np.concatenate([balance * queries, outputs]))
        stack = (factors.transpose(0, 2, 1) @ blocks).reshape(-1, d) * gamma
        vectors, total, captured = leading(stack, self.rank, self.method)
        down = vectors / gamma
        up = (blocks * gamma) @ vectors.T  # [2 groups, w, rank]
        share = (total - captured) / total

        scale = np.sqrt((w + 2 * self.slots) / w)
        interleaved = lambda z: np.stack([z.real, z.imag], axis=-2).reshape(*z.shape[:-2], 2 * self.slots, d)
        pad = lambda x, rows: np.pad(x, [(0, rows)] + [(0, 0)] * (x.ndim - 1))
        up_heads = np.concatenate([np.repeat(up[:groups], per, axis=0), np.repeat(up[groups:], per, axis=0)], axis=1)
        return {
            "q_proj.weight": scale * np.concatenate([q.reshape(heads, w, d), interleaved(q_rope)], axis=1).reshape(-1, d),
            "kv_a_proj_with_mqa.weight": np.concatenate([pad(down, 1), interleaved(kappa)]),
            "kv_b_proj.weight": np.pad(up_heads.reshape(-1, self.rank), [(0, 0), (0, 1)]),
            "o_proj.weight": out,
        }, share

    def find_slots(self, k, query_diagonals):
        """Key [slots, groups*pairs] and query [groups, slots, pairs] functionals, mla.FindSlots and its refinement."""
        pairs, groups, slots = self.pairs, self.groups, self.slots
        kc = k.reshape(groups, 2, pairs, self.d)
        kc = (kc[:, 0] + 1j * kc[:, 1]).reshape(groups * pairs, self.d)
        covariance = kc @ kc.conj().T
        energy = (query_diagonals[:, :pairs] + query_diagonals[:, pairs:]).reshape(-1)
        key, query = np.zeros((slots, groups * pairs), complex), np.zeros((groups, slots, pairs), complex)
        nearest = np.abs(np.log(self.theta[:, None] / self.omega)).argmin(1)
        for s in range(slots):
            members = np.flatnonzero(np.tile(nearest == s, groups))
            if len(members) == 0:
                continue
            weight = np.sqrt(energy[members])
            weight = np.maximum(weight / weight.max(), 1e-6)
            u = np.linalg.eigh(covariance[np.ix_(members, members)] * np.outer(weight, weight))[1][:, -1]
            key[s, members] = u.conj() * weight
            query[members // pairs, s, members % pairs] = u.conj() / weight
        if slots >= pairs:
            return key, query
        far = 0.9 * power_law(self.context, 1) + 0.1 * available(self.context)
        between = phase(far, self.omega - self.omega[:, None])
        to_source = np.tile(phase(far, self.theta - self.omega[:, None]), groups)
        for sweep in range(4):
            flat = query.transpose(1, 0, 2).reshape(slots, -1)
            if sweep > 0:
                key = solve((flat * energy) @ flat.conj().T * between.conj(), flat * energy * to_source.conj())
            reach = key @ covariance
            flat = solve(reach @ key.conj().T * between, reach * to_source)
            query = flat.reshape(slots, groups, pairs).transpose(1, 0, 2)
        return key, query


def leading(stack, rank, method):
    """The leading right singular vectors in rows, the energy of the stack, and theirs."""
    if method == "svd":
        _, s, vt = np.linalg.svd(stack, full_matrices=False)
        return vt[:rank], np.sum(s**2), np.sum(s[:rank] ** 2)
    total = np.sum(stack**2)
    if stack.shape[0] <= stack.shape[1]:
        values, u = np.linalg.eigh(stack @ stack.T)
        values, u = values[::-1][:rank], u[:, ::-1][:, :rank]
        return (u.T @ stack) / np.sqrt(values)[:, None], total, np.sum(values)
    values, v = np.linalg.eigh(stack.T @ stack)
    return v[:, ::-1][:, :rank].T, total, np.sum(values[::-1][:rank])


def solve(gram, right):
    """(gram + ridge)^-1 right."""
    n = len(gram)
    return np.linalg.solve(gram + 1e-6 * np.trace(gram).real / n * np.eye(n), right)


def power_law(n, exponent):
    p = (1.0 + np.arange(n)) ** -exponent
    return p / p.sum()


def available(n):
    return (n - np.arange(n)) / (n * (n + 1) / 2)


def phase(distances, w):
    """E[e^{i w D}] for every w."""
    flat = np.ravel(w)
    out = np.exp(1j * np.outer(flat, np.arange(len(distances)))) @ distances
    return out.reshape(np.shape(w))


if __name__ == "__main__":
    main()
