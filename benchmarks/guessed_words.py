"""Quality of the words that rjieba guesses, compared with the units of ERNIE 1.0 and the names of MSRA-NER.

    python benchmarks/guessed_words.py DATA

DATA is that of `masking_against_ernie1.py`, with `msra_ner/test.tsv` (characters and IOB tags, separated by \\x02).
A guessed word is one that rjieba joins by its hidden Markov model although its dictionary does not contain it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import rjieba

from ernie2.shards.knowledge.annotators import CHINESE_ENTITIES
from ernie2.shards.tokenizer import load_tokenizer
from masking_against_ernie1 import Text, read_texts, units

FOUR_TAGS = frozenset({"nr", "ns", "nt", "nz"})


def main(data: Path) -> None:
    """Print both comparisons."""
    tokenizer = load_tokenizer(data / "vocab" / "ernie1_zh_vocab.txt")
    texts = list(read_texts(data / "ernie1_demo_pretrain" / "demo_train_set.txt.gz", tokenizer, 10_000))
    print("words of rjieba in ERNIE 1.0's instances: number, % that are one unit, several units, crossed by a unit")
    words, seen = Counter[str](), Counter[tuple[str, str]]()
    for text in texts:
        for kind, found in fates(text):
            words[kind] += 1
            seen[kind, found] += 1
    for kind, number in sorted(words.items()):
        shares = (100 * seen[kind, found] / number for found in ("whole", "parted", "crossed"))
        print(f"  {kind:28} {number:8,}  {'  '.join(f'{share:5.1f}' for share in shares)}")
    single, split = decimals(texts)
    print(f"decimals: {split:,} of {single + split:,} split at the point\n")
    sentences = list(read_msra(data / "msra_ner" / "test.tsv"))
    print("names of MSRA-NER, test: % that are one word, PER, LOC, ORG; % found as names: all, PER; precision of names")
    for name, hmm, tags in (
        ("guesses, our tags", True, CHINESE_ENTITIES),
        ("guesses, nr ns nt nz", True, FOUR_TAGS),
        ("no guesses, our tags", False, CHINESE_ENTITIES),
    ):
        print(f"  {name:22} {'  '.join(f'{100 * figure:5.1f}' for figure in names(sentences, hmm, tags))}")


def fates(text: Text) -> Iterator[tuple[str, str]]:
    """Yield (kind of word, relation to their units) for all Chinese words of at least two characters."""
    theirs, begins = units(text.begins), {*text.begins.nonzero()[0].tolist(), len(text.tokens)}
    starts = {start: number for number, start in enumerate(text.starts.tolist())}
    ends = {end: number + 1 for number, end in enumerate(text.ends.tolist())}
    at = 0
    for word, tag in rjieba.tag(text.text):
        first, end = starts.get(at), ends.get(at + len(word))
        at += len(word)
        if len(word) < 2 or not word.isalnum() or word.isascii() or first is None or end is None:
            continue
        listed = "listed" if rjieba.has_word(word) else "guessed"
        size = "2" if len(word) == 2 else "3 or more"
        found = "whole" if (first, end) in theirs else "parted" if {first, end} <= begins else "crossed"
        yield f"{listed}{' name' * (tag in CHINESE_ENTITIES)}, {size}", found


def decimals(texts: Sequence[Text]) -> tuple[int, int]:
    """Return how many decimals they keep as one unit, and how many they split at the point."""
    single = split = 0
    for text in texts:
        starts = {start: number for number, start in enumerate(text.starts.tolist())}
        for match in re.finditer(r"(?<![\d.])\d+(\.)\d+(?![\d.])", text.text):
            if (point := starts.get(match.start(1))) is not None:
                is_split = bool(text.begins[point])
                single, split = single + (not is_split), split + is_split
    return single, split


Name = tuple[int, int, str]
"""Start, end, kind."""


def read_msra(file: Path) -> Iterator[tuple[str, list[Name]]]:
    """Yield sentences with their names."""
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        characters, tags = (field.split("\x02") for field in line.split("\t"))
        found: list[Name] = []
        for at, tag in enumerate(tags):
            if tag.startswith("B-"):
                found.append((at, at + 1, tag[2:]))
            elif tag.startswith("I-") and found and found[-1][1] == at:
                found[-1] = (found[-1][0], at + 1, found[-1][2])
        if all(len(character) == 1 for character in characters):
            yield "".join(characters), found


def names(sentences: Sequence[tuple[str, list[Name]]], hmm: bool, tags: frozenset[str]) -> list[float]:
    """Return the shares of names that are one word (PER, LOC, ORG), recall of names (all, PER), and precision."""
    one, found, total = Counter[str](), Counter[str](), Counter[str]()
    marked = 0
    for text, given in sentences:
        at, words = 0, {}
        for word, tag in rjieba.tag(text, hmm=hmm):
            words[at, at + len(word)] = tag in tags
            at += len(word)
        marked += sum(words.values())
        for start, end, kind in given:
            total[kind] += 1
            one[kind] += (start, end) in words
            found[kind] += words.get((start, end), False)
    hits = sum(found.values())
    return [
        *(one[kind] / total[kind] for kind in ("PER", "LOC", "ORG")),
        hits / sum(total.values()),
        found["PER"] / total["PER"],
        hits / marked,
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
