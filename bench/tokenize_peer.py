"""The `tokenizers` library on the same text and the same documents as bench_tokenize, on one core.

    python3 bench/tokenize_peer.py TOKENIZER_DIR TEXT_FILE [REPEATS]

Prints MB/s (10^6 bytes per second of processor time), the bytes, the ids, as bench_tokenize does. All documents go to the
library in one call, which is its fastest way.
"""
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from tokenizers import Tokenizer  # noqa: E402  (reads the environment)


def main():
    tokenizer = Tokenizer.from_file(os.path.join(sys.argv[1], "tokenizer.json"))
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    with open(sys.argv[2], "rb") as f:
        data = f.read()
    parts = data.decode("utf-8", "replace").split("\n\n")
    documents = [part + "\n\n" for part in parts[:-1]] + [part for part in parts[-1:] if part]
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        encodings = tokenizer.encode_batch_fast(documents, add_special_tokens=False)
        best = min(best, time.process_time() - start)
    n_ids = sum(len(encoding.ids) for encoding in encodings)
    print("%.2f MB/s %d bytes %d ids" % (1e-6 * len(data) / best, len(data), n_ids))


main()
