"""Conversion of stories3M to the shared form, computed with PyTorch alone, against what was found.

Usage, from the repository's root:
    python3 tests/golden/conversion/check_stories3M.py ASSETS

ASSETS has models/stories3M and the texts of the stories. Statistics are of 12 windows
of 256 tokens of the training stories, low rank and ridge of 40, the losses of windows of the
validation stories. Prints the table and exits with 1 if a number is off. About ten minutes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import conversion_reference as conversion
import shared_reference as reference
from make_conversion_golden import read_stories
from mla_reference import load_model, next_token_loss

N_ATTENTION, N_WINDOWS, KEY_WEIGHT = 12, 40, 0.1
PAIRS = [  # of KV heads by layer, 4 slots a layer
    [[9], [2, 5, 9]], [[3, 9], [6, 10]], [[9], [3, 4, 9]],
    [[5, 9], [5, 10]], [[4, 9], [9, 10]], [[6, 9], [4, 9]],
]  # fmt: skip
PLAIN_PAIRS = [  # two of every KV head, without absorption
    [[6, 9], [5, 9]], [[3, 9], [6, 10]], [[5, 9], [3, 9]],
    [[5, 9], [5, 10]], [[4, 9], [9, 10]], [[6, 9], [4, 9]],
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    slots: int
    latent: int
    losses: tuple[float, float, float]  # 24 windows after C, after D; 101 windows
    layer0: tuple[float, float, float]  # error of the pairs; of the blocks before and after
    outputs: tuple[float, ...]


ROWS = (
    Row(4, 8, (4.5646, 3.9473, 4.0185), (2.55021, 0.0251813, 0.0197655),
        (0.1028, 0.5687, 0.5378, 0.5431, 0.4881, 0.5139)),
    Row(6, 12, (3.8724, 3.2894, 3.3725), (1.83283, 0.0222495, 0.0148929),
        (0.0838, 0.4354, 0.4116, 0.4170, 0.4049, 0.4148)),
    Row(8, 24, (2.9494, 2.4423, 2.5301), (1.26402, 0.0162163, 0.00696966),
        (0.0553, 0.2575, 0.2339, 0.2476, 0.2458, 0.2621)),
)  # fmt: skip

n_bad = 0


def check(
    what: str,
    got: float,
    expected: float,
    relative: float = 0.0,
    absolute: float = 0.0,
    lower: float = 1.0,
) -> None:
    """`lower`: how many tolerances below is still good."""
    global n_bad
    tolerance = max(relative * abs(expected), absolute)
    good = -lower * tolerance <= got - expected <= tolerance
    n_bad += not good
    print(f"{'ok ' if good else 'BAD'} {what:40} {got:12.7g}  expected {expected:12.7g}", flush=True)


def loss_of(shared: reference.SharedShape, weights: dict, windows: torch.Tensor) -> float:
    losses = [
        next_token_loss(reference.forward_shared(shared, weights, w[:, :-1]), w)
        for w in windows.split(4)
    ]
    sizes = torch.tensor([float(len(w)) for w in windows.split(4)])
    return float((torch.stack(losses) * sizes).sum() / sizes.sum())


def check_statistics(s: conversion.LayerStatistics) -> None:
    check("layer 0, head 0: tr C_V", float(s.value[0].trace()), 70.485, 1e-4)
    check("tr C_K / tau", float(s.key[0].trace()), 214.009, 1e-4)
    check("tau", float(s.tau[0]), 0.0219857, 1e-4)
    check("tr A", float(s.query[0].trace()), 1.81591, 1e-4)
    check("tr C", float(s.covariance.trace()), 294.139, 1e-4)
    for p, expected in ((0, 5.148355e-03), (9, 9.635210e-01)):
        check(f"G t{p} t{p}", float(s.gram[0, p, p]), expected, 1e-4)
    half = s.gram.shape[-1] // 3
    check("G f1_0 f1_0", float(s.gram[0, half, half]), 4.279594e-03, 1e-4)


def main() -> None:
    assets = Path(sys.argv[1])
    shape, weights = load_model(assets / "models/stories3M")
    calibration = read_stories(assets, "train.txt.gz", N_WINDOWS)[:, :-1]
    valid = read_stories(assets, "valid.txt", 101)
    statistics = conversion.collect(shape, weights, calibration, N_ATTENTION)
    # The covariance of the golden numbers is of the same windows as all else.
    check_statistics(statistics[0])
    plain, _ = conversion.choose_pairs(shape, statistics, 2, absorb=False)
    check("pairs without absorption", float(plain.tolist() == PLAIN_PAIRS), 1.0)
    for row in ROWS:
        spread = [reference.spread_layer(shape, s, row.slots) for s in statistics]
        kept = [pairs for pairs, _ in spread]
        print(f"P {row.slots}, R {row.latent}: {kept}")
        if row.slots == 4:
            check("pairs", float(kept == PAIRS), 1.0)
        shared, start, errors = reference.convert_shared(
            shape, weights, kept, statistics, row.latent, KEY_WEIGHT
        )
        check("layer 0: error of the pairs", spread[0][1], row.layer0[0], 1e-4)
        # The alternation started from another first latent there, so less error is as good.
        print(f"    error of the blocks before {errors[0][0]:.6g}, there {row.layer0[1]:.6g}")
        check("error of the blocks after", errors[0][1], row.layer0[2], 0.01, lower=3)
        ridged = reference.ridge_shared(shape, weights, shared, start, calibration)
        outputs = reference.output_errors(shape, weights, shared, ridged, calibration[:8])
        for layer, (got, expected) in enumerate(zip(outputs, row.outputs)):
            check(f"output of layer {layer}", got, expected, absolute=0.01, lower=2)
        for what, model, windows, expected in (
            ("loss of 24 windows", start, valid[:24], row.losses[0]),
            ("after the ridge", ridged, valid[:24], row.losses[1]),
            ("loss of 101 windows", ridged, valid, row.losses[2]),
        ):
            check(what, loss_of(shared, model, windows), expected, absolute=0.02, lower=2)
    sys.exit(n_bad > 0)


if __name__ == "__main__":
    main()
