"""Looking at shards: figures per corpus, label statistics per task, and examples a person can check by eye."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.annotate.shards import CAPITALISED, CASED, SPAN_KINDS, WORD_START, Shard, ShardedCorpus, Shards
from ernie2.annotate.wordpieces import WordPieces, load_wordpieces
from ernie2.batches.feeds import feeds
from ernie2.batches.packing import Caps
from ernie2.batches.stream import Cursor, Feed, Lane, Stream
from ernie2.errors import TaskError
from ernie2.tasks.base import SentenceTask, Task, Vocabulary, find, known
from ernie2.tasks.building import build_tasks
from ernie2.tasks.instances import Instance
from ernie2.tasks.knowledge_masking import unit_starts
from ernie2.tasks.usable import Usable, usable_table
from ernie2.tasks.vocabulary import vocabulary_of

INSTANCES = 300
"""Instances behind the statistics of a task."""
LANES = 30
"""They are taken from this many places of a corpus."""
EXAMPLE_TOKENS = 96
"""Longest example; statistics are taken over sequences as long as in training."""
SAMPLED_TOKENS = 20_000_000
"""Share of cased words is counted over whole shards, evenly spaced, up to about this many tokens."""
MOST_LABELS = 10
"""The commonest classes that are written out."""
_NO_SPACE_BEFORE = set(".,;:!?)]}%'’”…，。；：！？、）》」")
_NO_SPACE_AFTER = set("([{$‘“（《「")
_WIDTH = 110


@dataclass(frozen=True, slots=True)
class CorpusFigures:
    """One corpus. Shares are of words (cased) and of cased words (capitals); means are of tokens and of sentences.

    `labels`: class → pairs of a corpus of labelled pairs, empty for documents.
    """

    name: str
    language: str
    licence: str
    documents: int
    heldout_documents: int
    tokens: int
    cased_share: float
    capital_share: float
    tokens_a_sentence: float
    sentences_a_paragraph: float
    spans: Mapping[str, int]
    dropped: Mapping[str, int]
    dropped_spans: Mapping[str, int]
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """One task. `why_not` says why it has no statistics, None where it has. `tally` counts what `tallies` names.

    `tokens` and `scored` are sums over `instances`; `examples` are texts in which the labels are written.
    """

    name: str
    title: str
    about: str
    needs: str
    legend: str
    tallies: str
    usable: Mapping[str, Usable]
    why_not: str | None
    instances: int = 0
    tokens: int = 0
    scored: int = 0
    tally: Mapping[str, int] | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a folder of shards, as plain values."""

    folder: str
    vocab_size: int
    cased: bool
    sequence_tokens: int
    corpora: tuple[CorpusFigures, ...]
    tasks: tuple[TaskFigures, ...]


def inspect(
    shards: Path,
    task: str | None = None,
    examples: int = 5,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    sequence_tokens: int = 512,
) -> Inspection:
    """Looks at the shards in folder `shards` through `task`, or through every known task where it is None.

    `options`: task name → its options. Raises `ShardError`, `UnknownTask` or `ConfigError`; a task that cannot work on
    these shards is no error but told in its figures.
    """
    opened = Shards(shards)
    pieces = load_wordpieces(opened.folder / "tokenizer.json")
    vocabulary = vocabulary_of(pieces)
    names = [task] if task is not None else [entry.name for entry in known()]
    asked = [(find(name), given) for name in names for given in _looks(name, (options or {}).get(name, {}), opened)]
    return Inspection(
        folder=str(opened.folder),
        vocab_size=pieces.vocab_size,
        cased=pieces.cased,
        sequence_tokens=sequence_tokens,
        corpora=tuple(_look_at_corpus(corpus) for corpus in opened.corpora.values()),
        tasks=tuple(
            _look_through(kind, given, opened, pieces, vocabulary, examples, seed, sequence_tokens)
            for kind, given in asked
        ),
    )


