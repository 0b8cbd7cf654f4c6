"""Writes a tiny Llama with random weights beside a copy of a tokenizer.

Usage:
    python3 tests/peer/random_llama.py TOKENIZER_DIR OUT --vocab-size 512
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main() -> None:
    parser = argparse.ArgumentParser(description="A random Llama with a tokenizer.")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab-size", type=int, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=arguments.vocab_size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(arguments.out)
    shutil.copy(arguments.tokenizer / "tokenizer.json", arguments.out)


if __name__ == "__main__":
    main()
