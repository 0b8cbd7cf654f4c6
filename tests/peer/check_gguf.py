"""Reads a GGUF file, runs it in llama.cpp and prints what it found, one line per check.

Usage:
    python3 tests/peer/check_gguf.py FILE.gguf [SHARD.h5 --loss 3.9631 [--within 1e-3]]
        [--tokenizer DIR] [--prompt TEXT --text TEXT]

The file is read by the few lines below, which share no code with what wrote it: every tensor must
lie where the format wants it. The loss is that of consecutive windows of 256 targets from the
beginning of the shard, as `mha2mla eval MODEL --perplexity SHARD.h5 --seq-len 256 --max-tokens
2048` measures it. DIR's tokenizer must give the same ids as llama.cpp for a list of texts, and
the greedy continuation of the prompt must be the text. A difference ends the check with status 1.
"""

from __future__ import annotations

import argparse
import ctypes
import struct
from pathlib import Path

import h5py
import numpy as np
import xllamacpp

T, N_WINDOWS = 256, 8
TEXTS = [
    "Once upon a time there was a little model that learned to read and to write.",
    "It's 2024, and we've counted 1,234,567 tokens; they'll say it isn't enough.",
    "def attention(query, key, value):\n    return softmax(query @ key.T) @ value\n",
    "Grüße aus Köln, déjà vu, naïve café; Привет, мир! 你好，世界。 こんにちは 안녕하세요",
    "  two spaces,\tone tab,\n\n\nthree lines   and some at the end   ",
    "emoji 🚀 and 👩‍👩‍👧‍👦, \u00a0no-break, ½ ² ٣ Ⅷ, I'M SURE WE'LL",
    "",
    " ",
    "a",
    "\n",
]


def require(condition: bool, text: str) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {text}")


# ---- the format ---------------------------------------------------------------------------------


class Reader:
    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, path: Path):
        self.data, self.at = path.read_bytes(), 0

    def scalar(self, code: str):
        value = struct.unpack_from("<" + code, self.data, self.at)[0]
        self.at += struct.calcsize(code)
        return value

    def text(self) -> str:
        size = self.scalar("Q")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind: int):
        if kind == 8:
            return self.text()
        if kind == 9:
            element, count = self.scalar("I"), self.scalar("Q")
            return [self.value(element) for _ in range(count)]
        return self.scalar(self.SCALARS[kind])


