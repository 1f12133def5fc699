"""Makes the tokenizers and golden ids of this folder with Hugging Face tokenizers.

    python make.py        (needs the package tokenizers, and a Go distribution for the training text)

NAME.json      small tokenizers, one for each family, trained on the Go distribution's documentation
lines.bin.gz   10,000 lines of mixed text: per line its length in bytes as a uvarint, then its UTF-8
NAME.sums      per line the CRC-32, little-endian, of its ids with special tokens (4 bytes each,
               little-endian) followed by the text that they decode to
ids.json.gz    {NAME: ids of the first lines, without special tokens}
splits.json    how single regular expressions split some texts
variants.json.gz  ids and decoded texts of some lines for the model of one family with other components

The trainer breaks ties by the order of a hash map: other runs give other tokenizers, as good, and all
files belong together.
"""

import glob
import gzip
import json
import os
import random
import struct
import subprocess
import zlib

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
LINES = 10_000
SHOWN = 200

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
POSSESSIVE = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
              r"|\s*[\r\n]|\s+(?!\S)|\s")


def corpus():
    root = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip()
    files = sorted(glob.glob(root + "/src/*/doc.go") + glob.glob(root + "/src/*/*/doc.go") +
                   glob.glob(root + "/src/fmt/*.go"))
    out = []
    for f in files:
        with open(f, encoding="utf-8") as h:
            out += h.read().splitlines(keepends=True)
    return out + [w + "\n" for w in WORDS * 20]


WORDS = """the of and function return tokenizer value error attention latent matrix don't It's WE'LL they've
I'm you'd isn't HELLO World camelCase snake_case HTTPServer x1 naïve café Straße ÜBER façade señor Zürich
привет мир Москва Καλημέρα κόσμε ὀδυσσεύς שלום עולם مرحبا العالم नमस्ते दुनिया বাংলা தமிழ் ไทย ภาษา 日本語 テスト
漢字 中文 测试 你好世界 한국어 안녕하세요 ქართული հայերեն አማርኛ ខ្មែរ မြန်မာ ᏣᎳᎩ ǅ ǆ ﬁ ﬂ ½ ² Ⅷ ⅷ ① ௧௨ ٣٤ ४५ ６７ ª º
Ⱥ ẞ ſ K Å İ ı ŉ ǰ Ω ℌ ㎏ ｶﾞ 각""".split()
CONTRACTIONS = ["'s", "'S", "'T", "'re", "'RE", "'Ve", "'m", "'LL", "'lL", "'d", "'D", "'ſ", "’s", "'x", "''", "'"]
SPACES = [" ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\u00a0", "\u2003", "\u3000", "\u0085",
          "\u2028", "\u200b", "\ufeff", "\v", "\f", "\x1c", "\u180e", "\u1680", "        "]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "👍🏽", "❤️", "🏳️‍🌈", "1️⃣", "🫠", "👨🏿‍🚀", "☃"]
MARKS = ["\u0301", "\u0308", "\u0323", "\u0327", "\u0345", "\u0334", "\u20dd", "\u093c", "\u0f71\u0f72", "\u302a", "\u05b0",
         "\u1dfa", "\u1ace"]
SPECIALS = ["<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>",
            "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<pad>", "<mask>", "<0x0A>", "<0xE2>", "Straße", "yesterday",
            "YESTERDAY", "foo", "foobar", "foobarbaz", "ﬁn", "fin", "sep", "    ", "▁", "▁▁", "\u0120", "x</s>y", "<|", "|>"]
CODE = ["if err != nil {", "return x[i:j], nil", "for (int i = 0; i < n; ++i)", "def f(a, *b, **c):", "#include <stdio.h>",
        "x ^= y << 13;", "a && b || !c", "\\d+\\.\\d*", "{\"key\": [1, 2.5e-3, null]}", "<div class=\"a-b\">", "SELECT * FROM t;",
        "0x7fFF_abcd", "1_000_000", "3.14159", "// --- TODO ---", "/* ** */", "http://a.b/c?d=e&f=%20#g", "$HOME/.bashrc", "->"]
BLOCKS = [(0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x530, 0x6FF), (0x900, 0xDFF), (0xE00, 0x11FF),
          (0x1200, 0x1DFF), (0x1E00, 0x22FF), (0x2300, 0x2FFF), (0x3000, 0x33FF), (0x3400, 0x9FFF), (0xA000, 0xABFF),
          (0xAC00, 0xD7FF), (0xE000, 0xF8FF), (0xF900, 0xFFFF), (0x10000, 0x11FFF), (0x12000, 0x16FFF), (0x1B000, 0x1DFFF),
          (0x1E000, 0x1FFFF), (0x20000, 0x323AF), (0xE0000, 0xE01EF), (0x0, 0x1F), (0x7F, 0x9F)]


