"""Writes ten steps of training with torch.optim.AdamW, of an original model and of its MLA forms.

Usage, from the repository's root, after make_mla_golden.py and make_shared_golden.py:
    python3 tests/golden/training/make_training_golden.py

Writes tests/golden/training/NAME.safetensors for each of RUNS, with the model it starts from, with
    batches int32 [10, G, T + 1]  one global batch of G sequences per step
    losses [10]                   mean over the batch's targets, before the update
    grad_norms [10]               global norm before clipping
    lrs [10]                      learning rate of steps 1 to 10
    final.<parameter>             after step 10
All is computed in float64 from the float32 weights and stored as float32. A float32 run of the
same steps is compared and the differences are printed: they bound what a float32 program can do.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference

import mla_reference as mla
from golden_io import MODELS_DIR, deterministic, float32, int32, save_golden, seeded

N_STEPS, GLOBAL_BATCH, SEQ_LEN = 10, 6, 13
PEAK_LR, MIN_LR, WARMUP_STEPS, DECAY_START, DECAY_STEPS = 5e-3, 0.0, 3, 7, 3
MAX_NORM = 1.0
CIRCLE = torch.tensor([1, 2, 3])
RUNS = {
    "training/original": "gqa_tied",
    "training/mla": "mla_gqa_2norm_joint",
    "training/shared": "shared_gqa",
    "training/shared_norm": "shared_norm_gqa",
    "training/llama3": "llama3",
    "training/mistral": "mistral",
    "training/qwen3": "qwen3",
    "training/qwen3_mla": "mla_qwen3_2norm_joint",
    "training/llama_bias": "llama_bias",
    "training/qwen2": "qwen2",
    "training/smollm3": "smollm3",
    "training/smollm3_mla": "mla_smollm3_2norm_joint",
}


@dataclass
class Run:
    """What ten steps leave behind."""

    losses: Tensor
    grad_norms: Tensor
    final: mla.Weights


def learning_rate(step: int) -> float:
    """Step s >= 1 of the warm-up, constant, 1-sqrt decay schedule."""
    if step <= WARMUP_STEPS:
        return PEAK_LR * step / WARMUP_STEPS
    if step < DECAY_START:
        return PEAK_LR
    if step < DECAY_START + DECAY_STEPS:
        return MIN_LR + (PEAK_LR - MIN_LR) * (1 - math.sqrt((step - DECAY_START) / DECAY_STEPS))
    return MIN_LR


def make_batches(seed: int) -> Tensor:
    """Three tokens in a circle: learnt fast enough that the last steps need no clipping."""
    start = torch.randint(0, 3, (N_STEPS, GLOBAL_BATCH, 1), generator=seeded(seed))
    return CIRCLE[(start + torch.arange(SEQ_LEN + 1)) % 3]


def train(directory_name: str, batches: Tensor, dtype: torch.dtype) -> Run:
    shape, weights = mla.load_model(MODELS_DIR / directory_name, dtype)
    for weight in weights.values():
        weight.requires_grad_()
    parameters = list(weights.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=PEAK_LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, foreach=False
    )
    losses, norms = [], []
    for step, batch in enumerate(batches, start=1):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        optimizer.zero_grad()
        loss = mla.next_token_loss(mla.forward(shape, weights, batch[:, :-1]), batch)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM))
        losses.append(loss.detach())
        optimizer.step()
    final = {name: weight.detach() for name, weight in weights.items()}
    return Run(torch.stack(losses), torch.stack(norms), final)


def report(name: str, run: Run, single: Run) -> None:
    """Prints the run and how far float32 is from it."""
    rows = zip(run.losses.tolist(), run.grad_norms.tolist())
    print(name + ": " + ", ".join(f"{loss:.3f} |g| {norm:.2f}" for loss, norm in rows))
    loss_error = float((single.losses.double() / run.losses - 1).abs().max())
    norm_error = float((single.grad_norms.double() / run.grad_norms - 1).abs().max())
    difference = {k: (single.final[k].double() - w).abs().max() for k, w in run.final.items()}
    worst = max(difference, key=lambda k: float(difference[k]))
    print(f"{name}: float32 differs: loss {loss_error:.1e} and norm {norm_error:.1e} (relative), "
          f"parameters {float(difference[worst]):.1e} (absolute, {worst})")


def write_run(name: str, base: str, seed: int) -> None:
    batches = make_batches(seed)
    run, single = (train(base, batches, dtype) for dtype in (torch.float64, torch.float32))
    report(name, run, single)
    n_clipped = int((run.grad_norms > MAX_NORM).sum())
    assert 0 < n_clipped < N_STEPS, f"{n_clipped} of {N_STEPS} steps are clipped"
    lrs = torch.tensor([learning_rate(s) for s in range(1, N_STEPS + 1)], dtype=torch.float64)
    tensors = {
        "batches": int32(batches),
        "losses": float32(run.losses),
        "grad_norms": float32(run.grad_norms),
        "lrs": float32(lrs),
    }
    tensors |= {"final." + parameter: float32(w) for parameter, w in run.final.items()}
    save_golden(name, tensors, f"base={base}")


def main() -> None:
    deterministic()
    for number, (name, base) in enumerate(RUNS.items()):
        write_run(name, base, 4000 + number)


if __name__ == "__main__":
    main()
