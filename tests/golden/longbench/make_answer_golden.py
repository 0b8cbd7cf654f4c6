"""Golden scores of LongBench's metrics for tests/eval/longbench/test_answer_score.c.

    python3 tests/golden/longbench/make_answer_golden.py     # rouge 1.0.1, python-Levenshtein

Writes answers.json: {"classes": [...], "cases": [{"metric", "prediction", "references", "first_line"?, "score"}]}.
The functions are those of LongBench's metrics.py and eval.py, on Python's own re, collections and difflib; ROUGE-L is
the package's, which is given the stack that its recursion asks for; the ratio of characters that is called indel is
2 LCS / (a + b), and is held against python-Levenshtein's.
"""
import collections
import difflib
import json
import os
import random
import re
import string
import sys
import threading

import Levenshtein
from rouge import Rouge

HERE = os.path.dirname(os.path.abspath(__file__))
CLASSES = ["Food", "Date", "Order, rank", "Number of something", "Other number", "number", "Other location", "Other",
           "Lasting time of somethin", "a", "ab", "abc", "Date", "Gr\u00fc\u00dfe", "\u6570", ""]


def normalize_answer(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def qa_f1(prediction, reference):
    prediction, reference = normalize_answer(prediction).split(), normalize_answer(reference).split()
    same = sum((collections.Counter(prediction) & collections.Counter(reference)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction), same / len(reference)
    return 2 * precision * recall / (precision + recall)


def rouge_l(prediction, reference):
    try:
        return Rouge().get_scores([prediction], [reference], avg=True)["rouge-l"]["f"]
    except ValueError:  # no sentences
        return 0.0


def line_of_code(prediction):
    for line in prediction.lstrip("\n").split("\n"):
        if "`" not in line and "#" not in line and "//" not in line:
            return line
    return ""


def fuzz_ratio(ratio, a, b):
    if a == b:
        return 1.0
    if not a or not b:
        return 0.0
    return int(round(100 * ratio(a, b))) / 100


def edit_sim(prediction, reference):
    return fuzz_ratio(lambda a, b: difflib.SequenceMatcher(None, a, b).ratio(), line_of_code(prediction), reference)


def indel_ratio(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b):
            diagonal, row[j + 1] = row[j + 1], diagonal + 1 if x == y else max(row[j + 1], row[j])
    ratio = 2 * row[-1] / (len(a) + len(b))
    assert abs(ratio - Levenshtein.ratio(a, b)) < 1e-12, (a, b)
    return ratio


def edit_sim_indel(prediction, reference):
    return fuzz_ratio(indel_ratio, line_of_code(prediction), reference)


def classification(prediction, reference):
    matches = [name for name in CLASSES if name in prediction]
    for match in matches:
        if match in reference and match != reference:
            matches.remove(match)
    return 1.0 / len(matches) if reference in matches else 0.0


def count(prediction, reference):
    numbers = re.findall(r"\d+", prediction)
    return sum(number == reference for number in numbers) / len(numbers) if numbers else 0.0


def retrieval(prediction, reference):
    return count(prediction, re.findall(r"Paragraph (\d+)", reference)[0])


METRICS = {f.__name__: f for f in (qa_f1, rouge_l, edit_sim, edit_sim_indel, classification, count, retrieval)}

# Characters whose lower case, class or white space is easily mistaken; none is newer than Unicode 12.
LETTERS = ("aAbBeEthThHzZ\u00c4\u00e4\u00df\u0130\u0131I\u01c5\u01c4\u03a3\u03c3\u03c2\u0391\u03b1\u0416\u0436\u10a0\u13a0\uab70"
           "\u1e9e\u212a\u2160\u24b6\u2c60\ua77d\uff21\U00010400\U0001d400\u4e2d\u0627\u00aa\u02b0\u16ee")
MARKS = "\u0301\u0345\u00ad\u200d\u2019'.:\u00b7\u0387\u055f\u05f4\u2018\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a^`\u00a8\u05bf\u20dd\u0903"
SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2007\u200a\u2028\u2029\u202f\u205f\u3000\u200b\u180e\ufeff"
DIGITS = "0123456789\u0663\u0967\uff15\U0001d7d8\u00b2\u00bd\u2460\u2167\u3007"
OTHERS = "!\"#$%&()*+,-/;<=>?@[\\]_{|}~\u00a1\u2014\u3002\u20ac\U0001f600\ufffd\U0010ffff\x7f\x01"
WORDS = ["the", "a", "an", "The", "AN", "cat", "sat", "on", "mat", "then", "latent", "\u039f\u0394\u039f\u03a3", "it's", "U.S.A.", "x"]


def random_text(rng, most, words=0.5):
    out = []
    for _ in range(rng.randrange(most)):
        kind = rng.random()
        if kind < words:
            out.append(rng.choice(WORDS) + rng.choice([" ", " ", " ", ". ", ".", ""]))
        else:
            out.append(rng.choice(rng.choice([LETTERS, LETTERS, MARKS, SPACES, DIGITS, OTHERS])))
    return "".join(out)


def random_sentences(rng, n_words, n_kinds, stops):
    """Few kinds of words give many ties in the trace."""
    return "".join("w%d%s" % (rng.randrange(n_kinds), ". " if rng.random() < stops else " ") for _ in range(n_words))


def random_code(rng, size, alphabet):
    return "".join(rng.choice(alphabet) for _ in range(size))


def changed(rng, text, share):
    return "".join(rng.choice([c, "", c + c, chr(rng.randrange(33, 127))]) if rng.random() < share else c for c in text)


def word_cases(rng):
    for _ in range(60):
        yield "qa_f1", random_text(rng, 14), [random_text(rng, 10, 0.8) for _ in range(rng.choice([1, 1, 3]))]
    for _ in range(200):  # against words that are normal already
        prediction = random_text(rng, 16)
        words = normalize_answer(prediction).split()
        yield "qa_f1", prediction, [" ".join(rng.sample(words, rng.randrange(len(words) + 1)) + ["sat"])]
    for mark in MARKS + SPACES + OTHERS:  # what a final sigma looks across
        yield "qa_f1", "\u0391\u03a3%sx \u0391%s\u03a3 %s\u03a3" % (mark, mark, mark), ["\u0391\u03a3%sX" % mark, "\u0391%s\u03c2" % mark]
    for prediction in ("a-n cat", "an\u0301 ox", "the\u00b2 x", "_a_ a_ _", "THE\u0130", "\x1ca\x1cb"):
        yield "qa_f1", prediction, ["n cat ox \u0301", prediction.lower()]


def sentence_cases(rng):
    for _ in range(80):
        yield "rouge_l", random_text(rng, 30), [random_text(rng, 20) for _ in range(rng.choice([1, 2]))]
    for _ in range(120):
        n_kinds, stops = rng.choice([2, 3, 5, 12]), rng.choice([0, 0.1, 0.4])
        yield ("rouge_l", random_sentences(rng, rng.randrange(1, 40), n_kinds, stops),
               [random_sentences(rng, rng.randrange(1, 40), n_kinds, stops)])
    for n in (63, 64, 65, 128, 200):
        yield "rouge_l", random_sentences(rng, n, 40, 0), [random_sentences(rng, n + 1, 40, 0)]
    # Its 1,200 steps are more than Python's usual stack.
    yield "rouge_l", random_sentences(rng, 600, 300, 0), [random_sentences(rng, 600, 300, 0)]
    for prediction, reference in (("", ""), ("", "a"), ("a", ""), ("...", "a"), (" . . ", " "), (".a", "a."), ("\x1c", "b c")):
        yield "rouge_l", prediction, [reference]


def code_cases(rng):
    lines = ["`a`", "# a", "x // y", "/ /", "x = y", "", "\t", "return \u00e4[i]", "  x = y"]
    alphabets = ["ab", "abc ", "xyz_=() ", string.ascii_lowercase + " ", LETTERS + OTHERS]
    pairs = []
    for _ in range(60):
        pairs.append(("\n".join(rng.choice(lines) for _ in range(rng.randrange(5))), [rng.choice(lines)]))
    for size in (1, 5, 20, 63, 64, 65, 150, 199, 200, 201, 260, 400):
        for alphabet in alphabets:
            text = random_code(rng, size, alphabet).replace("#", "").replace("`", "").replace("/", "")
            pairs.append((text, [changed(rng, text, 0.15)]))
    for _ in range(20):  # some characters are popular, some are not
        text = "".join(rng.choice(" etaoin") if rng.random() < 0.6 else chr(rng.randrange(0x4e00, 0x4e40)) for _ in range(rng.randrange(190, 330)))
        pairs.append((changed(rng, text, 0.2).replace("#", "").replace("`", "").replace("/", ""), [text]))
    for pair in pairs:
        yield ("edit_sim", *pair)
        yield ("edit_sim_indel", *pair)


def match_cases(rng):
    for _ in range(80):
        names = rng.sample(CLASSES[:-1], rng.randrange(1, 4))
        yield "classification", rng.choice([" ", "", ", "]).join(names), [rng.choice(names + CLASSES)]
    for _ in range(60):
        number = rng.choice(["1", "12", "\u0663", "3", "01", "x", ""])
        text = "".join(rng.choice(["1", "12", "2", " ", ",", "\u0663", "\u00b2", "Paragraph ", "x"]) for _ in range(rng.randrange(12)))
        yield "count", text, [number]
        yield "retrieval", text, ["Paragraph Paragraph %s1 Paragraph 2" % rng.choice(["", "1", "\u0663", "x"])]


def first_line_cases(rng):
    for metric in ("qa_f1", "rouge_l", "classification"):
        for prediction in ("\n\nDate\nFood", "Date\n", "\n", "", " \nDate", "\r\nDate"):
            yield metric, prediction, ["Date"]


def main():
    rng = random.Random(7)
    cases = []
    for make in (word_cases, sentence_cases, code_cases, match_cases, first_line_cases):
        for metric, prediction, references in make(rng):
            text = prediction
            if make is first_line_cases:
                text = prediction.lstrip("\n").split("\n")[0]
            score = max([0.0] + [METRICS[metric](text, reference) for reference in references])
            case = {"metric": metric, "prediction": prediction, "references": references, "score": score}
            if make is first_line_cases:
                case["first_line"] = True
            cases.append(case)
    with open(os.path.join(HERE, "answers.json"), "w", encoding="utf-8") as file:
        file.write('{"classes": %s, "cases": [\n' % json.dumps(CLASSES))
        file.write(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases))
        file.write("\n]}\n")
    print(len(cases), "cases,", sum(0 < case["score"] < 1 for case in cases), "between 0 and 1")


if __name__ == "__main__":
    sys.setrecursionlimit(100000)
    threading.stack_size(1 << 29)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