def mixed_line(rng):
    def char():
        a, b = rng.choice(BLOCKS)
        return chr(rng.randint(a, b))

    kinds = [
        lambda: rng.choice(WORDS), lambda: rng.choice(WORDS), lambda: rng.choice(WORDS) + rng.choice(CONTRACTIONS),
        lambda: rng.choice(SPACES), lambda: rng.choice(SPACES) * rng.randint(1, 6), lambda: " ", lambda: " ", lambda: " ",
        lambda: rng.choice(EMOJI), lambda: rng.choice(SPECIALS), lambda: rng.choice(SPECIALS) + rng.choice(SPACES),
        lambda: rng.choice(CODE), lambda: str(rng.randint(0, 10 ** rng.randint(1, 9))),
        lambda: rng.choice("aeouAEOcnñäöüαя각") + "".join(rng.choices(MARKS, k=rng.randint(1, 4))),
        lambda: "".join(char() for _ in range(rng.randint(1, 5))),
        lambda: rng.choice("!?.,;:-_/\\()[]{}<>@#$%^&*+=|~`\"'…—«»¿€") * rng.randint(1, 4),
        lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCXYZ", k=rng.randint(1, 12))),
    ]
    if rng.random() < 0.005:  # more marks in a row than some libraries carry
        return "e" + "".join(rng.choices(MARKS, k=rng.randint(28, 70))) + "x"
    return "".join(rng.choice(kinds)() for _ in range(rng.randint(1, 14)))


def bpe_train(tok, size, lines, specials, alphabet=(), limit=None):
    # limit_alphabet counts the initial alphabet too.
    args = {} if limit is None else {"limit_alphabet": limit}
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=list(alphabet),
                                  show_progress=False, **args)
    tok.train_from_iterator(lines, trainer)


def byte_level(size, lines, specials, pre, normalizer=None, **model):
    tok = Tokenizer(models.BPE(**model))
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    bpe_train(tok, size, lines, specials, pre_tokenizers.ByteLevel.alphabet())
    return tok


def split_bytes(*expressions):
    splits = [pre_tokenizers.Split(Regex(e), "isolated") for e in expressions]
    return pre_tokenizers.Sequence(splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2(lines):
    tok = byte_level(900, lines, ["<|endoftext|>"], pre_tokenizers.ByteLevel(add_prefix_space=False))
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    out = json.loads(tok.to_str())
    out["model"]["merges"] = [" ".join(m) for m in out["model"]["merges"]]  # the older form
    del out["model"]["type"], out["model"]["ignore_merges"]  # which had neither
    return out


def llama3(lines):
    tok = byte_level(1100, lines, [], split_bytes(LLAMA3))
    tok.add_special_tokens([AddedToken(t, special=True) for t in
                            ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")])
    bos = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos)])])
    out = json.loads(tok.to_str())
    # Words that no merges lead to: with ignore_merges they are found all the same.
    merges = [m for m in out["model"]["merges"] if hash_of(m) % 40]
    have = set()
    keep = []
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    for a, b in merges:
        if (a in alphabet or a in have) and (b in alphabet or b in have):
            have.add(a + b)
            keep.append([a, b])
    out["model"]["merges"] = keep
    out["model"]["ignore_merges"] = True
    return out


def hash_of(pair):
    return zlib.crc32(" ".join(pair).encode())


def qwen2(lines):
    tok = byte_level(1000, lines, [], split_bytes(QWEN2), normalizers.NFC(),
                     continuing_subword_prefix="", end_of_word_suffix="")
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in
                            ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<tool_call>", "</tool_call>")])
    tok.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return json.loads(tok.to_str())


def smollm(lines):
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return json.loads(byte_level(900, lines, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], pre).to_str())


