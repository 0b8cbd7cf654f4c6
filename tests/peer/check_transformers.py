"""Runs an exported directory in transformers and prints what it found, one line per check.

Usage:
    python3 tests/peer/check_transformers.py DIR SHARD.h5 --loss 3.9631 [--cache-numbers 24]
        [--skip-quantized]

The losses are those of consecutive windows of 256 targets from the beginning of the shard, as
`mha2mla eval DIR --perplexity SHARD.h5 --seq-len 256 --max-tokens 2048` measures them. A loss that
differs by more than 1e-4, logits over a cache that differ by more than 2e-4, or a text that depends
on the kind of cache ends the check with status 1.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import h5py
import torch
import transformers
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

T, N_WINDOWS = 256, 8
# Groups divide the widths of the demo's latents and rotated keys; HQQ packs two codes of different
# groups into a byte and so wants an even number of groups.
QUANTIZED = [
    ("quanto", {"nbits": 4, "q_group_size": 8, "axis_key": 0, "axis_value": 0}),
    ("hqq", {"nbits": 4, "q_group_size": 4, "axis_key": 1, "axis_value": 1}),
]


def require(condition: bool, text: str) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {text}")


def load(directory: Path, attention: str = "sdpa", dtype: torch.dtype = torch.float32):
    model, info = AutoModelForCausalLM.from_pretrained(
        directory,
        trust_remote_code=True,
        attn_implementation=attention,
        dtype=dtype,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        require(not info.get(kind), f"{kind}: {info.get(kind)}")
    return model.eval()


def mean_loss(model, windows: torch.Tensor) -> float:
    """windows [n, T + 1]"""
    total = 0.0
    with torch.no_grad():
        for window in windows:
            logits = model(window[None, :-1]).logits[0].float()
            total += float(functional.cross_entropy(logits, window[1:]))
    return total / len(windows)


def check_cached_logits(model, tokens: torch.Tensor, cache_numbers: int | None) -> None:
    """tokens [T]: the prompt in two parts, then one by one, against all at once"""
    name = "past_key_values"
    with torch.no_grad():
        full = model(tokens[None]).logits[0]
        rows, cache = [], None
        for part in (tokens[:40], tokens[40:64], *tokens[64:96, None]):
            out = model(part[None], use_cache=True, **{name: cache})
            cache = out[name] if name in out else out.past_key_values
            rows.append(out.logits[0])
    worst = float((torch.cat(rows) - full[:96]).abs().max())
    require(worst < 2e-4, f"logits over a cache differ by {worst}")
    held = sum(layer.keys[0, :, 0].numel() + layer.values[0, :, 0].numel() for layer in cache.layers)
    require(cache_numbers in (None, held), f"a token has {held} numbers, expected {cache_numbers}")
    print(f"cached logits: within {worst:.1e}; {held} numbers per token in the cache")


def check_generation(model, tokenizer, skip_quantized: bool) -> None:
    prompt = "Dad gave Otto a tiny seed. Otto put it in"
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    arguments = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}

    def text(**more) -> str:
        return tokenizer.decode(model.generate(**inputs, **arguments, **more)[0])

    expected = text(use_cache=False)
    require(text() == expected, f"dynamic cache: {text()!r}, without a cache {expected!r}")
    # transformers 4 keeps DeepSeek's keys and values expanded, and its static cache wants one width.
    is_expanded = model.config.model_type == "deepseek_v3" and transformers.__version__[:2] == "4."
    if not is_expanded:
        static = text(cache_implementation="static", disable_compile=True)
        require(static == expected, f"static cache: {static!r}, without a cache {expected!r}")
    beams = text(num_beams=3)
    require(beams == text(num_beams=3, use_cache=False), "beams: the cache changes the text")
    tokenizer.pad_token = tokenizer.eos_token
    padded = tokenizer([prompt, "Otto"], return_tensors="pt", padding=True, padding_side="left")
    padded.pop("token_type_ids", None)
    both = model.generate(**padded, **arguments)
    require(tokenizer.decode(both[0]) == expected, "left padding of another text changes the text")
    kinds = "no cache, dynamic" if is_expanded else "no cache, dynamic, static"
    print(f"generate: {kinds}, beams and padded agree")
    for backend, config in [] if skip_quantized else QUANTIZED:
        config = {"backend": backend, "residual_length": 16, **config}
        quantized = text(cache_implementation="quantized", cache_config=config)
        require(len(quantized) > len(prompt), f"{backend}: no text")
        print(f"generate: quantized by {backend}: {quantized[len(prompt) :][:40]!r}")


def check_saved_again(model, tokenizer, windows: torch.Tensor, loss: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        again = mean_loss(load(Path(directory)), windows[:4])
        first = mean_loss(model, windows[:4])
        require(abs(again - first) < 1e-6, f"saved and loaded: loss {again}, before {first}")
    print("save_pretrained and from_pretrained keep the loss")


def main() -> None:
    parser = argparse.ArgumentParser(description="An exported model in transformers.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("shard", type=Path)
    parser.add_argument("--loss", type=float, required=True)
    parser.add_argument("--cache-numbers", type=int, help="per token and over all layers")
    parser.add_argument("--skip-quantized", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    with h5py.File(arguments.shard) as shard:
        tokens = torch.from_numpy(shard["tokens"][: N_WINDOWS * T + 1].astype("int64"))
    windows = torch.stack([tokens[i * T : i * T + T + 1] for i in range(N_WINDOWS)])
    for attention in ("sdpa", "eager"):
        model = load(arguments.directory, attention)
        loss = mean_loss(model, windows)
        difference = abs(loss - arguments.loss)
        require(difference < 1e-4, f"{attention}: loss {loss:.6f}, eval's {arguments.loss}")
        print(f"{attention}: loss {loss:.6f}, eval's {arguments.loss}")
    tokenizer = AutoTokenizer.from_pretrained(arguments.directory, trust_remote_code=True)
    config = json.loads((arguments.directory / "config.json").read_text())
    eos = config["eos_token_id"]
    require(tokenizer.eos_token_id == eos, f"tokenizer's eos {tokenizer.eos_token_id}, not {eos}")
    require(model.generation_config.eos_token_id == eos, "generation_config has another eos")
    check_cached_logits(model, windows[0, :-1], arguments.cache_numbers)
    check_generation(model, tokenizer, arguments.skip_quantized)
    check_saved_again(model, tokenizer, windows, loss)
    print(f"transformers {transformers.__version__}: all agree")


if __name__ == "__main__":
    main()
