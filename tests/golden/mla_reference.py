"""Plain PyTorch reference of the original attention, of its conversion to MLA, and of MLA, per head and
shared.

Written from the formulas, independent of the C code: the oracle of the golden files.

Usage:
    shape, weights = load_model("tests/golden/models/gqa_tied")           # float64
    logits = forward(shape, weights, tokens)                              # [B, T, V]
    q_norm, k_norm = pair_norms(shape, weights, calibration_tokens)       # [L, H, E/2], [L, K, E/2]
    pairs = select_pairs("2-norm", shape, 2, q_norm, k_norm)              # [L, K, r]
    mla_shape, mla_weights = convert(shape, weights, pairs, "joint", 8)
    logits = forward(mla_shape, mla_weights, tokens)

Weights are a dict by Hugging Face name, [out, in] as stored. The dims are those of
model/shape.h: B T D H K E L V; r RoPE pairs are kept per KV head, R = K d_kv is the latent width.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]

STRATEGIES = ("high", "low", "uniform", "2-norm")
SVD_KINDS = ("joint", "split")


@dataclass(frozen=True)
class Shape:
    """What config.json says, and for MLA which pairs each KV head keeps."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float
    rms_eps: float
    tied_head: bool
    d_kv: int = 0  # 0: original attention, or the shared form
    svd: str = "joint"
    pairs: Tensor | None = None  # MLA: int64 [L, K, r], ascending in each row; shared: [L, 1, P]
    latent: int = 0  # R of the shared form; 0: not the shared form
    latent_norm: bool = False
    rope_scaling: dict | None = None  # of type llama3, with the keys of config.json
    qk_norm: bool = False  # RMSNorm of every head of queries and keys before RoPE
    no_rope_layers: tuple[int, ...] = ()  # layers without RoPE

    @property
    def group(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def is_mla(self) -> bool:
        return self.d_kv > 0 or self.latent > 0


# ---- Files ---------------------------------------------------------------------------------------


def rope_theta_of(config: dict) -> float:
    """transformers 5 writes rope_parameters.rope_theta, earlier versions rope_theta."""
    return float((config.get("rope_parameters") or config)["rope_theta"])


def rope_scaling_of(config: dict) -> dict | None:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = rope.get("rope_type", "default")
    assert kind in ("default", "llama3")
    return rope if kind == "llama3" else None


def no_rope_layers_of(config: dict) -> tuple[int, ...]:
    """SmolLM3's: a list of 1 with RoPE and 0 without, or every n-th layer without."""
    n_layers = config["num_hidden_layers"]
    has_rope = config.get("mha2mla", config).get("no_rope_layers") or config.get("no_rope_layers")
    if has_rope is None and config["model_type"] == "smollm3":
        interval = config.get("no_rope_layer_interval", 4)
        has_rope = [(layer + 1) % interval for layer in range(n_layers)]
    return tuple(layer for layer in range(n_layers) if has_rope and not has_rope[layer])


def shape_from_config(config: dict) -> Shape:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    mla = config.get("mha2mla", {})
    return Shape(
        n_layers=config["num_hidden_layers"],
        d_model=config["hidden_size"],
        n_heads=config["num_attention_heads"],
        n_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        head_dim=head_dim,
        vocab_size=config["vocab_size"],
        rope_theta=rope_theta_of(config),
        rms_eps=config["rms_norm_eps"],
        tied_head=config.get("tie_word_embeddings", False),
        d_kv=mla.get("d_kv", 0),
        svd=mla.get("svd", "joint"),
        latent=mla.get("latent", 0),
        latent_norm=mla.get("latent_norm", False),
        rope_scaling=rope_scaling_of(config),
        qk_norm=config["model_type"] == "qwen3" or mla.get("qk_norm", False),
        no_rope_layers=no_rope_layers_of(config),
    )


def load_weights(directory: Path) -> Weights:
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return load_file(directory / "model.safetensors")
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return {k: v for name in names for k, v in load_file(directory / name).items()}


def load_model(
    directory: str | Path, dtype: torch.dtype = torch.float64
) -> tuple[Shape, Weights]:
    """Reads a Hugging Face directory, original or MLA."""
    directory = Path(directory)
    shape = shape_from_config(json.loads((directory / "config.json").read_text()))
    tensors = load_weights(directory)
    if shape.is_mla:
        pairs = [
            tensors.pop(f"model.layers.{l}.self_attn.rope_pairs") for l in range(shape.n_layers)
        ]
        shape = replace(shape, pairs=torch.stack(pairs).long())
    return shape, {name: w.to(dtype) for name, w in tensors.items()}


def save_mla(directory: Path, shape: Shape, weights: Weights, base_config: dict) -> None:
    """Writes an MLA directory as `mha2mla convert` does, in float32."""
    assert shape.pairs is not None
    r = shape.pairs.shape[-1]
    block = {"rope_pairs": r, "rope_dim_for_mla": 2 * r, "d_kv": shape.d_kv}
    if shape.latent > 0:
        numbers = shape.n_layers * (2 * r + shape.latent)
        block |= {"latent": shape.latent, "latent_norm": shape.latent_norm}
    else:
        per_head = 2 * r + shape.d_kv + shape.qk_norm
        numbers = shape.n_layers * shape.n_kv_heads * per_head
        block |= {"low_rank": shape.d_kv}
    block |= {"svd": shape.svd, "cache_numbers_per_token": numbers}
    directory.mkdir(parents=True, exist_ok=True)
    config = json.dumps({**base_config, "mha2mla": block}, indent=2)
    (directory / "config.json").write_text(config + "\n")
    tensors = {name: w.detach().float().contiguous() for name, w in weights.items()}
    for layer in range(shape.n_layers):
        tensors[f"model.layers.{layer}.self_attn.rope_pairs"] = shape.pairs[layer].int()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


# ---- Forward -------------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def frequencies(pairs: Tensor, shape: Shape) -> Tensor:
    """Radians per position of each pair: theta^(-2 pair / E), scaled as Llama 3 does."""
    plain = shape.rope_theta ** (-2.0 * pairs.double() / shape.head_dim)
    if shape.rope_scaling is None:
        return plain
    factor, low, high, positions = (
        shape.rope_scaling[key]
        for key in (
            "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
        )
    )
    turns = positions * plain / (2 * math.pi)  # of a pair over the original positions
    unscaled_part = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * (unscaled_part + (1 - unscaled_part) / factor)


def rotate(x: Tensor, pairs: Tensor, shape: Shape, layer: int) -> Tensor:
    """Rotates heads x [B, T, heads, 2r], dims (i, i + r) by pos times the frequency of
    pairs[head, i], where the layer has RoPE."""
    if layer in shape.no_rope_layers:
        return x
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    frequency = frequencies(pairs, shape)  # [heads, r]
    angle = positions[:, None, None] * frequency  # [T, heads, r]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def norm_heads(x: Tensor, weight: Tensor, pairs: Tensor, shape: Shape) -> Tensor:
    """RMSNorm of heads x [B, T, heads, E] whose dims lie by pairs [heads, r]: rotated ones first."""
    rows = torch.stack([torch.tensor(row) for row in head_orders(pairs, shape.head_dim)])
    return rms_norm(x, weight[rows], shape.rms_eps)


def attend(q: Tensor, k: Tensor, v: Tensor, shape: Shape) -> Tensor:
    """Causal attention of q [B, T, H, E], k and v [B, T, K, E]; returns [B, T, H E]."""
    k = k.repeat_interleave(shape.group, dim=2)
    v = v.repeat_interleave(shape.group, dim=2)
    scores = torch.einsum("bthe,bshe->bhts", q, k) / math.sqrt(shape.head_dim)
    future = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -math.inf).softmax(-1)
    return torch.einsum("bhts,bshe->bthe", weights, v).flatten(2)


