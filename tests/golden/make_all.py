"""Writes every golden file, in the order they build on each other.

Usage, from the repository's root:
    python3 tests/golden/make_all.py
"""

from __future__ import annotations

from conversion import make_conversion_golden
from distill import make_distill_golden
from mla import make_mla_golden, make_shared_golden
from models import make_models
from paper import make_paper_golden
from training import make_autocast_golden, make_losses_golden, make_training_golden


def main() -> None:
    make_models.main()
    make_mla_golden.main()
    make_shared_golden.main()
    make_paper_golden.main()
    make_training_golden.main()
    make_autocast_golden.main()
    make_losses_golden.main()
    make_conversion_golden.main()
    make_distill_golden.main()


if __name__ == "__main__":
    main()
