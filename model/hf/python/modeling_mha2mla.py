"""Llama with multi-head latent attention (MLA), as mha2mla writes it.

    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True)

The KV cache holds the latent c and the rotated keys k_r alone, in this order. Keys without position
and values are computed from c when they are attended to. There are two forms:

    per head  every KV head rotates pairs of its own, and c serves its other dims (arXiv 2502.14837)
    shared    all heads see the same rotated keys, and each head has further dims from c (DeepSeek-V2)

Where heads have norms (Qwen3), 1 / rms of every head of keys is cached behind k_r: it is known as
soon as the key is, and multiplies the scores. Layers without RoPE (SmolLM3) have the same tensors and
the same cache; their pairs are not rotated.

Dims: B sequences, T new tokens, S tokens in all, D model width, H query heads, E head width,
P rotated pairs, N dims of a head without position, R latent width. J heads of rotated keys and
U heads of up-projections: the number of KV heads, or 1 and H in the shared form.
"""

import torch
import transformers
from torch import nn
from transformers.cache_utils import StaticLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaForCausalLM,
    LlamaRMSNorm,
    eager_attention_forward,
)

from .configuration_mha2mla import Mha2mlaConfig


def rotate(x, cos, sin):
    """x [B, heads, T, 2P]: first halves of the pairs, then second halves; cos, sin [B, heads, T, P]"""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def make_room(cache, layer_idx, c, k_r):
    """A static cache of transformers 4 would give the second tensor the width of the first."""
    layer = cache.layers[layer_idx] if layer_idx < len(cache.layers) else None
    is_old = transformers.__version__.startswith("4.")
    if is_old and isinstance(layer, StaticLayer) and not layer.is_initialized:
        layer.lazy_initialization(c)
        layer.values = k_r.new_zeros(*layer.keys.shape[:-1], k_r.shape[-1])


class Mha2mlaLatent(nn.Module):
    """From the input to the latent, and from the latent to keys without position and values."""

    def __init__(self, config, n_heads, nope_dim):
        super().__init__()
        mla = config.mha2mla
        width = mla.get("latent") or config.num_key_value_heads * mla["d_kv"]
        self.n_heads = n_heads
        self.read = width // 2 if mla["svd"] == "split" else width
        self.down_kv = nn.Linear(config.hidden_size, width, bias=False)
        self.latent_norm = (
            LlamaRMSNorm(width, config.rms_norm_eps) if mla.get("latent_norm") else nn.Identity()
        )
        # With all pairs rotated there are no other dims, and the file has no up_k.
        self.up_k = nn.Linear(self.read, n_heads * nope_dim, bias=False) if nope_dim else None
        self.up_v = nn.Linear(self.read, n_heads * config.head_dim, bias=False)

    def compress(self, hidden_states):
        return self.latent_norm(self.down_kv(hidden_states))

    def split_heads(self, x):
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def keys(self, c):
        """c [B, S, R] -> [B, U, S, N]"""
        if self.up_k is None:
            return c.new_zeros(c.shape[0], self.n_heads, c.shape[1], 0)
        return self.split_heads(self.up_k(c[..., : self.read]))

    def values(self, c):
        """c [B, S, R] -> [B, U, S, E]"""
        return self.split_heads(self.up_v(c[..., -self.read :]))


