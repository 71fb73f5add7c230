"""What the page of a study shows, every line and cell as text, and its lines for a terminal. Same record, same text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from ernie2.formatting import DASH, decimal, integer, join_words, quantity
from ernie2.studies.analysis.analyse import Analysis
from ernie2.studies.analysis.comparisons import PAIRS, SUMMARIES, Comparison, paper_order
from ernie2.studies.analysis.figures import (
    BACKWARD,
    COST,
    FINAL,
    FORGETTING,
    FORWARD,
    MEAN,
    PAPER_DATASETS,
    SCORE,
    MethodResult,
)
from ernie2.studies.analysis.schema import Record
from ernie2.studies.analysis.statistics import FRACTION, POINTS, format_cell, format_difference

PAPER_TABLE_7 = {
    "continual learning": (77.3, 86.4, 82.5),
    "multi-task learning": (78.7, 87.5, 83.0),
    "continual multi-task learning": (79.0, 87.8, 84.0),
}
"""What the paper reports in Table 7: method → dev accuracy in percent on each of `PAPER_DATASETS`."""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Heads, and rows of a cell a head."""


def template_values(analysis: Analysis) -> dict[str, Any]:
    """Return what `study.jinja` lays out: lines and tables by name; texts are plain, not yet escaped."""
    arms, size = analysis.arms, _model(analysis.record)
    tasks = {task.name: task.title for task in analysis.record.tasks}
    tested = sum(one.difference.low is not None for one in analysis.comparisons)
    by_chance = (
        f": of the {quantity(tested, 'comparison')} with an interval, {decimal(tested / 20, 1)} would be expected "
        "to be called different by chance alone if no arm differed from another."
    )
    spread = [
        (_label(one), name, decimal(score.sd_pretraining, POINTS), decimal(score.sd_finetuning, POINTS),
         str(score.runs), str(score.diverged))
        for one in arms
        for name, score in one.scores.items()
    ]  # fmt: skip
    return {
        "title": f"Learning methods side by side (Table 7), {analysis.record.preset}",
        "facts": list(_facts(analysis)),
        "by_chance": by_chance if tested else ".",
        "order": paper_order(analysis.comparisons),
        "nothing_compared": "" if analysis.comparisons else _nothing_compared(analysis),
        "comparisons": [
            (title, [_compared(one) for one in comparisons])
            for title, comparisons in groupby(analysis.comparisons, key=attrgetter("title"))
        ],
        "arms": arms,
        **_restart_tables(arms, tasks, paper=True),
        "ours": f"Ours: {size[0].lower()}{size[1:]}. " if size else "",
        "spread": spread,
        "ratios": analysis.ratios,
        "backward": _by_task(arms, tasks, BACKWARD, change=True),
        "forward": _by_task(arms, tasks, FORWARD, change=True),
        "shared": analysis.record.machine.get("parallel", 1) > 1,
        "cost": [(_label(one), *(_count(one, part) for part in ("passes", "tokens", "seconds"))) for one in arms],
        "sensitivity": _restart_tables(analysis.sensitivity, tasks, paper=False) if analysis.sensitivity else None,
        "notes": analysis.notes,
    }


def summary_lines(analysis: Analysis) -> list[str]:
    """Return arms, the comparisons that sum up, ratios of forgetting, and notes, one line each."""
    summaries = (
        (SCORE, POINTS, "mean of the scores"),
        (FINAL, FRACTION, "held-out accuracy"),
        (FORGETTING, FRACTION, "forgetting"),
    )
    lines = []
    for one in analysis.arms:
        parts = [f"{name} {_cell(one, what, MEAN, unit)}" for what, unit, name in summaries if one.figure(what)]
        lines.append(f"{_label(one)}: {', '.join([*parts, _count(one, 'passes')])} encoder passes")
    several_sets = any(less.figure == SUMMARIES[0] for less in analysis.comparisons)
    lines += [
        f"{less.title}, {less.figure}: {format_difference(less.difference, less.unit)}: {less.verdict}"
        for less in analysis.comparisons
        if less.figure in SUMMARIES or not several_sets
    ]
    lines += [f"{ratio}." for ratio in analysis.ratios]
    if analysis.comparisons:
        lines.append("No correction for multiple comparisons is made.")
    return [*lines, *analysis.notes]


def _facts(analysis: Analysis) -> Iterator[str]:
    """State, model, data, training, seeds and machine; what a record does not say is left out."""
    record, machine, data = analysis.record, analysis.record.machine, analysis.record.data
    yield f"Finished {record.finished or ''}".rstrip() if record.status == "done" else "Not finished"
    if size := _model(record):
        yield size
    if corpora := data.get("corpora"):
        share = f" ({100 * data['share']:g} % of it used)" if data.get("share") not in (None, 1) else ""
        yield f"Data: {'; '.join(_corpus(name, one) for name, one in sorted(corpora.items()))}{share}"
    steps = record.steps
    words = f"{quantity(next(iter(steps.values()), 0), 'iteration')} of each of {quantity(len(steps), 'task')}"
    if len(set(steps.values())) != 1:
        titles = {task.name: task.title for task in record.tasks}
        words = "iterations: " + ", ".join(f"{titles.get(task, task)} {count:,}" for task, count in steps.items())
    yield f"Training: {words}" + (f", {record.batch_tokens:,} tokens a step" if record.batch_tokens else "")
    yield f"Pre-training seeds: {_seeds(analysis)}"
    if machine:
        parts = [str(machine[key]) for key in ("device", "cpu", "precision") if machine.get(key)]
        parts += [quantity(machine["cores"], "core")] if machine.get("cores") else []
        parts += [f"{machine['parallel']} runs side by side"] if machine.get("parallel", 1) > 1 else []
        parts += [f"{name} {version}" for name, version in sorted((machine.get("versions") or {}).items())]
        yield f"Machine: {', '.join(parts)}"


