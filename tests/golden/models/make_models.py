"""Writes tiny random models in Hugging Face format, and what transformers computes on them.

Usage, from the repository's root:
    python3 tests/golden/models/make_models.py

Writes tests/golden/models/NAME/ and models/NAME.safetensors with
    tokens int32 [B, T + 1], logits [B, T, V], loss [1], grad.<parameter> like the parameter.
Weights are as in the file (BF16 and F16 upcast); transformers' class for the model runs in float64,
its norms and angles too, and the results are stored as float32. A tied head's gradient is part
of grad.model.embed_tokens.weight.

Where the pretrained assets are present, also stories260K.safetensors: tokens int32 [64] and
logits [64, V] of stories260K.
"""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference

import mla_reference
from golden_io import (
    GOLDEN_DIR,
    MODELS_DIR,
    Tensors,
    assets_dir,
    deterministic,
    float32,
    int32,
    random_tokens,
    save_golden,
    seeded,
)

N_SEQUENCES, SEQ_LEN = 2, 19
STORIES_TOKENS = 64


@dataclass(frozen=True)
class TinyModel:
    """One model: its dims and what is special about its files."""

    name: str
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_ffn: int
    vocab_size: int
    head_dim: int | None = None  # None: left out of config.json, d_model / n_heads
    n_layers: int = 2
    tied_head: bool = True
    dtype: torch.dtype = torch.float32
    rope_theta: float = 10000.0
    rms_eps: float = 1e-5
    n_shards: int = 1
    new_config: bool = False  # keys as transformers 5 writes them
    type: str = "llama"  # model_type
    architecture: str = "LlamaForCausalLM"
    qk_norm: bool = False  # norms of heads
    biases: str = ""  # of q, k, v and o: those with a bias
    keys: dict = field(default_factory=dict)  # of config.json, over those of a Llama model

    @property
    def width(self) -> int:
        return self.head_dim or self.d_model // self.n_heads


