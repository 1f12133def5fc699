"""Trains the models of testdata/ from fixed seeds: python train.py [--models gqa mha] [--steps N].

Writes DIR/NAME/{config.json,generation_config.json,*.safetensors,tokenizer.json,tokenizer_config.json},
DIR/NAME/training.json (what was done, and the losses) and DIR/heldout.txt, DIR being testdata/.
golden.py writes the goldens afterwards.
"""

import argparse
import collections
import json
import math
import pathlib
import subprocess
import time

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import corpus

BOS = "<|endoftext|>"
VOCAB = 1024
CONTEXT = 256
BATCH = 8
HELDOUT_BYTES = 60_000

COMMON = dict(
    vocab_size=VOCAB,
    intermediate_size=320,
    num_attention_heads=8,
    head_dim=16,
    max_position_embeddings=CONTEXT,
    rope_theta=10000.0,
    rms_norm_eps=1e-5,
    hidden_act="silu",
    attention_bias=False,
    mlp_bias=False,
    bos_token_id=0,
    eos_token_id=0,
    dtype="bfloat16",
)
# The two differ in what a reader of checkpoints must cope with: grouped against full heads, tied
# against untied embeddings, heads * head_dim equal to hidden_size or not, one file against shards.
MODELS = {
    "gqa": dict(
        config=dict(hidden_size=128, num_hidden_layers=5, num_key_value_heads=4, tie_word_embeddings=True),
        seed=1,
        max_shard_size="5GB",
    ),
    "mha": dict(
        config=dict(hidden_size=144, num_hidden_layers=3, num_key_value_heads=8, tie_word_embeddings=False),
        seed=2,
        max_shard_size="1200KB",
    ),
}


def train_tokenizer(documents):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((d.text for d in documents), trainer)
    return tokenizer


def token_stream(tokenizer, documents):
    """All documents as one stream of ids, each led by BOS."""
    bos = tokenizer.token_to_id(BOS)
    ids = []
    for encoding in tokenizer.encode_batch([d.text for d in documents]):
        ids.append(bos)
        ids.extend(encoding.ids)
    return np.array(ids, dtype=np.int64)


def unigram_entropy(train, held):
    """Cross-entropy in nats of the training unigram distribution (add-one) on the held-out stream."""
    counts = np.bincount(train, minlength=VOCAB) + 1.0
    return float(-np.log(counts / counts.sum())[held].mean())


@torch.no_grad()
def loss_of(model, stream):
    """Mean next-token loss in nats over non-overlapping windows of CONTEXT tokens."""
    windows = torch.from_numpy(stream[: len(stream) // CONTEXT * CONTEXT].reshape(-1, CONTEXT))
    total, count = 0.0, 0
    for batch in windows.split(BATCH):
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
        total += F.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1), reduction="sum").item()
        count += batch[:, 1:].numel()
    return total / count


def learning_rate(step, steps, peak):
    warmup = min(100, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    t = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t)))


def train_model(config, seed, stream, steps, peak):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = LlamaForCausalLM(LlamaConfig(**COMMON, **config)).float()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        foreach=True,
    )
    # One epoch is a shuffle of the stream's windows, cut at an offset that is new in every epoch.
    order, shown, start = [], 0.0, time.time()
    model.train()
    for step in range(steps):
        if len(order) < BATCH:
            offset = int(rng.integers(CONTEXT))
            starts = np.arange(offset, len(stream) - CONTEXT, CONTEXT)
            order = rng.permutation(starts).tolist()
        batch = torch.from_numpy(np.stack([stream[i : i + CONTEXT + 1] for i in (order.pop() for _ in range(BATCH))]))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shown += loss.item()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {shown / 100:.4f} {time.time() - start:.0f}s", flush=True)
            shown = 0.0
    return model.eval(), time.time() - start


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--goroot", default=None, help="default: go env GOROOT")
    parser.add_argument("--out", type=pathlib.Path, default=here.parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    goroot = args.goroot or subprocess.check_output(["go", "env", "GOROOT"], text=True).strip()
    go_version = (pathlib.Path(goroot) / "VERSION").read_text().split()[0]
    training, heldout = corpus.collect(goroot)
    excerpt = corpus.heldout_excerpt(heldout, HELDOUT_BYTES)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "heldout.txt").write_text(excerpt, encoding="utf-8", newline="\n")
    tokenizer = train_tokenizer(training)
    train_ids, held_ids = token_stream(tokenizer, training), token_stream(tokenizer, heldout)
    excerpt_ids = np.array(tokenizer.encode(excerpt).ids)
    unigram = unigram_entropy(train_ids, held_ids)
    counts = collections.OrderedDict(
        training_documents=len(training),
        training_tokens=len(train_ids),
        heldout_documents=len(heldout),
        heldout_tokens=len(held_ids),
        heldout_txt_tokens=len(excerpt_ids),
    )
    print(dict(counts), f"unigram {unigram:.4f} nats", flush=True)

    for name in args.models:
        spec = MODELS[name]
        model, seconds = train_model(spec["config"], spec["seed"], train_ids, args.steps, args.lr)
        parameters = sum(p.numel() for p in model.parameters())
        # The losses recorded are those of the weights as saved: rounded to bf16, computed in float32.
        model = model.to(torch.bfloat16)
        folder = args.out / name
        for old in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
            old.unlink(missing_ok=True)
        model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0)
        model.save_pretrained(folder, max_shard_size=spec["max_shard_size"])
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, model_max_length=CONTEXT
        ).save_pretrained(folder)
        model = model.float()
        record = dict(
            go=go_version,
            torch=torch.__version__.split("+")[0],
            transformers=transformers.__version__,
            **counts,
            parameters=parameters,
            seed=spec["seed"],
            steps=args.steps,
            tokens_per_step=BATCH * CONTEXT,
            peak_learning_rate=args.lr,
            unigram_cross_entropy=round(unigram, 4),
            heldout_loss=round(loss_of(model, held_ids), 4),
            heldout_txt_loss=round(loss_of(model, excerpt_ids), 4),
            window=CONTEXT,
        )
        (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
        print(name, f"{seconds:.0f}s", json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
