"""Writes what conversion_reference.py gives for the tiny models, and tokens of the stories.

Usage, from the repository's root, after make_models.py:
    python3 tests/golden/conversion/make_conversion_golden.py [ASSETS]

Writes tests/golden/conversion/NAME.safetensors for each case below with
    case int32 [4]: r, d_kv, sequences of attention's statistics, pools
    tokens int32 [n, T]; covariance [L, D, D], value, key [L, H, D, D] (key with tau), tau [L, H],
    query [L, H, E, E], gram [L, H, S, S]
    plain, absorbed int32 [L, K, r]: the pairs chosen without and with absorption; maps [L, H, 2, E/2]
    probe int32 [2, T]; whitened, closed, ridge [2, T, V]: logits of the converted models, the last
    two with the absorbed pairs; errors [L, 2] of the blocks before and after the alternation
for the shared form conversion/NAME_shared.safetensors with
    case int32 [4]: slots, latent, sequences of attention's statistics, pools; tokens, probe
    pairs int32 [L, P]; closed, ridge [2, T, V]; errors [L, 2]
and with ASSETS conversion/stories3M.safetensors with
    tokens int32 [40, 256]: the first windows of 257 tokens of the training stories
    valid int32 [24, 257]: the first windows of the validation stories.

All is computed in float64 from weights rounded to float32.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # golden_io, mla_reference
sys.path.insert(0, str(Path(__file__).resolve().parent))

import conversion_reference as conversion
import shared_reference as reference
from golden_io import MODELS_DIR, deterministic, float32, int32, random_tokens, save_golden
from mla_reference import forward, load_model, Shape

N_SEQUENCES, N_ATTENTION, SEQ_LEN = 6, 4, 23
KEY_WEIGHT = 0.1
# Nearer ties would let a correct program choose other pairs.
MIN_GAP = 1e-4


@dataclass(frozen=True)
class Case:
    name: str
    base: str
    r: int
    d_kv: int
    n_pools: int


CASES = (
    Case("gqa", "gqa_tied", 2, 4, 1),
    Case("gqa_pools", "gqa_tied", 1, 5, 2),
    Case("mha", "mha_untied", 2, 6, 1),
    Case("mqa", "mqa_head_dim", 3, 9, 3),
    Case("gqa_all_pairs", "gqa_tied", 4, 4, 1),
    Case("smollm3", "smollm3", 2, 5, 1),
)


def check_gaps(shape: Shape, statistics: list[conversion.LayerStatistics], case: Case) -> None:
    """No other choice one swap away is as good as the chosen one."""
    half = shape.head_dim // 2
    for s in statistics:
        for absorb in (False, True):
            for j in range(shape.n_kv_heads):
                grams = s.chosen_by()[j * shape.group : (j + 1) * shape.group]
                absorbs = absorb and s.has_rope
                kept = conversion.choose_kept(grams, case.r, absorbs)
                best = conversion.group_error(grams, kept, absorbs)
                for out in kept:
                    for new in set(range(half)) - set(kept):
                        swap = [p for p in kept if p != out] + [new]
                        error = conversion.group_error(grams, swap, absorbs)
                        assert error > best * (1 + MIN_GAP), (case.name, kept, swap)


def make_case(case: Case) -> None:
    shape, weights = load_model(MODELS_DIR / case.base)
    tokens = random_tokens((N_SEQUENCES, SEQ_LEN), shape.vocab_size, 71)
    probe = random_tokens((2, SEQ_LEN), shape.vocab_size, 72)
    statistics = conversion.collect(shape, weights, tokens, N_ATTENTION)
    check_gaps(shape, statistics, case)
    plain, _ = conversion.choose_pairs(shape, statistics, case.r, absorb=False)
    absorbed, maps = conversion.choose_pairs(shape, statistics, case.r, absorb=True)
    whitened = conversion.convert_whitened(
        shape, weights, plain, statistics, case.d_kv, KEY_WEIGHT
    )
    mla_shape, closed, errors = conversion.convert_closed(
        shape, weights, absorbed, maps, statistics, case.d_kv, case.n_pools, KEY_WEIGHT
    )
    ridge = conversion.ridge_outputs(shape, weights, mla_shape, closed, tokens)
    stacked = {
        name: float32(torch.stack([getattr(s, name) for s in statistics]))
        for name in ("covariance", "value", "tau", "query", "gram")
    }
    tensors = {
        "case": torch.tensor([case.r, case.d_kv, N_ATTENTION, case.n_pools], dtype=torch.int32),
        "tokens": int32(tokens),
        **stacked,
        "key": float32(torch.stack([s.tau[:, None, None] * s.key for s in statistics])),
        "plain": int32(plain),
        "absorbed": int32(absorbed),
        "maps": float32(torch.stack(maps)),
        "errors": float32(torch.tensor(errors)),
        "probe": int32(probe),
        "whitened": float32(forward(*whitened, probe)),
        "closed": float32(forward(mla_shape, closed, probe)),
        "ridge": float32(forward(mla_shape, ridge, probe)),
    }
    save_golden(f"conversion/{case.name}", tensors, f"base={case.base}")


@dataclass(frozen=True)
class SharedCase:
    name: str
    base: str
    slots: int
    latent: int
    n_pools: int


SHARED_CASES = (
    SharedCase("gqa_shared", "gqa_tied", 3, 7, 4),
    SharedCase("mha_shared", "mha_untied", 5, 9, 1),
    SharedCase("mqa_shared", "mqa_head_dim", 2, 6, 1),
    SharedCase("smollm3_shared", "smollm3", 3, 7, 1),
)


def make_shared(case: SharedCase) -> None:
    shape, weights = load_model(MODELS_DIR / case.base)
    tokens = random_tokens((N_SEQUENCES, SEQ_LEN), shape.vocab_size, 73)
    probe = random_tokens((2, SEQ_LEN), shape.vocab_size, 74)
    statistics = conversion.collect(shape, weights, tokens, N_ATTENTION)
    kept = reference.spread_pairs(shape, statistics, case.slots)
    shared, closed, errors = reference.convert_shared(
        shape, weights, kept, statistics, case.latent, KEY_WEIGHT, case.n_pools
    )
    ridge = reference.ridge_shared(shape, weights, shared, closed, tokens)
    how = [case.slots, case.latent, N_ATTENTION, case.n_pools]
    tensors = {
        "case": torch.tensor(how, dtype=torch.int32),
        "tokens": int32(tokens),
        "probe": int32(probe),
        "pairs": int32(shared.pairs),
        "closed": float32(reference.forward_shared(shared, closed, probe)),
        "ridge": float32(reference.forward_shared(shared, ridge, probe)),
        "errors": float32(torch.tensor(errors)),
    }
    print(case.name, kept)
    save_golden(f"conversion/{case.name}", tensors, f"base={case.base}")


def read_stories(assets: Path, name: str, n: int) -> torch.Tensor:
    """[n, 257]: consecutive windows over the stories, each with <s> before it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(assets / "models/stories3M/tokenizer.json"))
    path = assets / f"text/tinystories-{name}"
    text = (gzip.open if name.endswith(".gz") else open)(path, "rt").read()
    ids: list[int] = []
    for story in text.split("<|endoftext|>"):
        if len(ids) >= n * 257:
            break
        encoded = tokenizer.encode(story.strip()).ids if story.strip() else []
        ids += encoded if encoded[:1] in ([], [1]) else [1] + encoded
    return torch.tensor(ids[: n * 257]).unflatten(0, (n, 257))


def make_stories(assets: Path) -> None:
    tensors = {
        "tokens": int32(read_stories(assets, "train.txt.gz", 40)[:, :-1]),
        "valid": int32(read_stories(assets, "valid.txt", 24)),
    }
    save_golden("conversion/stories3M", tensors, "stories3M")


def main() -> None:
    deterministic()
    for case in CASES:
        make_case(case)
    for case in SHARED_CASES:
        make_shared(case)
    if len(sys.argv) > 1:
        make_stories(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
