"""Gives a checkpoint a tokenizer of SentencePiece's kind: pieces.py TEXT DIR.

Trained on a text, with as many tokens as the checkpoint's vocabulary has, and written as transformers writes the tokenizers of
Llama 2 and Mistral: bytes for what is unknown, spaces as U+2581, words not split, and as merges every pair of tokens that makes
a token.
"""

import json
import pathlib
import sys

from tokenizers import Tokenizer, models, normalizers, trainers

SPECIAL = ["<unk>", "<s>", "</s>"]


def main():
    text, folder = map(pathlib.Path, sys.argv[1:])
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trainer = trainers.BpeTrainer(vocab_size=size - 256, special_tokens=SPECIAL, limit_alphabet=100, show_progress=False)
    # Line by line: without a pre-tokenizer the whole of a text is one word.
    tokenizer.train_from_iterator(text.read_text().splitlines(), trainer)
    saved = json.loads(tokenizer.to_str())
    pieces = sorted(saved["model"]["vocab"], key=saved["model"]["vocab"].get)[len(SPECIAL) :]
    tokens = SPECIAL + [f"<0x{b:02X}>" for b in range(256)] + pieces
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = []
    for piece in pieces:
        pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += sorted(pairs, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    saved["model"].update(vocab=vocab, merges=merges)
    (folder / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}))


if __name__ == "__main__":
    main()