def project(x: Tensor, weights: Weights, name: str) -> Tensor:
    """x W^T, and the bias if the weights have one."""
    bias = weights.get(name + ".bias")
    product = x @ weights[name + ".weight"].T
    return product if bias is None else product + bias


def original_queries_keys(
    x: Tensor, shape: Shape, weights: Weights, layer: int
) -> tuple[Tensor, Tensor]:
    """q [B, T, H, E] and k [B, T, K, E] as RoPE is given them."""
    prefix = f"model.layers.{layer}.self_attn."
    q = project(x, weights, prefix + "q_proj")
    k = project(x, weights, prefix + "k_proj")
    q, k = (heads.unflatten(-1, (-1, shape.head_dim)) for heads in (q, k))
    if shape.qk_norm:
        q = rms_norm(q, weights[prefix + "q_norm.weight"], shape.rms_eps)
        k = rms_norm(k, weights[prefix + "k_norm.weight"], shape.rms_eps)
    return q, k


def original_attention(x: Tensor, shape: Shape, weights: Weights, layer: int) -> Tensor:
    q, k = original_queries_keys(x, shape, weights, layer)
    v = project(x, weights, f"model.layers.{layer}.self_attn.v_proj")
    every_pair = torch.arange(shape.head_dim // 2)
    q = rotate(q, every_pair.expand(shape.n_heads, -1), shape, layer)
    k = rotate(k, every_pair.expand(shape.n_kv_heads, -1), shape, layer)
    return attend(q, k, v.unflatten(-1, (-1, shape.head_dim)), shape)


def up_project(latent: Tensor, weights: Weights, prefix: str, heads: int) -> Tensor:
    """[B, T, heads, rows per head]; the table leaves out an up_k of no rows."""
    weight = weights.get(prefix)
    if weight is None:
        return latent.new_zeros(*latent.shape[:2], heads, 0)
    return (latent @ weight.T).unflatten(-1, (heads, -1))


def mla_attention(x: Tensor, shape: Shape, weights: Weights, layer: int) -> Tensor:
    assert shape.pairs is not None
    prefix = f"model.layers.{layer}.self_attn."
    pairs = shape.pairs[layer]  # [K, r]
    width_r, n_heads, n_kv = 2 * pairs.shape[-1], shape.n_heads, shape.n_kv_heads

    q_r, q_c = project(x, weights, prefix + "q_proj").tensor_split([n_heads * width_r], dim=-1)
    q_r = q_r.unflatten(-1, (n_heads, width_r))
    q_c = q_c.unflatten(-1, (n_heads, shape.head_dim - width_r))
    k_r = project(x, weights, prefix + "k_r_proj").unflatten(-1, (n_kv, width_r))
    latent = x @ weights[prefix + "kv_proj.down_kv.weight"].T
    latent_k, latent_v = latent.chunk(2, dim=-1) if shape.svd == "split" else (latent, latent)
    k_c = up_project(latent_k, weights, prefix + "kv_proj.up_k.weight", n_kv)
    v = up_project(latent_v, weights, prefix + "kv_proj.up_v.weight", n_kv)

    q_pairs = pairs.repeat_interleave(shape.group, 0)
    if shape.qk_norm:
        q = torch.cat((q_r, q_c), dim=-1)
        q = norm_heads(q, weights[prefix + "q_norm.weight"], q_pairs, shape)
        k = torch.cat((k_r, k_c), dim=-1)
        k = norm_heads(k, weights[prefix + "k_norm.weight"], pairs, shape)
        (q_r, q_c), (k_r, k_c) = (heads.tensor_split([width_r], dim=-1) for heads in (q, k))
    q = torch.cat((rotate(q_r, q_pairs, shape, layer), q_c), dim=-1)
    k = torch.cat((rotate(k_r, pairs, shape, layer), k_c), dim=-1)
    return attend(q, k, v, shape)


def shared_attention(x: Tensor, shape: Shape, weights: Weights, layer: int) -> Tensor:
    """One head of rotated keys for all query heads, keys and values of every query head from one
    latent; the scale stays that of the original's heads."""
    assert shape.pairs is not None
    prefix = f"model.layers.{layer}.self_attn."
    pairs = shape.pairs[layer]  # [1, P]
    width_r, heads = 2 * pairs.shape[-1], shape.n_heads

    q_r, q_c = project(x, weights, prefix + "q_proj").tensor_split([heads * width_r], dim=-1)
    q_r = q_r.unflatten(-1, (heads, width_r))
    q_c = q_c.unflatten(-1, (heads, shape.head_dim))
    k_r = project(x, weights, prefix + "k_r_proj").unsqueeze(2)
    latent = x @ weights[prefix + "kv_proj.down_kv.weight"].T
    if shape.latent_norm:
        latent = rms_norm(latent, weights[prefix + "kv_proj.latent_norm.weight"], shape.rms_eps)
    k_c = up_project(latent, weights, prefix + "kv_proj.up_k.weight", heads)
    v = up_project(latent, weights, prefix + "kv_proj.up_v.weight", heads)

    q = torch.cat((rotate(q_r, pairs.expand(heads, -1), shape, layer), q_c), dim=-1)
    k = torch.cat((rotate(k_r, pairs, shape, layer).expand(-1, -1, heads, -1), k_c), dim=-1)
    return attend(q, k, v, replace(shape, n_kv_heads=heads))


def layer_forward(
    x: Tensor, normed: Tensor, shape: Shape, weights: Weights, layer: int
) -> Tensor:
    prefix = f"model.layers.{layer}."
    attention = original_attention
    if shape.is_mla:
        attention = shared_attention if shape.latent > 0 else mla_attention
    heads = attention(normed, shape, weights, layer)
    x = x + project(heads, weights, prefix + "self_attn.o_proj")
    h = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], shape.rms_eps)
    gate = functional.silu(h @ weights[prefix + "mlp.gate_proj.weight"].T)
    up = h @ weights[prefix + "mlp.up_proj.weight"].T
    return x + (gate * up) @ weights[prefix + "mlp.down_proj.weight"].T