def render(inspection: Inspection) -> str:
    """Writes an inspection as plain text."""
    case = "cased" if inspection.cased else "uncased"
    lines = [f"{inspection.folder}: vocabulary of {inspection.vocab_size:,} pieces, {case}", ""]
    for corpus in inspection.corpora:
        lines += [*_corpus_lines(corpus), ""]
    for task in inspection.tasks:
        lines += [*_task_lines(task, inspection.sequence_tokens), ""]
    return "\n".join(lines).rstrip()


def _looks(name: str, options: Mapping[str, Any], shards: Shards) -> list[dict[str, Any]]:
    """Options to look with: labelled pairs are looked at corpus by corpus, since each has labels of its own."""
    pairs = [corpus.name for corpus in shards.corpora.values() if corpus.labels]
    if not find(name).labels_from_data or options.get("corpora") or not pairs:
        return [dict(options)]
    return [{**options, "corpora": [corpus]} for corpus in pairs]


# ---- figures


def _look_at_corpus(corpus: ShardedCorpus) -> CorpusFigures:
    columns = [shard.facts["columns"] for shard in corpus.shards]

    def rows(name: str, offsets: int = 1) -> int:
        return sum(column[name]["shape"][0] - offsets for column in columns if name in column)

    words = cased = capitals = 0
    for shard in _some(corpus.shards):
        flags = np.bincount(shard.flags, minlength=8)
        of_words = flags * ((np.arange(len(flags)) & WORD_START) != 0)
        words += int(of_words.sum())
        cased += int(of_words[(np.arange(len(flags)) & CASED) != 0].sum())
        capitals += int(of_words[(np.arange(len(flags)) & (CASED | CAPITALISED)) == (CASED | CAPITALISED)].sum())
    sentences, paragraphs = rows("sentences"), rows("paragraphs")
    tokens = corpus.tokens("train") + corpus.tokens("heldout")
    return CorpusFigures(
        name=corpus.name,
        language=corpus.language,
        licence=corpus.licence,
        documents=corpus.documents("train") + corpus.documents("heldout"),
        heldout_documents=corpus.documents("heldout"),
        tokens=tokens,
        cased_share=cased / max(words, 1),
        capital_share=capitals / max(cased, 1),
        tokens_a_sentence=tokens / max(sentences, 1),
        sentences_a_paragraph=sentences / max(paragraphs, 1),
        spans={kind: count for kind in SPAN_KINDS if (count := rows(f"spans_{kind}", 0))},
        dropped=dict(corpus.facts.get("dropped", {})),
        dropped_spans=dict(corpus.facts.get("dropped_spans", {})),
        labels=dict(corpus.facts.get("label_counts", {})),
    )


