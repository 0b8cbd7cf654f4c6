"""Golden ids and texts of the `tokenizers` library (0.23) for tests/data/tokenizer/test_tokenizer.c.

    python3 tests/golden/tokenizer/make_tokenizer_golden.py ASSETS_DIR

Trains the tiny tokenizers in tiny_*/ and writes NAME.json for them and for
the tokenizers found under ASSETS_DIR: {"cases": [{"text", "ids", "special"?, "decoded"?}]}.
"special": the ids with the post-processor's tokens, if they differ. "decoded": the text of `special`
(or `ids`) with special tokens left out, if it differs from `text`. variants.json has the
same cases for variants of tiny_spm: {"variants": [{"parts": {...}, "cases": [...]}]}, each with some
parts of its tokenizer.json replaced; splits.json likewise, of tiny_bytelevel.
"""
import json
import os
import random
import sys

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
MARK = "\u2581"
SENTENCES = [
    "Once upon a time there was a little model that learned to read and to write.",
    "It's 2024, and we've counted 1,234,567 tokens; they'll say it isn't enough.",
    "The latent vector is small, the cache is smaller, and the heads don't mind.",
    "def attention(query, key, value):\n    return softmax(query @ key.T) @ value\n",
    "Low rank, high hopes: keys and values share what they know about the text.",
    "Gr\u00fc\u00dfe aus K\u00f6ln, d\u00e9j\u00e0 vu, na\u00efve caf\u00e9; \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "the the the there then they them these those that than this and and and",
]
HARD = [
    "", " ", "  ", "\n", "\t", "\r\n", "a", " a", "a ", "  a  b   c    ", "\n\n\n  \n a \n",
    "I'm you're he's we've they'll I'd can't 'S 'RE it''s 'tis", "''''", "don\u2019t",
    "1234567890 12.5 1,000 0x1F 3a4b \u00b2\u00bd \u0663\u0664 \u2167 \u4e09 \U0001d7d8",
    "tabs\tand\ttabs\t\t\tmore", " " * 40 + "x" + " " * 17, "\u00a0nbsp\u00a0\u3000wide\u2003em\u200bzero\u180emvs\u0085nel\u2028ls",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\ud55c\uad6d\uc5b4 \uc548\ub155",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f\U0001f600\U0001f600",
    "e\u0301 n\u0303o a\u0300\u0301\u0302 Z\u0351\u036b\u0343 \u0915\u094d\u0937\u093f \u0e01\u0e33",
    "\u05e9\u05dc\u05d5\u05dd \u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645 \u202eabc\u202c",
    "a\x00b\x01\x02\x1b[0m\x7f\x80\x9f\ufeff\ufffd\ufffe\U0010ffff",
    "for (int i = 0; i < n; i++) {\n\tx[i] += y[i] * 2;  // sum\n}\n",
    "<|endoftext|>", "a<|endoftext|>b <|endoftext|> c<|endoftext|><|endoftext|>", "<s>", "</s>",
    "<s> a</s>b <s>\n</s>  <unk> x<unk>y", "<|im_start|>user\nhi<|im_end|>\n", "<|endoftext", "<<s>>",
    "<0x41><0x0A>", MARK + "a" + MARK + MARK + "b" + MARK, MARK, "a" + MARK + " " + MARK + " b",
    "supercalifragilisticexpialidocious" * 3, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "http://example.org/a?b=c&d=%20#e user@example.org", "\\frac{1}{2} \\alpha_{i}^{2} $x^2$",
    "\U00031350\U0001e5d0\U00011de0\U00016ff4\U0001d2c5\u1c89\ua7cb\u0897",  # newer than Unicode 14
]
PIECES = [" ", "  ", "\n", "\t", "'s", "'ll", "\u00a0", "\u3000", MARK, "<s>", "</s>", "<|endoftext|>",
          "12", "\u00bd", "the", " and", "\u200d", "\u0301", "\U0001f600", "\u4e2d"]


