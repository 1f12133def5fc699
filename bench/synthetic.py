"""A checkpoint with the shape of Llama-3-8B's layers and weights of a decaying spectrum, in bfloat16."""

import json

import numpy as np

import tensorfile

LLAMA_3_8B = dict(hidden=4096, intermediate=14336, heads=32, kv_heads=8, dim=128)
SMALL = dict(hidden=256, intermediate=512, heads=8, kv_heads=2, dim=32)


def write(folder, layers, vocab, hidden, intermediate, heads, kv_heads, dim):
    """Writes config.json and model.safetensors. The projections of attention are A diag(i^-1/2) B with Gaussian A and B;
    what is only copied is noise."""
    folder.mkdir()
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=hidden, intermediate_size=intermediate,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=dim, vocab_size=vocab,
        max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=False, torch_dtype="bfloat16",
        bos_token_id=0, eos_token_id=1,
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    rng = np.random.default_rng(3)
    noise = tensorfile.narrow(rng.standard_normal(1 << 20, np.float32) * 0.02)

    def copied(shape):
        return np.resize(noise, shape)

    def norm(shape):
        return tensorfile.narrow(1 + 0.1 * rng.standard_normal(shape))

    def decaying(shape):
        rows, cols = shape
        n = min(shape)
        left = rng.standard_normal((rows, n), np.float32) * np.arange(1, n + 1, dtype=np.float32) ** -0.5
        w = left @ rng.standard_normal((n, cols), np.float32)
        return tensorfile.narrow(w * (0.02 / w.std()))

    shapes, make = {"model.embed_tokens.weight": (vocab, hidden)}, {}
    for i in range(layers):
        for name, shape, how in (
            ("input_layernorm", (hidden,), norm), ("self_attn.q_proj", (heads * dim, hidden), decaying),
            ("self_attn.k_proj", (kv_heads * dim, hidden), decaying), ("self_attn.v_proj", (kv_heads * dim, hidden), decaying),
            ("self_attn.o_proj", (hidden, heads * dim), decaying), ("post_attention_layernorm", (hidden,), norm),
            ("mlp.gate_proj", (intermediate, hidden), copied), ("mlp.up_proj", (intermediate, hidden), copied),
            ("mlp.down_proj", (hidden, intermediate), copied),
        ):
            name = f"model.layers.{i}.{name}.weight"
            shapes[name], make[name] = shape, how
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    make["model.norm.weight"] = norm
    tensorfile.write(folder / "model.safetensors", shapes, ((name, make.get(name, copied)(shape)) for name, shape in shapes.items()))
