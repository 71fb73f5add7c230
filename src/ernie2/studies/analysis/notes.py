"""What a reader must know beside a study's figures: what is missing, left out or not to be trusted, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ernie2.studies.analysis.comparisons import Comparison
from ernie2.studies.analysis.figures import FINAL, SCORE, ArmResult, data_sets
from ernie2.studies.analysis.reading import MAIN_RULE, SENSITIVITY_RULE, Record
from ernie2.studies.analysis.transfer import forgetting, left_behind
from ernie2.studies.analysis.wording import listing


def notes(
    record: Record, main: Sequence[ArmResult], sensitivity: Sequence[ArmResult], comparisons: Sequence[Comparison]
) -> tuple[str, ...]:
    """Return them in the order of weight: the study, its seeds, its runs, its scores, its transfer, its intervals."""
    said = [*_runs(record, main), *_heldout(record, main), *_data(record)]
    for one in main:
        said += _scores(record, one)
    counts = {len(scores.known) for run in record.runs if run.finished for scores in run.scores.values()}
    if len(counts - {0}) > 1:
        said.append(
            "Pre-training seeds have different numbers of fine-tuning runs; each seed counts once all the same."
        )
    if not sensitivity:
        said.append("Nothing was run without restarts of the schedule, so dependence on them is not measured.")
    other = sorted({run.restart for run in record.runs} - {MAIN_RULE, SENSITIVITY_RULE})
    said += [f"Runs with restart {rule} are in the record and in no table." for rule in other]
    said += [
        f"{record.title(one.first)} less {record.title(one.second)}, {one.what}: every seed gives the same difference, "
        "so its spread is not known and nothing is told from it."
        for one in comparisons
        if one.difference.note and len(one.difference.values) > 1 and abs(one.difference.mean) > 1e-12
    ]
    return tuple(said)


def _runs(record: Record, main: Sequence[ArmResult]) -> Iterator[str]:
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
        yield f"One pre-training seed of {listing(alone)}: no interval can be given, and no difference be told."
    # Arms of a seed agree in their iterations, or the record would have been refused; all may differ from the plan.
    runs = {run.seed: run for run in record.runs if run.finished and run.restart in (MAIN_RULE, SENSITIVITY_RULE)}
    for seed, run in sorted(runs.items()):
        for task, planned in record.steps.items():
            if (counted := run.iterations.get(task, 0)) != planned:
                yield f"Seed {seed}: every arm trained {task} for {counted:,} iterations; {planned:,} were planned."


def _heldout(record: Record, main: Sequence[ArmResult]) -> Iterator[str]:
    for one in main:
        for task in record.tasks:
            missing = [
                run.seed
                for run in record.finished(one.name, one.restart)
                if not _has(one, FINAL, task.name, run.seed)
                or (task.name in left_behind(run) and forgetting(run, task.name) is None)
            ]
            if missing:
                yield f"{one.title} lacks a held-out accuracy of {task.title} at {_seeds(missing)}."
    if not record.scratch:
        yield "No task was trained alone from scratch, so forward transfer is not measured."


def _data(record: Record) -> Iterator[str]:
    sets = data_sets(record)
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


def _scores(record: Record, one: ArmResult) -> Iterator[str]:
    lacking: dict[str, list[str]] = {}
    diverged, collapsed = [], []
    for name in data_sets(record):
        score = one.scores.get(name)
        if score is not None and score.diverged:
            diverged.append(f"{score.diverged} of {score.runs} on {name}")
        elif missing := [seed for seed in one.seeds if not _has(one, SCORE, name, seed)]:
            lacking.setdefault(_seeds(missing), []).append(name)
        if score is not None and (count := _collapsed(record, one, name)):
            collapsed.append(f"{count} of {score.runs} on {name}")
    for seeds, names in lacking.items():
        yield f"{one.title} has no {listing(names)} score at {seeds}."
    if diverged:
        yield (
            f"{one.title}: of the fine-tuning runs {listing(diverged)} diverged, so no mean is given there; "
            "one over the other runs would flatter the arm."
        )
    if collapsed:
        yield (
            f"{one.title}: of the fine-tuning runs {listing(collapsed)} gave every example the same answer and "
            "are in the means."
        )


def _has(one: ArmResult, measure: str, item: str, seed: int) -> bool:
    found = one.figure(measure, item)
    return found is not None and seed in found.values


def _collapsed(record: Record, arm: ArmResult, dataset: str) -> int:
    """Fine-tuning runs with a score that is not that of a trained model."""
    found = (run.scores.get(dataset) for run in record.finished(arm.name, arm.restart))
    return sum(seed in scores.known for scores in found if scores is not None for seed in scores.diverged)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {listing([str(seed) for seed in seeds])}"