def random_text(rng):
    out = []
    for _ in range(rng.randrange(1, 9)):
        kind = rng.random()
        if kind < 0.3:
            out.append(chr(rng.randrange(32, 127)))
        elif kind < 0.7:
            out.append(rng.choice(PIECES))
        elif kind < 0.85:
            out.append(chr(rng.randrange(0x80, 0x3000)))
        else:
            code = rng.randrange(0x110000)
            out.append(chr(code) if not 0xD800 <= code < 0xE000 else "?")
    return "".join(out)


def train_bytelevel(path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.save(path)


def train_spm(path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=400, special_tokens=tokens, show_progress=False))
    root = json.loads(tokenizer.to_str())
    root["added_tokens"] = root["added_tokens"][:3]
    root["model"].update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    root["model"]["merges"] = [" ".join(merge) for merge in root["model"]["merges"]]
    tokenizer = Tokenizer.from_str(json.dumps(root))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1), ("</s>", 2)])
    root = json.loads(tokenizer.to_str())
    root["model"]["merges"] = [" ".join(merge) for merge in root["model"]["merges"]]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(root, f, ensure_ascii=False, separators=(",", ":"))


def write_variant(name, base, change):
    with open(os.path.join(HERE, "%s/tokenizer.json" % base), encoding="utf-8") as f:
        root = json.load(f)
    change(root)
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/tokenizer.json", "w", encoding="utf-8") as f:
        json.dump(root, f, ensure_ascii=False, separators=(",", ":"))


def add_flags(root):
    """Every flag of added tokens; unknown characters as <unk>, not fused."""
    root["model"].update(byte_fallback=False, fuse_unk=False)
    next_id = len(root["model"]["vocab"])
    for content, flags in (("[L]", ["lstrip"]), ("[R]", ["rstrip"]), ("[LR]", ["lstrip", "rstrip", "special"]),
                           ("word", ["single_word"]), ("[N]", ["normalized"]), ("a b", ["normalized"]),
                           ("[L", []), (" [S", ["special"])):
        token = {"id": next_id, "content": content}
        token.update({f: f in flags for f in ("single_word", "lstrip", "rstrip", "normalized", "special")})
        root["added_tokens"].append(token)
        next_id += 1


def add_prefix(root):
    """A space before every piece, digits in runs, whole words first, a template around it all."""
    root["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    root["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True
    root["model"]["ignore_merges"] = True
    root["model"]["vocab"]["\u0120tokens;"] = len(root["model"]["vocab"])
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    token = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    template = {
        "type": "TemplateProcessing", "pair": [sequence],
        "single": [token("<|im_start|>"), token("<|im_end|>"), sequence, token("<|im_end|>")],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1, 0], "tokens": ["a", "b"]},
                           "<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["c"]}}}
    root["post_processor"] = {"type": "Sequence", "processors": [root["post_processor"], template]}


FLAGGED = ["a  [L]  b", "a  [R]  b", " \u3000[LR]\n\tb", "word", "a word b", "words", "wordword",
           "(word)", "w\u00f6word", "word\u0301", "word\u200d", "word_", "word1", "[N]", "x [N] y",
           "a b", "xa b", "a b a b", "[L[L][L", "[R] [S x", "[R]   [L]", "[LR] [LR]", "  [LR]",
           "word [S [L]", "\U0001f600\U0001f600 \u4e2d"]
PREFIXED = ["tokens;", "the tokens; 12tokens; 3", "12ab345", "a12 b"]