def _some(shards: Any) -> Iterator[Shard]:
    tokens = sum(len(shard.tokens) for shard in shards)
    step = max(1, -(-tokens // SAMPLED_TOKENS))
    yield from shards[::step]


def _look_through(
    kind: type[Task],
    options: Mapping[str, Any],
    shards: Shards,
    pieces: WordPieces,
    vocabulary: Vocabulary,
    examples: int,
    seed: int,
    sequence_tokens: int,
) -> TaskFigures:
    figures = TaskFigures(
        name=kind.name,
        title=kind.title,
        about=kind.about,
        needs=kind.needs,
        legend=kind.legend,
        tallies=kind.tallies,
        usable={},
        why_not=None,
    )
    try:
        (task,) = build_tasks({kind.name: options}, vocabulary, shards.corpora)
        figures = replace(figures, usable=usable_table(shards.corpora, [task])[task.name])
        feed, _ = feeds(shards, [task])
        tally: Counter[str] = Counter()
        made = _walk(task, feed, vocabulary, sequence_tokens, INSTANCES, seed)
        for instance in made:
            tally.update(task.tally(instance.sequence, instance.labels[task.name]))
        shown = _walk(task, feed, vocabulary, min(EXAMPLE_TOKENS, sequence_tokens), examples, seed)
    except TaskError as error:
        return replace(figures, why_not=str(error))
    return replace(
        figures,
        instances=len(made),
        tokens=sum(len(instance) - 1 - instance.sequence.segments for instance in made),
        scored=sum(len(instance.labels[task.name].positions) for instance in made),
        tally=tally,
        examples=tuple(_example(task, instance, pieces) for instance in shown),
    )


def _walk(
    task: Task, feed: Mapping[str, Feed], vocabulary: Vocabulary, sequence_tokens: int, most: int, seed: int
) -> list[Instance]:
    """At most `most` instances from one pass over the documents, a few each from many of them."""
    caps = Caps.of(sequence_tokens, sequence_tokens, [task])
    lanes = max(1, min(most, LANES, *(corpus.documents("train") for corpus in feed[task.name].corpora)))
    stream = Stream(feed, [task], vocabulary, caps, {task.name: 0}, seed=seed, lanes=lanes)
    found: list[Instance] = []
    for lane in range(lanes):
        cursor: Cursor | None = None
        while len(found) < most * (lane + 1) // lanes:
            instance, cursor, _ = stream.instance(lane, cursor, task.name, (task.name,))
            found.append(instance)
            if stream.epoch(task.name, Lane({task.name: cursor})):
                break
    return found


# ---- examples


def _example(task: Task, instance: Instance, pieces: WordPieces) -> str:
    """The instance as text in which the labels are written."""
    labels = instance.labels[task.name]
    if isinstance(task, SentenceTask):
        ends = np.flatnonzero(instance.sequence.document < 0)  # [CLS], then a [SEP] after each segment
        runs = zip(ends[:-1] + 1, ends[1:], strict=True)
        texts = (_join(_pieces(instance, range(a, b), pieces)) for a, b in runs)
        segments = "\n".join(f"({number}) {text}" for number, text in enumerate(texts, 1))
        return f"label {(task.labels or ())[int(labels.targets[0])]}\n{segments}"
    targets = dict(zip(labels.positions.tolist(), labels.targets.tolist(), strict=True))
    everything = range(len(instance.sequence.tokens))
    if task.labels is None:
        return _join(_hidden(instance, targets, pieces))
    return _join(_pieces(instance, everything, pieces, lambda at, text: task.show(text, targets[at]), targets))


Chunk = tuple[str, bool]
"""A piece of text, and whether it continues the word before it."""


def _pieces(
    instance: Instance,
    positions: range,
    pieces: WordPieces,
    show: Callable[[int, str], str] | None = None,
    scored: Mapping[int, int] | None = None,
) -> Iterator[Chunk]:
    sequence = instance.sequence
    for at in positions:
        if sequence.document[at] >= 0:
            text, continues = _text(int(sequence.tokens[at]), pieces)
            yield (show(at, text) if show and at in (scored or ()) else text), continues


def _hidden(instance: Instance, targets: Mapping[int, int], pieces: WordPieces) -> Iterator[Chunk]:
    """Pieces, with the hidden ones of a unit in one pair of brackets."""
    starts: NDArray[Any] = unit_starts(instance.sequence, SPAN_KINDS)
    unit: list[Chunk] = []
    for at, (token, seen) in enumerate(zip(instance.sequence.tokens.tolist(), instance.inputs.tolist(), strict=True)):
        if unit and (at not in targets or starts[at]):
            yield f"⟦{_join(unit)}⟧", unit[0][1]
            unit = []
        text, continues = _text(token, pieces)
        if at in targets:
            fate = "" if seen == pieces.mask_id else "≡" if seen == token else f"→{_text(seen, pieces)[0]}"
            unit.append((text + fate, continues))
        elif instance.sequence.document[at] >= 0:
            yield text, continues


def _text(token: int, pieces: WordPieces) -> Chunk:
    written, continues = pieces.token(token), bool(pieces.continuing[token])
    return (written.removeprefix("##") if continues else written), continues


def _join(chunks: Any) -> str:
    """Pieces as text a person reads: no space inside words, between Chinese characters, or around punctuation."""
    text = ""
    for chunk, continues in chunks:
        first = chunk.lstrip("⟦")[:1]
        last = text.rstrip("⟧⁺⁻")[-1:]
        together = continues or first in _NO_SPACE_BEFORE or last in _NO_SPACE_AFTER or (_wide(first) and _wide(last))
        text += chunk if together or not text else f" {chunk}"
    return text


def _wide(character: str) -> bool:
    return character >= "⺀"


# ---- text


def _corpus_lines(corpus: CorpusFigures) -> list[str]:
    cased = f"{corpus.cased_share:.0%} of words have case"
    if corpus.cased_share:
        cased += f", {corpus.capital_share:.0%} of these begin with a capital"
    sentence, paragraph = corpus.tokens_a_sentence, corpus.sentences_a_paragraph
    what = "labelled pairs" if corpus.labels else "documents or sections"
    documents = f"{corpus.documents:,} {what} ({corpus.heldout_documents:,} held out)"
    lines = [
        f"corpus {corpus.name} ({corpus.language}; licence: {corpus.licence})",
        f"  {documents}, {corpus.tokens:,} tokens",
        *_label_lines(corpus.labels),
        f"  {sentence:.1f} tokens a sentence, {paragraph:.1f} sentences a paragraph; {cased}",
        f"  spans: {_counted(corpus.spans)}",
    ]
    lines += [f"  dropped: {_counted(corpus.dropped)}"] if corpus.dropped else []
    lines += [f"  dropped spans: {_counted(corpus.dropped_spans)}"] if corpus.dropped_spans else []
    return lines


def _label_lines(counts: Mapping[str, int]) -> list[str]:
    """The classes of labelled pairs and their shares, the commonest `MOST_LABELS` where there are more."""
    if not counts:
        return []
    total = max(sum(counts.values()), 1)
    shown = counts if len(counts) <= MOST_LABELS else dict(Counter(counts).most_common(MOST_LABELS))
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in shown.items())
    others = f" and {len(counts) - len(shown):,} others" if len(shown) < len(counts) else ""
    return [fill(f"labels: {shares}{others}", _WIDTH, initial_indent="  ", subsequent_indent="    ")]


def _task_lines(task: TaskFigures, sequence_tokens: int) -> list[str]:
    lines = [f"task {task.name}: {task.about}", f"  needs {task.needs}"]
    lines += [f"  can use {c['usable']:,} of {c['of']:,} documents of {name}" for name, c in task.usable.items()]
    if task.why_not is not None:
        return [*lines, fill(f"does not apply: {task.why_not}", _WIDTH, initial_indent="  ", subsequent_indent="  ")]
    tally = task.tally or {}
    total = max(sum(tally.values()), 1)
    counted = [(name, count) for name, count in tally.items() if count]
    if len(counted) > MOST_LABELS:
        counted.sort(key=lambda entry: -entry[1])
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in counted[:MOST_LABELS])
    if (left := len(counted) - MOST_LABELS) > 0:
        shares += f" and {left} other{'s' * (left > 1)}"
    scored = (
        f"{task.scored / max(task.tokens, 1):.1%} of tokens scored"
        if task.scored != task.instances
        else "one label each"
    )
    if total not in (task.scored, 1):
        scored += f", {task.scored / total:.2f} tokens a unit"
    lines.append(f"  {task.instances:,} instances of up to {sequence_tokens} tokens: {scored}")
    lines.append(fill(f"{task.tallies}: {shares}", _WIDTH, initial_indent="  ", subsequent_indent="    "))
    if task.examples and task.legend:
        lines.append(fill(f"how to read: {task.legend}", _WIDTH, initial_indent="  ", subsequent_indent="    "))
    for number, example in enumerate(task.examples, 1):
        first, *others = example.split("\n")
        lines.append(fill(f"{number}. {first}", _WIDTH, initial_indent="  ", subsequent_indent="     "))
        lines += [fill(other, _WIDTH, initial_indent="     ", subsequent_indent="         ") for other in others]
    return lines


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
