"""lm_eval with transformers on the task files that `mha2mla eval --tasks` reads, each task timed.

    OMP_NUM_THREADS=2 python3 bench/tasks_peer.py MODEL_DIR TASKS_DIR TASK,TASK... LIMIT [DTYPE [BATCH,BATCH... [THREADS,...]]]

The items are the first LIMIT of a file, of mmlu those at even distances, as mha2mla takes them. A line a task: its name,
items, seconds of the wall clock and of processor time (requests, model, metrics; not loading), acc, acc_norm where the task
has it, batch and threads. The last line is the peak of resident memory in MiB. DTYPE is bfloat16 unless given, BATCH 32. (On
a CPU lm_eval's auto is its largest batch, 64, after trying whether memory holds it.) Of several batches and numbers of threads the fastest on the first TRIAL_ITEMS items is taken, task by task.
The first task is run once before, on 8 items, so that what a library does at its first use is not in the times.
"""
import gzip
import os
import resource
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402  (the libraries read the environment)
from lm_eval import evaluator  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

TRIAL_ITEMS = 32

# The fields of lm_eval's own task files, with the data from a file.
COMMON = """task: %s
dataset_path: json
dataset_kwargs: {data_files: {test: "%s"}}
test_split: test
output_type: multiple_choice
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
NORMALIZED = """  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
ARC = NORMALIZED + r"""doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
"""
FIELDS = {
    "arc_easy": ARC,
    "arc_challenge": ARC,
    "openbookqa": NORMALIZED + """doc_to_text: question_stem
doc_to_target: "{{choices.label.index(answerKey.lstrip())}}"
doc_to_choice: "{{choices.text}}"
""",
    "piqa": NORMALIZED + r"""doc_to_text: "Question: {{goal}}\nAnswer:"
doc_to_target: label
doc_to_choice: "{{[sol1, sol2]}}"
""",
    "hellaswag": NORMALIZED + """process_docs: !function functions.hellaswag_docs
doc_to_text: "{{query}}"
doc_to_target: "{{label}}"
doc_to_choice: "choices"
""",
    "winogrande": """doc_to_text: !function functions.winogrande_gold
doc_to_target: !function functions.winogrande_rest
doc_to_choice: !function functions.winogrande_contexts
""",
    "mmlu": r"""doc_to_text: "The following are multiple choice questions (with answers) about {{subject.replace('_', ' ')}}.\n\n{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
""",
}
FUNCTIONS = r'''
import re

def clean(text):
    text = text.strip().replace(" [title]", ". ")
    return re.sub("\\[.*?\\]", "", text).replace("  ", " ")

def hellaswag_docs(rows):
    return rows.map(lambda row: {
        "query": clean(row["activity_label"] + ": " + row["ctx_a"] + " " + row["ctx_b"].capitalize()),
        "choices": [clean(ending) for ending in row["endings"]], "gold": int(row["label"])})

def winogrande_gold(row):
    return {"1": 0, "2": 1}[row["answer"]]

def winogrande_rest(row):
    return row["sentence"][row["sentence"].index("_") + 1:].strip()

def winogrande_contexts(row):
    return [row["sentence"][:row["sentence"].index("_")] + row[key] for key in ("option1", "option2")]
'''


def write_tasks(folder, data, names):
    with open(os.path.join(folder, "functions.py"), "w") as f:
        f.write(FUNCTIONS)
    for name in names:
        path = os.path.join(os.path.abspath(data), name + ".jsonl")
        path += "" if os.path.exists(path) else ".gz"
        with open(os.path.join(folder, name + ".yaml"), "w") as f:
            f.write(COMMON % (name, path) + FIELDS[name])


def chosen(data, name, limit):
    """Arguments of simple_evaluate() for the items."""
    if name != "mmlu":
        return {"limit": limit}
    path = os.path.join(data, "mmlu.jsonl")
    with open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz") as f:
        step = max(1, sum(1 for _ in f) // limit)
    return {"samples": {"mmlu": [i * step for i in range(limit)]}}


def main():
    model_dir, data, names, limit = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4])
    dtype = sys.argv[5] if len(sys.argv) > 5 else "bfloat16"
    batches = sys.argv[6].split(",") if len(sys.argv) > 6 else ["32"]
    threads = sys.argv[7].split(",") if len(sys.argv) > 7 else [os.environ.get("OMP_NUM_THREADS", os.cpu_count())]
    model = HFLM(pretrained=model_dir, device="cpu", dtype=dtype, batch_size=1)
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(folder, data, names)
        manager = TaskManager(include_path=folder, include_defaults=False)

        def run(name, n, batch, n_threads):
            torch.set_num_threads(int(n_threads))
            model.batch_size_per_gpu = int(batch)
            wall, cpu = time.perf_counter(), time.process_time()
            results = evaluator.simple_evaluate(model=model, tasks=[name], **chosen(data, name, n),
                                                task_manager=manager, bootstrap_iters=0, verbosity="ERROR")
            return time.perf_counter() - wall, time.process_time() - cpu, results

        ways = [(batch, n_threads) for n_threads in threads for batch in batches]
        run(names[0], 8, *ways[0])
        for name in names:
            trial = {way: run(name, min(limit, TRIAL_ITEMS), *way)[0] for way in ways} if len(ways) > 1 else {ways[0]: 0}
            way = min(trial, key=trial.get)
            wall, cpu, results = run(name, limit, *way)
            scores = results["results"][name]
            print("%s %d items %.2f s wall %.2f s cpu acc %.4f acc_norm %s batch %s threads %s" % (
                name, results["n-samples"][name]["effective"], wall, cpu, scores["acc,none"],
                "%.4f" % scores["acc_norm,none"] if "acc_norm,none" in scores else "-", *way), flush=True)
            for batch, n_threads in trial if len(ways) > 1 else []:
                print("  tried batch %s threads %s: %.2f s" % (batch, n_threads, trial[batch, n_threads]), file=sys.stderr)
    print("peak %.0f MiB" % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


main()
