#!/usr/bin/env python3
"""Makes the demo model's tokenizer from the demo corpus and measures both.

    python3 configs/demo/make_tokenizer.py         # needs: pip install tokenizers

Byte-level BPE with 1,024 entries, split like SmolLM's: digits one by one, then GPT-2's pattern.
Entry 0 is <|endoftext|>, which ends every document. Writes tokenizer.json and tokenizer_config.json
into model/ beside this file.
"""

import argparse
import collections
import gzip
import json
import math
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"


def read_documents(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return file.read().split(f"\n{END}\n")[:-1]


def make(documents, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def measure(tokenizer, name, documents):
    """Prints what a loss is compared with: a model that knows only how frequent each token is."""
    rows = [encoding.ids + [0] for encoding in tokenizer.encode_batch(documents)]
    counts = collections.Counter(token for row in rows for token in row)
    total = sum(counts.values())
    words = sum(len(text.split()) for text in documents)
    entropy = -sum(n / total * math.log(n / total) for n in counts.values())
    print(f"{name}: {len(documents)} documents, {words} words, {total} tokens, "
          f"{total / words:.3f} tokens per word, {total / len(documents):.0f} tokens per document, "
          f"{len(counts)} entries in use, unigram entropy {entropy:.3f} nats per token")


def main():
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=pathlib.Path, default=here)
    parser.add_argument("--out", type=pathlib.Path, default=here / "model")
    parser.add_argument("--vocab-size", type=int, default=1024)
    args = parser.parse_args()
    train = read_documents(args.corpus / "train.txt.gz")
    tokenizer = make(train, args.vocab_size)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out / "tokenizer.json"))
    (args.out / "tokenizer_config.json").write_text(json.dumps({
        "add_prefix_space": False, "bos_token": END, "eos_token": END, "model_max_length": 512,
        "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    measure(tokenizer, "train", train)
    measure(tokenizer, "valid", read_documents(args.corpus / "valid.txt.gz"))


if __name__ == "__main__":
    main()
