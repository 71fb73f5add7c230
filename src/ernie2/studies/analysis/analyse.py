"""Analyse the record of a study: its figures, and notes on missing, excluded or unreliable values.

The result depends only on the content of the record, not on the order of its runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ernie2.formatting import join_words, quantity
from ernie2.studies.analysis.comparisons import Comparison, compare, forgetting_ratios
from ernie2.studies.analysis.figures import (
    FINAL,
    SCORE,
    MethodResult,
    forgettable_tasks,
    forgetting,
    method_results,
    scored_datasets,
)
from ernie2.studies.analysis.schema import MAIN_RULE, SENSITIVITY_RULE, Record, parse_record


@dataclass(frozen=True)
class Analysis:
    """The content of the report of a study.

    `methods`: results with a learning-rate schedule that restarts at each stage; `sensitivity`: without restarts; both
    in the order of the record. `ratios` (of forgetting) and `notes` are sentences.
    """

    record: Record
    methods: tuple[MethodResult, ...]
    sensitivity: tuple[MethodResult, ...]
    comparisons: tuple[Comparison, ...]
    ratios: tuple[str, ...]
    notes: tuple[str, ...]


def analyse(record: Mapping[str, Any]) -> Analysis:
    """Return the analysis of a study; for an unfinished one, `notes` list what is missing.

    A comparison uses the pre-training seeds that both methods have. Raises `DataError` if the record has another
    format, if runs of one seed differ in initial parameters or in the counted iterations of a task, or if scores come
    from different data.
    """
    study = parse_record(record)
    main, sensitivity = method_results(study, MAIN_RULE), method_results(study, SENSITIVITY_RULE)
    comparisons = compare(main, sensitivity)
    notes = (
        *_run_notes(study, main),
        *_heldout_notes(study, main),
        *_dataset_notes(study),
        *(note for result in main for note in _score_notes(study, result)),
        *_comparison_notes(study, sensitivity, comparisons),
    )
    return Analysis(study, main, sensitivity, comparisons, forgetting_ratios(main), notes)


def _run_notes(record: Record, main: Sequence[MethodResult]) -> Iterator[str]:
    if record.status != "done":
        yield "The study is not finished: these are preliminary figures."
    for run in record.runs:
        if not run.finished:
            which = f"{record.title(run.method)} ({run.restart}), seed {run.seed}"
            yield f"{which} has not finished its last stage and is excluded."
    seeds = {result.name: result.seeds for result in main}
    for method in record.methods:
        if method.name not in seeds:
            yield f"{method.title} has no finished run yet and is not compared."
    if len(set(seeds.values())) > 1:
        lists = "; ".join(f"{result.title} {', '.join(map(str, result.seeds))}" for result in main)
        yield (
            f"The methods have different pre-training seeds ({lists}), so their means must not be subtracted. Every "
            "comparison uses the seeds that both methods have."
        )
    if single := [result.title for result in main if len(result.seeds) == 1]:
        yield f"{join_words(single)}: only one pre-training seed, so there is no interval and no verdict."
    # All methods have the same iterations per seed (checked by `parse_record`), but maybe not as planned.
    runs = {run.seed: run for run in record.runs if run.finished and run.restart in (MAIN_RULE, SENSITIVITY_RULE)}
    for seed, run in sorted(runs.items()):
        for task, planned in record.steps.items():
            if (done := run.iterations.get(task, 0)) != planned:
                yield (
                    f"Seed {seed}: every method trained {task} for {quantity(done, 'iteration')} instead of the "
                    f"planned {planned:,}."
                )


def _heldout_notes(record: Record, main: Sequence[MethodResult]) -> Iterator[str]:
    for result in main:
        for task in record.tasks:
            runs = [run for run in result.runs if task.name in forgettable_tasks(run)]
            missing = {run.seed for run in runs if forgetting(run, task.name) is None}
            if missing := missing.union(_seeds_without(result, FINAL, task.name)):
                yield f"{result.title} has no held-out accuracy of {task.title} for {_seeds(sorted(missing))}."
    if not record.scratch:
        yield "No task was trained from scratch, so forward transfer is not measured."


def _dataset_notes(record: Record) -> Iterator[str]:
    names = scored_datasets(record)
    if not names:
        yield "No run was fine-tuned, so there are no scores."
    for name in names:
        known = (run.scores[name] for run in record.runs if run.finished and name in run.scores)
        facts = next((scores for scores in known if scores.known), None)
        if facts is not None and facts.provenance != "official":
            yield (
                f"{name} is not the full official dataset ({facts.provenance}): {facts.train:,} training examples, "
                f"{facts.dev:,} evaluation examples."
            )


def _score_notes(record: Record, result: MethodResult) -> Iterator[str]:
    names_by_seeds: dict[str, list[str]] = {}
    for name in scored_datasets(record):
        missing = _seeds_without(result, SCORE, name)
        if missing and not (name in result.scores and result.scores[name].diverged):
            names_by_seeds.setdefault(_seeds(missing), []).append(name)
    for seeds, names in names_by_seeds.items():
        yield f"{result.title} has no {join_words(names)} score for {seeds}."
    diverged = {name: score.diverged for name, score in result.scores.items()}
    scored = {name: [run.scores[name] for run in result.runs if name in run.scores] for name in result.scores}
    collapsed = {name: sum(len(score.known.keys() & score.diverged) for score in runs) for name, runs in scored.items()}
    for counts, words in (
        (diverged, "diverged. No mean is given, because a mean over the other runs would favour the method."),
        (collapsed, "gave the same answer for every example. They are included in the means."),
    ):
        if parts := [f"{count} of {result.scores[name].runs} on {name}" for name, count in counts.items() if count]:
            yield f"{result.title}: of the fine-tuning runs, {join_words(parts)} {words}"


def _comparison_notes(
    record: Record, sensitivity: Sequence[MethodResult], comparisons: Sequence[Comparison]
) -> Iterator[str]:
    counts = {len(scores.known) for run in record.runs if run.finished for scores in run.scores.values()}
    if len(counts - {0}) > 1:
        yield "Pre-training seeds have different numbers of fine-tuning runs; every seed still counts once."
    if not sensitivity:
        yield "There are no runs without restarts of the schedule, so the effect of restarts is not measured."
    for rule in sorted({run.restart for run in record.runs} - {MAIN_RULE, SENSITIVITY_RULE}):
        yield f"Runs with restart {rule} are in the record but not in any table."
    for comparison in comparisons:
        difference, where = comparison.difference, f"{comparison.title}, {comparison.figure}"
        if difference.note and len(difference.values) > 1 and abs(difference.mean) > 1e-12:
            yield f"{where}: the same difference for every seed, so no interval and no verdict."


def _seeds_without(result: MethodResult, measure: str, item: str) -> list[int]:
    """Return the seeds of a method that lack a figure."""
    figure = result.figure(measure, item)
    return [seed for seed in result.seeds if figure is None or seed not in figure.values]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {join_words([str(seed) for seed in seeds])}"