def layer_inputs(
    shape: Shape, weights: Weights, tokens: Tensor
) -> tuple[list[Tensor], Tensor]:
    """What each layer's attention reads (after its norm), and the last layer's output."""
    x = weights["model.embed_tokens.weight"][tokens.long()]
    inputs = []
    for layer in range(shape.n_layers):
        norm = weights[f"model.layers.{layer}.input_layernorm.weight"]
        inputs.append(rms_norm(x, norm, shape.rms_eps))
        x = layer_forward(x, inputs[-1], shape, weights, layer)
    return inputs, x


def forward(shape: Shape, weights: Weights, tokens: Tensor) -> Tensor:
    """Logits [B, T, V] of tokens [B, T]."""
    _, x = layer_inputs(shape, weights, tokens)
    x = rms_norm(x, weights["model.norm.weight"], shape.rms_eps)
    head = "model.embed_tokens.weight" if shape.tied_head else "lm_head.weight"
    return x @ weights[head].T


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, T, V] for the next tokens of tokens [B, T + 1]."""
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].long().flatten())


def loss_and_gradients(
    shape: Shape, weights: Weights, tokens: Tensor
) -> tuple[Tensor, Tensor, Weights]:
    """Logits, loss and the gradient of every parameter for tokens [B, T + 1]."""
    leaves = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    logits = forward(shape, leaves, tokens[:, :-1])
    loss = next_token_loss(logits, tokens)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return logits.detach(), loss.detach(), dict(zip(leaves, gradients))


# ---- Conversion ----------------------------------------------------------------------------------


def pair_norms(shape: Shape, weights: Weights, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over all tokens of |(x_p, x_{p+E/2})| of q [L, H, E/2] and k [L, K, E/2] before RoPE."""
    inputs, _ = layer_inputs(shape, weights, tokens)
    q_norms, k_norms = [], []
    for layer, x in enumerate(inputs):
        q, k = original_queries_keys(x, shape, weights, layer)
        for heads, norms in ((q, q_norms), (k, k_norms)):
            first, second = heads.chunk(2, dim=-1)
            norms.append(torch.hypot(first, second).mean((0, 1)))
    return torch.stack(q_norms), torch.stack(k_norms)