def deepseek(lines):
    pre = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
         pre_tokenizers.Split(Regex(r"[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
         pre_tokenizers.Split(Regex(DEEPSEEK), "isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return json.loads(byte_level(800, lines, ["<|endoftext|>"], pre, normalizers.Sequence([])).to_str())


def gpt4o(lines):
    return json.loads(byte_level(700, lines, ["<|endoftext|>"], split_bytes(GPT4O)).to_str())


def possessive(lines):
    tok = byte_level(700, lines, ["<s>"], split_bytes(POSSESSIVE), normalizers.NFKD())
    return json.loads(tok.to_str())


def sentencepiece(lines, size, bytes_=True, limit=160):
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<unk>", "<s>", "</s>"]
    if bytes_:
        specials += ["<0x%02X>" % b for b in range(256)]
    bpe_train(tok, size, lines, specials, limit=limit)
    out = json.loads(tok.to_str())
    out["added_tokens"] = [t for t in out["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(out))


def template(tok, before, behind=""):
    names = [t for t in (before, behind) if t]
    tok.post_processor = processors.TemplateProcessing(
        single=" ".join(filter(None, [before, "$A", behind])), pair="$A $B:1",
        special_tokens=[(t, tok.token_to_id(t)) for t in names])


def llama2(lines):
    tok = sentencepiece(lines, 1100)
    tok.pre_tokenizer = None
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    template(tok, "<s>")
    return json.loads(tok.to_str().replace('"pre_tokenizer":{}', '"pre_tokenizer":null'))


def mistral(lines):
    tok = sentencepiece(lines, 1000)
    tok.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens(["[INST]", "[/INST]"])
    template(tok, "<s>", "</s>")
    return json.loads(tok.to_str())


def gaps(lines):
    """SentencePiece without all bytes: unknown tokens and bytes side by side, words split at spaces."""
    tok = sentencepiece(lines, 600, bytes_=False, limit=70)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(),
                                                 pre_tokenizers.Punctuation("merged_with_previous")])
    tok.decoder = decoders.Metaspace()
    out = json.loads(tok.to_str())
    vocab = out["model"]["vocab"]
    for b in list(range(0x80, 0xC0)) + [0xC3, 0xC4, 0xC5, 0xD0, 0xE2, 0xE3]:
        vocab.setdefault("<0x%02X>" % b, len(vocab))
    out["model"]["fuse_unk"] = False
    return out


def clip(lines):
    tok = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "),
                                           normalizers.Lowercase()])
    word = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(word), "removed", invert=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=alphabet, end_of_word_suffix="</w>")
    tok.train_from_iterator(lines, trainer)
    return json.loads(tok.to_str())


def flags(lines):
    """Every flag of added tokens, behind a normalizer that changes them."""
    pre = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[\r\n]"), "contiguous"), pre_tokenizers.Split("-", "merged_with_next"),
        pre_tokenizers.Split(Regex(r"[aeiou]{2,}\d?"), "merged_with_previous"), pre_tokenizers.Digits(),
        pre_tokenizers.ByteLevel(add_prefix_space=True)])
    tok = byte_level(800, lines, [], pre, normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(left=True, right=False),
         normalizers.Replace(Regex("(?<=a)b+"), "B")]))
    tok.add_tokens([
        AddedToken("yesterday", single_word=True, normalized=True), AddedToken("foo", lstrip=True, normalized=False),
        AddedToken("foobar", rstrip=True, normalized=False), AddedToken("foobarbaz", single_word=True, normalized=False),
        AddedToken("ﬁn", normalized=True), AddedToken("Straße", lstrip=True, rstrip=True, normalized=True),
        AddedToken("sep", single_word=True, lstrip=True, rstrip=True, normalized=False), AddedToken("    ", normalized=False),
        AddedToken("é", normalized=True), AddedToken("|>", normalized=False, rstrip=True), AddedToken("nil", normalized=True)])
    tok.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True),
                            AddedToken("<pad>", rstrip=True, normalized=True, special=True),
                            AddedToken("</s>", normalized=False, single_word=True, special=True),
                            AddedToken("<|endoftext|>", normalized=False, special=True)])
    return json.loads(tok.to_str())


FAMILIES = [gpt2, llama3, qwen2, smollm, deepseek, gpt4o, possessive, llama2, mistral, gaps, clip, flags]


