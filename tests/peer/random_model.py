"""Writes a tiny model with random weights beside a copy of a tokenizer.

Usage:
    python3 tests/peer/random_model.py TOKENIZER_DIR OUT --vocab-size 512 [--kind qwen3]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers import SmolLM3Config, SmolLM3ForCausalLM

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
SMOLLM3 = {
    "num_hidden_layers": 4,  # the last one without RoPE
    "rope_theta": 10000.0,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama3": (LlamaConfig, LlamaForCausalLM, {"rope_theta": 500000.0, "rope_scaling": LLAMA3}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 24}),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM, SMOLLM3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="A random model with a tokenizer.")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab-size", type=int, required=True)
    parser.add_argument("--kind", choices=KINDS, default="llama")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    make_config, make_model, more = KINDS[arguments.kind]
    keys = {
        "vocab_size": arguments.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # so that attention says something
    }
    config = make_config(**{**keys, **more})
    model = make_model(config)
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(arguments.out)
    shutil.copy(arguments.tokenizer / "tokenizer.json", arguments.out)


if __name__ == "__main__":
    main()
