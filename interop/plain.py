"""Makes a checkpoint without biases of a converted one: plain.py SRC OUT [RANK ROPE_DIM].

For engines that have no biases. The biases are dropped, and each kv_a_layernorm gets as its weight what the latent's RMS is on
average for inputs of independent elements, so that the sizes of keys and values stay as they were. The result computes
another, worse function than SRC; what it is good for is that two programs must agree on it.

With RANK and ROPE_DIM the cache is padded to them: further latent rows are zero, and rotary pair i of SRC becomes the pair of the
same frequency, theta^(-2i/dim), among the more numerous ones. The function stays the same.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
from safetensors.numpy import load_file, save_file


def drop_biases(tensors, config):
    rank = config["kv_lora_rank"]
    for name in [name for name in tensors if name.endswith(".bias")]:
        del tensors[name]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        down = tensors[prefix + "self_attn.kv_a_proj_with_mqa.weight"][:rank].astype(np.float64)
        normed = down * tensors[prefix + "input_layernorm.weight"]
        tensors[prefix + "self_attn.kv_a_layernorm.weight"] = np.full(rank, np.sqrt((normed**2).sum() / rank))
    config["attention_bias"] = False


def pad(tensors, config, rank, rope):
    heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
    old_rank, old_rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    columns = np.array([2 * (rope // old_rope) * (i // 2) + i % 2 for i in range(old_rope)])
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.self_attn."
        q = tensors[prefix + "q_proj.weight"].reshape(heads, nope + old_rope, -1)
        padded = np.zeros((heads, nope + rope, q.shape[-1]))
        padded[:, :nope], padded[:, nope + columns] = q[:, :nope], q[:, nope:]
        padded *= np.sqrt((nope + rope) / (nope + old_rope))  # scores are divided by the root of the width
        tensors[prefix + "q_proj.weight"] = padded.reshape(heads * (nope + rope), -1)
        down = tensors[prefix + "kv_a_proj_with_mqa.weight"]
        padded = np.zeros((rank + rope, down.shape[1]))
        padded[:old_rank], padded[rank + columns] = down[:old_rank], down[old_rank:]
        tensors[prefix + "kv_a_proj_with_mqa.weight"] = padded
        norm = np.ones(rank)
        norm[:old_rank] = tensors[prefix + "kv_a_layernorm.weight"] * np.sqrt(old_rank / rank)  # the RMS is over more channels
        tensors[prefix + "kv_a_layernorm.weight"] = norm
        up = tensors[prefix + "kv_b_proj.weight"]
        tensors[prefix + "kv_b_proj.weight"] = np.pad(up, ((0, 0), (0, rank - old_rank)))
    config.update(kv_lora_rank=rank, qk_rope_head_dim=rope)


def main():
    src, out = map(pathlib.Path, sys.argv[1:3])
    config = json.loads((src / "config.json").read_text())
    tensors = load_file(src / "model.safetensors")
    drop_biases(tensors, config)
    if len(sys.argv) > 3:
        pad(tensors, config, *map(int, sys.argv[3:5]))
    shutil.copytree(src, out, ignore=shutil.ignore_patterns("*.safetensors", "mlaconvert.json", "README.md"))
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in tensors.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
