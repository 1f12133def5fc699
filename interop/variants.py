"""Writes variants of a checkpoint that differ from it in config.json only: variants.py SRC OUT.

The weights stay, so the models are worse, but they are valid checkpoints whose logits the engine defines:

    OUT/llama3     RoPE type llama3, with the three bands (kept, blended, divided) all populated, in the config form of
                   transformers 4: rope_theta and rope_scaling at top level, torch_dtype
    OUT/linear     RoPE type linear
    OUT/mistral    the Mistral family, without sliding window
"""

import json
import pathlib
import shutil
import sys


def main():
    src, out = map(pathlib.Path, sys.argv[1:])
    config = json.loads((src / "config.json").read_text())
    theta = config["rope_parameters"]["rope_theta"]

    llama3 = {k: v for k, v in config.items() if k not in ("rope_parameters", "dtype")}
    llama3["torch_dtype"] = config["dtype"]
    llama3["rope_theta"] = theta
    llama3["rope_scaling"] = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    linear = dict(config, rope_parameters={"rope_type": "linear", "rope_theta": theta, "factor": 2.0})
    mistral = {k: v for k, v in config.items() if k not in ("attention_bias", "mlp_bias", "pretraining_tp")}
    mistral.update(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=None)

    for name, changed in (("llama3", llama3), ("linear", linear), ("mistral", mistral)):
        shutil.copytree(src, out / name, ignore=shutil.ignore_patterns("golden"))
        (out / name / "config.json").write_text(json.dumps(changed, indent=2) + "\n")


if __name__ == "__main__":
    main()