def dequantize(kind: int, data: bytes, offset: int, count: int) -> np.ndarray:
    if kind == 0:
        return np.frombuffer(data, "<f4", count, offset)
    if kind == 1:
        return np.frombuffer(data, "<f2", count, offset).astype("f4")
    if kind == 30:
        return (np.frombuffer(data, "<u2", count, offset).astype("u4") << 16).view("f4")
    require(kind == 8, f"type {kind}")
    blocks = np.frombuffer(data, [("scale", "<f2"), ("codes", "i1", 32)], count // 32, offset)
    return (blocks["scale"].astype("f4")[:, None] * blocks["codes"].astype("f4")).reshape(-1)


BLOCKS = {0: (1, 4), 1: (1, 2), 8: (32, 34), 30: (1, 2)}


def read(path: Path):
    """Metadata, and tensors by name, in the order of rows and columns."""
    reader = Reader(path)
    require(reader.data[:4] == b"GGUF", "magic")
    reader.at = 4
    require(reader.scalar("I") == 3, "version")
    n_tensors, n_keys = reader.scalar("Q"), reader.scalar("Q")
    meta = {}
    for _ in range(n_keys):
        key = reader.text()
        require(key not in meta, f"{key} is there twice")
        meta[key] = reader.value(reader.scalar("I"))
    infos = []
    for _ in range(n_tensors):
        name = reader.text()
        dims = [reader.scalar("Q") for _ in range(reader.scalar("I"))]
        infos.append((name, dims, reader.scalar("I"), reader.scalar("Q")))
    start, expected, tensors = -(-reader.at // 32) * 32, 0, {}
    for name, dims, kind, offset in infos:
        numbers, size = BLOCKS[kind]
        require(dims[0] % numbers == 0, f"{name}: rows of {dims[0]} are no whole blocks")
        require(offset == expected, f"{name} is at {offset}, expected {expected}")
        count = int(np.prod(dims))
        values = dequantize(kind, reader.data, start + offset, count)
        require(bool(np.isfinite(values).all()), f"{name} has numbers that are none")
        tensors[name] = values.reshape(dims[::-1])
        expected += -(-count // numbers * size // 32) * 32
    require(len(reader.data) == start + expected, f"{len(reader.data)} bytes, expected {start + expected}")
    return meta, tensors


# ---- llama.cpp ----------------------------------------------------------------------------------


class Parameters(ctypes.Structure):
    """llama_model_params and llama_context_params: as the library fills them in. They are shorter
    than this; of the latter the first fields are n_ctx, n_batch, n_ubatch and n_seq_max."""

    _fields_ = [("numbers", ctypes.c_uint32 * 4), ("rest", ctypes.c_uint64 * 62)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


# The extension module has llama.cpp's C functions in it.
lib = ctypes.CDLL(str(Path(xllamacpp.__file__).with_name("xllamacpp.abi3.so")))
INT, POINTER, TEXT, BOOL = ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool
LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, TEXT, POINTER)
for name, result, arguments in [
    ("llama_log_set", None, [LOG, POINTER]),
    ("llama_model_default_params", Parameters, []),
    ("llama_context_default_params", Parameters, []),
    ("llama_model_load_from_file", POINTER, [TEXT, Parameters]),
    ("llama_init_from_model", POINTER, [POINTER, Parameters]),
    ("llama_model_get_vocab", POINTER, [POINTER]),
    ("llama_vocab_n_tokens", INT, [POINTER]),
    ("llama_get_memory", POINTER, [POINTER]),
    ("llama_memory_clear", None, [POINTER, BOOL]),
    ("llama_batch_init", Batch, [INT, INT, INT]),
    ("llama_batch_free", None, [Batch]),
    ("llama_decode", INT, [POINTER, Batch]),
    ("llama_get_logits", ctypes.POINTER(ctypes.c_float), [POINTER]),
    ("llama_tokenize", INT, [POINTER, TEXT, INT, POINTER, INT, BOOL, BOOL]),
    ("llama_detokenize", INT, [POINTER, POINTER, INT, TEXT, INT, BOOL, BOOL]),
]:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


@LOG
def only_errors(level, text, _):
    if level == 4:
        print(text.decode(), end="")


class Llama:
    def __init__(self, path: Path):
        lib.llama_log_set(only_errors, None)
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(
            str(path).encode(), lib.llama_model_default_params()
        )
        require(self.model is not None, f"llama.cpp does not load {path}")
        options = lib.llama_context_default_params()
        options.numbers[0] = options.numbers[1] = options.numbers[2] = T
        self.context = lib.llama_init_from_model(self.model, options)
        require(self.context is not None, "llama.cpp makes no context")
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        self.n_past = 0

    def logits(self, tokens, is_new: bool) -> np.ndarray:
        """[n, V] of tokens after those before them."""
        if is_new:
            lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
            self.n_past = 0
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = int(token), self.n_past + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        batch.n_tokens = len(tokens)
        require(lib.llama_decode(self.context, batch) == 0, "llama_decode fails")
        lib.llama_batch_free(batch)
        self.n_past += len(tokens)
        values = np.ctypeslib.as_array(
            lib.llama_get_logits(self.context), (len(tokens), self.n_vocab)
        )
        return values.astype("f8")

    def loss(self, window: np.ndarray) -> float:
        logits = self.logits(window[:-1], True)
        top = logits.max(1, keepdims=True)
        sums = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
        return float((sums - logits[np.arange(T), window[1:]]).mean())

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        out = (INT * (len(data) + 16))()
        n = lib.llama_tokenize(self.vocab, data, len(data), out, len(out), True, True)
        return list(out[:n])

    def greedy(self, prompt: str, n: int) -> str:
        tokens = self.tokenize(prompt)
        row = self.logits(tokens, True)[-1]
        for _ in range(n):
            tokens.append(int(row.argmax()))
            row = self.logits(tokens[-1:], False)[-1]
        out, ids = ctypes.create_string_buffer(4096), (INT * len(tokens))(*tokens)
        size = lib.llama_detokenize(self.vocab, ids, len(ids), out, len(out), True, False)
        return out.raw[:size].decode()


def check_tokenizer(llama: Llama, directory: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in TEXTS:
        expected = tokenizer.encode(text).ids
        got = llama.tokenize(text)
        require(got == expected, f"{text!r}: ids {got}, the library's {expected}")
    print(f"tokenizer: the ids of {len(TEXTS)} texts are the library's")


def check_loss(llama: Llama, path: Path, expected: float, within: float) -> None:
    with h5py.File(path) as shard:
        ids = shard["tokens"][: N_WINDOWS * T + 1].astype("int64")
    loss = float(np.mean([llama.loss(ids[i * T : i * T + T + 1]) for i in range(len(ids) // T)]))
    require(abs(loss - expected) < within, f"loss {loss:.6f}, eval's {expected}")
    print(f"llama.cpp: loss {loss:.6f}, eval's {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A GGUF file in llama.cpp.")
    parser.add_argument("file", type=Path)
    parser.add_argument("shard", type=Path, nargs="?")
    parser.add_argument("--loss", type=float)
    parser.add_argument("--within", type=float, default=1e-3)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--prompt", default="")
    parser.add_argument("--text")
    arguments = parser.parse_args()
    meta, tensors = read(arguments.file)
    rows = tensors["token_embd.weight"].shape[0]
    tokens = meta.get("tokenizer.ggml.tokens", [None] * rows)
    require(len(tokens) == rows, f"{len(tokens)} tokens, the embedding has {rows} rows")
    print(f"{meta['general.architecture']}: {len(meta)} keys, {len(tensors)} tensors in their places")
    llama = Llama(arguments.file)
    if arguments.shard is not None:
        check_loss(llama, arguments.shard, arguments.loss, arguments.within)
    if arguments.tokenizer is not None:
        check_tokenizer(llama, arguments.tokenizer)
    if arguments.text is not None:
        text = llama.greedy(arguments.prompt, 24)
        expected = arguments.prompt + arguments.text
        require(text.strip() == expected.strip(), f"greedy: {text!r}, expected {expected!r}")
        print("greedy: the text is the same")


if __name__ == "__main__":
    main()