# Where Oniguruma has its own ways: classes, anchors, intervals, options, case folding.
EXPRESSIONS = [
    GPT4O, DEEPSEEK, POSSESSIVE, LLAMA3,
    r"\w+", r"[\w]+", r"\W+", r"\d", r"\h+", r"\s", r"[^\S]", r"\p{^L}+", r"\P{^L}", r"[[:punct:]]", r"\p{Punct}", r"[[:^alpha:]]+",
    r"[[:word:]]", r"\p{Word}", r"\p{Han}+", r"\p{uppercase letter}", r"[\p{L}&&[^a-z]]+", r"[a-z&&\p{L}&&[^aeiou]]", r"[]a]", r"[^]a]",
    r"[a-]", r"[-a]", r"[a-c-e]", r"[!--]", r"[\]\-]", r"[a\x41é\u00e8\x{1F600}]", r"[[a-m][0-4]x]", r"[^[^a-z]]",
    r"^", r"$", r"^.", r".$", r"\A.", r".\z", r".\Z", r"\b", r"\B", r"\b\w", r"(?m:.)+", r".+", r"\R", r"\O", r"\N+",
    r"a{2}", r"a{,2}", r"a{1,}", r"a{1,2}?", r"a{2}?", r"a{1,2}+b", r"a{", r"a{,}", r"a{x}", r"}", r"]", r"(?:)", r"", r"a*", r"a*?",
    r"a++b", r"a?+a", r"(?>a+)b", r"(?<=a)b", r"(?<!a)b", r"(?<=a|bc)d", r"(?=a)", r"(?!a).", r"(?<x>a)(b)?", r"(?#no)a",
    r"(?i:s)", r"(?i:k)", r"(?i)å", r"(?i:[a-z]+)", r"(?i:[^k])", r"(?i:ǆ)", r"(?i:Ω)", r"a(?i)b|c", r"(?i)a(?-i)b", r"(?i:\p{Lu})",
    r"(?i:'S|'T|'RE)", r"\.\*\+\-\&\~\#", r"\t|\n|\r|\f|\v|\a|\e", r"(a|ab)(c|bcd)", r"(?:a|ab)+?c", r"x*(?!\S)",
]
TEXTS = ["", "a", "aab abc\nabcd\r\n", "Aaaa'S it's 'tis K\u212a s\u017f åÅ\u212b ωΩ\u2126 ǅǆǄ", "\n\nx \n", "x-y]z[é è \U0001f600 !\"#,-.",
         "²³¹ ¼ 0٣½Ⅷ _ªº\u0301", "ⅧĳØ漢字かなカナ한글 \u00a0\u0085\u2028\u2029\u200b\ufeff\u3000", "\t\v\f\x07\x1b{x}{,}", "bcd abcabcd aXbBcC .*+-&~#"]


def added(content, **flags):
    return {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **flags}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
STRIP_LEFT = {"type": "Strip", "strip_left": True, "strip_right": False}
# Components that the families do not have, each with the family whose model it is put around.
VARIANTS = [
    ("llama2", {"pre_tokenizer": {"type": "Whitespace"}, "normalizer": {"type": "NFD"}, "decoder": None}),
    ("llama2", {"pre_tokenizer": {"type": "CharDelimiterSplit", "delimiter": "e"}, "normalizer": None,
                "decoder": sequence("decoders")}),
    ("llama2", {"pre_tokenizer": META, "normalizer": None, "decoder": META}),
    ("llama2", {"pre_tokenizer": {**META, "prepend_scheme": "never"}, "normalizer": None,
                "decoder": {**META, "prepend_scheme": "never"}}),
    ("llama2", {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}, "normalizer": None,
                "decoder": {"type": "BPEDecoder", "suffix": "e"}}),
    ("llama2", {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": False, "prepend_scheme": "never"},
                "normalizer": STRIP_LEFT, "decoder": sequence("decoders", {"type": "ByteFallback"}, {"type": "Fuse"})}),
    # prepend_scheme "first" behind what moves the beginning of the text.
    ("llama2", {"pre_tokenizer": {**META, "prepend_scheme": "first"}, "normalizer": STRIP_LEFT}),
    ("llama2", {"pre_tokenizer": {**META, "prepend_scheme": "first"}, "normalizer": sequence(
        "normalizers", {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "x"})}),
    ("llama2", {"pre_tokenizer": sequence(
        "pretokenizers", {"type": "Split", "pattern": {"Regex": "(?<=x)"}, "behavior": "Isolated", "invert": False},
        {**META, "prepend_scheme": "first"}),
        "normalizer": sequence("normalizers", {"type": "NFC"}, {"type": "Prepend", "prepend": "xy"})}),
    ("llama2", {"pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, {**META, "prepend_scheme": "first"}),
                "normalizer": {"type": "Replace", "pattern": {"Regex": "^\\w"}, "content": "<>"},
                "added_tokens": [added("<unk>"), added("<s>", special=True), added("the", lstrip=True, rstrip=True)]}),
    ("llama2", {"pre_tokenizer": sequence("pretokenizers", {**BYTES, "add_prefix_space": True}, {**META, "prepend_scheme": "first"}),
                "normalizer": None}),
    ("llama2", {"pre_tokenizer": {**META, "prepend_scheme": "first"}, "normalizer": {"type": "ByteLevel"}}),
    ("smollm", {"pre_tokenizer": BYTES, "normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}),
    ("smollm", {"pre_tokenizer": sequence("pretokenizers", {"type": "Punctuation"}, BYTES), "normalizer": {"type": "NFKC"}}),
    ("smollm", {"pre_tokenizer": sequence("pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"}, BYTES)}),
    ("smollm", {"pre_tokenizer": sequence(
        "pretokenizers", {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False}, BYTES)}),
    ("smollm", {"pre_tokenizer": sequence(
        "pretokenizers", {"type": "Split", "pattern": {"Regex": "a*"}, "behavior": "MergedWithNext", "invert": True}, BYTES)}),
    ("smollm", {"pre_tokenizer": None, "normalizer": {"type": "ByteLevel"},
                "added_tokens": [added("é", normalized=True), added(" ", normalized=True, single_word=True), added("e ")]}),
    ("smollm", {"decoder": sequence("decoders", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}, {
        "type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Strip", "content": "a", "start": 2, "stop": 0})}),
    # White space that two tokens want, and a token within the white space of another.
    ("smollm", {"added_tokens": [added("foo", rstrip=True), added("   "), added("bar", lstrip=True), added("\n"),
                                 added("sep", single_word=True, lstrip=True, rstrip=True)]}),
]
VARIANT_TEXTS = ["foo     bar", "foo   \n   bar", "foo \n\nsep  sep xsep sepx  sep", " a é  É e\u0301 x", "the\u3000the <s>the x<s> the",
                 "\u0344a", "ǰ x", "Ａbc １２３", "▁ ▁▁a▁", "x ", " ", "\u00e9e ", "¡a!?b--c…", "a\u0085b\u200bc_d²"]


