"""Writes the goldens of testdata/: python golden.py [--models gqa mha].

DIR/NAME/golden/ids.npy            int32 [2, 96]: held-out text, sequences led by BOS
DIR/NAME/golden/logits.npy         float32 [2, 96, vocab]: transformers' logits for them
DIR/gqa/golden/tokenizer.jsonl     {"text": ..., "ids": [...]} a line: what the tokenizers library gives

The models are the folders as saved (bf16), computed in float32.
"""

import argparse
import json
import pathlib
import random

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

SEQUENCES, LENGTH = 2, 96

# Cases that byte-level BPE and the GPT-2 splitting pattern are easily got wrong on.
CASES = [
    "",
    " ",
    "  ",
    "   a   b",
    "\n",
    "\n\n\n",
    " \n \t\n  x",
    "\t\tif err != nil {\n\t\t\treturn err\n\t\t}\n",
    "trailing space ",
    "trailing spaces   ",
    "\r\nCR LF\r\n",
    "I'm you're he'll we've they'd it's don't 'tis",
    "I'M YOU'RE HE'LL",
    "it\u2019s curly",
    "12345678901234567890",
    "3.14159e-10 0x1F 1_000_000 v1.26.8",
    "\u00bd \u00b2 \u2167 \u0661\u0662\u0663 \uff11\uff12",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m",
    "\u4e2d\u6587\u5b57\u7b26 \u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4",
    "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u05e2\u05d1\u05e8\u05d9\u05ea \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940 \u1019\u103c\u1014\u103a\u1019\u102c",
    "emoji \U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\u00a0no-break\u00a0spaces\u2003em\u200bzero\u3000wide\u2028line\u2029para\x85nel",
    "\ufeffbom \ufffd replacement \U0010ffff last \ue000 private",
    "".join(map(chr, range(32))),
    "".join(map(chr, range(127, 160))),
    "a\x00b\x00\x00c",
    "!!! ??? ... --- *** ((())) [[]] {{}} <<>> &&|| :=",
    "https://go.dev/ref/spec#Struct_types?a=b&c=%20d",
    "snake_case camelCase UPPER_CASE kebab-case",
    "<|endoftext|>",
    "a<|endoftext|>b",
    "a <|endoftext|> b<|endoftext|><|endoftext|>",
    "<|endoftext| > <|endoftext",
    "x" * 300,
    " " * 130 + "y",
    "ab" * 100,
    "\u0130stanbul \u1e9e\u00df \ufb01 \u01c5 \u02b0 \u2c60",
    "\u0301\u0301 combining first",
]
ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz     ",
    "ABCxyz0123456789 '.,;:\n\t",
    "0123456789 ",
    " \t\n\r\v\f\u00a0\u2003\u3000x",
    "{}[]()<>!@#$%^&*-+=|\\/~`\"'",
    "\u00e0\u00e9\u00ee\u00f5\u00fc\u0151\u0142\u0111\u00f1 \u03b1\u03b2\u03b3 \u0436\u0434\u044f",
    "\u4e00\u4e8c\u4e09\u5341\u3042\u3044\u3046\uac00\ub098 a1",
    "\U0001f600\U0001f680\U0001f9e0\u2764\ufe0f\u200d x",
]


def texts(heldout):
    rng = random.Random(7)
    found = list(CASES)
    lines = [line for line in heldout.split("\n") if line.strip()]
    found += rng.sample(lines, 120)
    for alphabet in ALPHABETS:
        found += ["".join(rng.choices(alphabet, k=rng.randint(1, 60))) for _ in range(15)]
    everything = "".join(ALPHABETS)
    found += ["".join(rng.choices(everything, k=rng.randint(1, 80))) for _ in range(40)]
    # Any scalar value, assigned or not; surrogates are no characters.
    scalars = [*range(0xD800), *range(0xE000, 0x110000)]
    found += ["".join(map(chr, rng.choices(scalars, k=rng.randint(1, 12)))) for _ in range(25)]
    found += ["".join(map(chr, rng.choices(range(0x3000), k=rng.randint(1, 24)))) for _ in range(25)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["gqa", "mha"])
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    heldout = (args.dir / "heldout.txt").read_text(encoding="utf-8")
    for name in args.models:
        folder = args.dir / name
        golden = folder / "golden"
        golden.mkdir(exist_ok=True)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        bos = tokenizer.token_to_id("<|endoftext|>")
        # Text from the middle of heldout.txt, so that the sequences share no document.
        paragraphs = heldout.split("\n\n")
        stream = tokenizer.encode("\n\n".join(paragraphs[len(paragraphs) // 2 :])).ids
        pieces = [stream[i * 1000 : i * 1000 + LENGTH - 1] for i in range(SEQUENCES)]
        ids = np.array([[bos, *piece] for piece in pieces], dtype=np.int32)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(ids).long(), use_cache=False).logits.numpy()
        assert logits.dtype == np.float32
        np.save(golden / "ids.npy", ids)
        np.save(golden / "logits.npy", logits)
        print(name, ids.shape, logits.shape, f"logits {logits.min():.3f} to {logits.max():.3f}")
    tokenizer = Tokenizer.from_file(str(args.dir / "gqa" / "tokenizer.json"))
    with open(args.dir / "gqa" / "golden" / "tokenizer.jsonl", "w", encoding="utf-8", newline="\n") as f:
        for text in texts(heldout):
            f.write(json.dumps({"text": text, "ids": tokenizer.encode(text).ids}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