def pair_scores(shape: Shape, q_norm: Tensor, k_norm: Tensor) -> Tensor:
    """[L, K, E/2]: sum over the group's query heads of mean|q_p| mean|k_p|."""
    return q_norm.unflatten(1, (shape.n_kv_heads, shape.group)).sum(2) * k_norm


def select_pairs(
    strategy: str, shape: Shape, r: int, q_norm: Tensor | None = None, k_norm: Tensor | None = None
) -> Tensor:
    """The kept pairs, int64 [L, K, r], ascending in each row."""
    half = shape.head_dim // 2
    if strategy == "2-norm":
        assert q_norm is not None and k_norm is not None
        return pair_scores(shape, q_norm, k_norm).topk(r, dim=-1).indices.sort(-1).values
    row = {
        "high": [k for k in range(r)],
        "low": [half - r + k for k in range(r)],
        "uniform": [k * half // r for k in range(r)],
    }[strategy]
    return torch.tensor(row).expand(shape.n_layers, shape.n_kv_heads, r).contiguous()


def head_orders(pairs: Tensor, head_dim: int) -> list[list[int]]:
    """Of each head the dims of its pairs [heads, r], first and second halves, then the others."""
    orders = []
    for kept in pairs.tolist():
        rope = kept + [p + head_dim // 2 for p in kept]
        orders.append(rope + [e for e in range(head_dim) if e not in rope])
    return orders


def split_rows(weight: Tensor, pairs: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Rows of [heads E, D] by pairs [heads, r]: RoPE rows [heads 2r, D], NoPE rows [rest, D]."""
    rope_rows, nope_rows = [], []
    width_r = 2 * pairs.shape[-1]
    for head, order in enumerate(head_orders(pairs, head_dim)):
        rope_rows += [head * head_dim + e for e in order[:width_r]]
        nope_rows += [head * head_dim + e for e in order[width_r:]]
    return weight[rope_rows], weight[nope_rows]


def factorize(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U S^1/2 [m, rank] and S^1/2 V^T [rank, n] of the truncated SVD."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vt[:rank]


def spectral_gap(matrix: Tensor, rank: int) -> float:
    """1 - S_{rank+1} / S_rank: near 0 the truncated SVD is not well defined."""
    s = torch.linalg.svdvals(matrix)
    return 1.0 if rank >= len(s) else float(1.0 - s[rank] / s[rank - 1])


def factorize_keys_values(
    w_kc: Tensor, w_v: Tensor, svd: str, latent: int
) -> tuple[Tensor, Tensor, Tensor]:
    """up_k, up_v and down_kv of the NoPE key rows and the value rows."""
    if svd == "joint":
        up, down = factorize(torch.cat((w_kc, w_v)), latent)
        return up[: len(w_kc)], up[len(w_kc) :], down
    up_k, down_k = factorize(w_kc, latent // 2)
    up_v, down_v = factorize(w_v, latent // 2)
    return up_k, up_v, torch.cat((down_k, down_v))


def convert_biases(
    shape: Shape, weights: Weights, result: Weights, prefix: str, kept: Tensor
) -> None:
    """Rows as those of the matrices. The bias of keys that are not rotated adds the same to all scores
    of a query; that of the values comes out of the softmax as it is."""
    q_pairs = kept.repeat_interleave(shape.group, 0)
    q_bias, k_bias = (weights[f"{prefix}{name}_proj.bias"] for name in "qk")
    v_bias = weights[prefix + "v_proj.bias"].unflatten(0, (shape.n_kv_heads, -1))
    of_heads = v_bias.repeat_interleave(shape.group, 0).flatten()
    result[prefix + "q_proj.bias"] = torch.cat(split_rows(q_bias, q_pairs, shape.head_dim))
    result[prefix + "k_r_proj.bias"] = split_rows(k_bias, kept, shape.head_dim)[0]
    result[prefix + "o_proj.bias"] = (
        weights.get(prefix + "o_proj.bias", 0) + weights[prefix + "o_proj.weight"] @ of_heads
    )
    for name in "kv":
        result.pop(f"{prefix}{name}_proj.bias")


def convert(
    shape: Shape, weights: Weights, pairs: Tensor, svd: str, d_kv: int
) -> tuple[Shape, Weights]:
    """The MLA model that keeps `pairs` [L, K, r] with a latent of K d_kv numbers."""
    result = dict(weights)
    for layer in range(shape.n_layers):
        prefix = f"model.layers.{layer}.self_attn."
        kept = pairs[layer]
        q_pairs = kept.repeat_interleave(shape.group, 0)
        w_q = split_rows(weights[prefix + "q_proj.weight"], q_pairs, shape.head_dim)
        w_kr, w_kc = split_rows(result.pop(prefix + "k_proj.weight"), kept, shape.head_dim)
        w_v = result.pop(prefix + "v_proj.weight")
        up_k, up_v, down = factorize_keys_values(w_kc, w_v, svd, shape.n_kv_heads * d_kv)
        result[prefix + "q_proj.weight"] = torch.cat(w_q)
        result[prefix + "k_r_proj.weight"] = w_kr
        result[prefix + "kv_proj.down_kv.weight"] = down
        if len(up_k) > 0:
            result[prefix + "kv_proj.up_k.weight"] = up_k
        result[prefix + "kv_proj.up_v.weight"] = up_v
        if prefix + "q_proj.bias" in weights:
            convert_biases(shape, weights, result, prefix, kept)
    return replace(shape, d_kv=d_kv, svd=svd, pairs=pairs), result
