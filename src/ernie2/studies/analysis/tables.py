"""The content of a study's page as text, line by line and cell by cell, and its summary for the terminal."""

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
"""Table 7 of the paper: method → dev accuracy in percent on each of `PAPER_DATASETS`."""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Column headings, and rows with one cell per column."""


def template_values(analysis: Analysis) -> dict[str, Any]:
    """Return the values for `study.jinja`: lines and tables by name, as plain text without escaping."""
    methods, size = analysis.methods, _model(analysis.record)
    tasks = {task.name: task.title for task in analysis.record.tasks}
    tested = sum(one.difference.low is not None for one in analysis.comparisons)
    by_chance = (
        f": if no methods differed, {decimal(tested / 20, 1)} of the {quantity(tested, 'comparison')} with an interval "
        "would still be expected to show a difference."
    )
    spread = [
        (_label(one), name, decimal(score.sd_pretraining, POINTS), decimal(score.sd_finetuning, POINTS),
         str(score.runs), str(score.diverged))
        for one in methods
        for name, score in one.scores.items()
    ]  # fmt: skip
    return {
        "title": f"Comparison of learning methods (Table 7), {analysis.record.preset}",
        "facts": list(_facts(analysis)),
        "by_chance": by_chance if tested else ".",
        "order": paper_order(analysis.comparisons),
        "nothing_compared": "" if analysis.comparisons else _nothing_compared(analysis),
        "comparisons": [
            (title, [_compared(one) for one in comparisons])
            for title, comparisons in groupby(analysis.comparisons, key=attrgetter("title"))
        ],
        "methods": methods,
        **_restart_tables(methods, tasks, paper=True),
        "ours": f"The model here: {size[0].lower()}{size[1:]}. " if size else "",
        "spread": spread,
        "ratios": analysis.ratios,
        "backward": _by_task(methods, tasks, BACKWARD, change=True),
        "forward": _by_task(methods, tasks, FORWARD, change=True),
        "shared": analysis.record.machine.get("parallel", 1) > 1,
        "cost": [(_label(one), *(_count(one, part) for part in ("passes", "tokens", "seconds"))) for one in methods],
        "sensitivity": _restart_tables(analysis.sensitivity, tasks, paper=False) if analysis.sensitivity else None,
        "notes": analysis.notes,
    }


def summary_lines(analysis: Analysis) -> list[str]:
    """Return one line each for methods, summary comparisons, ratios of forgetting, and notes."""
    summaries = (
        (SCORE, POINTS, "mean of the scores"),
        (FINAL, FRACTION, "held-out accuracy"),
        (FORGETTING, FRACTION, "forgetting"),
    )
    lines = []
    for one in analysis.methods:
        parts = [f"{name} {_cell(one, what, MEAN, unit)}" for what, unit, name in summaries if one.figure(what)]
        lines.append(f"{_label(one)}: {', '.join([*parts, _count(one, 'passes')])} encoder passes")
    several_datasets = any(one.figure == SUMMARIES[0] for one in analysis.comparisons)
    lines += [
        f"{one.title}, {one.figure}: {format_difference(one.difference, one.unit)}: {one.verdict}"
        for one in analysis.comparisons
        if one.figure in SUMMARIES or not several_datasets
    ]
    lines += [f"{ratio}." for ratio in analysis.ratios]
    if analysis.comparisons:
        lines.append("Verdicts are not corrected for multiple comparisons.")
    return [*lines, *analysis.notes]


def _facts(analysis: Analysis) -> Iterator[str]:
    """Yield state, model, data, training, seeds and machine, as far as the record has them."""
    record, machine, data = analysis.record, analysis.record.machine, analysis.record.data
    yield f"Finished {record.finished or ''}".rstrip() if record.status == "done" else "Not finished"
    if size := _model(record):
        yield size
    if corpora := data.get("corpora"):
        share = f" ({100 * data['share']:g} % of it used)" if data.get("share") not in (None, 1) else ""
        yield f"Data: {'; '.join(_corpus(name, one) for name, one in sorted(corpora.items()))}{share}"
    steps = record.steps
    words = f"{quantity(next(iter(steps.values()), 0), 'iteration')} for each of {quantity(len(steps), 'task')}"
    if len(set(steps.values())) != 1:
        titles = {task.name: task.title for task in record.tasks}
        words = "iterations: " + ", ".join(f"{titles.get(task, task)} {count:,}" for task, count in steps.items())
    yield f"Training: {words}" + (f", {record.batch_tokens:,} tokens per step" if record.batch_tokens else "")
    yield f"Pre-training seeds: {_seeds(analysis)}"
    if machine:
        parts = [str(machine[key]) for key in ("device", "cpu", "precision") if machine.get(key)]
        parts += [quantity(machine["cores"], "core")] if machine.get("cores") else []
        parts += [f"{machine['parallel']} runs in parallel"] if machine.get("parallel", 1) > 1 else []
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
    methods, sensitivity = analysis.methods, analysis.sensitivity
    if not methods:
        return "none finished yet"
    same = len({one.seeds for one in methods}) == 1
    counts = [f"{len(one.seeds)} for {one.title}" for one in methods]
    words = f"{len(methods[0].seeds)} per method" if same else join_words(counts)
    never = f"; without restarts of the schedule: {max(len(one.seeds) for one in sensitivity)}" if sensitivity else ""
    scored = [(score, one.figure(SCORE, name)) for one in methods for name, score in one.scores.items()]
    runs = sorted({score.runs // len(figure.values) for score, figure in scored if figure is not None})
    tuned = f"; fine-tuning runs per seed and dataset: {join_words([str(count) for count in runs])}" if runs else ""
    return f"{words}{never}{tuned}"


def _nothing_compared(analysis: Analysis) -> str:
    """Return the reason why there is no comparison."""
    pairs = [pair for pair in PAIRS if set(pair) <= {method.name for method in analysis.record.methods}]
    if not pairs:
        return (
            "There are no comparisons: this study has none of the pairs of methods that are compared, "
            f"{join_words([' and '.join(pair) for pair in PAIRS])}."
        )
    if not any(set(pair) <= {one.name for one in analysis.methods} for pair in pairs):
        return "There are no comparisons yet: no pair of methods has finished runs of both."
    return "There are no comparisons yet: no pair of methods shares a finished pre-training seed."


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


def _restart_tables(
    methods: Sequence[MethodResult], tasks: Mapping[str, str], *, paper: bool
) -> dict[str, Table | None]:
    """Return the tables of one restart rule of the schedule."""
    return {
        "scores": _scores(methods, paper=paper),
        "heldout": _heldout(methods, tasks),
        "forgetting": _by_task(methods, tasks, FORGETTING),
    }


def _scores(methods: Sequence[MethodResult], *, paper: bool) -> Table | None:
    facts = {name: score.facts for one in methods for name, score in one.scores.items()}
    if not facts:
        return None
    heads = [
        f"{name}: {one.metric}, {one.split} ({one.provenance}, {one.train:,} / {one.dev:,} examples)"
        for name, one in facts.items()
    ]
    rows = [[_label(one), *(_cell(one, SCORE, name, POINTS) for name in (*facts, MEAN))] for one in methods]
    for title, reported in PAPER_TABLE_7.items() if paper and set(PAPER_DATASETS) & set(facts) else ():
        scores = dict(zip(PAPER_DATASETS, reported, strict=True))
        rows.append([f"the paper: {title}", *(decimal(scores.get(name), 1) for name in (*facts, MEAN))])
    return ["method", *heads, "mean"], rows


def _heldout(methods: Sequence[MethodResult], tasks: Mapping[str, str]) -> Table:
    """Return held-out accuracy with the best baseline and, if recorded for all runs, how many learned the task."""
    heads, rows = _by_task(methods, tasks, FINAL)
    baselines = {task: value for one in reversed(methods) for task, value in one.baselines.items()}
    runs = sum(len(one.seeds) for one in methods)
    wider = []
    for row, task in zip(rows, (*tasks, MEAN), strict=True):
        known = all(task in one.learned for one in methods)
        learned = f"{sum(one.learned[task] for one in methods)} of {runs}" if known else DASH
        wider.append([*row, decimal(baselines.get(task), FRACTION), learned])
    return [*heads, "best baseline", "learned (runs)"], wider


def _by_task(methods: Sequence[MethodResult], tasks: Mapping[str, str], measure: str, *, change: bool = False) -> Table:
    """Return a table of tasks (rows) by methods (columns), with the mean over tasks."""
    items = {**tasks, MEAN: "mean over tasks"}
    rows = [
        [title, *(_cell(one, measure, item, FRACTION, change=change) for one in methods)]
        for item, title in items.items()
    ]
    return ["task", *map(_label, methods)], rows


def _cell(one: MethodResult, measure: str, item: str, unit: int, *, change: bool = False) -> str:
    return format_cell(one.figure(measure, item), unit, len(one.seeds), change=change)


def _count(one: MethodResult, part: str) -> str:
    figure = one.figure(COST, part)
    return integer(figure.mean if figure else None)


def _label(one: MethodResult) -> str:
    return f"{one.title} ({quantity(len(one.seeds), 'seed')})"