QWEN3 = {
    "type": "qwen3",
    "architecture": "Qwen3ForCausalLM",
    "keys": {"sliding_window": None, "use_sliding_window": False, "max_window_layers": 2,
             "layer_types": ["full_attention", "full_attention"]},
    "qk_norm": True,
}
MODELS = (
    TinyModel("gqa_tied", 32, 4, 2, 44, 64),
    TinyModel("mha_untied", 40, 4, 4, 36, 51, tied_head=False),
    TinyModel("mqa_head_dim", 36, 3, 1, 40, 71, head_dim=16),
    TinyModel("gqa_bf16", 32, 4, 2, 40, 72, n_layers=3, dtype=torch.bfloat16),
    TinyModel("gqa_f16", 48, 6, 2, 36, 61, dtype=torch.float16, tied_head=False),
    TinyModel("mqa_sharded", 32, 2, 1, 36, 96, n_shards=3, tied_head=False),
    TinyModel("gqa_theta", 32, 4, 2, 40, 65, head_dim=16, rope_theta=500000.0, rms_eps=1e-6,
              new_config=True),
    # Wavelengths of the 4 pairs: 6.3 stays, 33 is interpolated, 170 and 870 are divided.
    TinyModel("llama3", 32, 4, 2, 40, 65, head_dim=8, rope_theta=750.0, keys={"rope_scaling": {
        "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 64, "rope_type": "llama3"}}),
    TinyModel("mistral", 40, 4, 2, 36, 61, head_dim=8, tied_head=False, type="mistral",
              architecture="MistralForCausalLM", keys={"sliding_window": 19}),
    TinyModel("qwen3", 36, 3, 3, 44, 57, head_dim=16, tied_head=False, new_config=True, **QWEN3),
    TinyModel("qwen3_gqa", 32, 4, 2, 40, 62, head_dim=12, rms_eps=1e-6, **QWEN3),
    TinyModel("llama_bias", 36, 3, 1, 40, 67, head_dim=8, biases="qkvo",
              keys={"attention_bias": True}),
    TinyModel("qwen2", 32, 4, 2, 40, 65, type="qwen2", architecture="Qwen2ForCausalLM", biases="qkv",
              keys={"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 1}),
    TinyModel("smollm3", 32, 4, 2, 36, 63, n_layers=3, type="smollm3",
              architecture="SmolLM3ForCausalLM", keys={
                  "no_rope_layers": [0, 1, 1], "no_rope_layer_interval": 4,
                  "layer_types": ["full_attention"] * 3, "max_window_layers": 28,
                  "pad_token_id": None, "sliding_window": None, "use_sliding_window": False}),
)


def config_of(model: TinyModel) -> dict:
    config = {
        "architectures": [model.architecture],
        "model_type": model.type,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": model.d_model,
        "initializer_range": 0.02,
        "intermediate_size": model.d_ffn,
        "max_position_embeddings": 128,
        "mlp_bias": False,
        "num_attention_heads": model.n_heads,
        "num_hidden_layers": model.n_layers,
        "num_key_value_heads": model.n_kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": model.rms_eps,
        "tie_word_embeddings": model.tied_head,
        "use_cache": True,
        "vocab_size": model.vocab_size,
    }
    if model.head_dim is not None:
        config["head_dim"] = model.head_dim
    dtype_name = str(model.dtype).removeprefix("torch.")
    if model.new_config:
        rope = {"rope_theta": model.rope_theta, "rope_type": "default"}
        return {**config, "dtype": dtype_name, "rope_parameters": rope, **model.keys}
    rope_keys = {"rope_scaling": None, "rope_theta": model.rope_theta}
    return {**config, "torch_dtype": dtype_name, **rope_keys, **model.keys}


def parameter_shapes(model: TinyModel) -> dict[str, tuple[int, ...]]:
    d, q, kv = model.d_model, model.n_heads * model.width, model.n_kv_heads * model.width
    e = model.width
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (model.vocab_size, d)}
    for layer in range(model.n_layers):
        of_layer = {
            "input_layernorm": (d,),
            "self_attn.q_proj": (q, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, q),
            **({"self_attn.q_norm": (e,), "self_attn.k_norm": (e,)} if model.qk_norm else {}),
            "post_attention_layernorm": (d,),
            "mlp.gate_proj": (model.d_ffn, d),
            "mlp.up_proj": (model.d_ffn, d),
            "mlp.down_proj": (d, model.d_ffn),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": s for name, s in of_layer.items()}
        for name in model.biases:
            rows = of_layer[f"self_attn.{name}_proj"][0]
            shapes[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = (rows,)
    shapes["model.norm.weight"] = (d,)
    if not model.tied_head:
        shapes["lm_head.weight"] = (model.vocab_size, d)
    return shapes


def random_weights(model: TinyModel, seed: int) -> Tensors:
    """Matrices N(0, 0.2), embedding and head N(0, 0.4), biases N(0, 0.3), norms 1 +- 0.2: logits
    spread widely."""
    generator = seeded(seed)
    weights = {}
    for name, shape in parameter_shapes(model).items():
        values = torch.randn(shape, generator=generator)
        if name.endswith(".bias"):
            values *= 0.3
        elif len(shape) == 1:
            values = 1.0 + 0.2 * values
        else:
            values *= 0.4 if "embed" in name or "lm_head" in name else 0.2
        weights[name] = values.to(model.dtype)
    return weights


def write_shards(directory: Path, weights: Tensors, n_shards: int) -> None:
    """Cuts the list of tensors into equal runs; layers are cut in the middle, as real files are."""
    names, weight_map = list(weights), {}
    for shard in range(n_shards):
        file_name = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        first, end = (len(names) * s // n_shards for s in (shard, shard + 1))
        part = {name: weights[name] for name in names[first:end]}
        save_file(part, directory / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    size = sum(w.numel() * w.element_size() for w in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    text = json.dumps(index, indent=2) + "\n"
    (directory / "model.safetensors.index.json").write_text(text)


def write_model(model: TinyModel, seed: int) -> Path:
    directory = MODELS_DIR / model.name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config_of(model), indent=2) + "\n")
    weights = random_weights(model, seed)
    if model.n_shards > 1:
        write_shards(directory, weights, model.n_shards)
    else:
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def norm_float64(self: torch.nn.Module, x: Tensor) -> Tensor:
    return self.weight * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.variance_epsilon)


def rotary_float64(
    self: torch.nn.Module, x: Tensor, position_ids: Tensor
) -> tuple[Tensor, Tensor]:
    shape = mla_reference.shape_from_config(self.config.to_dict())
    frequency = mla_reference.frequencies(torch.arange(shape.head_dim // 2), shape)
    angle = (position_ids[..., None] * frequency).repeat(1, 1, 2)
    return angle.cos(), angle.sin()


def load_transformers(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    """transformers' model; as float64 its norms and angles, which it keeps in float32, follow."""
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="sdpa"
    )
    if dtype == torch.float64:
        for module in model.modules():
            kind = type(module).__name__
            if kind.endswith("RMSNorm"):
                module.forward = types.MethodType(norm_float64, module)
            elif kind.endswith("RotaryEmbedding"):
                module.forward = types.MethodType(rotary_float64, module)
    return model


def check_against_others(directory: Path, tokens: Tensor, logits: Tensor) -> None:
    """Plain transformers in float32 and our own reference must agree with the float64 logits."""
    with torch.no_grad():
        single = load_transformers(directory, torch.float32)(tokens).logits.double()
        own = mla_reference.forward(*mla_reference.load_model(directory), tokens)
    error_single = float((single - logits).abs().max() / logits.abs().max())
    error_own = float((own - logits).abs().max() / logits.abs().max())
    print(f"{directory.name}: logits std {float(logits.std()):.2f}, relative to float64: "
          f"transformers float32 {error_single:.1e}, mla_reference {error_own:.1e}")
    assert error_single < 1e-5 and error_own < 1e-12


def write_golden(directory: Path, vocab_size: int, seed: int) -> None:
    tokens = random_tokens((N_SEQUENCES, SEQ_LEN + 1), vocab_size, seed)
    model = load_transformers(directory, torch.float64)
    logits = model(tokens[:, :-1]).logits
    loss = mla_reference.next_token_loss(logits, tokens)
    loss.backward()
    check_against_others(directory, tokens[:, :-1], logits.detach())
    tensors = {"tokens": int32(tokens), "logits": float32(logits), "loss": float32(loss[None])}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        tensors["grad." + name] = float32(parameter.grad)
    save_golden("models/" + directory.name, tensors, f"base={directory.name}")


def write_stories(model_dir: Path, text_file: Path) -> None:
    from tokenizers import Tokenizer

    text = text_file.read_text()
    ids = Tokenizer.from_file(str(model_dir / "tokenizer.json")).encode(text).ids
    tokens = torch.tensor(ids[:STORIES_TOKENS])
    assert len(tokens) == STORIES_TOKENS
    with torch.no_grad():
        logits = load_transformers(model_dir, torch.float64)(tokens[None]).logits
    check_against_others(model_dir, tokens[None], logits)
    tensors = {"tokens": int32(tokens), "logits": float32(logits[0])}
    save_golden("models/stories260K", tensors, "base=stories260K")


def main() -> None:
    deterministic()
    for number, model in enumerate(MODELS):
        write_golden(write_model(model, 1000 + number), model.vocab_size, 2000 + number)
    stories = assets_dir() / "models" / "stories260K"
    if stories.is_dir():
        write_stories(stories, assets_dir() / "oracle" / "stories260K-greedy.txt")
    else:
        print(f"{GOLDEN_DIR.name}: no stories260K beside the tree, its golden file is left alone")


if __name__ == "__main__":
    main()
