"""Where golden files lie and how they are written: shared by the make_*.py scripts.

Usage:
    tensors = {"tokens": int32(tokens), "logits": float32(logits)}
    save_golden("models/gqa_tied", tensors, "base=gqa_tied")

A golden file is tests/golden/FOLDER/NAME.safetensors with float32 and int32 tensors only; dims are the
torch shapes. The same seeds give the same bytes: one thread, tensors sorted by the writer, and
one metadata key (several would come in random order).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

GOLDEN_DIR = Path(__file__).resolve().parent
MODELS_DIR = GOLDEN_DIR / "models"
REPOSITORY = GOLDEN_DIR.parent.parent

Tensors = dict[str, Tensor]


def deterministic() -> None:
    """One thread, so that sums have one order."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def int32(values: Tensor) -> Tensor:
    return values.detach().to(torch.int32).contiguous()


def float32(values: Tensor) -> Tensor:
    return values.detach().to(torch.float32).contiguous()


def random_tokens(shape: tuple[int, ...], vocab_size: int, seed: int) -> Tensor:
    """Uniform int64 token ids."""
    return torch.randint(0, vocab_size, shape, generator=seeded(seed))


def save_golden(name: str, tensors: Tensors, description: str) -> None:
    path = GOLDEN_DIR / f"{name}.safetensors"
    save_file(tensors, path, metadata={"golden": description})
    print(f"{path.relative_to(REPOSITORY)}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def assets_dir() -> Path:
    """The pretrained assets tests/CMakeLists.txt names too; MHA2MLA_ASSETS overrides."""
    default = REPOSITORY.parent / "shared" / "assets"
    return Path(os.environ.get("MHA2MLA_ASSETS", default))
