"""Loads a model directory written by mha2mla with an implementation that is not ours.

Usage:
    python3 tests/golden/check_export.py DIR --tokens "1 403 407 261 378 432"
    python3 tests/golden/check_export.py DIR --golden tests/golden/models/gqa_tied.safetensors

DIR with original attention is loaded by transformers, one with an "mha2mla" block in its
config.json by mla_reference.py. Prints the number of targets and the mean next-token loss in nats.
--golden takes its tensor "tokens", [T + 1] or [B, T + 1]. Exit status 1 if tensors are missing,
left over or misshapen, 2 if the arguments do not fit the model. Not part of CI.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import load_file
from torch import Tensor

import mla_reference as mla
from golden_io import deterministic


def leave(status: int, text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(status)


def read_tokens(arguments: argparse.Namespace, vocab_size: int) -> Tensor:
    """int64 [B, T + 1]"""
    if arguments.golden:
        tokens = load_file(arguments.golden)["tokens"].long()
    else:
        tokens = torch.tensor([int(word) for word in arguments.tokens.split()])
    tokens = tokens if tokens.dim() == 2 else tokens[None]
    if tokens.shape[1] < 2:
        leave(2, "tokens: at least 2 are needed for a next-token loss")
    if int(tokens.min()) < 0 or int(tokens.max()) >= vocab_size:
        leave(2, f"tokens: {int(tokens.max())} is not below the vocabulary's {vocab_size}")
    return tokens


def mla_parameter_shapes(shape: mla.Shape, d_ffn: int) -> dict[str, tuple[int, ...]]:
    """The tensors an MLA directory has, those of no rows left out."""
    assert shape.pairs is not None
    d, e, n_kv, r = shape.d_model, shape.head_dim, shape.n_kv_heads, shape.pairs.shape[-1]
    q, latent = shape.n_heads * e, n_kv * shape.d_kv
    read = latent // 2 if shape.svd == "split" else latent
    of_layer = {
        "input_layernorm": (d,),
        "self_attn.q_proj": (q, d),
        "self_attn.k_r_proj": (n_kv * 2 * r, d),
        "self_attn.kv_proj.down_kv": (latent, d),
        "self_attn.kv_proj.up_k": (n_kv * (e - 2 * r), read),
        "self_attn.kv_proj.up_v": (n_kv * e, read),
        "self_attn.o_proj": (d, q),
        "post_attention_layernorm": (d,),
        "mlp.gate_proj": (d_ffn, d),
        "mlp.up_proj": (d_ffn, d),
        "mlp.down_proj": (d, d_ffn),
    }
    shapes = {"model.embed_tokens.weight": (shape.vocab_size, d), "model.norm.weight": (d,)}
    if not shape.tied_head:
        shapes["lm_head.weight"] = (shape.vocab_size, d)
    for layer in range(shape.n_layers):
        shapes |= {f"model.layers.{layer}.{k}.weight": s for k, s in of_layer.items() if s[0] > 0}
    return shapes


def check_pairs(shape: mla.Shape, rope_pairs: int) -> None:
    assert shape.pairs is not None
    expected = (shape.n_layers, shape.n_kv_heads, rope_pairs)
    if tuple(shape.pairs.shape) != expected:
        leave(1, f"rope_pairs: {tuple(shape.pairs.shape)}, config.json says {expected}")
    ascending = bool((shape.pairs.diff(dim=-1) > 0).all())
    inside = 0 <= int(shape.pairs.min()) and int(shape.pairs.max()) < shape.head_dim // 2
    if not (ascending and inside):
        leave(1, f"rope_pairs: rows must ascend within 0..{shape.head_dim // 2 - 1}")


def mla_loss(directory: Path, config: dict, arguments: argparse.Namespace) -> tuple[float, int]:
    try:
        shape, weights = mla.load_model(directory)
    except KeyError as missing:
        leave(1, f"{directory}: no {missing}")
    check_pairs(shape, config["mha2mla"]["rope_pairs"])
    expected = mla_parameter_shapes(shape, config["intermediate_size"])
    found = {name: tuple(w.shape) for name, w in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            leave(1, f"{name}: expected {expected.get(name)}, found {found.get(name)}")
    tokens = read_tokens(arguments, shape.vocab_size)
    with torch.no_grad():
        logits = mla.forward(shape, weights, tokens[:, :-1])
    return float(mla.next_token_loss(logits, tokens)), tokens[:, 1:].numel()


def transformers_loss(
    directory: Path, config: dict, arguments: argparse.Namespace
) -> tuple[float, int]:
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            leave(1, f"{directory}: {kind.replace('_', ' ')}: {sorted(info[kind])}")
    tokens = read_tokens(arguments, config["vocab_size"])
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits
    return float(mla.next_token_loss(logits, tokens)), tokens[:, 1:].numel()


def main() -> None:
    parser = argparse.ArgumentParser(description="Loss of an exported model by another program.")
    parser.add_argument("directory", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", help="token ids, separated by spaces")
    source.add_argument("--golden", type=Path, help="safetensors file with a tensor 'tokens'")
    arguments = parser.parse_args()
    deterministic()
    config = json.loads((arguments.directory / "config.json").read_text())
    is_mla = "mha2mla" in config
    loss, n_targets = (mla_loss if is_mla else transformers_loss)(
        arguments.directory, config, arguments
    )
    reader = "mla_reference" if is_mla else "transformers"
    print(f"loss {loss:.6f} nats/token over {n_targets} targets ({reader})")


if __name__ == "__main__":
    main()