# The splits of Llama-3 and of Qwen2, as their files have them.
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
COMBINED = [  # what normalization changes, and characters that one version of Unicode or another has
    "e\u0301\u0323 \u1e69 s\u0307\u0323 \u0344 \u0958 \u2126 \u212b \ufb01 \uff21\uff11 \u2460 \u00bd\u00aa",
    "\u1100\u1161\u11a8 \uac00\u11a8 \ud55c\uae00 \u1112\u1161\u11ab", "\uf900\ufa10\U0002f800 \u3300\u337f\ufdfa",
    "\u0301\u0301a", "a" + "\u0323\u0301\u0327\u0345" * 12, "\U0001d15e\U0001d1bc \u0b94 \u0fb9\u0f73\u0f75",
    "\U00011935\U00011930 \U00011938 a\u08ca\u0334 \u32ff \ua7f2\U0001e030 \U000105d2\u0307 \u0c15\u0c3c\u0c4d",
    "it\u2019\u017f it'\u017f IT'S we'LL i'Re 'Ve'M'D x'\u212a '\u00df",
    "1234567 12 \u0661\u0662\u0663\u0664 1\u00bd2\u2167", "a\r\n\r\nb\n \n  c  \r d!!\n\n??\r\n", " \n\t \n x \t\t y\u3000\n",
    "\u00a0\u00a0x\u200b\u180e\u0085y \u2028\u2029z", "<|begin_of_text|>a<|eot_id|> b <|end_of_text|>\n",
    "caf\u00e9! cafe\u0301! cafe!", "_under_score __init__ $x{y}[z] a.b,c;d", " " * 70 + "\n" * 9 + "\t" * 20 + "9" * 40,
]


