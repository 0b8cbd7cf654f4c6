"""Writes ten steps of healing beside a teacher: cross-entropy, KL divergence and attention MSE.

Usage, from the repository's root, after make_mla_golden.py:
    python3 tests/golden/training/make_losses_golden.py

Writes tests/golden/training/losses.safetensors: models/mla_gqa_2norm_joint follows its original,
models/gqa_tied, with
    weights [4]                      of ce, kl, attention_mse; the temperature
    batches int32 [10, G, T + 1]     one global batch of G sequences per step
    ce, kl, attention_mse [10]       without their weights, before the update
    grad_norms [10]                  of the weighted sum, before clipping
    grad.<parameter>                 of the first step, before clipping
    final.<parameter>                after step 10
kl is T^2 KL(teacher || student), mean over tokens; attention_mse the mean over layers and
sequences of |o - o_teacher|^2 / |o_teacher|^2 of the outputs of o_proj. Schedule and AdamW are
those of make_training_golden.py. All is computed in float64 and stored as float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference

import mla_reference as mla
from golden_io import MODELS_DIR, deterministic, float32, int32, random_tokens, save_golden
from training import make_training_golden as training

STUDENT, TEACHER = "mla_gqa_2norm_joint", "gqa_tied"
CE, KL, ATTENTION_MSE, TEMPERATURE = 0.5, 1.0, 0.7, 2.0


def attention_outputs(shape: mla.Shape, weights: mla.Weights, tokens: Tensor) -> Tensor:
    """[L, B, T, D] of o_proj."""
    attention = mla.mla_attention if shape.d_kv > 0 else mla.original_attention
    inputs, _ = mla.layer_inputs(shape, weights, tokens)
    return torch.stack([
        attention(x, shape, weights, l) @ weights[f"model.layers.{l}.self_attn.o_proj.weight"].T
        for l, x in enumerate(inputs)
    ])


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """T^2 KL(teacher || student) of logits [B, T, V], mean over tokens."""
    log_student = (student / TEMPERATURE).log_softmax(-1).flatten(0, 1)
    log_teacher = (teacher / TEMPERATURE).log_softmax(-1).flatten(0, 1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return TEMPERATURE**2 * divergence


def relative_mse(outputs: Tensor, targets: Tensor) -> Tensor:
    errors = (outputs - targets).square().sum((2, 3)) / targets.square().sum((2, 3))  # [L, B]
    return errors.mean()


def losses(student: tuple, teacher: tuple, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inputs = batch[:, :-1]
    with torch.no_grad():
        teacher_logits = mla.forward(*teacher, inputs)
        targets = attention_outputs(*teacher, inputs)
    logits = mla.forward(*student, inputs)
    return (mla.next_token_loss(logits, batch), kl_divergence(logits, teacher_logits),
            relative_mse(attention_outputs(*student, inputs), targets))


def train(batches: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    teacher = mla.load_model(MODELS_DIR / TEACHER, dtype)
    shape, weights = mla.load_model(MODELS_DIR / STUDENT, dtype)
    for weight in weights.values():
        weight.requires_grad_()
    parameters = list(weights.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, foreach=False
    )
    parts, norms, first = [], [], {}
    for step, batch in enumerate(batches, start=1):
        optimizer.param_groups[0]["lr"] = training.learning_rate(step)
        optimizer.zero_grad()
        ce, kl, mse = losses((shape, weights), teacher, batch)
        (CE * ce + KL * kl + ATTENTION_MSE * mse).backward()
        if step == 1:
            first = {"grad." + k: w.grad.clone() for k, w in weights.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, training.MAX_NORM))
        parts.append(torch.stack((ce, kl, mse)).detach())
        optimizer.step()
    names = ("ce", "kl", "attention_mse")
    run = dict(zip(names, torch.stack(parts).T)) | {"grad_norms": torch.stack(norms)} | first
    return run | {"final." + k: w.detach() for k, w in weights.items()}


def main() -> None:
    deterministic()
    vocab_size = mla.load_model(MODELS_DIR / STUDENT)[0].vocab_size
    sizes = (training.N_STEPS, training.GLOBAL_BATCH, training.SEQ_LEN + 1)
    batches = random_tokens(sizes, vocab_size, 4100)
    run, single = (train(batches, dtype) for dtype in (torch.float64, torch.float32))
    for name in ("ce", "kl", "attention_mse", "grad_norms"):
        error = float((single[name].double() / run[name] - 1).abs().max())
        print(f"{name}: {', '.join(f'{v:.4f}' for v in run[name])}; float32 differs by {error:.1e}")
    tensors = {name: float32(value) for name, value in run.items()}
    tensors["batches"] = int32(batches)
    tensors["weights"] = torch.tensor([CE, KL, ATTENTION_MSE, TEMPERATURE])
    save_golden("training/losses", tensors, f"student={STUDENT} teacher={TEACHER}")


if __name__ == "__main__":
    main()
