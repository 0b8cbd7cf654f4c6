"""Plain PyTorch reference of conversion to the shared form, by the method closed.

Written from the formulas, independent of the C code; conversion_reference.py has what both forms of
the result have in common.

Usage:
    shape, weights = load_model("configs/stories3M")                        # float64
    statistics = collect(shape, weights, windows, n_attention=12)
    kept = spread_pairs(shape, statistics, slots=4)                         # per layer and KV head
    shared, weights = convert_shared(shape, weights, kept, statistics, latent=8, key_weight=0.1)
    weights = ridge_shared(shape, original_weights, shared, weights, windows)
    logits = forward_shared(shared, weights, tokens)

Dims as in model/shape.h; P rotated slots are kept per layer, and all heads see all of them.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import conversion_reference as conversion  # noqa: E402
from conversion_reference import Block, LayerStatistics  # noqa: E402
from mla_reference import Shape, Weights, layer_inputs, original_attention, rms_norm, rotate  # noqa: E402

Kept = list[list[int]]  # of one layer: the pairs of each KV head, ascending


@dataclass(frozen=True)
class SharedShape:
    original: Shape
    latent: int
    pairs: Tensor  # [L, P], ascending in each row


# ---- Pairs ---------------------------------------------------------------------------------------


def best_counts(errors: list[list[float]], slots: int) -> list[int]:
    """How many of `slots` each KV head gets, so that the sum of errors[head][count] is least."""
    best: list[tuple[float, list[int]]] = [(0.0, [])] + [(math.inf, [])] * slots
    for head in errors:
        following: list[tuple[float, list[int]]] = [(math.inf, [])] * (slots + 1)
        for used, (error, counts) in enumerate(best):
            for count in range(min(len(head) - 1, slots - used) + 1):
                total = error + head[count]
                if total < following[used + count][0]:
                    following[used + count] = (total, counts + [count])
        best = following
    return best[slots][1]


def spread_layer(
    shape: Shape, s: LayerStatistics, slots: int, absorb: bool = True
) -> tuple[Kept, float]:
    """The pairs of every KV head and the sum of their errors."""
    most = min(slots, shape.head_dim // 2)
    choices, errors = [], []
    absorb = absorb and s.has_rope
    for grams in s.chosen_by().unflatten(0, (shape.n_kv_heads, shape.group)):
        choices.append([conversion.choose_kept(grams, n, absorb) for n in range(most + 1)])
        errors.append([conversion.group_error(grams, kept, absorb) for kept in choices[-1]])
    counts = best_counts(errors, slots)
    kept = [sets[n] for sets, n in zip(choices, counts)]
    return kept, sum(error[n] for error, n in zip(errors, counts))


def spread_pairs(
    shape: Shape, statistics: list[LayerStatistics], slots: int, absorb: bool = True
) -> list[Kept]:
    return [spread_layer(shape, s, slots, absorb)[0] for s in statistics]


# ---- Low rank ------------------------------------------------------------------------------------


def absorbing_maps(shape: Shape, s: LayerStatistics, kept: Kept) -> list[Tensor]:
    """[E, E] of every query head."""
    return [
        conversion.absorbing_matrix(
            torch.stack(conversion.absorbed_map(s.gram[h], kept[h // shape.group], True)[:2])
        )
        for h in range(shape.n_heads)
    ]


def layer_blocks(
    shape: Shape,
    weights: Weights,
    kept: Kept,
    layer: int,
    s: LayerStatistics,
    key_weight: float,
    n_pools: int,
) -> tuple[list[Block], list[Block]]:
    """Keys' and values' blocks, one of each per query head, with the moments of its pool."""
    K, E, G = shape.n_kv_heads, shape.head_dim, shape.group
    prefix = f"model.layers.{layer}.self_attn."
    w_k = weights[prefix + "k_proj.weight"].unflatten(0, (K, E))
    w_v = weights[prefix + "v_proj.weight"].unflatten(0, (K, E))
    w_o = weights[prefix + "o_proj.weight"].unflatten(1, (shape.n_heads, E))
    keys, values = [], []
    for h, b in enumerate(absorbing_maps(shape, s, kept)):
        j = h // G
        nope = [e for e in range(E) if e % (E // 2) not in kept[j]]
        a_k = b @ s.query[h] @ b.T
        c_k = conversion.shrink(conversion.pool_mean(s.tau[:, None, None] * s.key, n_pools, h))
        c_v = conversion.shrink(conversion.pool_mean(s.value, n_pools, h))
        keys.append(Block(w_k[j][nope], key_weight * a_k[nope][:, nope], c_k))
        values.append(Block(w_v[j], w_o[:, h].T @ w_o[:, h], c_v))
    return keys, values


def first_down(
    shape: Shape, weights: Weights, kept: Kept, layer: int, s: LayerStatistics, latent: int, key_weight: float
) -> Tensor:
    """The whitened down-projection of the key rows that are not kept, and the values'."""
    E = shape.head_dim
    prefix = f"model.layers.{layer}.self_attn."
    w_k = weights[prefix + "k_proj.weight"]
    nope = [
        j * E + e
        for j in range(shape.n_kv_heads)
        for e in range(E)
        if e % (E // 2) not in kept[j]
    ]
    matrix = torch.cat((math.sqrt(key_weight) * w_k[nope], weights[prefix + "v_proj.weight"]))
    return conversion.whitened_factors(matrix, s.covariance, latent)[1]


def convert_shared(
    shape: Shape,
    weights: Weights,
    kept: list[Kept],
    statistics: list[LayerStatistics],
    latent: int,
    key_weight: float,
    n_pools: int | None = None,
) -> tuple[SharedShape, Weights, list[tuple[float, float]]]:
    """Also the error of each layer's blocks before and after the alternation."""
    result, errors, pairs = dict(weights), [], []
    H, E, G = shape.n_heads, shape.head_dim, shape.group
    for layer, s in enumerate(statistics):
        prefix = f"model.layers.{layer}.self_attn."
        keys, values = layer_blocks(
            shape, weights, kept[layer], layer, s, key_weight, n_pools or H
        )
        start = first_down(shape, weights, kept[layer], layer, s, latent, key_weight)
        down = conversion.alternate(keys + values, start)
        errors.append(
            (conversion.blocks_error(keys + values, start), conversion.blocks_error(keys + values, down))
        )
        slots = sorted((p, j) for j, own in enumerate(kept[layer]) for p in own)
        P = len(slots)
        w_q = weights[prefix + "q_proj.weight"].unflatten(0, (H, E))
        w_k = weights[prefix + "k_proj.weight"].unflatten(0, (-1, E))
        q_r, q_c = w_q.new_zeros(H, 2 * P, w_q.shape[-1]), torch.zeros_like(w_q)
        up_k = w_q.new_zeros(H, E, latent)
        for h, b in enumerate(absorbing_maps(shape, s, kept[layer])):
            for i, (p, j) in enumerate(slots):
                if j == h // G:
                    q_r[h, i], q_r[h, P + i] = w_q[h, p], w_q[h, p + E // 2]
            nope = [e for e in range(E) if e % (E // 2) not in kept[layer][h // G]]
            q_c[h, nope] = (b @ w_q[h])[nope]
            up_k[h, nope] = conversion.best_up(keys[h], down)
        k_r = torch.stack(
            [w_k[j, p] for p, j in slots] + [w_k[j, p + E // 2] for p, j in slots]
        )
        del result[prefix + "k_proj.weight"], result[prefix + "v_proj.weight"]
        result[prefix + "q_proj.weight"] = torch.cat((q_r.flatten(0, 1), q_c.flatten(0, 1)))
        result[prefix + "k_r_proj.weight"] = k_r
        result[prefix + "kv_proj.down_kv.weight"] = down
        result[prefix + "kv_proj.up_k.weight"] = up_k.flatten(0, 1)
        result[prefix + "kv_proj.up_v.weight"] = torch.cat(
            [conversion.best_up(b, down) for b in values]
        )
        pairs.append([p for p, _ in slots])
    return SharedShape(shape, latent, torch.tensor(pairs)), result, errors


# ---- Forward -------------------------------------------------------------------------------------


def shared_attention(x: Tensor, shared: SharedShape, weights: Weights, layer: int) -> Tensor:
    """The heads' outputs [B, T, H E] for x [B, T, D], before W_o."""
    shape, prefix = shared.original, f"model.layers.{layer}.self_attn."
    H, E, P = shape.n_heads, shape.head_dim, shared.pairs.shape[-1]
    pairs = shared.pairs[layer][None]
    q_r, q_c = (x @ weights[prefix + "q_proj.weight"].T).tensor_split([H * 2 * P], dim=-1)
    q_r = rotate(q_r.unflatten(-1, (H, 2 * P)), pairs.expand(H, -1), shape, layer)
    k_r = rotate((x @ weights[prefix + "k_r_proj.weight"].T).unsqueeze(2), pairs, shape, layer)
    latent = x @ weights[prefix + "kv_proj.down_kv.weight"].T
    norm = weights.get(prefix + "kv_proj.latent_norm.weight")
    if norm is not None:
        latent = rms_norm(latent, norm, shape.rms_eps)
    k_c = (latent @ weights[prefix + "kv_proj.up_k.weight"].T).unflatten(-1, (H, E))
    v = (latent @ weights[prefix + "kv_proj.up_v.weight"].T).unflatten(-1, (H, E))
    scores = torch.einsum("bthe,bse->bhts", q_r, k_r[:, :, 0])
    scores = scores + torch.einsum("bthe,bshe->bhts", q_c.unflatten(-1, (H, E)), k_c)
    future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    a = (scores / math.sqrt(E)).masked_fill(future, -math.inf).softmax(-1)
    return torch.einsum("bhts,bshe->bthe", a, v).flatten(2)


def forward_shared(shared: SharedShape, weights: Weights, tokens: Tensor) -> Tensor:
    """Logits [B, T, V] of tokens [B, T]."""
    shape = shared.original
    x = weights["model.embed_tokens.weight"][tokens.long()]
    for layer in range(shape.n_layers):
        prefix = f"model.layers.{layer}."
        normed = rms_norm(x, weights[prefix + "input_layernorm.weight"], shape.rms_eps)
        heads = shared_attention(normed, shared, weights, layer)
        x = x + heads @ weights[prefix + "self_attn.o_proj.weight"].T
        h = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], shape.rms_eps)
        gate = functional.silu(h @ weights[prefix + "mlp.gate_proj.weight"].T)
        up = h @ weights[prefix + "mlp.up_proj.weight"].T
        x = x + (gate * up) @ weights[prefix + "mlp.down_proj.weight"].T
    x = rms_norm(x, weights["model.norm.weight"], shape.rms_eps)
    head = "model.embed_tokens.weight" if shape.tied_head else "lm_head.weight"
    return x @ weights[head].T


def ridge_shared(
    shape: Shape, weights: Weights, shared: SharedShape, converted: Weights, tokens: Tensor
) -> Weights:
    """Refits every W_o to the original attention's output."""
    result = dict(converted)
    inputs, _ = layer_inputs(shape, weights, tokens)
    for layer, x in enumerate(inputs):
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        old = weights[name]
        o = shared_attention(x, shared, converted, layer).flatten(0, 1)
        y = original_attention(x, shape, weights, layer).flatten(0, 1) @ old.T
        gram = o.T @ o
        ridge = conversion.RIDGE * gram.diagonal().mean()
        system = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
        result[name] = torch.linalg.solve(system, o.T @ y + ridge * old.T).T.contiguous()
    return result


def output_errors(
    shape: Shape, weights: Weights, shared: SharedShape, converted: Weights, tokens: Tensor
) -> list[float]:
    """Relative squared error of every layer's attention output on the original's inputs."""
    result = []
    for layer, x in enumerate(layer_inputs(shape, weights, tokens)[0]):
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        y = original_attention(x, shape, weights, layer) @ weights[name].T
        error = shared_attention(x, shared, converted, layer) @ converted[name].T - y
        result.append(float(error.square().sum() / y.square().sum()))
    return result
