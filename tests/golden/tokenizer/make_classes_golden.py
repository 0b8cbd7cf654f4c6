"""Golden classes of the `tokenizers` library (0.23) for tests/data/tokenizer/test_tokenizer_classes.c.

    python3 tests/golden/tokenizer/make_classes_golden.py

Writes classes.json: {"PATTERN": "9-d,20,85,..."}, for each pattern that matches one character the
code points that it matches, of all 1,112,064, as ranges in hexadecimal. With the arguments OLD NEW
it prints instead the ranges that pattern NEW matches and OLD does not.
"""
import json
import os
import string
import sys

import numpy as np
from tokenizers import Regex, normalizers, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
PROPERTIES = ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "Nd", "P", "S", "Han", "Hiragana", "Katakana", "Hangul"]
PATTERNS = [r"\s", r"\S", r"\d", r"\D", r"\w", r"\W", "."]
PATTERNS += [r"\p{%s}" % name for name in PROPERTIES]
PATTERNS += [r"\P{L}", r"\p{^Han}"]
# Oniguruma looks some up in other tables inside [] than outside.
PATTERNS += ["[%s]" % pattern for pattern in PATTERNS if pattern != "."]
PATTERNS += ["(?i:%s)" % letter for letter in string.ascii_lowercase] + [r"(?i:[sdmt])", r"(?i:[a-z])", r"(?i:[0-Z])"]
PATTERNS += [  # of models, and what sets of classes allow
    r"[^\s\p{L}\p{N}]", r"[^\r\n\p{L}\p{N}]", r"[^\r\n\p{L}\p{P}\p{S}]", r"[\p{P}\p{S}]",
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[^(\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]",
    r"[\p{P}!-/:-@\[-`{-~]", r"[\W\p{N}]", r"[^\W\d_]", r"[^\P{L}a-z]", r"[\w&&[^\d_]]", r"[^\w&&\p{L}]", r"[a-f[x-z]]",
    r"[a-z&&[^aeiou]&&[a-m]]", r"[\s\S]", r"[\p{^N}\p{Nd}]", r"[^\p{L}&&\p{Ll}]", r"[a[^b-z]]", r"[^a[^b-z]]",
]
TEXT = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)


def ranges_of(codes):
    """Sorted code points as ranges."""
    out = []
    for code in codes:
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return ",".join("%x" % a if a == b else "%x-%x" % (a, b) for a, b in out)


def without(left):
    """The code points of TEXT that are not in this string."""
    is_out = np.zeros(0x110000, bool)
    is_out[0xD800:0xE000] = True
    is_out[np.frombuffer(left.encode("utf-32-le"), np.uint32)] = True
    return np.flatnonzero(~is_out).tolist()


def of_pattern(pattern):
    return without(normalizers.Replace(Regex("(?:%s)+" % pattern), "").normalize_str(TEXT))


def check_boundaries():
    """The words between which \\b lies are those of \\w outside []."""
    step = normalizers.Replace(Regex(r"\b[^ ]"), "")
    pieces = (TEXT[start:start + 500] for start in range(0, len(TEXT), 500))  # its time is quadratic in the matches
    left = " ".join(step.normalize_str(" ".join(piece)) for piece in pieces)
    assert without(left) == of_pattern(r"\w")


def numeric():
    """What Digits takes for numeric: of its pieces, those that begin with such a character."""
    digits = pre_tokenizers.Digits(individual_digits=False)
    out = []
    for piece, _ in digits.pre_tokenize_str(TEXT):
        if len(digits.pre_tokenize_str("x" + piece[0])) == 2:
            out += map(ord, piece)
    return out


def main():
    if len(sys.argv) == 3:
        old = set(of_pattern(sys.argv[1]))
        print(ranges_of(code for code in of_pattern(sys.argv[2]) if code not in old))
        return
    check_boundaries()
    classes = {pattern: ranges_of(of_pattern(pattern)) for pattern in PATTERNS}
    classes["numeric"] = ranges_of(numeric())
    with open(os.path.join(HERE, "classes.json"), "w", encoding="utf-8") as f:
        json.dump(classes, f, indent=0)
        f.write("\n")


main()
