"""Scores an exported directory by lm_eval and compares each log-likelihood with this program's.

Usage:
    mha2mla eval DIR --tasks TASKS --rules lm-eval --only arc_easy,openbookqa --limit 24 \
        --log-samples samples.jsonl
    python3 tests/peer/check_lm_eval.py DIR TASKS samples.jsonl

TASKS has arc_easy.jsonl.gz and openbookqa.jsonl.gz with Hugging Face's columns. The tasks are
lm_eval's own definitions, with the rows read from there. A log-likelihood that differs by more than
1e-3, or another score of a question, ends the check with status 1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

TOLERANCE = 1e-3
METRICS = [
    {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
]
TASKS = {
    "arc_easy": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
    },
    "openbookqa": {
        "doc_to_text": "question_stem",
        "doc_to_target": "{{choices.label.index(answerKey.lstrip())}}",
    },
}


def task(name: str, folder: Path) -> dict:
    """lm_eval's definition of a task, on a file of this machine"""
    return {
        "task": f"{name}_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl.gz")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_choice": "{{choices.text}}",
        "metric_list": METRICS,
        **TASKS[name],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="An exported model in lm_eval.")
    parser.add_argument("directory")
    parser.add_argument("tasks", type=Path)
    parser.add_argument("samples", type=Path, help="written by eval --log-samples")
    arguments = parser.parse_args()
    own: dict[str, dict[int, dict]] = {}
    for line in arguments.samples.read_text().splitlines():
        sample = json.loads(line)
        own.setdefault(sample["task"], {})[sample["index"]] = sample
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": arguments.directory,
            "trust_remote_code": True,
            "dtype": "float32",
        },
        tasks=[task(name, arguments.tasks) for name in own],
        task_manager=TaskManager(),
        device="cpu",
        batch_size=4,
        limit=max(len(samples) for samples in own.values()),
        log_samples=True,
        bootstrap_iters=0,
    )
    worst = 0.0
    for name, samples in own.items():
        theirs = results["samples"][f"{name}_local"]
        if len(theirs) != len(samples):
            raise SystemExit(f"FAILED: {name}: {len(theirs)} questions, not {len(samples)}")
        for their in theirs:
            our = samples[their["doc_id"]]
            for got, want in zip(their["filtered_resps"], our["log_likelihoods"], strict=True):
                worst = max(worst, abs(float(got[0]) - want))
            for metric in ("acc", "acc_norm"):
                if their[metric] != our[metric]:
                    raise SystemExit(f"FAILED: {name} {their['doc_id']}: {metric} {their[metric]}")
        print(f"{name}: {len(theirs)} questions agree")
    if worst > TOLERANCE:
        raise SystemExit(f"FAILED: log-likelihoods differ by up to {worst}")
    print(f"lm_eval {lm_eval.__version__}: log-likelihoods within {worst:.1e}")


if __name__ == "__main__":
    main()
