"""Compare our units with those of real ERNIE 1.0 pre-training instances, and the share of tokens that masking hides.

    python benchmarks/masking_against_ernie1.py DATA [--instances 10000] [--seed 0]

DATA contains `ernie1_demo_pretrain/demo_train_set.txt.gz` (instances as published by the authors) and
`vocab/ernie1_zh_vocab.txt`. A line of the first has five fields: token ids, segment types, positions, one label per
token (0 begins a unit, 1 continues it, -1 special), and the next-sentence label. The tokens are converted to text, our
Chinese annotator marks that text, and its units are compared with theirs on the same tokens. The text of an [UNK] is
unknown: it becomes a separate sign, and positions next to it are not compared.
"""

from __future__ import annotations

import argparse
import gzip
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rjieba
from numpy.typing import NDArray

from ernie2.shards.knowledge.annotators import Annotator, ChineseWords
from ernie2.shards.knowledge.token_runs import Spans, TokenPositions, as_spans
from ernie2.shards.store import SPAN_KINDS, WORD_START, AnnotatedDocument
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer
from ernie2.tasks.base import Arrangement, Segment, TokenSequence, Vocabulary
from ernie2.tasks.building import vocabulary_of
from ernie2.tasks.instances import lay_out
from ernie2.tasks.knowledge_masking import UNITS, KnowledgeMasking, KnowledgeMaskingOptions, Level, unit_starts

UNKNOWN = "□"
CONTEXT = 9
"""Characters shown on each side of a disagreement."""
SHOWN = {"ours joins": 10, "theirs joins": 5, "crossing": 5}
"""Disagreements shown of each kind."""
_EACH: tuple[Level, ...] = ("basic", "word", "entity", "all")
MIXES: list[tuple[str, Mapping[Level, float]]] = [("theirs", {"all": 1}), ("ours", {"basic": 0.1, "all": 0.9})]
MIXES += [("ours", {level: 1}) for level in _EACH]
MASKINGS = 5
"""Maskings per instance for the share of masked tokens."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Text:
    """One instance: its two texts joined by a blank line, and the offsets of its tokens.

    `tokens`, `starts`, `ends` (n,) int64, special tokens left out; `begins` (n,) bool: theirs, the token begins a unit;
    `texts` (3,) token offsets of the two texts.
    """

    text: str
    tokens: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    begins: Bools
    texts: NDArray[np.int64]


class EveryWord:
    """All words of rjieba, with or without those missing from its dictionary."""

    def __init__(self, hmm: bool) -> None:
        self.hmm = hmm

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`."""
        found = []
        for start, end in paragraphs:
            for word, begin, stop in rjieba.tokenize(text[start:end], hmm=self.hmm):
                if len(word) > 1 and word.isalnum():
                    found.append((start + begin, start + stop))
        yield "word", as_spans(found)


class ShortWords:
    """Our words; those of three or more characters are split into dictionary words of two."""

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`."""
        found = []
        for kind, runs in ChineseWords().spans(text, paragraphs):
            for start, end in runs.tolist() if kind == "word" else ():
                if text[start:end].isascii() or end - start == 2:
                    found.append((start, end))
                    continue
                at = start
                while at < end - 1:
                    if rjieba.has_word(text[at : at + 2]):
                        found.append((at, at + 2))
                        at += 2
                    else:
                        at += 1
        yield "word", as_spans(found)


class Characters:
    """No words: every token is a unit."""

    def spans(self, text: str, paragraphs: Sequence[tuple[int, int]]) -> Iterator[tuple[str, Spans]]:
        """As `Annotator.spans`."""
        return iter(())


VARIANTS: dict[str, Annotator] = {
    "ours": ChineseWords(),
    "every word of rjieba": EveryWord(hmm=True),
    "listed words only (hmm=False)": EveryWord(hmm=False),
    "ours, split into two characters": ShortWords(),
    "single characters": Characters(),
}


def read_texts(file: Path, pieces: SubwordTokenizer, most: int) -> Iterator[Text]:
    """Yield the instances of `file`, detokenised."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for _, line in zip(range(most), lines, strict=False):
            ids, _, _, labels, _ = (np.array(field.split(), dtype=np.int64) for field in line.split(";"))
            assert pieces.mask_id not in ids, "an instance is already masked"
            yield _detokenised(ids, labels, pieces)


def _detokenised(ids: NDArray[np.int64], labels: NDArray[np.int64], pieces: SubwordTokenizer) -> Text:
    """Join tokens to text: `##` continues a word; words of Latin letters are separated by a space."""
    text, texts = "", [0]
    starts: list[int] = []
    ends: list[int] = []
    for before, identity, label in zip([pieces.sep_id, *ids], ids.tolist(), labels.tolist(), strict=False):
        if label < 0:
            if identity == pieces.sep_id:
                texts.append(len(starts))
            continue
        if before == pieces.sep_id:
            text += "\n\n"
        written = UNKNOWN if identity == pieces.unk_id else pieces.tokens[identity]
        if pieces.is_continuation[identity]:
            written = written.removeprefix("##")
        elif _latin(text[-1:]) and _latin(written[0]):
            text += " "
        starts.append(len(text))
        text += written
        ends.append(len(text))
    real = labels >= 0
    return Text(text, ids[real], np.array(starts), np.array(ends), labels[real] == 0, np.array(texts))


