"""Writes the ten steps of make_training_golden.py as PyTorch takes them with bfloat16 autocast.

Usage, from the repository's root, after make_training_golden.py:
    python3 tests/golden/training/make_autocast_golden.py

Writes tests/golden/training/NAME_autocast.safetensors for each of RUNS, with
    losses [10], grad_norms [10], final.<parameter>
of float32 parameters and moments, products in bfloat16. The batches are those of
training/NAME, whose float64 numbers say how far off autocast is: printed
here, and what a test may allow another program in bfloat16. The last bits depend on the CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference

import mla_reference as mla
from golden_io import GOLDEN_DIR, deterministic, float32, save_golden
from training import make_training_golden as exact

RUNS = ("training/original", "training/mla", "training/shared", "training/shared_norm")
rotate = mla.rotate


def rotate_in_float32(x: Tensor, pairs: Tensor, shape: mla.Shape, layer: int) -> Tensor:
    """As transformers does it: cos and sin of float32 meet queries of bfloat16."""
    return rotate(x.float(), pairs, shape, layer)


def train(directory_name: str, batches: Tensor) -> exact.Run:
    with torch.autocast("cpu", torch.bfloat16):
        return exact.train(directory_name, batches, torch.float32)


def report(name: str, run: exact.Run, golden: dict[str, Tensor]) -> None:
    """Prints how far autocast is from float64."""
    loss_error = (run.losses.double() - golden["losses"].double()).abs().max()
    norm_error = (run.grad_norms.double() / golden["grad_norms"].double() - 1).abs().max()
    distances = [(w.double() - golden["final." + k].double()).square().mean().sqrt()
                 for k, w in run.final.items()]
    print(f"{name}: differs from float64 by {float(loss_error):.1e} in the loss (absolute), "
          f"{float(norm_error):.1e} in the norm (relative), {float(max(distances)):.1e} in the "
          "parameters (root of the mean square of a tensor)")


def write_run(name: str, base: str) -> None:
    golden = load_file(GOLDEN_DIR / f"{name}.safetensors")
    run = train(base, golden["batches"].long())
    report(name, run, golden)
    tensors = {"losses": float32(run.losses), "grad_norms": float32(run.grad_norms)}
    tensors |= {"final." + parameter: float32(w) for parameter, w in run.final.items()}
    save_golden(name + "_autocast", tensors, f"base={base}")


def main() -> None:
    deterministic()
    mla.rotate = rotate_in_float32
    for name in RUNS:
        write_run(name, exact.RUNS[name])


if __name__ == "__main__":
    main()