class Mha2mlaAttention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        mla, n_heads, head_dim = config.mha2mla, config.num_attention_heads, config.head_dim
        is_shared = bool(mla.get("latent"))
        pairs = mla["rope_pairs"]
        nope_dim = head_dim if is_shared else head_dim - 2 * pairs
        rope_heads = 1 if is_shared else config.num_key_value_heads
        self.up_heads = n_heads if is_shared else config.num_key_value_heads
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = True
        self.scaling = head_dim**-0.5
        self.num_key_value_groups = n_heads // self.up_heads
        self.q_widths = [n_heads * 2 * pairs, n_heads * nope_dim]
        bias = bool(mla.get("attention_bias"))
        self.q_proj = nn.Linear(config.hidden_size, sum(self.q_widths), bias=bias)
        self.k_r_proj = nn.Linear(config.hidden_size, rope_heads * 2 * pairs, bias=bias)
        self.kv_proj = Mha2mlaLatent(config, self.up_heads, nope_dim)
        self.o_proj = nn.Linear(n_heads * head_dim, config.hidden_size, bias=bias)
        has_rope = mla.get("no_rope_layers")  # of every layer
        self.has_rope = has_rope is None or bool(has_rope[layer_idx])
        self.has_norms = bool(mla.get("qk_norm"))
        if self.has_norms:
            self.q_norm = LlamaRMSNorm(head_dim, config.rms_norm_eps)
            self.k_norm = LlamaRMSNorm(head_dim, config.rms_norm_eps)
        self.register_buffer("rope_pairs", torch.zeros(rope_heads, pairs, dtype=torch.int32))

    def angles(self, cos, sin):
        """Tables [B, T, E] of the original's cosines and sines -> [B, J, T, P] each"""
        if not self.has_rope:
            cos, sin = torch.ones_like(cos), torch.zeros_like(sin)
        pairs = self.rope_pairs.long()
        return cos[..., pairs].transpose(1, 2), sin[..., pairs].transpose(1, 2)

    def head_weight(self, norm):
        """A norm's weight [E] -> [J, 1, E], in the order of a head's dims: rotated ones first"""
        pairs, half = self.rope_pairs.long(), self.config.head_dim // 2
        rotated = torch.cat((pairs, pairs + half), dim=-1)
        is_rotated = torch.zeros(len(pairs), 2 * half, dtype=torch.int32, device=pairs.device)
        others = is_rotated.scatter(1, rotated, 1).argsort(dim=-1, stable=True)
        others = others[:, : 2 * half - rotated.shape[-1]]
        return norm.weight[torch.cat((rotated, others), dim=-1)][:, None]

    def inverse_rms(self, *parts):
        """Parts [B, heads, T, dims] of heads -> [B, heads, T, 1] in float32"""
        squares = torch.cat([part.float().square() for part in parts], dim=-1)
        return torch.rsqrt(squares.mean(-1, keepdim=True) + self.config.rms_norm_eps)

    def queries(self, hidden_states, cos, sin):
        """[B, H, T, 2P + N]; the weight's rows are rotated dims of all heads, then the others"""
        n_heads = self.config.num_attention_heads
        rotated, others = self.q_proj(hidden_states).split(self.q_widths, dim=-1)
        rotated = rotated.unflatten(-1, (n_heads, -1)).transpose(1, 2)
        others = others.unflatten(-1, (n_heads, -1)).transpose(1, 2)
        group = n_heads // self.rope_pairs.shape[0]
        if self.has_norms:
            width = rotated.shape[-1]
            weight = self.head_weight(self.q_norm).repeat_interleave(group, dim=0)
            scale = self.inverse_rms(rotated, others)
            rotated = weight[..., :width] * (rotated * scale).to(rotated.dtype)
            others = weight[..., width:] * (others * scale).to(others.dtype)
        cos, sin = (table.repeat_interleave(group, dim=1) for table in (cos, sin))
        return torch.cat((rotate(rotated, cos, sin), others), dim=-1)

    def rotated_keys(self, hidden_states, c, cos, sin):
        """What is cached of them: k_r [B, T, J 2P], with norms [B, T, J (2P + 1)]"""
        k_r = self.k_r_proj(hidden_states).unflatten(-1, (self.rope_pairs.shape[0], -1))
        k_r = k_r.transpose(1, 2)
        if not self.has_norms:
            return rotate(k_r, cos, sin).transpose(1, 2).flatten(-2)
        scale = self.inverse_rms(k_r, self.kv_proj.keys(c))[..., 0].to(k_r.dtype)
        k_r = self.head_weight(self.k_norm)[..., : k_r.shape[-1]] * k_r
        k_r = rotate(k_r, cos, sin).transpose(1, 2).flatten(-2)
        return torch.cat((k_r, scale.transpose(1, 2)), dim=-1)

    def keys(self, k_r, c):
        """What rotated_keys() gives and c [B, S, R] -> [B, U, S, 2P + N]"""
        heads, k_c = self.rope_pairs.shape[0], self.kv_proj.keys(c)
        if not self.has_norms:
            k_r = k_r.unflatten(-1, (heads, -1)).transpose(1, 2)
            return torch.cat((k_r.expand(-1, self.up_heads, -1, -1), k_c), dim=-1)
        k_r, scale = k_r.split((k_r.shape[-1] - heads, heads), dim=-1)
        k_r = k_r.unflatten(-1, (heads, -1)).transpose(1, 2)
        k_c = self.head_weight(self.k_norm)[..., k_r.shape[-1] :] * k_c
        return torch.cat((k_r, k_c), dim=-1) * scale.transpose(1, 2)[..., None]

    def forward(
        self,
        hidden_states,
        position_embeddings=None,
        attention_mask=None,
        cache=None,  # transformers 5
        past_key_values=None,  # transformers 4
        cache_position=None,
        **kwargs,
    ):
        cos, sin = self.angles(*position_embeddings)
        query = self.queries(hidden_states, cos, sin)
        c = self.kv_proj.compress(hidden_states)
        k_r = self.rotated_keys(hidden_states, c, cos, sin)
        cache = past_key_values if cache is None else cache
        if cache is not None:
            c, k_r = c[:, None], k_r[:, None]
            make_room(cache, self.layer_idx, c, k_r)
            position = {"cache_position": cache_position}  # static caches of transformers 4
            c, k_r = cache.update(c, k_r, self.layer_idx, position)
            c, k_r = c[:, 0], k_r[:, 0]
        key, value = self.keys(k_r, c), self.kv_proj.values(c)
        attend = ALL_ATTENTION_FUNCTIONS.get(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.flatten(-2)), weights


class Mha2mlaForCausalLM(LlamaForCausalLM):
    config_class = Mha2mlaConfig
    _supports_flash_attn = False  # keys and values of a head differ in width
    _supports_flex_attn = False

    def __init__(self, config):
        super().__init__(config)
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = Mha2mlaAttention(config, index)
        self.post_init()
