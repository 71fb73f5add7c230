"""An inspection as plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from textwrap import fill
from typing import Any

from ernie2.corpora.long_texts import LONGEST_TEXT
from ernie2.formatting import quantity
from ernie2.inspecting.inspection import CorpusStatistics, Inspection, TaskStatistics
from ernie2.shards.unknown_tokens import HIGH_SHARE, describe_share
from ernie2.tasks.usable_data import corpora_by_note

MAX_LABELS = 10
"""Maximum number of classes listed, the most frequent."""
_WIDTH = 110


def render(inspection: Inspection) -> str:
    """Return an inspection as plain text."""
    case = "cased" if inspection.cased else "uncased"
    lines = [f"{inspection.folder}: vocabulary of {inspection.vocab_size:,} tokens, {case}", ""]
    for corpus in inspection.corpora:
        lines += [*_corpus_lines(corpus), ""]
    if inspection.tasks and not any(task.has_spans for task in inspection.tasks):
        lines += [f"no corpus that these tasks read has spans of the kind {inspection.containing!r}", ""]
    for task in inspection.tasks:
        lines += [*_task_lines(task, inspection.sequence_tokens, inspection.containing), ""]
    return "\n".join(lines).rstrip()


def _corpus_lines(corpus: CorpusStatistics) -> list[str]:
    cased = f"{corpus.cased_share:.0%} of words have case"
    if corpus.cased_share:
        cased += f", {corpus.capital_share:.0%} of these begin with a capital"
    sentence, paragraph = corpus.tokens_a_sentence, corpus.sentences_a_paragraph
    unit = "labelled pairs" if corpus.labels else "documents or sections"
    documents = f"{corpus.documents:,} {unit} ({corpus.heldout_documents:,} held out)"
    lines = [
        f"corpus {corpus.name} ({corpus.language}; licence: {corpus.licence})",
        f"  {documents}, {corpus.tokens:,} tokens",
        *([_wrap(f"labels: {_format_shares(corpus.labels)}")] if corpus.labels else []),
        f"  {sentence:.1f} tokens a sentence, {paragraph:.1f} sentences a paragraph; {cased}",
        f"  spans: {_format_counts(corpus.spans)}",
    ]
    return [*lines, *(f"  {line}" for line in loss_lines(corpus.facts))]


def is_lossy(facts: Mapping[str, Any]) -> bool:
    """Return whether text of a corpus was dropped, truncated, or is often [UNK]."""
    lost = [*facts.get("dropped", {}).values(), *(facts.get("dropped_spans") or {}).values(), facts.get("cut_texts")]
    return any(lost) or facts.get("unknown_share", 0.0) > HIGH_SHARE


def loss_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what is missing from a corpus in its shards, from its entry in shards.json.

    Words as [UNK]; dropped documents and spans by reason; texts too long for one document.
    """
    spans, cut = facts.get("dropped_spans"), facts.get("cut_texts", 0)
    unit = "labelled pairs" if facts.get("labels") else "documents"
    return [
        describe_share(facts.get("unknown_share", 0.0)),
        f"dropped {unit}: {_format_counts(facts.get('dropped', {}))}",
        *([f"dropped spans: {_format_counts(spans)}"] if spans else []),
        *([f"{quantity(cut, 'text')} above {LONGEST_TEXT:,} characters cut"] if cut else []),
    ]


def _format_shares(counts: Mapping[str, int]) -> str:
    """Return counted classes with their shares, at most the `MAX_LABELS` most frequent."""
    total = max(sum(counts.values()), 1)
    shown = counts if len(counts) <= MAX_LABELS else dict(Counter(counts).most_common(MAX_LABELS))
    left = len(counts) - len(shown)
    others = f" and {left:,} other{'s' * (left > 1)}" if left else ""
    return ", ".join(f"{name} ({count / total:.1%})" for name, count in shown.items()) + others


def _wrap(line: str) -> str:
    return fill(line, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _task_lines(task: TaskStatistics, sequence_tokens: int, containing: str | None) -> list[str]:
    if not task.about:
        return [f"task {task.name} cannot be used: {' '.join(str(task.unusable_reason).split())}"]
    lines = [f"task {task.name}: {task.about}", f"  needs {task.needs}"]
    lines += [
        f"  can use {c['usable']:,} of {c['of']:,} documents or sections of {name}" for name, c in task.usable.items()
    ]
    notes = [f"note on {', '.join(names)}: {note}" for note, names in corpora_by_note(task.usable).items()]
    lines += [_wrap(note) for note in notes]
    if task.unusable_reason is not None:
        return [
            *lines,
            fill(f"does not apply: {task.unusable_reason}", _WIDTH, initial_indent="  ", subsequent_indent="  "),
        ]
    counts = task.label_counts or {}
    total = max(sum(counts.values()), 1)
    scored = (
        f"{task.scored / max(task.tokens, 1):.1%} of tokens scored"
        if task.scored != task.instances
        else "one label each"
    )
    if total not in (task.scored, 1):
        scored += f", {task.scored / total:.2f} tokens a unit"
    lines.append(f"  {quantity(task.instances, 'instance')} of up to {sequence_tokens} tokens: {scored}")
    lines.append(
        _wrap(f"{task.counts_heading}: {_format_shares({name: count for name, count in counts.items() if count})}")
    )
    if containing is not None and task.has_spans and not task.examples:
        reason = f"no example with {containing!r} was found" if task.can_contain else f"has no class {containing!r}"
        lines.append(f"  {reason}")
    if task.examples and task.legend:
        lines.append(_wrap(f"how to read: {task.legend}"))
    for number, example in enumerate(task.examples, 1):
        first, *others = example.split("\n")
        lines.append(fill(f"{number}. {first}", _WIDTH, initial_indent="  ", subsequent_indent="     "))
        lines += [fill(other, _WIDTH, initial_indent="     ", subsequent_indent="         ") for other in others]
    return lines


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
