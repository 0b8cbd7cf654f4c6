"""Plain PyTorch reference of the conversions that use statistics of the original model.

Written from the formulas, independent of the C code: the oracle of conversion/*.safetensors.

Usage:
    shape, weights = load_model("tests/golden/models/gqa_tied")             # float64
    statistics = collect(shape, weights, tokens)                            # [n, T], one per layer
    pairs, maps = choose_pairs(shape, statistics, r=2, absorb=True)
    mla_shape, mla_weights = convert_whitened(shape, weights, pairs, statistics, d_kv=4)
    mla_shape, mla_weights = convert_closed(shape, weights, pairs, maps, statistics, d_kv=4)
    mla_weights = ridge_outputs(shape, weights, mla_shape, mla_weights, tokens)

Dims as in model/shape.h: T D H K E L; r pairs are kept per KV head, G = H / K query heads share one.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mla_reference import (  # noqa: E402
    Shape,
    Weights,
    layer_inputs,
    mla_attention,
    original_attention,
    original_queries_keys,
    rotate,
    split_rows,
)

SHRINKAGE = 0.01  # of the mean diagonal, added to every second moment of activations
PAIR_SHRINKAGE = 0.02  # of the diagonal of the features' Gram matrix
RIDGE = 1e-3  # of the mean diagonal of O^T O


@dataclass
class LayerStatistics:
    """Sums over tokens divided by their number."""

    covariance: Tensor  # [D, D] E x x^T
    value: Tensor  # [H, D, D] E xbar xbar^T
    key: Tensor  # [H, D, D] E sum_j a_ij (x_j - xbar_i)(x_j - xbar_i)^T, without tau
    tau: Tensor  # [H]
    query: Tensor  # [H, E, E] E q q^T / E
    gram: Tensor  # [H, 3 E/2, 3 E/2] of t, f1, f2
    has_rope: bool = True

    def chosen_by(self) -> Tensor:
        """The Gram matrices that pairs are chosen by. Without RoPE a pair is judged by what the scores
        lose without it: f is left out."""
        if self.has_rope:
            return self.gram
        half = self.gram.shape[-1] // 3
        of_t = torch.zeros_like(self.gram)
        of_t[:, :half, :half] = self.gram[:, :half, :half]
        return of_t


def attention_weights(q: Tensor, k: Tensor, head_dim: int) -> Tensor:
    """Causal softmax of q, k [T, E]."""
    scores = q @ k.T / math.sqrt(head_dim)
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1)


def pair_features(q: Tensor, k: Tensor, q_turned: Tensor, k_turned: Tensor) -> Tensor:
    """[3 E/2, T, T]: what each pair adds to the scores rotated (t), and unrotated (f1, f2)."""

    def halves(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.T.chunk(2, dim=0)  # [E/2, T] each

    def dot(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
        return a[0][:, :, None] * b[0][:, None, :] + a[1][:, :, None] * b[1][:, None, :]

    q1, q2 = halves(q)
    k1, k2 = halves(k)
    t = dot(halves(q_turned), halves(k_turned))
    return torch.cat((t, dot((q1, q2), (k1, k2)), dot((q1, q2), (-k2, k1)))) / math.sqrt(q.shape[-1])


def collect_layer(shape: Shape, weights: Weights, layer: int, inputs: Tensor) -> LayerStatistics:
    """inputs [n, T, D]: what the layer's attention reads."""
    n, T, D = inputs.shape
    H, E, G = shape.n_heads, shape.head_dim, shape.group
    q, k = original_queries_keys(inputs, shape, weights, layer)
    every_pair = torch.arange(E // 2)
    q_turned = rotate(q, every_pair.expand(H, -1), shape, layer)
    k_turned = rotate(k, every_pair.expand(shape.n_kv_heads, -1), shape, layer)
    value, key = inputs.new_zeros(H, D, D), inputs.new_zeros(H, D, D)
    query, gram = inputs.new_zeros(H, E, E), inputs.new_zeros(H, 3 * E // 2, 3 * E // 2)
    for x, q1, k1, qt, kt in zip(inputs, q, k, q_turned, k_turned):
        for h in range(H):
            j = h // G
            a = attention_weights(qt[:, h], kt[:, j], E)
            mean = a @ x
            value[h] += mean.T @ mean
            key[h] += x.T @ (a.sum(0)[:, None] * x) - mean.T @ mean
            query[h] += q1[:, h].T @ q1[:, h] / E
            f = pair_features(q1[:, h], k1[:, j], qt[:, h], kt[:, j])
            f = (f - (f * a).sum(-1, keepdim=True)) * a.sqrt()
            f = f.flatten(1)
            gram[h] += f @ f.T
    tokens = n * T
    rows = inputs.flatten(0, 1)
    prefix = f"model.layers.{layer}.self_attn."
    w_v = weights[prefix + "v_proj.weight"].unflatten(0, (shape.n_kv_heads, E))
    w_o = weights[prefix + "o_proj.weight"].unflatten(1, (H, E))
    tau = torch.stack([torch.trace((m := w_o[:, h] @ w_v[h // G]) @ key[h] @ m.T) for h in range(H)])
    return LayerStatistics(
        rows.T @ rows / tokens, value / tokens, key / tokens, tau / tokens, query / tokens, gram / tokens,
        layer not in shape.no_rope_layers,
    )


def collect(
    shape: Shape, weights: Weights, tokens: Tensor, n_attention: int | None = None
) -> list[LayerStatistics]:
    """tokens [n, T]; statistics of attention are of the first n_attention sequences."""
    inputs, _ = layer_inputs(shape, weights, tokens)
    result = []
    for layer, x in enumerate(inputs):
        statistics = collect_layer(shape, weights, layer, x[:n_attention])
        rows = x.flatten(0, 1)
        result.append(replace(statistics, covariance=rows.T @ rows / len(rows)))
    return result


# ---- Pairs ---------------------------------------------------------------------------------------


def absorbed_map(gram: Tensor, kept: list[int], absorb: bool) -> tuple[Tensor, Tensor, float]:
    """b1, b2 [E/2] (of pairs that are not kept) and the error, for gram [3 E/2, 3 E/2]."""
    half = gram.shape[0] // 3
    rest = [p for p in range(half) if p not in kept]
    b1, b2 = gram.new_ones(half), gram.new_zeros(half)
    if not rest:
        return b1, b2, 0.0
    t = torch.tensor(rest)
    f = torch.cat((half + t, 2 * half + t))
    start = torch.cat((b1[t], b2[t]))
    y, gf = gram[f][:, t].sum(1), gram[f][:, f]
    b = start
    if absorb:
        shrinkage = PAIR_SHRINKAGE * gf.diagonal()
        b = torch.linalg.solve(gf + torch.diag(shrinkage), y + shrinkage * start)
    error = gram[t][:, t].sum() - 2 * b @ y + b @ gf @ b
    b1[t], b2[t] = b[: len(t)], b[len(t) :]
    return b1, b2, float(error)


def group_error(grams: Tensor, kept: list[int], absorb: bool) -> float:
    return sum(absorbed_map(gram, kept, absorb)[2] for gram in grams)


def choose_kept(grams: Tensor, r: int, absorb: bool) -> list[int]:
    """Greedy, then the best swap as long as one improves; grams [G, 3 E/2, 3 E/2] of a group."""
    half = grams.shape[-1] // 3
    kept: list[int] = []
    while len(kept) < r:
        rest = [p for p in range(half) if p not in kept]
        kept.append(min(rest, key=lambda p: group_error(grams, kept + [p], absorb)))
    best = group_error(grams, kept, absorb)
    while True:
        swaps = [
            [p for p in kept if p != out] + [new]
            for out in kept
            for new in range(half)
            if new not in kept
        ]
        errors = [group_error(grams, swap, absorb) for swap in swaps]
        if not swaps or min(errors) >= best * (1 - 1e-12):
            return sorted(kept)
        best = min(errors)
        kept = swaps[errors.index(best)]


def choose_pairs(
    shape: Shape, statistics: list[LayerStatistics], r: int, absorb: bool
) -> tuple[Tensor, list[Tensor]]:
    """Pairs [L, K, r] and per layer the maps b [H, 2, E/2] of the pairs that are not kept."""
    G = shape.group
    pairs, maps = [], []
    for s in statistics:
        grams = s.chosen_by().unflatten(0, (shape.n_kv_heads, G))
        kept = [choose_kept(own, r, absorb and s.has_rope) for own in grams]
        pairs.append(torch.tensor(kept))
        maps.append(
            torch.stack(
                [torch.stack(absorbed_map(s.gram[h], kept[h // G], absorb)[:2]) for h in range(shape.n_heads)]
            )
        )
    return torch.stack(pairs), maps


def absorbing_matrix(b: Tensor) -> Tensor:
    """[E, E] of b [2, E/2]: [[diag b1, diag b2], [-diag b2, diag b1]]."""
    b1, b2 = torch.diag(b[0]), torch.diag(b[1])
    return torch.cat((torch.cat((b1, b2), 1), torch.cat((-b2, b1), 1)))


# ---- Low rank ------------------------------------------------------------------------------------


def shrink(c: Tensor) -> Tensor:
    return c + SHRINKAGE * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype)


def whitened_factors(matrix: Tensor, covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """up [m, rank], down [rank, D]: the nearest to matrix in the norm of the (shrunk) covariance."""
    root = torch.linalg.cholesky(shrink(covariance))
    u, s, vt = torch.linalg.svd(matrix @ root, full_matrices=False)
    half = s[:rank].sqrt()
    down = torch.linalg.solve_triangular(root, half[:, None] * vt[:rank], left=False, upper=False)
    return u[:, :rank] * half, down


@dataclass
class Block:
    """tr A (W - U D) C (W - U D)^T."""

    w: Tensor  # [n, D]
    a: Tensor  # [n, n]
    c: Tensor  # [D, D], shrunk


def blocks_error(blocks: list[Block], down: Tensor) -> float:
    total = 0.0
    for b in blocks:
        difference = b.w - best_up(b, down) @ down
        total += float(torch.trace(b.a @ difference @ b.c @ difference.T))
    return total


def best_up(b: Block, down: Tensor) -> Tensor:
    dc = down @ b.c
    return torch.linalg.solve(dc @ down.T, dc @ b.w.T).T


def conjugate_gradients(apply, solve, right: Tensor, start: Tensor, steps: int) -> Tensor:
    x = start
    r = right - apply(x)
    z = solve(r)
    p, rz = z, (r * z).sum()
    for _ in range(steps):
        if rz <= 0:
            break
        q = apply(p)
        alpha = rz / (p * q).sum()
        x, r = x + alpha * p, r - alpha * q
        z = solve(r)
        rz, old = (r * z).sum(), rz
        p = z + rz / old * p
    return x


def alternate(blocks: list[Block], down: Tensor, sweeps: int = 6, steps: int = 10) -> Tensor:
    """Alternating least squares from down [R, D]; its rows are orthonormal afterwards."""
    down = torch.linalg.qr(down.T)[0].T
    for _ in range(sweeps):
        ups = [best_up(b, down) for b in blocks]
        grams = [u.T @ b.a @ u for u, b in zip(ups, blocks)]
        right = sum(u.T @ b.a @ b.w @ b.c for u, b in zip(ups, blocks))
        traces = [torch.trace(g) for g in grams]
        mean = sum(t * b.c for t, b in zip(traces, blocks)) / sum(traces)
        left_inverse, right_inverse = torch.linalg.inv(sum(grams)), torch.linalg.inv(mean)
        down = conjugate_gradients(
            lambda d: sum(g @ d @ b.c for g, b in zip(grams, blocks)),
            lambda d: left_inverse @ d @ right_inverse,
            right,
            down,
            steps,
        )
        down = torch.linalg.qr(down.T)[0].T
    return down


# ---- Models --------------------------------------------------------------------------------------


def start_layer(shape: Shape, weights: Weights, pairs: Tensor, layer: int, maps: Tensor | None):
    """Reordered queries, kept key rows, the other key rows and the values of a layer."""
    prefix = f"model.layers.{layer}.self_attn."
    w_q = weights[prefix + "q_proj.weight"].unflatten(0, (shape.n_heads, shape.head_dim))
    if maps is not None:
        w_q = torch.stack([absorbing_matrix(b) @ q for b, q in zip(maps, w_q)])
    kept = pairs[layer]
    q = torch.cat(
        split_rows(w_q.flatten(0, 1), kept.repeat_interleave(shape.group, 0), shape.head_dim)
    )
    w_kr, w_kc = split_rows(weights[prefix + "k_proj.weight"], kept, shape.head_dim)
    return q, w_kr, w_kc, weights[prefix + "v_proj.weight"]


def put_layer(
    result: Weights, layer: int, q: Tensor, k_r: Tensor, down: Tensor, up_k: Tensor, up_v: Tensor
) -> None:
    prefix = f"model.layers.{layer}.self_attn."
    del result[prefix + "k_proj.weight"], result[prefix + "v_proj.weight"]
    result[prefix + "q_proj.weight"] = q
    result[prefix + "k_r_proj.weight"] = k_r
    result[prefix + "kv_proj.down_kv.weight"] = down
    if len(up_k) > 0:
        result[prefix + "kv_proj.up_k.weight"] = up_k
    result[prefix + "kv_proj.up_v.weight"] = up_v


def convert_whitened(
    shape: Shape,
    weights: Weights,
    pairs: Tensor,
    statistics: list[LayerStatistics],
    d_kv: int,
    key_weight: float,
) -> tuple[Shape, Weights]:
    result = dict(weights)
    for layer, s in enumerate(statistics):
        q, k_r, w_kc, w_v = start_layer(shape, weights, pairs, layer, None)
        root = math.sqrt(key_weight)
        up, down = whitened_factors(
            torch.cat((root * w_kc, w_v)), s.covariance, shape.n_kv_heads * d_kv
        )
        put_layer(result, layer, q, k_r, down, up[: len(w_kc)] / root, up[len(w_kc) :])
    return replace(shape, d_kv=d_kv, svd="joint", pairs=pairs), result


def pool_mean(per_head: Tensor, n_pools: int, head: int) -> Tensor:
    """Mean over the heads of the pool that `head` is in."""
    size = len(per_head) // n_pools
    return per_head[head // size * size :][:size].mean(0)


def layer_blocks(
    shape: Shape,
    weights: Weights,
    kept: Tensor,
    maps: Tensor,
    layer: int,
    s: LayerStatistics,
    n_pools: int,
    key_weight: float,
) -> tuple[list[Block], list[Block]]:
    """Keys' and values' blocks, one of each per KV head, which averages smaller pools."""
    K, E, G = shape.n_kv_heads, shape.head_dim, shape.group
    n_pools = min(n_pools, K)
    prefix = f"model.layers.{layer}.self_attn."
    w_k = weights[prefix + "k_proj.weight"].unflatten(0, (K, E))
    w_v = weights[prefix + "v_proj.weight"].unflatten(0, (K, E))
    w_o = weights[prefix + "o_proj.weight"].unflatten(1, (shape.n_heads, E))
    keys, values = [], []
    for j in range(K):
        nope = [e for e in range(E) if e % (E // 2) not in kept[j].tolist()]
        group = range(j * G, (j + 1) * G)
        c_k = shrink(pool_mean(s.tau[:, None, None] * s.key, n_pools, j * G))
        c_v = shrink(pool_mean(s.value, n_pools, j * G))
        a_k = sum((m := absorbing_matrix(maps[h])) @ s.query[h] @ m.T for h in group)
        a_v = sum(w_o[:, h].T @ w_o[:, h] for h in group)
        if nope:
            keys.append(Block(w_k[j][nope], key_weight * a_k[nope][:, nope], c_k))
        values.append(Block(w_v[j], a_v, c_v))
    return keys, values


def convert_closed(
    shape: Shape,
    weights: Weights,
    pairs: Tensor,
    maps: list[Tensor],
    statistics: list[LayerStatistics],
    d_kv: int,
    n_pools: int,
    key_weight: float,
) -> tuple[Shape, Weights, list[tuple[float, float]]]:
    """Also the error of each layer's blocks before and after the alternation."""
    result, errors = dict(weights), []
    for layer, s in enumerate(statistics):
        q, k_r, w_kc, w_v = start_layer(shape, weights, pairs, layer, maps[layer])
        keys, values = layer_blocks(
            shape, weights, pairs[layer], maps[layer], layer, s, n_pools, key_weight
        )
        rank = shape.n_kv_heads * d_kv
        matrix = torch.cat((math.sqrt(key_weight) * w_kc, w_v))
        _, start = whitened_factors(matrix, s.covariance, rank)
        down = alternate(keys + values, start)
        errors.append((blocks_error(keys + values, start), blocks_error(keys + values, down)))
        scale = torch.linalg.cholesky(down @ shrink(s.covariance) @ down.T)
        down = torch.linalg.solve_triangular(scale, down, upper=False)
        up_k = torch.cat([best_up(b, down) for b in keys]) if keys else w_kc
        put_layer(result, layer, q, k_r, down, up_k, torch.cat([best_up(b, down) for b in values]))
    return replace(shape, d_kv=d_kv, svd="joint", pairs=pairs), result, errors


def ridge_outputs(
    shape: Shape, weights: Weights, mla_shape: Shape, mla_weights: Weights, tokens: Tensor
) -> Weights:
    """Refits every W_o of a converted model to the original attention's output."""
    result = dict(mla_weights)
    inputs, _ = layer_inputs(shape, weights, tokens)
    for layer, x in enumerate(inputs):
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        old = weights[name]
        o = mla_attention(x, mla_shape, mla_weights, layer).flatten(0, 1)
        y = original_attention(x, shape, weights, layer).flatten(0, 1) @ old.T
        gram = o.T @ o
        ridge = RIDGE * gram.diagonal().mean()
        system = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
        result[name] = torch.linalg.solve(system, o.T @ y + ridge * old.T).T.contiguous()
    return result