def _latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


def sequence_of(text: Text, annotator: Annotator | None, vocabulary: Vocabulary, continuing: Bools) -> TokenSequence:
    """Return the instance as input of knowledge masking, with the spans of `annotator`, or their units if None."""
    spans: dict[str, list[Spans]] = {}
    if annotator is None:
        edges = np.append(np.flatnonzero(text.begins), len(text.tokens))
        spans["word"] = [np.stack([edges[:-1], edges[1:]], axis=1)]
    else:
        positions = TokenPositions(text.starts, text.ends, text.texts, longest=len(text.tokens))
        bounds = [(int(text.starts[a]), int(text.ends[b - 1])) for a, b in pairwise(text.texts.tolist())]
        for kind, found in annotator.spans(text.text, bounds):
            spans.setdefault(kind, []).append(positions.runs(found, Counter()))
    document = AnnotatedDocument(
        name="instance",
        group=0,
        tokens=text.tokens,
        flags=np.where(continuing[text.tokens], 0, WORD_START).astype(np.uint8),
        document_count=np.ones(len(text.tokens), np.uint16),
        sentences=text.texts,
        paragraphs=np.arange(len(text.texts)),
        spans={kind: np.concatenate(parts) for kind, parts in spans.items()},
    )
    segments = tuple(Segment(document, a, b) for a, b in pairwise(text.texts.tolist()))
    return lay_out(Arrangement(segments, None), vocabulary)


def begins_of(sequence: TokenSequence) -> Bools:
    """Return (n,) bool: which text tokens begin a unit."""
    begins: Bools = unit_starts(sequence, SPAN_KINDS)[sequence.document >= 0]
    return begins


# ---- boundaries


def compare(texts: Sequence[Text], ours: Sequence[Bools], unknown: int) -> dict[str, float]:
    """Return precision, recall and F1 of boundaries between two known tokens of a text, and F1 of units."""
    both = our_total = their_total = places = units_both = our_units = their_units = 0
    for text, begins in zip(texts, ours, strict=True):
        known = text.tokens != unknown
        place = known & np.append(False, known[:-1])
        place[text.texts[:-1]] = False
        both += int((begins & text.begins & place).sum())
        our_total += int((begins & place).sum())
        their_total += int((text.begins & place).sum())
        places += int(place.sum())
        our_set, their_set = units(begins), units(text.begins)
        units_both += len(our_set & their_set)
        our_units += len(our_set)
        their_units += len(their_set)
    precision, recall = both / our_total, both / their_total
    return {
        "places": places,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "agree": 1 - (our_total + their_total - 2 * both) / places,
        "unit_f1": 2 * units_both / (our_units + their_units),
        "tokens_a_unit": sum(len(text.tokens) for text in texts) / our_units,
    }


def units(begins: Bools) -> set[tuple[int, int]]:
    """Return units as token runs; the start of a text always begins one."""
    edges = np.append(np.flatnonzero(begins | (np.arange(len(begins)) == 0)), len(begins)).tolist()
    return set(pairwise(edges))


@dataclass(frozen=True)
class Disagreement:
    """A stretch between two common boundaries that is segmented differently."""

    kind: str
    before: str
    ours: str
    theirs: str
    after: str
    reason: str


def disagreements(text: Text, ours: Bools, unknown: int) -> Iterator[Disagreement]:
    """Yield the stretches of an instance where the segmentations differ, without those that contain an [UNK]."""
    common = np.append(np.flatnonzero(ours & text.begins), len(ours))
    for first, end in pairwise(common.tolist()):
        if (ours[first:end] == text.begins[first:end]).all() or (text.tokens[first:end] == unknown).any():
            continue
        kind = (
            "ours joins"
            if not ours[first + 1 : end].any()
            else "theirs joins"
            if not text.begins[first + 1 : end].any()
            else "crossing"
        )
        a, b = int(text.starts[first]), int(text.ends[end - 1])
        yield Disagreement(
            kind,
            text.text[:a].rsplit("\n\n", 1)[-1][-CONTEXT:],
            _segmented(text, ours, first, end),
            _segmented(text, text.begins, first, end),
            text.text[b:].split("\n\n", 1)[0][:CONTEXT],
            _reason(kind, text.text[a:b]),
        )


def _segmented(text: Text, begins: Bools, first: int, end: int) -> str:
    edges = [first, *(at for at in range(first + 1, end) if begins[at]), end]
    return "·".join(text.text[text.starts[a] : text.ends[b - 1]] for a, b in pairwise(edges))