def _model(record: Record) -> str:
    encoder = record.encoder
    size = (
        f"{quantity(encoder['layers'], 'layer')} × {encoder['hidden']}" if {"layers", "hidden"} <= set(encoder) else ""
    )
    parameters = f"{encoder['parameters']:,} parameters" if encoder.get("parameters") else ""
    words = ", ".join(filter(None, (encoder.get("kind", ""), size, parameters)))
    return f"Encoder: {words}" if words else ""


def _corpus(name: str, one: Mapping[str, Any]) -> str:
    licence = f", {one['licence']}" if one.get("licence") else ""
    return (
        f"{name}: {quantity(one.get('documents', 0), 'document')}, {one.get('heldout_documents', 0):,} held out, "
        f"{one.get('tokens', 0):,} tokens{licence}"
    )


def _seeds(analysis: Analysis) -> str:
    arms, sensitivity = analysis.arms, analysis.sensitivity
    if not arms:
        return "none finished yet"
    same = len({one.seeds for one in arms}) == 1
    words = f"{len(arms[0].seeds)} in every arm" if same else join_words([f"{len(a.seeds)} of {a.title}" for a in arms])
    never = f"; without restarts of the schedule: {max(len(one.seeds) for one in sensitivity)}" if sensitivity else ""
    scored = [(score, one.figure(SCORE, name)) for one in arms for name, score in one.scores.items()]
    runs = sorted({score.runs // len(figure.values) for score, figure in scored if figure is not None})
    tuned = f"; fine-tuning runs for each: {join_words([str(count) for count in runs])}" if runs else ""
    return f"{words}{never}{tuned}"


def _nothing_compared(analysis: Analysis) -> str:
    """Why there is no comparison."""
    pairs = [pair for pair in PAIRS if set(pair) <= {arm.name for arm in analysis.record.arms}]
    if not pairs:
        return (
            "Nothing: this study has no pair of arms that is compared. Compared are "
            f"{join_words([' with '.join(pair) for pair in PAIRS])}."
        )
    if not any(set(pair) <= {one.name for one in analysis.arms} for pair in pairs):
        return "Nothing yet: no pair of arms that is compared has finished runs of both."
    return "Nothing yet: no pair of arms that is compared shares a finished pre-training seed."


def _compared(one: Comparison) -> tuple[str, ...]:
    without_restart = format_difference(one.without_restart, one.unit) if one.without_restart else DASH
    seeds = str(len(one.difference.values))
    return (
        one.figure,
        format_difference(one.difference, one.unit),
        seeds,
        one.verdict,
        without_restart,
        one.dependence,
    )


def _restart_tables(arms: Sequence[MethodResult], tasks: Mapping[str, str], *, paper: bool) -> dict[str, Table | None]:
    """The tables of one rule of the schedule's restart."""
    return {
        "scores": _scores(arms, paper=paper),
        "heldout": _heldout(arms, tasks),
        "forgetting": _by_task(arms, tasks, FORGETTING),
    }


def _scores(arms: Sequence[MethodResult], *, paper: bool) -> Table | None:
    facts = {name: score.facts for one in arms for name, score in one.scores.items()}
    if not facts:
        return None
    heads = [
        f"{name}: {one.metric}, {one.split} ({one.standing}, {one.train:,} / {one.dev:,} examples)"
        for name, one in facts.items()
    ]
    rows = [[_label(one), *(_cell(one, SCORE, name, POINTS) for name in (*facts, MEAN))] for one in arms]
    for title, reported in PAPER_TABLE_7.items() if paper and set(PAPER_DATASETS) & set(facts) else ():
        scores = dict(zip(PAPER_DATASETS, reported, strict=True))
        rows.append([f"the paper: {title}", *(decimal(scores.get(name), 1) for name in (*facts, MEAN))])
    return ["arm", *heads, "mean"], rows


def _heldout(arms: Sequence[MethodResult], tasks: Mapping[str, str]) -> Table:
    """With the best baseline, and how many runs of all arms learned the task, where the record tells of each."""
    heads, rows = _by_task(arms, tasks, FINAL)
    baselines = {task: value for one in reversed(arms) for task, value in one.baselines.items()}
    runs = sum(len(one.seeds) for one in arms)
    wider = []
    for row, task in zip(rows, (*tasks, MEAN), strict=True):
        known = all(task in one.learned for one in arms)
        learned = f"{sum(one.learned[task] for one in arms)} of {runs}" if known else DASH
        wider.append([*row, decimal(baselines.get(task), FRACTION), learned])
    return [*heads, "best baseline", "learned (runs)"], wider


def _by_task(arms: Sequence[MethodResult], tasks: Mapping[str, str], measure: str, *, change: bool = False) -> Table:
    """Tasks down, arms across, and the mean over tasks."""
    items = {**tasks, MEAN: "mean over tasks"}
    rows = [
        [title, *(_cell(one, measure, item, FRACTION, change=change) for one in arms)] for item, title in items.items()
    ]
    return ["task", *map(_label, arms)], rows


def _cell(one: MethodResult, measure: str, item: str, unit: int, *, change: bool = False) -> str:
    return format_cell(one.figure(measure, item), unit, len(one.seeds), change=change)


def _count(one: MethodResult, part: str) -> str:
    figure = one.figure(COST, part)
    return integer(figure.mean if figure else None)


def _label(one: MethodResult) -> str:
    return f"{one.title} ({quantity(len(one.seeds), 'seed')})"
