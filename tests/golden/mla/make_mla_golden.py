"""Writes what mla_reference.py gives for conversions of the tiny models.

Usage, from the repository's root, after make_models.py:
    python3 tests/golden/mla/make_mla_golden.py

Writes tests/golden/mla/NAME.safetensors for each case below with
    case int32 [4]: strategy (high 0, low 1, uniform 2, 2-norm 3), SVD (joint 0, split 1), r, d_kv
    pairs int32 [L, K, r], tokens int32 [B, T + 1], logits [B, T, V], loss [1]
    2-norm: calibration int32 [Bc, Tc], q_norm [L, H, E/2], k_norm [L, K, E/2] (means)
    gradient cases: weight.<parameter> and grad.<parameter> of the converted model
and the gradient cases in EXPORTED as MLA directories, models/mla_NAME.

Singular vectors have no sign, so only weight.* can be compared with grad.*; logits and loss are
the same for every correct conversion. All is computed in float64 from weights rounded to float32.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference

import mla_reference as mla
from golden_io import (
    MODELS_DIR,
    Tensors,
    deterministic,
    float32,
    int32,
    random_tokens,
    save_golden,
)

N_SEQUENCES, SEQ_LEN = 2, 19
CALIBRATION_SHAPE = (5, 23)
EXPORTED = ("gqa_2norm_joint", "qwen3_2norm_joint", "smollm3_2norm_joint")
# Nearer ties would let a correct float32 program choose otherwise.
MIN_SCORE_GAP, MIN_SPECTRAL_GAP = 0.001, 0.01  # observed: 0.003, 0.015


@dataclass(frozen=True)
class Case:
    """One conversion of one of the tiny models."""

    name: str
    base: str
    strategy: str
    svd: str
    r: int
    d_kv: int
    gradients: bool = False
    same_as_base: bool = False  # every pair kept at full rank: nothing may change


CASES = (
    Case("gqa_high_joint", "gqa_tied", "high", "joint", 1, 4),
    Case("gqa_2norm_joint", "gqa_tied", "2-norm", "joint", 2, 8, gradients=True),
    Case("gqa_uniform_split", "gqa_tied", "uniform", "split", 2, 5, gradients=True),
    Case("gqa_full", "gqa_tied", "high", "joint", 4, 8, same_as_base=True),
    Case("mha_low_split", "mha_untied", "low", "split", 2, 6),
    Case("mha_2norm_split", "mha_untied", "2-norm", "split", 3, 4),
    Case("mha_uniform_joint", "mha_untied", "uniform", "joint", 3, 7, gradients=True),
    Case("mha_full", "mha_untied", "low", "joint", 5, 10, same_as_base=True),
    Case("mqa_2norm_joint", "mqa_head_dim", "2-norm", "joint", 3, 9, gradients=True),
    Case("qwen3_2norm_joint", "qwen3_gqa", "2-norm", "joint", 2, 7, gradients=True),
    Case("qwen3_low_split", "qwen3", "low", "split", 3, 8, gradients=True),
    Case("qwen3_full", "qwen3_gqa", "uniform", "joint", 6, 12, same_as_base=True),
    Case("llama_bias_low_split", "llama_bias", "low", "split", 2, 8),
    Case("qwen2_2norm_joint", "qwen2", "2-norm", "joint", 2, 8, gradients=True),
    Case("smollm3_low_split", "smollm3", "low", "split", 2, 6),
    Case("smollm3_2norm_joint", "smollm3", "2-norm", "joint", 2, 7, gradients=True),
    Case("smollm3_full", "smollm3", "uniform", "joint", 4, 8, same_as_base=True),
)


def score_gap(scores: Tensor, r: int) -> float:
    """Least relative distance between the last kept and the first dropped pair."""
    ranked = scores.sort(-1, descending=True).values
    return float((1.0 - ranked[..., r] / ranked[..., r - 1]).min())


def least_spectral_gap(shape: mla.Shape, weights: mla.Weights, case: Case, pairs: Tensor) -> float:
    gaps = []
    for layer in range(shape.n_layers):
        prefix = f"model.layers.{layer}.self_attn."
        _, w_kc = mla.split_rows(weights[prefix + "k_proj.weight"], pairs[layer], shape.head_dim)
        w_v = weights[prefix + "v_proj.weight"]
        rank = shape.n_kv_heads * case.d_kv
        if case.svd == "joint":
            gaps.append(mla.spectral_gap(torch.cat((w_kc, w_v)), rank))
        else:
            gaps += [mla.spectral_gap(m, rank // 2) for m in (w_kc, w_v)]
    return min(gaps)


def choose_pairs(
    case: Case, shape: mla.Shape, weights: mla.Weights, seed: int
) -> tuple[Tensor, Tensors]:
    """The pairs, and what the golden file says about how they were chosen."""
    if case.strategy != "2-norm":
        return mla.select_pairs(case.strategy, shape, case.r), {}
    tokens = random_tokens(CALIBRATION_SHAPE, shape.vocab_size, seed)
    q_norm, k_norm = mla.pair_norms(shape, weights, tokens)
    gap = score_gap(mla.pair_scores(shape, q_norm, k_norm), case.r)
    print(f"{case.name}: least score gap {gap:.3f}")
    assert gap > MIN_SCORE_GAP, "choose another calibration seed"
    pairs = mla.select_pairs("2-norm", shape, case.r, q_norm, k_norm)
    norms = {"q_norm": float32(q_norm), "k_norm": float32(k_norm)}
    return pairs, {"calibration": int32(tokens), **norms}


def check_same_as_base(case: Case, logits: Tensor, tokens: Tensor) -> None:
    base = mla.forward(*mla.load_model(MODELS_DIR / case.base), tokens[:, :-1])
    error = float((logits - base).abs().max())
    print(f"{case.name}: largest difference from the original's logits {error:.1e}")
    assert error < 1e-4


def float32_error(case: Case, pairs: Tensor, tokens: Tensor, logits: Tensor) -> float:
    """What conversion and forward in float32 lose, relative to the largest logit."""
    shape, weights = mla.load_model(MODELS_DIR / case.base, torch.float32)
    single = mla.forward(*mla.convert(shape, weights, pairs, case.svd, case.d_kv), tokens[:, :-1])
    return float((single.double() - logits).abs().max() / logits.abs().max())


def write_case(case: Case, seed: int) -> None:
    shape, weights = mla.load_model(MODELS_DIR / case.base)
    pairs, chosen = choose_pairs(case, shape, weights, seed + 100)
    gap = least_spectral_gap(shape, weights, case, pairs)
    mla_shape, converted = mla.convert(shape, weights, pairs, case.svd, case.d_kv)
    converted = {name: w.float().double() for name, w in converted.items()}
    tokens = random_tokens((N_SEQUENCES, SEQ_LEN + 1), shape.vocab_size, seed)
    logits, loss, gradients = mla.loss_and_gradients(mla_shape, converted, tokens)
    error = float32_error(case, pairs, tokens, logits)
    print(f"{case.name}: loss {float(loss):.4f}, least spectral gap {gap:.3f}, "
          f"all in float32 differs by {error:.1e}")
    assert gap > MIN_SPECTRAL_GAP
    if case.same_as_base:
        check_same_as_base(case, logits, tokens)

    codes = [mla.STRATEGIES.index(case.strategy), mla.SVD_KINDS.index(case.svd), case.r, case.d_kv]
    tensors = {
        "case": int32(torch.tensor(codes)),
        "pairs": int32(pairs),
        "tokens": int32(tokens),
        "logits": float32(logits),
        "loss": float32(loss[None]),
        **chosen,
    }
    if case.gradients:
        tensors |= {"weight." + name: float32(w) for name, w in converted.items()}
        tensors |= {"grad." + name: float32(g) for name, g in gradients.items()}
    description = (
        f"base={case.base} strategy={case.strategy} svd={case.svd} r={case.r} d_kv={case.d_kv}"
    )
    save_golden("mla/" + case.name, tensors, description)
    if case.name in EXPORTED:
        config = json.loads((MODELS_DIR / case.base / "config.json").read_text())
        mla.save_mla(MODELS_DIR / ("mla_" + case.name), mla_shape, converted, config)


def main() -> None:
    deterministic()
    for number, case in enumerate(CASES):
        write_case(case, 3000 + number)


if __name__ == "__main__":
    main()
