"""Writes what local distillation makes of tiny conversions, in plain PyTorch.

Usage, from the repository's root, after make_models.py:
    python3 tests/golden/distill/make_distill_golden.py

Writes tests/golden/distill/NAME.safetensors for each case below with
    case int32 [5]: pairs or slots, d_kv, latent, latent_norm, split
    tokens int32 [n, T], pairs int32 [L, K or 1, P]
    start.<parameter>: attention of the converted model, final.<parameter>: after STEPS[-1] steps
    losses [len(STEPS), L, 3]: parts of the target's weighted mean square in the first step, after so
    many steps, and with the output projection refitted

All is computed in float64 from weights rounded to float32. Where the latent is no wider than what a
head reads of it, the up-projections are taken over by queries and output projection while training.
The rate is in parts of each tensor's root mean square. A token's squares are divided by the mean
square of the original's stream behind attention or, if it is larger, of the converted one's.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

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

N_WINDOWS, SEQ_LEN, BATCH, SEED = 11, 17, 8, 7
STEPS = (1, 2, 12)
RHO, LR, RIDGE, WARMUP, LAST_RATE = 0.7, 0.1, 3e-4, 10, 0.02
BETA1, BETA2, EPS = 0.9, 0.98, 1e-8
MASK = 2**64 - 1


@dataclass(frozen=True)
class Case:
    name: str
    base: str
    pairs: int
    d_kv: int = 0
    svd: str = "joint"
    latent: int = 0
    latent_norm: bool = False


CASES = (
    Case("gqa", "gqa_tied", 2, d_kv=2),
    Case("gqa_split", "gqa_tied", 1, d_kv=3, svd="split"),
    Case("mha_wide", "mha_untied", 3, d_kv=4),
    Case("shared", "gqa_tied", 3, latent=10),
    Case("shared_norm", "gqa_tied", 3, latent=6, latent_norm=True),
    Case("qwen3", "qwen3_gqa", 2, d_kv=3),
    Case("smollm3", "smollm3", 1, d_kv=3),
)


# ---- The order of windows: base/random.h, data/order.h -------------------------------------------


def mix(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def random_bits(key: int, counter: int) -> int:
    return mix(mix(key + 0x9E3779B97F4A7C15 * (counter + 1) & MASK) ^ key)


def random_key(seed: int, purpose: str) -> int:
    key = mix(seed + 0x9E3779B97F4A7C15 & MASK)
    for letter in purpose.encode():
        key = mix(key ^ letter)
    return key


def order_at(key: int, n: int, i: int) -> int:
    half_bits = 1
    while n - 1 >> 2 * half_bits:
        half_bits += 1
    mask = (1 << half_bits) - 1
    while True:
        left, right = i >> half_bits, i & mask
        for r in range(8):
            left, right = right, left ^ random_bits(key, r << 32 | right) & mask
        i = left << half_bits | right
        if i < n:
            return i


def windows_of_step(layer: int, step: int) -> list[int]:
    key = random_key(SEED, f"distill/layer {layer}")
    windows = []
    for slot in range(BATCH):
        n = (N_WINDOWS - slot + BATCH - 1) // BATCH
        epoch, i = divmod(step - 1, n)
        own = random_bits(key, epoch * BATCH + slot)
        windows.append(slot + BATCH * order_at(own, n, i))
    return windows


# ---- A layer -------------------------------------------------------------------------------------


def prefix_of(layer: int) -> str:
    return f"model.layers.{layer}.self_attn."


def heads_of(x: Tensor, shape: mla.Shape, weights: mla.Weights, layer: int) -> Tensor:
    normed = mla.rms_norm(
        x, weights[f"model.layers.{layer}.input_layernorm.weight"], shape.rms_eps
    )
    attention = mla.original_attention
    if shape.is_mla:
        attention = mla.shared_attention if shape.latent > 0 else mla.mla_attention
    return attention(normed, shape, weights, layer)


def attention_of(x: Tensor, shape: mla.Shape, weights: mla.Weights, layer: int) -> Tensor:
    heads = heads_of(x, shape, weights, layer)
    return heads @ weights[prefix_of(layer) + "o_proj.weight"].T


def layer_of(x: Tensor, shape: mla.Shape, weights: mla.Weights, layer: int) -> Tensor:
    norm = weights[f"model.layers.{layer}.input_layernorm.weight"]
    return mla.layer_forward(x, mla.rms_norm(x, norm, shape.rms_eps), shape, weights, layer)


def read_by(up: Tensor, shape: mla.Shape) -> Tensor:
    """The up-projection that each query head uses: [H, rows, width]."""
    n_up = shape.n_heads if shape.latent > 0 else shape.n_kv_heads
    return up.unflatten(0, (n_up, -1)).repeat_interleave(shape.n_heads // n_up, 0)


def multiply_heads(
    weights: mla.Weights, shape: mla.Shape, layer: int, key_map: Tensor | None, value_map: Tensor | None
) -> None:
    """NoPE queries of head h times key_map[h], output columns times value_map[h]^T."""
    q, o = prefix_of(layer) + "q_proj.weight", prefix_of(layer) + "o_proj.weight"
    n_rope = shape.n_heads * 2 * shape.pairs.shape[-1]
    if key_map is not None:
        rope, nope = weights[q].tensor_split([n_rope])
        nope = torch.einsum("hij,hjd->hid", key_map, nope.unflatten(0, (shape.n_heads, -1)))
        weights[q] = torch.cat((rope, nope.flatten(0, 1)))
    if value_map is not None:
        heads = weights[o].unflatten(1, (shape.n_heads, -1))
        weights[o] = torch.einsum("hij,dhj->dhi", value_map, heads).flatten(1, 2)


def absorb(weights: mla.Weights, shape: mla.Shape, layer: int) -> dict[str, Tensor]:
    """Takes narrow up-projections over, but no keys' whose heads have a norm; returns the
    orthonormal columns that come back."""
    bases, maps = {}, {}
    for side in ("k", "v"):
        name = prefix_of(layer) + f"kv_proj.up_{side}.weight"
        n_up = shape.n_heads if shape.latent > 0 else shape.n_kv_heads
        up = weights[name].unflatten(0, (n_up, -1))  # [heads, rows, width]
        if up.shape[2] > up.shape[1] or (side == "k" and shape.qk_norm):
            continue
        bases[name] = torch.linalg.qr(up).Q.flatten(0, 1)
        identity = torch.eye(up.shape[1], up.shape[2], dtype=up.dtype).expand_as(up)
        maps[side] = read_by(identity.flatten(0, 1), shape) @ read_by(weights[name], shape).mT
        weights[name] = identity.flatten(0, 1).clone()
    multiply_heads(weights, shape, layer, maps.get("k"), maps.get("v"))
    return bases


def fold(weights: mla.Weights, shape: mla.Shape, layer: int, bases: dict[str, Tensor]) -> None:
    maps = {}
    for side in ("k", "v"):
        name = prefix_of(layer) + f"kv_proj.up_{side}.weight"
        if name in bases:
            maps[side] = read_by(bases[name], shape) @ read_by(weights[name], shape).mT
            weights[name] = bases[name]
    multiply_heads(weights, shape, layer, maps.get("k"), maps.get("v"))


def root_mean_square(values: Tensor) -> float:
    """Of the values that are not 0."""
    return float(values[values != 0].square().mean().sqrt())


def sizes_of(weights: mla.Weights, names: list[str], shape: mla.Shape) -> dict[str, Tensor]:
    """What the rate is multiplied by: a number for each tensor, of queries one for the rows with and
    one for those without position."""
    n_rope = shape.n_heads * 2 * shape.pairs.shape[-1]
    sizes = {}
    for name in names:
        parts = weights[name].tensor_split([n_rope]) if "q_proj" in name else [weights[name]]
        of_parts = [torch.full_like(p, root_mean_square(p)) for p in parts if p.numel() > 0]
        sizes[name] = torch.cat(of_parts)
    return sizes


def rate(step: int, steps: int) -> float:
    warmup = min(WARMUP, (steps + 3) // 4)
    if step <= warmup:
        return LR * step / warmup
    done = (step - warmup) / (steps - warmup)
    return LR * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done)))


def refit(heads: Tensor, wanted: Tensor, importance: Tensor, o: Tensor) -> Tensor:
    root = importance.sqrt()
    heads, wanted = (root * heads).flatten(0, 1), (root * wanted).flatten(0, 1)
    gram = heads.T @ heads
    live = gram.diagonal() > 0
    weight = RIDGE * float(gram.trace()) / int(live.sum())
    left = gram + weight * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(left, heads.T @ wanted + weight * o.T).T


def train_layer(
    weights: mla.Weights,
    shape: mla.Shape,
    layer: int,
    x: Tensor,
    wanted: Tensor,
    importance: Tensor,
    steps: int,
) -> list[float]:
    """Distills the layer in place; the losses of the first step, of the last, and refitted."""
    square = (importance * wanted * wanted).mean()
    bases = absorb(weights, shape, layer)
    names = [n for n in weights if n.startswith(prefix_of(layer)) and n not in bases]
    moments = {n: (torch.zeros_like(weights[n]), torch.zeros_like(weights[n])) for n in names}
    sizes = sizes_of(weights, names, shape)
    losses = []

    def loss_of(w: mla.Weights, of: list[int]) -> Tensor:
        error = attention_of(x[of], shape, w, layer) - wanted[of]
        return (importance[of] * error * error).mean() / square

    for step in range(1, steps + 1):
        leaves = {n: weights[n].detach().requires_grad_() for n in names}
        loss = loss_of(weights | leaves, windows_of_step(layer, step))
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
        scale = min(1.0, 1.0 / (norm + 1e-6))
        losses += [float(loss.detach())]
        for name, gradient in zip(names, gradients):
            m, v = moments[name]
            m.mul_(BETA1).add_((1 - BETA1) * scale * gradient)
            v.mul_(BETA2).add_((1 - BETA2) * (scale * gradient) ** 2)
            update = m / (1 - BETA1**step) / ((v / (1 - BETA2**step)).sqrt() + EPS)
            weights[name] = weights[name].detach() - rate(step, steps) * sizes[name] * update
    everything = list(range(N_WINDOWS))
    trained = float(loss_of(weights, everything))
    o = prefix_of(layer) + "o_proj.weight"
    weights[o] = refit(heads_of(x, shape, weights, layer), wanted, importance, weights[o])
    fitted = float(loss_of(weights, everything))
    fold(weights, shape, layer, bases)
    return [losses[0], trained, fitted]


def distill(
    original: tuple[mla.Shape, mla.Weights], shape: mla.Shape, start: mla.Weights, tokens: Tensor, steps: int
) -> tuple[mla.Weights, list[list[float]]]:
    weights = dict(start)
    x = xc = weights["model.embed_tokens.weight"][tokens]
    losses = []
    for layer in range(shape.n_layers):
        attention = attention_of(x, *original, layer)
        squares = torch.maximum((x + attention).square().mean(-1), xc.square().mean(-1))
        importance = 1 / (squares.unsqueeze(-1) + shape.rms_eps)
        wanted = attention + RHO * (x - xc)
        losses.append(train_layer(weights, shape, layer, xc, wanted, importance, steps))
        x, xc = layer_of(x, *original, layer), layer_of(xc, shape, weights, layer)
    return weights, losses


# ---- Cases ---------------------------------------------------------------------------------------


def shared_start(case: Case, base: mla.Shape, weights: mla.Weights) -> tuple[mla.Shape, mla.Weights]:
    """Random weights: whatever the start, the same steps follow."""
    generator = seeded(91)
    half, result = base.head_dim // 2, dict(weights)
    pairs = torch.randint(0, half, (base.n_layers, 1, case.pairs), generator=generator).sort(-1).values
    shape = replace(base, pairs=pairs, latent=case.latent, latent_norm=case.latent_norm)
    width_r, width = 2 * case.pairs, base.n_heads * base.head_dim
    for layer in range(base.n_layers):
        for name in ("k_proj", "v_proj"):
            del result[prefix_of(layer) + name + ".weight"]
        for name, n_out, n_in in (
            ("q_proj", base.n_heads * (width_r + base.head_dim), base.d_model),
            ("k_r_proj", width_r, base.d_model),
            ("kv_proj.down_kv", case.latent, base.d_model),
            ("kv_proj.up_k", width, case.latent),
            ("kv_proj.up_v", width, case.latent),
        ):
            values = torch.randn((n_out, n_in), generator=generator, dtype=torch.float64)
            result[prefix_of(layer) + name + ".weight"] = 0.15 * values
        if case.latent_norm:
            values = torch.randn(case.latent, generator=generator, dtype=torch.float64)
            result[prefix_of(layer) + "kv_proj.latent_norm.weight"] = 1 + 0.15 * values
    return shape, result


def converted(case: Case, base: mla.Shape, weights: mla.Weights) -> tuple[mla.Shape, mla.Weights]:
    if case.latent > 0:
        shape, result = shared_start(case, base, weights)
    else:
        pairs = mla.select_pairs("uniform", base, case.pairs)
        shape, result = mla.convert(base, weights, pairs, case.svd, case.d_kv)
    return shape, {name: w.float().double() for name, w in result.items()}


def make_case(case: Case) -> None:
    original = mla.load_model(MODELS_DIR / case.base)
    shape, start = converted(case, *original)
    tokens = random_tokens((N_WINDOWS, SEQ_LEN), shape.vocab_size, 73)
    losses = []
    for steps in STEPS:
        final, of_layers = distill(original, shape, start, tokens, steps)
        losses.append(of_layers)
    is_split = int(case.svd == "split")
    numbers = [case.pairs, case.d_kv, case.latent, int(case.latent_norm), is_split]
    tensors = {
        "case": torch.tensor(numbers, dtype=torch.int32),
        "tokens": int32(tokens),
        "pairs": int32(shape.pairs),
        "losses": float32(torch.tensor(losses, dtype=torch.float64)),
    }
    for name in start:
        if ".self_attn." in name:
            tensors["start." + name] = float32(start[name])
            tensors["final." + name] = float32(final[name])
    print(case.name, [[f"{loss:.4f}" for loss in layer] for layer in losses[-1]])
    save_golden(f"distill/{case.name}", tensors, f"base={case.base}")


def main() -> None:
    deterministic()
    for case in CASES:
        make_case(case)


if __name__ == "__main__":
    main()
