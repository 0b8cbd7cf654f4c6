"""Writes conversions of the tiny models as the paper's own code would save them.

Usage, from the repository's root, after make_mla_golden.py:
    python3 tests/golden/paper/make_paper_golden.py

Writes tests/golden/paper/NAME/ for each case below: config.json, model.safetensors and, where the
pairs are by 2-norm, a file of ranks or scores by torch.save(). Each is the conversion of a file
mla/NAME.safetensors, whose tokens, logits and loss it has to give.

Field by field as in github.com/JT-Ushio/MHA2MLA. v1.2: tensors k_r_proj, kv_proj.{down_kv | down_k,
down_v}.weight of width K low_rank each, queries with all heads' RoPE rows first, an object mha2mla,
ranks uint8 [L, K, E]. v1.0: W_k_r, W_down_k [, W_down_v], W_up_k, W_up_v, queries in the original
order, objects RoPE and SVD, scores float32 [L, K, E/2].
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference

import mla_reference as mla
from golden_io import GOLDEN_DIR, MODELS_DIR, REPOSITORY, Tensors, deterministic, float32

RANKS = "qk_rank.pth"


@dataclass(frozen=True)
class Case:
    """A conversion of mla/ in a layout; low_rank is that of the layout's config."""

    name: str
    conversion: str
    base: str
    layout: str
    strategy: str
    svd: str
    r: int
    low_rank: int


CASES = (
    Case("v12_2norm_joint", "gqa_2norm_joint", "gqa_tied", "v1.2", "2-norm", "joint", 2, 8),
    Case("v12_low_split", "mha_low_split", "mha_untied", "v1.2", "low", "split", 2, 3),
    Case("v10_2norm_split", "mha_2norm_split", "mha_untied", "v1.0", "2-norm", "split", 3, 2),
    Case("v10_high_joint", "gqa_high_joint", "gqa_tied", "v1.0", "high", "joint", 1, 4),
)


# ---- config.json ---------------------------------------------------------------------------------


def v12_block(case: Case) -> dict:
    """The arguments of the training, as dataclasses.asdict() gives them."""
    return {
        "model_name_or_path": "../models/base",
        "partial_rope_version": case.strategy,
        "rope_dim_for_mla": 2 * case.r,
        "uniform_start_point": 0,
        "qk_tensor_path": f"../utils/{RANKS}" if case.strategy == "2-norm" else None,
        "svd_init_method": case.svd,
        "low_rank": case.low_rank,
        "is_baseline": False,
        "is_gqa2mha2mla": False,
        "is_mla_from_scratch": False,
    }


def v10_objects(case: Case, group: int) -> dict:
    version = {"high": 1, "uniform": 2, "2-norm": 4, "low": 5}[case.strategy]
    rope = {
        "partial_rope_version": version,
        "top_k_rope_dim": case.r if version in (1, 4) else 0,
        "last_k_rope_dim": case.r if version == 5 else 0,
        "uniform_start_point": 0,
        "uniform_step": 1,
        "qk_tensor_path": f"../utils/{RANKS}" if version == 4 else None,
        "n_gqa_group": group,
    }
    return {"RoPE": rope, "SVD": {"method": {"joint": 7, "split": 2}[case.svd],
                                  "low_rank": case.low_rank}}


# ---- tensors -------------------------------------------------------------------------------------


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U S and V^T of the truncated SVD."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank], vt[:rank]


def latent_tensors(case: Case, keys: Tensor, values: Tensor, width: int) -> Tensors:
    """The latent's tensors by their v1.2 names below self_attn."""
    if case.svd == "joint":
        up, down = factors(torch.cat((keys, values)), width)
        up_k, up_v = up.split((len(keys), len(values)))
        downs = {"kv_proj.down_kv": down}
    else:
        up_k, down_k = factors(keys, width)
        up_v, down_v = factors(values, width)
        downs = {"kv_proj.down_k": down_k, "kv_proj.down_v": down_v}
    return {**downs, "kv_proj.up_k": up_k, "kv_proj.up_v": up_v}


V10_NAMES = {
    "k_r_proj": "W_k_r",
    "kv_proj.down_kv": "W_down_k",
    "kv_proj.down_k": "W_down_k",
    "kv_proj.down_v": "W_down_v",
    "kv_proj.up_k": "W_up_k",
    "kv_proj.up_v": "W_up_v",
}


def layer_tensors(case: Case, shape: mla.Shape, weights: mla.Weights, pairs: Tensor,
                  prefix: str) -> Tensors:
    """What replaces a layer's q_proj, k_proj and v_proj, by its names below self_attn."""
    q, k, v = (weights[f"{prefix}{name}_proj.weight"] for name in "qkv")
    rope, nope = mla.split_rows(k, pairs, shape.head_dim)
    tensors = {"k_r_proj": rope}
    tensors |= latent_tensors(case, nope, v, shape.n_kv_heads * case.low_rank)
    if case.layout == "v1.0":
        return {"q_proj": q} | {V10_NAMES[name]: w for name, w in tensors.items()}
    of_queries = pairs.repeat_interleave(shape.group, 0)
    return {"q_proj": torch.cat(mla.split_rows(q, of_queries, shape.head_dim)), **tensors}


def model_tensors(case: Case, shape: mla.Shape, weights: mla.Weights, pairs: Tensor) -> Tensors:
    result = dict(weights)
    for layer in range(shape.n_layers):
        prefix = f"model.layers.{layer}.self_attn."
        for name in "qkv":
            result.pop(f"{prefix}{name}_proj.weight")
        for name, w in layer_tensors(case, shape, weights, pairs[layer], prefix).items():
            result[f"{prefix}{name}.weight"] = w
    if shape.tied_head and case.layout == "v1.2":  # run_train.py stores both
        result["lm_head.weight"] = result["model.embed_tokens.weight"].clone()
    return {name: float32(w) for name, w in result.items()}


# ---- ranks ---------------------------------------------------------------------------------------


def write_ranks(path: Path, case: Case, shape: mla.Shape, golden: Tensors) -> None:
    scores = mla.pair_scores(shape, golden["q_norm"].double(), golden["k_norm"].double())
    if case.layout == "v1.0":
        torch.save(scores.float(), path)
        return
    order = scores.argsort(-1, descending=True)
    ranks = order.argsort(-1).to(torch.uint8)
    torch.save(torch.cat((ranks, ranks), dim=-1), path)


def write_case(case: Case) -> None:
    shape, weights = mla.load_model(MODELS_DIR / case.base)
    golden = load_file(GOLDEN_DIR / "mla" / f"{case.conversion}.safetensors")
    directory = GOLDEN_DIR / "paper" / case.name
    directory.mkdir(parents=True, exist_ok=True)
    tensors = model_tensors(case, shape, weights, golden["pairs"].long())
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((MODELS_DIR / case.base / "config.json").read_text())
    config |= v10_objects(case, shape.group) if case.layout == "v1.0" else {
        "mha2mla": v12_block(case)}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if case.strategy == "2-norm":
        write_ranks(directory / RANKS, case, shape, golden)
    print(f"{directory.relative_to(REPOSITORY)}: {len(tensors)} tensors")


def main() -> None:
    deterministic()
    for case in CASES:
        write_case(case)


if __name__ == "__main__":
    main()
