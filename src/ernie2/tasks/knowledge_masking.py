"""Knowledge masking: mask complete words, phrases and entities, and predict every masked token (word-aware)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.random import Generator
from pydantic import Field, field_validator, model_validator

from ernie2.shards.store import SPAN_KINDS, WORD_START
from ernie2.tasks.base import Array, Labels, Options, TokenSequence, TokenTask, Vocabulary, register
from ernie2.tasks.blocks import Block

Level = Literal["basic", "word", "phrase", "entity", "all"]

UNITS: Mapping[Level, frozenset[str]] = {
    "basic": frozenset(),
    "word": frozenset({"word", "user"}),
    "phrase": frozenset({"word", "phrase", "user"}),
    "entity": frozenset({"word", "entity", "user"}),
    "all": frozenset(SPAN_KINDS),
}
"""Level → kinds of spans that are units, if the option `levels` names them; at basic, each token is a unit."""

MIN_UNIT_SHARE = 0.01
"""Share of a corpus's units below which a kind of spans is reported as rare (ours)."""

_REMEDY = {
    "phrase": "lower knowledge.phrases.min_count, add knowledge.gazetteer",
    "entity": "add knowledge.gazetteer or knowledge.spacy",
}


class KnowledgeMaskingOptions(Options):
    """Options of knowledge masking; defaults are those of the released code, or marked as ours."""

    mask_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of units that are masked."""
    mix: Mapping[Level, Annotated[float, Field(ge=0, le=1)]] = {"basic": 0.1, "all": 0.9}
    """Share of sequences masked at each level; the shares sum to 1 (ours; the released demo always masks units).

    The level is drawn for each sequence. basic masks single tokens; word, words; phrase, words and phrases; entity,
    words and entities; all, every kind that `levels` names. User spans are units at every level except basic.
    """
    levels: tuple[Literal["word", "phrase", "entity", "user"], ...] = SPAN_KINDS  # type: ignore[assignment]
    """Kinds of spans that are units. If two overlap, the kind named later wins."""

    @field_validator("mix")
    @classmethod
    def _sums_to_one(cls, mix: Mapping[Level, float]) -> Mapping[Level, float]:
        if abs((total := sum(mix.values())) - 1) > 1e-6:
            shares = ", ".join(f"{level} {share:g}" for level, share in mix.items())
            raise ValueError(f"the shares must sum to 1, not {total:g} ({shares or 'none is given'})")
        return mix

    @model_validator(mode="after")
    def _levels_have_their_spans(self) -> Self:
        for level, share in self.mix.items():
            if share and level in SPAN_KINDS and level not in self.levels:
                raise ValueError(f"mix has the level {level!r}, but levels leaves out {level!r}; name it in both")
        return self


@register
class KnowledgeMasking(TokenTask):
    """Select 15 % of the units; of their tokens, 80 % become [MASK], 10 % a random token, 10 % stay."""

    name = "knowledge_masking"
    title = "Knowledge masking"
    about = "Which tokens were masked? Words, phrases and entities are masked as units."
    baseline_name = "unigram"
    legend = "⟦a unit⟧ is masked; in it, a≡ is a token left unchanged, a→b a token replaced by another"
    counts_heading = "units"
    changes_input = True
    max_scored_share = 0.25
    labels = None
    Options = KnowledgeMaskingOptions

    def __init__(self, options: Any, vocabulary: Vocabulary) -> None:
        super().__init__(options, vocabulary)
        mix = {level: share for level, share in options.mix.items() if share}
        self._levels: tuple[Level, ...] = tuple(mix)
        self._edges = np.cumsum(list(mix.values()))[:-1]  # a random number in [0, 1) selects the level
        self._kinds = {level: tuple(kind for kind in options.levels if kind in UNITS[level]) for level in mix}

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Select units, replace their tokens, and score each with its original id (paper, Knowledge Masking Task)."""
        return self.label_block(Block(sequence, np.array([0, len(sequence.tokens)])), [rng])

    def label_block(self, block: Block, rngs: Sequence[Generator]) -> Labels:
        """Return the results of `label` for each sequence, each drawn with its generator."""
        sequence, vocabulary = block.sequence, self.vocabulary
        tokens, lengths = sequence.tokens, np.diff(block.starts)
        text = vocabulary.is_text[tokens]  # (n,) bool
        levels = self._edges.searchsorted([rng.random() for rng in rngs], side="right")
        starts = sequence.document < 0
        for level in set(levels.tolist()):
            starts |= self._starts(sequence, self._levels[level]) & np.repeat(levels == level, lengths)
        unit = starts.cumsum()  # (n,) number of the unit a token belongs to
        sizes = np.bincount(unit[text], minlength=int(unit[-1]) + 1)  # scorable tokens of each unit
        units = sizes.nonzero()[0]
        edges = units.searchsorted(unit[block.starts[:-1]]).tolist()  # first unit of each sequence
        scored = sizes[units].tolist()
        picks, fates, random = [], [], []
        for rng, first, end in zip(rngs, edges, [*edges[1:], len(units)], strict=True):
            if first < end:
                # stochastic rounding, so that short sequences are masked at the same rate
                count = max(1, int((end - first) * self.options.mask_share + rng.random()))
                picked = [first + pick for pick in rng.permutation(end - first)[:count].tolist()]
                count = sum([scored[pick] for pick in picked])
                picks += picked
                fates.append(rng.random(count))
                random.append(rng.integers(len(vocabulary.ordinary), size=count))
        if not picks:
            return Labels(np.zeros(0, np.int64), np.zeros(0, np.int64), tokens)
        hidden = np.zeros(len(sizes), bool)
        hidden[units[picks]] = True
        positions = (hidden[unit] & text).nonzero()[0]  # [UNK] inside a masked unit stays and is not scored
        fate, targets = np.concatenate(fates), tokens[positions]
        others = np.where(fate < 0.9, vocabulary.ordinary[np.concatenate(random)], targets)
        inputs = tokens.copy()
        inputs[positions] = np.where(fate < 0.8, vocabulary.mask, others)
        return Labels(positions, targets, inputs)

    def count_labels(self, sequence: TokenSequence, labels: Labels) -> Mapping[str, int]:
        """Count masked units by kind, at the level of `mix` that explains the masked tokens with the fewest units.

        Tokens masked at level basic count as "token".
        """
        scored = np.zeros(len(sequence.tokens), bool)
        scored[labels.positions] = True
        text = self.vocabulary.is_text[sequence.tokens]
        counted: list[Counter[str]] = []
        for level in sorted(set(self._levels) - {"basic"}):
            starts = self._starts(sequence, level) | (sequence.document < 0)
            unit = np.cumsum(starts) - 1
            picked = np.unique(unit[labels.positions])
            if not (np.isin(unit, picked) & text & ~scored).any():
                edges = np.append(np.flatnonzero(starts), len(unit))
                kinds = {
                    (start, end): kind
                    for kind in self._kinds[level]
                    for start, end in sequence.spans.get(kind, np.zeros((0, 2), np.int64)).tolist()
                }
                counted.append(Counter(kinds.get((int(edges[i]), int(edges[i + 1])), "word") for i in picked))
        return min(counted, key=Counter.total, default={"token": len(labels.positions)})

    def notes(self, sequences: Sequence[TokenSequence]) -> list[str]:
        """Return a warning for each kind of spans that `mix` masks but the corpus lacks or nearly lacks."""
        shares = unit_shares(sequences, self.options.levels)
        hidden = [kind for kind in _REMEDY if any(kind in kinds for kinds in self._kinds.values())]
        return [self._note(kind, shares[kind]) for kind in hidden if shares[kind] < MIN_UNIT_SHARE]

    def _note(self, kind: str, share: float) -> str:
        plural = {"phrase": "phrases", "entity": "entities"}[kind]
        few = f"few {plural} (less than {MIN_UNIT_SHARE:.0%} of units)"
        amount = few if share else f"no {plural} found (0.0 % of units)"
        effect = "does nearly nothing" if share else "does nothing"
        return (
            f"{amount}, so level {kind!r} {effect} there; {_REMEDY[kind]}, or remove {kind!r} from "
            f"tasks.{self.name}.levels."
        )

    def _starts(self, sequence: TokenSequence, level: Level) -> Array:
        if level == "basic":
            return np.ones(len(sequence.tokens), bool)
        return unit_starts(sequence, self._kinds[level])


