"""Answers for the tests what Hugging Face tokenizers does: JSON objects in, JSON objects out, a line each.

  {"load": FILE} or {"parse": TEXT}    -> {} or {"error": ...}; the tokenizer for what follows
  {"encode": [TEXT, ...]}              -> {"results": [{"ids", "special", "decoded"} or {"error"}, ...]}
  {"split": PATTERN, "texts": [...]}   -> {"results": [[piece, ...] or null, ...]}, split at matches
"""

import json
import sys

from tokenizers import Regex, Tokenizer, pre_tokenizers

tokenizer = None


def encode(text):
    try:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text, add_special_tokens=True).ids
        return {"ids": ids, "special": special, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
    except BaseException as e:
        return {"error": str(e)}


for line in sys.stdin:
    request = json.loads(line)
    try:
        if "load" in request:
            tokenizer = Tokenizer.from_file(request["load"])
            answer = {}
        elif "parse" in request:
            tokenizer = Tokenizer.from_str(request["parse"])
            answer = {}
        elif "encode" in request:
            answer = {"results": [encode(t) for t in request["encode"]]}
        else:
            split = pre_tokenizers.Split(Regex(request["split"]), "isolated")
            answer = {"results": []}
            for text in request["texts"]:
                try:
                    answer["results"].append([p for p, _ in split.pre_tokenize_str(text)])
                except BaseException:
                    answer["results"].append(None)
    except BaseException as e:
        answer = {"error": str(e)}
    print(json.dumps(answer), flush=True)