def _reason(kind: str, stretch: str) -> str:
    if any(_latin(character) for character in stretch):
        return "Latin letters or digits"
    if kind != "ours joins":
        return "Chinese"
    ((_, tag), *others) = rjieba.tag(stretch)
    if not others and tag[:2] in ("nr", "ns", "nt", "nz"):
        return "name"
    return "word of two characters" if len(stretch) == 2 else "word of three or more"


# ---- masking


def share_of_masked(task: KnowledgeMasking, sequences: Sequence[TokenSequence], seed: int) -> list[float]:
    """Return [measured, implied, half the width of the 95 % interval]: shares of the maskable tokens.

    Implied by the rule: max(1, 0.15 n) of n units are chosen uniformly, which hides that share of the tokens; for a mix
    of levels, the mean weighted by their shares.
    """
    masked = implied = squares = total = 0.0
    for number, sequence in enumerate(sequences):
        text = task.vocabulary.is_text[sequence.tokens]
        size = int(text.sum())
        expected = 0.0
        for level, weight in task.options.mix.items():
            kinds = [kind for kind in SPAN_KINDS if kind in UNITS[level]]
            unit = np.cumsum(unit_starts(sequence, kinds)) if level != "basic" else np.arange(len(text))
            n = len(np.unique(unit[text]))
            expected += weight * max(1.0, task.options.mask_share * n) * size / n
        for turn in range(MASKINGS):
            made = len(task.label(sequence, np.random.default_rng([seed, number, turn])).positions)
            masked, implied, squares = masked + made, implied + expected, squares + (made - expected) ** 2
            total += size
    return [masked / total, implied / total, 1.96 * squares**0.5 / total]


def main() -> None:
    """Compare, mask, and print tables."""
    options = _options()
    pieces = load_tokenizer(options.data / "vocab" / "ernie1_zh_vocab.txt")
    vocabulary, continuing = vocabulary_of(pieces), pieces.is_continuation
    file = options.data / "ernie1_demo_pretrain" / "demo_train_set.txt.gz"
    texts = list(read_texts(file, pieces, options.instances))
    sequences = {
        name: [sequence_of(text, annotator, vocabulary, continuing) for text in texts]
        for name, annotator in {**VARIANTS, "theirs": None}.items()
    }
    begins = {name: [begins_of(sequence) for sequence in made] for name, made in sequences.items()}
    assert all((a == b.begins).all() for a, b in zip(begins["theirs"], texts, strict=True))
    their_units = sum(int(text.begins.sum()) for text in texts)
    tokens = sum(len(text.tokens) for text in texts)
    print(f"{len(texts):,} instances, {tokens:,} tokens, none is [MASK]; {tokens / their_units:.2f} a unit of theirs\n")
    _head("units", "precision", "recall", "F1", "equal places", "F1 of units", "tokens a unit")
    for name in VARIANTS:
        c = compare(texts, begins[name], pieces.unk_id)
        figures = (c["precision"], c["recall"], c["f1"], c["agree"], c["unit_f1"])
        print(f"| {name} | {' | '.join(f'{100 * figure:.1f}' for figure in figures)} | {c['tokens_a_unit']:.2f} |")
    _print_disagreements(texts, begins["ours"], pieces.unk_id, options.seed)
    print()
    _head("units", "mix", "masked, % of tokens", "implied by the rule", "95 % interval of the difference")
    for spans, mix in MIXES:
        task = KnowledgeMasking(KnowledgeMaskingOptions(mix=mix), vocabulary)
        measured, implied, half = share_of_masked(task, sequences[spans], options.seed)
        low, high = 100 * (measured - implied - half), 100 * (measured - implied + half)
        named = ", ".join(f"{level} {share:g}" for level, share in mix.items())
        print(f"| {spans} | {named} | {100 * measured:.3f} | {100 * implied:.3f} | {low:+.3f} to {high:+.3f} |")


def _head(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def _print_disagreements(texts: Sequence[Text], ours: Sequence[Bools], unknown: int, seed: int) -> None:
    found = [d for text, begins in zip(texts, ours, strict=True) for d in disagreements(text, begins, unknown)]
    print(f"\n{len(found):,} stretches differ\n")
    _head("kind", "of what", "share", "commonest (ours / theirs)")
    for (kind, reason), count in Counter((d.kind, d.reason) for d in found).most_common():
        common = Counter((d.ours, d.theirs) for d in found if (d.kind, d.reason) == (kind, reason)).most_common(4)
        examples = ", ".join(f"{a} / {b} ({n:,})" for (a, b), n in common)
        print(f"| {kind} | {reason} | {100 * count / len(found):.1f} % | {examples} |")
    print()
    _head("", "kind", "text", "ours", "theirs")
    chosen: list[Disagreement] = []
    for kind, most in SHOWN.items():
        chosen += random.Random(seed).sample([d for d in found if d.kind == kind], most)
    for number, d in enumerate(chosen, 1):
        print(f"| {number} | {d.kind} | {d.before}**{d.ours.replace('·', '')}**{d.after} | {d.ours} | {d.theirs} |")


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
