"""Greedy answers of transformers to LongBench prompts, cut as JT-Ushio/MHA2MLA cuts them.

    python3 make_greedy_golden.py ASSETS        # torch, transformers, tokenizers

Writes sets/NAME.jsonl, rows of our own made of the demo's validation text, and greedy.json beside
this script: for each model what it answers, as ids and as text. Shares no code with the project.
"""
import gzip
import json
import os
import sys

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "..", "..", "configs", "demo")
MIN_MARGIN = 3e-4  # between the two largest logits: rounding must not choose


def write_own_rows():
    """Contexts of several lengths: some fit, some are cut, one by characters too."""
    text = gzip.open(os.path.join(DEMO, "valid.txt.gz"), "rt", encoding="utf-8").read()
    stories = [s.strip() for s in text.split("<|endoftext|>") if len(s.strip()) > 200]
    context = lambda first, n: "\n\n".join(stories[first:first + n])
    rows = {
        "hotpotqa": [("Who is in the story?", context(0, 4), ["a ship", "the ship"], None),
                     ("Where did she go?", context(4, 1)[:300], ["home"], None),
                     ("What does 'caf\u00e9 {context}' mean?", context(5, 2), ["\u00c9t\u00e9"], None)],
        "trec": [("Question: Who ran?\nType:", "Question: Where is it?\nType: Place\n" + context(8, 2),
                  ["Person"], ["Place", "Person", "Time"])],
        "passage_count": [("", context(10, 5), ["5"], None)],
        "lcc": [("", "def f(x):\n    return x\n\n" + context(15, 1) + "\n", ["    return x + 1"], None),
                ("", "\u00e9" * 1400 + context(16, 1), ["y"], None)],
    }
    os.makedirs(os.path.join(HERE, "sets"), exist_ok=True)
    for name, items in rows.items():
        with open(os.path.join(HERE, "sets", name + ".jsonl"), "w", encoding="utf-8") as out:
            for i, (question, text, answers, classes) in enumerate(items):
                row = {"input": question, "context": text, "answers": answers,
                       "length": len(" ".join([question, text, *answers]).split()), "dataset": name,
                       "language": "en", "all_classes": classes, "_id": f"own-{name}-{i}"}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    keys = [("blue-17", 3), ("red-42", 1)]
    with open(os.path.join(HERE, "sets", "niah_own.jsonl"), "w", encoding="utf-8") as out:
        for i, (key, n) in enumerate(keys):
            needle = f" The special magic word is {key}. "
            text = context(22 + 3 * i, n)
            middle = len(text) // 2
            question = "\nWhat is the special magic word? The special magic word is"
            row = {"index": i, "input": text[:middle] + needle + text[middle:] + question,
                   "outputs": [key], "length": 0}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_rows(directory, name, n):
    path = os.path.join(directory, name + ".jsonl")
    stream = open(path, encoding="utf-8") if os.path.exists(path) else gzip.open(
        path + ".gz", "rt", encoding="utf-8")
    with stream:
        return [json.loads(line) for line, _ in zip(stream, range(n))]


def make_prompt(tokenizer, templates, max_gen, name, row, T):
    if "outputs" in row:
        text, gen = row["input"], 128
    else:
        context, gen = row["context"], max_gen[name]
        if len(context) > 8 * T:
            context = context[:4 * T] + context[-4 * T:]
        text = templates[name].format(context=context, input=row["input"])
    ids = tokenizer.encode(text).ids
    n = T - gen
    if len(ids) > n:
        half = n // 2
        ids = ids[:n - half] + (ids[-half:] if half else [])
    return ids, gen


def answer(model, ids, n_new, eos):
    """Greedy; the new ids and the smallest margin of a choice."""
    margin, new, past = float("inf"), [], None
    step = torch.tensor([ids])
    with torch.no_grad():
        while len(new) < n_new and not (new and new[-1] in eos):
            out = model(step, past_key_values=past, use_cache=True)
            past = out.past_key_values
            top = torch.topk(out.logits[0, -1], 2)
            margin = min(margin, float(top.values[0] - top.values[1]))
            new.append(int(top.indices[0]))
            step = torch.tensor([[new[-1]]])
    return new, margin


def find_eos(model, tokenizer, path):
    """The ids that end a text; of the demo, whose config.json names none, the tokenizer's."""
    eos = model.generation_config.eos_token_id
    if eos is None:
        with open(os.path.join(path, "tokenizer_config.json"), encoding="utf-8") as f:
            eos = tokenizer.token_to_id(json.load(f)["eos_token"])
    return eos if isinstance(eos, list) else [eos]


def answer_sets(path, rows_dir, wanted, T, golden):
    tokenizer = Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    eos = find_eos(model, tokenizer, path)
    items = []
    for name, n in wanted:
        for r, row in enumerate(read_rows(rows_dir, name, n)):
            ids, gen = make_prompt(tokenizer, golden["templates"], golden["max_gen"], name, row, T)
            new, margin = answer(model, ids, gen, eos)
            text = tokenizer.decode([i for i in new if i not in eos], skip_special_tokens=True)
            print(name, r, len(ids), len(new), f"margin {margin:.4f}", repr(text[:60]), flush=True)
            if margin < MIN_MARGIN:
                raise SystemExit(f"{name} {r}: a choice is within rounding; take another row")
            items.append({"set": name, "row": r, "prompt_tokens": len(ids), "ids": new, "pred": text})
    return {"max_length": T, "items": items}


def main():
    assets = sys.argv[1]
    torch.set_num_threads(1)
    write_own_rows()
    with open(os.path.join(assets, "golden", "longbench-prompts.json"), encoding="utf-8") as f:
        golden = json.load(f)
    out = {
        "demo": answer_sets(os.path.join(DEMO, "model"), os.path.join(HERE, "sets"),
                            [("hotpotqa", 3), ("trec", 1), ("passage_count", 1), ("lcc", 2),
                             ("niah_own", 2)], 200, golden),
        "stories3M": answer_sets(os.path.join(assets, "models", "stories3M"),
                                 os.path.join(assets, "longbench"),
                                 [("narrativeqa", 1), ("hotpotqa", 2), ("musique", 2), ("trec", 2),
                                  ("triviaqa", 2), ("passage_count", 1), ("passage_retrieval_en", 2),
                                  ("lcc", 2), ("repobench-p", 1)], 512, golden),
    }
    with open(os.path.join(HERE, "greedy.json"), "w", encoding="utf-8") as f:
        json.dump(out, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