def uvarint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def main():
    text = corpus()
    rng = random.Random(1)
    lines = []
    while len(lines) < LINES:
        line = mixed_line(rng)
        if not any(0xD800 <= ord(c) < 0xE000 for c in line):
            lines.append(line)
    with open(os.path.join(HERE, "lines.bin.gz"), "wb") as f:
        raw = b"".join(uvarint(len(s)) + s for s in (line.encode() for line in lines))
        f.write(gzip.compress(raw, 9, mtime=0))
    with open(os.path.join(HERE, "splits.json"), "w", encoding="utf-8") as f:
        splits = [(e, pre_tokenizers.Split(Regex(e), "isolated")) for e in EXPRESSIONS]
        json.dump({"texts": TEXTS, "splits": [
            {"expression": e, "pieces": [[p for p, _ in s.pre_tokenize_str(t)] for t in TEXTS]} for e, s in splits]},
            f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")
    shown = {}
    for family in FAMILIES:
        name = family.__name__
        with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(family(text), f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        tok = Tokenizer.from_file(f.name)
        sums = bytearray()
        shown[name] = []
        for line in lines:
            ids = tok.encode(line, add_special_tokens=True).ids
            decoded = tok.decode(ids, skip_special_tokens=False).encode()
            sums += struct.pack("<I", zlib.crc32(struct.pack("<%dI" % len(ids), *ids) + decoded))
            if len(shown[name]) < SHOWN:
                shown[name].append(tok.encode(line, add_special_tokens=False).ids)
        with open(os.path.join(HERE, name + ".sums"), "wb") as f:
            f.write(sums)
        print(name, tok.get_vocab_size())
    variants = []
    for family, components in VARIANTS:
        with open(os.path.join(HERE, family + ".json"), encoding="utf-8") as f:
            whole = json.load(f)
        whole.update(components)
        tok = Tokenizer.from_str(json.dumps(whole))
        results = []
        for text in VARIANT_TEXTS + lines[:40]:
            ids = tok.encode(text, add_special_tokens=False).ids
            results.append({"text": text, "ids": ids, "decoded": tok.decode(ids, skip_special_tokens=False)})
        variants.append({"family": family, "components": components, "results": results})
    with open(os.path.join(HERE, "variants.json.gz"), "wb") as f:
        f.write(gzip.compress(json.dumps(variants, separators=(",", ":")).encode(), 9, mtime=0))
    with open(os.path.join(HERE, "ids.json.gz"), "wb") as f:
        f.write(gzip.compress(json.dumps(shown, separators=(",", ":")).encode(), 9, mtime=0))


main()