def train_kind(pattern, normalizer, specials, **model):
    """Byte-level BPE whose special tokens come after the vocabulary, as in the big models."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens(specials)
    return tokenizer


def train_llama3(path):
    tokenizer = train_kind(LLAMA3, None, ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
                           ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
            special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))])])
    tokenizer.save(path)


def train_qwen2(path):
    tokenizer = train_kind(QWEN2, normalizers.NFC(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("cafe\u0301!", normalized=True)])
    tokenizer.save(path)


def train_metaspace(path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="first")
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=400, special_tokens=tokens, show_progress=False))
    tokenizer.decoder = decoders.Sequence([
        decoders.ByteFallback(), decoders.Metaspace(replacement=MARK, prepend_scheme="first")])
    root = json.loads(tokenizer.to_str())
    root["added_tokens"] = root["added_tokens"][:3]
    root["model"].update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(root, f, ensure_ascii=False, separators=(",", ":"))


def variants():
    """Parts of tokenizer.json, each kind of step with each of its settings."""
    out = []
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            for pattern in ({"Regex": r"[aeiou]|\s{1,2}|\p{N}"}, {"String": "a."}, {"String": " "}):
                out.append({"pre_tokenizer": {"type": "Split", "pattern": pattern, "behavior": behavior,
                                              "invert": invert}})
    for scheme in ("always", "first", "never"):
        for split in (False, True):
            meta = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}
            for normalizer in (None, {"type": "NFKC"}):
                out.append({"normalizer": normalizer, "pre_tokenizer": meta, "decoder": meta})
    out.append({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "add_prefix_space": True},
                "decoder": {"type": "Metaspace", "replacement": "_", "str_rep": "_"}})
    out.append({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"(?<=[a-z])(?=\S)[^a-z]++"}, "behavior": "MergedWithNext",
         "invert": False},
        {"type": "Digits", "individual_digits": False},
        {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}]}})
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        out.append({"normalizer": {"type": form}})
    out.append({"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "NFD"}, {"type": "Replace", "pattern": {"Regex": r"[\x{300}-\u036F]{1,2}|x|\d"}, "content": ""},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": MARK}]},
        "decoder": {"type": "Replace", "pattern": {"Regex": MARK + "|e+?"}, "content": " "}})
    return out


def write_parts(name, out):
    with open(os.path.join(HERE, "%s.json" % name), "w", encoding="utf-8") as f:
        f.write('{"variants":[\n')
        f.write(",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in out))
        f.write("\n]}\n")


def write_variants(base, rng):
    with open(os.path.join(HERE, "%s/tokenizer.json" % base), encoding="utf-8") as f:
        root = json.load(f)
    root["normalizer"] = root["pre_tokenizer"] = None
    out = []
    for parts in variants():
        parts = {"normalizer": None, "pre_tokenizer": None, **parts}
        tokenizer = Tokenizer.from_str(json.dumps({**root, **parts}))
        texts = ["", " ", "a", "aa. a.a. b", "  the  they a.  12 ", "<s> the<s>the </s>", "Hello, world."]
        texts += rng.sample(HARD, 5) + rng.sample(COMBINED, 5) + [random_text(rng) for _ in range(5)]
        out.append({"parts": parts, "cases": make_cases(tokenizer, texts)})
    write_parts("variants", out)


ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + ENDINGS +
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + ENDINGS +
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Split patterns of models, and each class that patterns may name.
PATTERNS = [
    [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"],  # DeepSeek-Coder
    [r"[\r\n]", "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e]+",
     r"\s+$"],  # DeepSeek LLM
    [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}|"
     r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"],  # o200k
    [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
     r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
     r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""],  # DeepSeek-V3
    [r"\d{1,3}(?=(?:\d{3})*\b)"], [r"(?i)'s|'t| ?\p{L}+"], [r"\w+|[^\w\s]+"], [r"\p{Lu}?\p{Ll}+|."],
    [r"\p{Lu}+"], [r"\p{Ll}+"], [r"[\p{Lt}\p{Lm}]+"], [r"\p{Lo}+"], [r"\p{M}+"], [r"\p{P}+"], [r"\p{S}+"],
    [r"\W+"], [r"\b\w"], [r"\B\S"], [r"\s$"], [r"x|(?i)the|a"],
    [QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{M}\p{N}]+")],  # Qwen3.5
    [O200K.replace("/", "")],  # with endings of words: gpt-oss, Llama 4
    [O200K.replace("{1,3}", "").replace(ENDINGS, "")],  # Mistral NeMo
    [r"[\p{Han}]+|" + O200K.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]").replace("/", "")],  # Kimi K2
    [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
     r"\s+(?!\S)|\s"],  # cl100k
    [" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"],  # BLOOM
    [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|"
     r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"],  # EXAONE 4
    [r"<sentinel:[0-9]+>", r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
     r"[\p{P}!-/:-@\[-`{-~]"],  # Chameleon
    [r"[\p{Hiragana}\p{Katakana}]+|\p{Hangul}+|\p{^Han}"], [r"[^\P{L}a-z]+|[\W\d&&[^\s]]"],
]
CLASSES = [  # characters of every class, old and new; what the engines' words and line ends differ in
    "Ab\u01c5\u02b0\u4e2d\u0301_1\u00b2\u00bd\u2167\u200c\u200d\u203f$+!?\u20ac\u3000-", "\u1c89\u1c8a\ua7cb\ua7cd\u1c8a\U00010d50\U00010d70",
    "\U0001e030\U00010d4e \U00031350\U0001e5d0 \u0897\U00011241a\U000113b8", "\u1b4e\u1b7f\U00010d6e \u2427\u31ef\U0001cc00\U0001fae9 ",
    "1234567 12 123456 1,234 12\u0663\u0664\u0665 a1234", "x \n\ny \n", "a\nb\r\nc\rd\u2028e\u0085f", "'S 'T x'tX THE The XthE aA",
    "\u6f22\u5b57\u3042\u30a2 \u3005\u3001\u30fc\ud55c\uae00Kimi\u6f22'S it\u6f22's \u4e2daB\U00031350z", "Chi ama  be; (s|t) IMGIMGABZ <sentinel:12>",
    "HTTPServer getURLFor x\u01c5y \u00c9COLE \u0130\u0131 \u00df\u1e9e \u03a3\u03c2",
]


def write_splits(base, rng):
    """Each pattern before byte-level steps that put a space before every piece: ids show the pieces."""
    with open(os.path.join(HERE, "%s/tokenizer.json" % base), encoding="utf-8") as f:
        root = json.load(f)
    out = []
    for patterns in PATTERNS:
        steps = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns]
        steps.append({"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False})
        parts = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
        tokenizer = Tokenizer.from_str(json.dumps({**root, **parts}))
        texts = SENTENCES + CLASSES + rng.sample(HARD, 8) + rng.sample(COMBINED, 5)
        texts += [random_text(rng) for _ in range(10)]
        out.append({"parts": parts, "cases": make_cases(tokenizer, texts)})
    write_parts("splits", out)


def load_gpt2(folder):
    tokenizer = Tokenizer(models.BPE.from_file(folder + "/vocab.json", folder + "/merges.txt"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def load_repaired(path):
    """Llama-2's file in some copies has spaces for no-break spaces: the library refuses it. The
    test repairs it in the same way."""
    with open(path, encoding="utf-8") as f:
        root = json.load(f)
    model = root["model"]
    model["vocab"] = {text.replace(" ", "\u00a0"): i for text, i in model["vocab"].items()}

    def repaired(merge):
        if merge.count(" ") == 1:
            return merge
        cut = len(merge) // 2 if set(merge) == {" "} else 1
        return merge[:cut].replace(" ", "\u00a0") + " " + merge[cut + 1:].replace(" ", "\u00a0")

    model["merges"] = [repaired(merge) for merge in model["merges"]]
    return Tokenizer.from_str(json.dumps(root))


def excerpts(assets):
    out = []
    for name, start, length in (("tinystories-valid.txt", 5000, 2500), ("wikitext2-test.txt", 60000, 2500)):
        path = os.path.join(assets, "text", name)
        if os.path.exists(path):
            with open(path, encoding="utf-8", newline="") as f:
                out.append(f.read()[start:start + length])
    return out


def make_cases(tokenizer, texts):
    special = {i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    cases = []
    for text in texts:
        case = {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}
        ids = tokenizer.encode(text).ids
        if ids != case["ids"]:
            case["special"] = ids
        # The library keeps special tokens with "normalized": true; leaving them out is what we do.
        decoded = tokenizer.decode([i for i in ids if i not in special], skip_special_tokens=False)
        if decoded != text:
            case["decoded"] = decoded
        cases.append(case)
    return cases


def write_golden(name, tokenizer, texts):
    cases = make_cases(tokenizer, texts)
    with open(os.path.join(HERE, "%s.json" % name), "w", encoding="utf-8") as f:
        f.write('{"cases":[\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")


def main():
    assets = sys.argv[1]
    for name, train in (("tiny_bytelevel", train_bytelevel), ("tiny_spm", train_spm),
                        ("tiny_llama3", train_llama3), ("tiny_qwen2", train_qwen2),
                        ("tiny_metaspace", train_metaspace)):
        folder = os.path.join(HERE, name)
        os.makedirs(folder, exist_ok=True)
        train(folder + "/tokenizer.json")
    write_variant("tiny_added", "tiny_spm", add_flags)
    write_variant("tiny_prefix", "tiny_bytelevel", add_prefix)
    own = lambda name: Tokenizer.from_file(os.path.join(HERE, "%s/tokenizer.json" % name))
    asset = lambda name: Tokenizer.from_file(os.path.join(assets, name, "tokenizer.json"))
    makers = {
        "tiny_bytelevel": lambda: own("tiny_bytelevel"),
        "tiny_spm": lambda: own("tiny_spm"),
        "tiny_added": lambda: own("tiny_added"),
        "tiny_prefix": lambda: own("tiny_prefix"),
        "smollm": lambda: asset("tokenizers/smollm"),
        "llama2": lambda: load_repaired(os.path.join(assets, "tokenizers/llama2/tokenizer.json")),
        "gpt2": lambda: load_gpt2(os.path.join(assets, "tokenizers/gpt2")),
        "stories260K": lambda: asset("models/stories260K"),
        "stories3M": lambda: asset("models/stories3M"),
        "tiny_llama3": lambda: own("tiny_llama3"),
        "tiny_qwen2": lambda: own("tiny_qwen2"),
        "tiny_metaspace": lambda: own("tiny_metaspace"),
    }
    write_variants("tiny_spm", random.Random(99))
    write_splits("tiny_bytelevel", random.Random(98))
    for seed, (name, make) in enumerate(makers.items()):
        rng = random.Random(seed)
        texts = HARD + [random_text(rng) for _ in range(300)]
        texts += FLAGGED if name == "tiny_added" else PREFIXED if name == "tiny_prefix" else []
        texts += COMBINED if name in ("tiny_llama3", "tiny_qwen2", "tiny_metaspace") else []
        if not name.startswith("tiny"):
            texts += excerpts(assets)
        write_golden(name, make(), texts)


main()
