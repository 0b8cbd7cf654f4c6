"""Writes what mla_reference.py gives for models of the shared form, with and without latent_norm.

Usage, from the repository's root, after make_models.py:
    python3 tests/golden/mla/make_shared_golden.py

Writes, for each case below, a model of random weights as an MLA directory, models/NAME, and
tests/golden/mla/NAME.safetensors with
    tokens int32 [B, T + 1], logits [B, T, V], loss [1], grad.<parameter>
Everything but attention is that of the base. All is computed in float64 from weights rounded to float32.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference

import mla_reference as mla
from golden_io import (
    MODELS_DIR,
    deterministic,
    float32,
    int32,
    random_tokens,
    save_golden,
    seeded,
)

N_SEQUENCES, SEQ_LEN = 2, 19
STD = 0.15  # of attention's weights


@dataclass(frozen=True)
class Case:
    """Slots of every layer, a pair each: ascending, some of them twice."""

    name: str
    base: str
    pairs: tuple[tuple[int, ...], ...]
    latent: int
    latent_norm: bool


CASES = (
    Case("shared_gqa", "gqa_tied", ((0, 0, 1, 3, 3), (0, 1, 2, 2, 3)), 9, False),
    Case("shared_norm_gqa", "gqa_tied", ((0, 1, 1), (2, 3, 3)), 12, True),
    Case("shared_norm_mha", "mha_untied", ((0, 0, 1, 1, 2, 3, 4), (0, 1, 1, 2, 3, 4, 4)), 15, True),
)


def make_model(case: Case, seed: int) -> tuple[mla.Shape, mla.Weights]:
    base, weights = mla.load_model(MODELS_DIR / case.base)
    pairs = torch.tensor(case.pairs).unsqueeze(1)  # [L, 1, P]
    shape = replace(base, pairs=pairs, latent=case.latent, latent_norm=case.latent_norm)
    width_r, width, D = 2 * pairs.shape[-1], base.n_heads * base.head_dim, base.d_model
    rows = {
        "q_proj": (base.n_heads * (width_r + base.head_dim), D),
        "k_r_proj": (width_r, D),
        "kv_proj.down_kv": (case.latent, D),
        "kv_proj.latent_norm": (case.latent,),
        "kv_proj.up_k": (width, case.latent),
        "kv_proj.up_v": (width, case.latent),
    }
    generator = seeded(seed)
    for layer in range(base.n_layers):
        prefix = f"model.layers.{layer}.self_attn."
        for name in ("k_proj", "v_proj"):
            del weights[prefix + name + ".weight"]
        for name, dims in rows.items():
            values = STD * torch.randn(dims, generator=generator, dtype=torch.float64)
            if name == "kv_proj.latent_norm":
                values += 1
            if name != "kv_proj.latent_norm" or case.latent_norm:
                weights[prefix + name + ".weight"] = values
    return shape, {name: w.float().double() for name, w in weights.items()}


def write_case(case: Case, seed: int) -> None:
    shape, weights = make_model(case, seed)
    tokens = random_tokens((N_SEQUENCES, SEQ_LEN + 1), shape.vocab_size, seed)
    logits, loss, gradients = mla.loss_and_gradients(shape, weights, tokens)
    single = mla.forward(shape, {name: w.float() for name, w in weights.items()}, tokens[:, :-1])
    error = float((single.double() - logits).abs().max() / logits.abs().max())
    print(f"{case.name}: loss {float(loss):.4f}, all in float32 differs by {error:.1e}")
    tensors = {"tokens": int32(tokens), "logits": float32(logits), "loss": float32(loss[None])}
    tensors |= {"grad." + name: float32(g) for name, g in gradients.items()}
    save_golden("mla/" + case.name, tensors, f"base={case.base} latent={case.latent}")
    config = json.loads((MODELS_DIR / case.base / "config.json").read_text())
    mla.save_mla(MODELS_DIR / case.name, shape, weights, config)


def main() -> None:
    deterministic()
    for number, case in enumerate(CASES):
        write_case(case, 5000 + number)


if __name__ == "__main__":
    main()