def unit_shares(sequences: Sequence[TokenSequence], levels: Sequence[str]) -> dict[str, float]:
    """Return the share of units by kind, for words and the kinds of `levels`."""
    counts: Counter[str] = Counter(dict.fromkeys(("word", *levels), 0))
    for sequence in sequences:
        starts = unit_starts(sequence, levels) & (sequence.document >= 0)
        edges = np.append(unit_starts(sequence, levels) | (sequence.document < 0), True)
        before = np.append(0, edges.cumsum())  # edges before each position
        for kind in levels:
            first, end = sequence.spans.get(kind, np.zeros((0, 2), np.int64)).T
            is_unit = edges[first] & edges[end] & (before[end] - before[first] == 1)
            counts[kind] += int(is_unit.sum())
        counts["all"] += int(starts.sum())
    others = sum(counts[kind] for kind in levels if kind != "word")
    total = max(counts.pop("all"), 1)
    return {kind: (total - others if kind == "word" else count) / total for kind, count in counts.items()}


def unit_starts(sequence: TokenSequence, levels: Sequence[str]) -> Array:
    """Return (n,) bool: whether a token is the first of its unit. Units are words, and spans of `levels`.

    A span that overlaps one of a later level is ignored; the words it covers stay units.
    """
    n = len(sequence.flags)
    starts = np.ones(n + 1, bool)  # one more than tokens, for spans that end at the end
    starts[:n] = (sequence.flags & WORD_START) != 0
    covered: Array | None = None
    for kind in reversed(levels):
        runs = sequence.spans.get(kind)
        if runs is None:
            continue
        if covered is not None:
            before = covered.cumsum()  # covered tokens up to and including each position
            runs = runs[before[runs[:, 1] - 1] - before[runs[:, 0]] + covered[runs[:, 0]] == 0]
        first, end = runs[:, 0], runs[:, 1]
        edges = np.zeros(n + 1, np.int64)
        edges[first] = 1
        edges[end] -= 1
        inside = edges.cumsum() > 0
        starts[inside] = False
        starts[first] = True
        starts[end] = True
        covered = inside if covered is None else covered | inside
    return starts[:n]
