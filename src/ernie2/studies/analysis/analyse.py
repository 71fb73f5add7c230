"""A study's record → its figures, and notes on what is missing, left out or not to be trusted.

The same record gives the same digits, whatever the order of its runs.
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
    """Everything the tables and the page show.

    `arms` are under the main rule, `sensitivity` where the schedule never restarts as far as they were run, both in the
    order of the record. `ratios` of forgetting and `notes` are sentences that a reader needs beside the figures.
    """

    record: Record
    arms: tuple[MethodResult, ...]
    sensitivity: tuple[MethodResult, ...]
    comparisons: tuple[Comparison, ...]
    ratios: tuple[str, ...]
    notes: tuple[str, ...]


def analyse(record: Mapping[str, Any]) -> Analysis:
    """Return the figures of a study, finished or not; of an unfinished one `notes` say what is missing.

    Every comparison takes the pre-training seeds that both sides have. Raises DataError where the record is not a study
    of this format, where runs of a seed began with other parameters or trained a task for other numbers of iterations
    (as counted, not as planned), and where scores are of different data.
    """
    study = parse_record(record)
    main, sensitivity = method_results(study, MAIN_RULE), method_results(study, SENSITIVITY_RULE)
    comparisons = compare(main, sensitivity)
    notes = (
        *_runs(study, main),
        *_heldout(study, main),
        *_data(study),
        *(note for one in main for note in _scores(study, one)),
        *_spread(study, sensitivity, comparisons),
    )
    return Analysis(study, main, sensitivity, comparisons, forgetting_ratios(main), notes)


def _runs(record: Record, main: Sequence[MethodResult]) -> Iterator[str]:
    if record.status != "done":
        yield "The study is not finished: these are the figures so far."
    for run in record.runs:
        if not run.finished:
            which = f"{record.title(run.arm)} ({run.restart}), seed {run.seed}"
            yield f"{which} has not reached the end of its last stage and is left out."
    there = {one.name: one.seeds for one in main}
    for arm in record.arms:
        if arm.name not in there:
            yield f"{arm.title} has no finished run yet, so nothing is compared with it."
    if len(set(there.values())) > 1:
        lists = "; ".join(f"{one.title} {', '.join(map(str, one.seeds))}" for one in main)
        yield (
            f"The arms have different pre-training seeds ({lists}): means of arms are over different seeds and not to "
            "be subtracted; every comparison takes the seeds both sides have."
        )
    if alone := [one.title for one in main if len(one.seeds) == 1]:
        yield f"One pre-training seed of {join_words(alone)}: no interval can be given, and no difference be told."
    # Arms of a seed agree in their iterations, or the record would have been refused; all may differ from the plan.
    runs = {run.seed: run for run in record.runs if run.finished and run.restart in (MAIN_RULE, SENSITIVITY_RULE)}
    for seed, run in sorted(runs.items()):
        for task, planned in record.steps.items():
            if (done := run.iterations.get(task, 0)) != planned:
                yield (
                    f"Seed {seed}: every arm trained {task} for {quantity(done, 'iteration')}; {planned:,} "
                    "were planned."
                )


def _heldout(record: Record, main: Sequence[MethodResult]) -> Iterator[str]:
    for one in main:
        for task in record.tasks:
            left = [run for run in one.runs if task.name in forgettable_tasks(run)]
            lacking = {run.seed for run in left if forgetting(run, task.name) is None}
            if lacking := lacking.union(_without(one, FINAL, task.name)):
                yield f"{one.title} lacks a held-out accuracy of {task.title} at {_seeds(sorted(lacking))}."
    if not record.scratch:
        yield "No task was trained alone from scratch, so forward transfer is not measured."


def _data(record: Record) -> Iterator[str]:
    sets = scored_datasets(record)
    if not sets:
        yield "No run was fine-tuned, so there are no scores."
    for name in sets:
        known = (run.scores[name] for run in record.runs if run.finished and name in run.scores)
        facts = next((one for one in known if one.known), None)
        if facts is not None and facts.standing != "official":
            yield (
                f"{name} is not the whole official set ({facts.standing}): {facts.train:,} examples to train on, "
                f"{facts.dev:,} to measure on."
            )


def _scores(record: Record, one: MethodResult) -> Iterator[str]:
    lacking: dict[str, list[str]] = {}
    for name in scored_datasets(record):
        missing = _without(one, SCORE, name)
        if missing and not (name in one.scores and one.scores[name].diverged):
            lacking.setdefault(_seeds(missing), []).append(name)
    for seeds, names in lacking.items():
        yield f"{one.title} has no {join_words(names)} score at {seeds}."
    diverged = {name: score.diverged for name, score in one.scores.items()}
    scored = {name: [run.scores[name] for run in one.runs if name in run.scores] for name in one.scores}
    collapsed = {name: sum(len(of.known.keys() & of.diverged) for of in runs) for name, runs in scored.items()}
    for counts, words in (
        (diverged, "diverged, so no mean is given there; one over the other runs would flatter the arm."),
        (collapsed, "gave every example the same answer and are in the means."),
    ):
        if said := [f"{count} of {one.scores[name].runs} on {name}" for name, count in counts.items() if count]:
            yield f"{one.title}: of the fine-tuning runs {join_words(said)} {words}"


def _spread(record: Record, sensitivity: Sequence[MethodResult], comparisons: Sequence[Comparison]) -> Iterator[str]:
    counts = {len(scores.known) for run in record.runs if run.finished for scores in run.scores.values()}
    if len(counts - {0}) > 1:
        yield "Pre-training seeds have different numbers of fine-tuning runs; each seed counts once all the same."
    if not sensitivity:
        yield "Nothing was run without restarts of the schedule, so dependence on them is not measured."
    for rule in sorted({run.restart for run in record.runs} - {MAIN_RULE, SENSITIVITY_RULE}):
        yield f"Runs with restart {rule} are in the record and in no table."
    for one in comparisons:
        if one.difference.note and len(one.difference.values) > 1 and abs(one.difference.mean) > 1e-12:
            yield (
                f"{one.title}, {one.figure}: every seed gives the same difference, so its spread is not known and "
                "nothing is told from it."
            )


def _without(one: MethodResult, measure: str, item: str) -> list[int]:
    """The seeds of an arm that lack a figure."""
    figure = one.figure(measure, item)
    return [seed for seed in one.seeds if figure is None or seed not in figure.values]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {join_words([str(seed) for seed in seeds])}"
