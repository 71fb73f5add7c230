"""What a reader must know beside a study's figures: what is missing, left out or not to be trusted, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ernie2.studies.analysis.arm_figures import data_sets
from ernie2.studies.analysis.reading import MAIN_RULE, SENSITIVITY_RULE, Record
from ernie2.studies.analysis.results import ArmResult, Comparison
from ernie2.studies.analysis.wording import listing


def notes(
    record: Record, main: Sequence[ArmResult], sensitivity: Sequence[ArmResult], comparisons: Sequence[Comparison]
) -> tuple[str, ...]:
    """In the order of weight: the study as a whole, its seeds, its runs, its scores, its transfer, its intervals."""
    said = [
        *_state(record),
        *_seeds(record, main),
        *_iterations(record),
        *_heldout(record, main),
        *_scores(record, main),
        *_beside(record, sensitivity),
        *_constant(record, comparisons),
    ]
    return tuple(said)


def _state(record: Record) -> list[str]:
    said = []
    if record.status != "done":
        said.append("The study is not finished: these are the figures so far.")
    for run in record.runs:
        if not run.finished:
            which = f"{record.title(run.arm)} ({run.restart}), seed {run.seed}"
            said.append(f"{which} has not reached the end of its last stage and is left out.")
    return said


def _seeds(record: Record, main: Sequence[ArmResult]) -> list[str]:
    there = {one.arm.name: one.arm.seeds for one in main}
    said = [
        f"{arm.title} has no finished run yet, so nothing is compared with it."
        for arm in record.arms
        if arm.name not in there
    ]
    if len(set(there.values())) > 1:
        lists = "; ".join(f"{one.arm.title} {', '.join(map(str, one.arm.seeds))}" for one in main)
        said.append(
            f"The arms have different pre-training seeds ({lists}): means of arms are over different seeds and not to "
            "be subtracted; every comparison takes the seeds both sides have."
        )
    alone = [one.arm.title for one in main if len(one.arm.seeds) == 1]
    if alone:
        said.append(f"One pre-training seed of {listing(alone)}: no interval can be given, and no difference be told.")
    return said


def _iterations(record: Record) -> list[str]:
    """Arms of a seed agree, or the record would have been refused; they may still all differ from the plan."""
    said = []
    runs = {run.seed: run for run in record.runs if run.finished and run.restart in (MAIN_RULE, SENSITIVITY_RULE)}
    for seed, run in sorted(runs.items()):
        for task, planned in record.steps.items():
            counted = run.iterations.get(task, 0)
            if counted != planned:
                said.append(
                    f"Seed {seed}: every arm trained {task} for {counted:,} iterations; {planned:,} were planned."
                )
    return said


def _heldout(record: Record, main: Sequence[ArmResult]) -> list[str]:
    said = []
    for one in main:
        found = {figure.task: set(figure.final.seeds) & set(figure.best.seeds) for figure in one.tasks}
        for task in record.tasks:
            missing = [seed for seed in one.arm.seeds if seed not in found.get(task.name, set())]
            if missing:
                said.append(f"{one.arm.title} lacks a held-out accuracy of {task.title} at {_seed_list(missing)}.")
    if not record.scratch:
        said.append("No task was trained alone from scratch, so forward transfer is not measured.")
    return said


def _scores(record: Record, main: Sequence[ArmResult]) -> list[str]:
    sets = data_sets(record)
    if not sets:
        return ["No run was fine-tuned, so there are no scores."]
    said = []
    for name in sets:
        known = (run.scores[name] for run in record.runs if run.finished and name in run.scores)
        facts = next((one for one in known if one.known), None)
        if facts is not None and facts.standing != "official":
            said.append(
                f"{name} is not the whole official set ({facts.standing}): {facts.train:,} examples to train on, "
                f"{facts.dev:,} to measure on."
            )
    for one in main:
        by_name = {score.dataset: score for score in one.scores}
        lacking: dict[str, list[str]] = {}
        diverged, collapsed = [], []
        for name in sets:
            score = by_name.get(name)
            values = {} if score is None or score.estimate is None else score.estimate.values
            if score is not None and score.diverged:
                diverged.append(f"{score.diverged} of {score.runs} on {name}")
            elif missing := [seed for seed in one.arm.seeds if seed not in values]:
                lacking.setdefault(_seed_list(missing), []).append(name)
            if score is not None and (count := _collapsed(record, one, name)):
                collapsed.append(f"{count} of {score.runs} on {name}")
        said += [f"{one.arm.title} has no {listing(names)} score at {seeds}." for seeds, names in lacking.items()]
        if diverged:
            said.append(
                f"{one.arm.title}: of the fine-tuning runs {listing(diverged)} diverged, so no mean is given there; "
                "one over the other runs would flatter the arm."
            )
        if collapsed:
            said.append(
                f"{one.arm.title}: of the fine-tuning runs {listing(collapsed)} gave every example the same answer and "
                "are in the means."
            )
    counts = {len(scores.known) for run in record.runs if run.finished for scores in run.scores.values()}
    if len(counts - {0}) > 1:
        said.append(
            "Pre-training seeds have different numbers of fine-tuning runs; each seed counts once all the same."
        )
    return said


def _collapsed(record: Record, arm: ArmResult, dataset: str) -> int:
    """Fine-tuning runs with a score that is not that of a trained model."""
    found = (run.scores.get(dataset) for run in record.finished(arm.arm.name, arm.arm.restart))
    return sum(seed in scores.known for scores in found if scores is not None for seed in scores.diverged)


def _beside(record: Record, sensitivity: Sequence[ArmResult]) -> list[str]:
    said = []
    if not sensitivity:
        said.append("Nothing was run without restarts of the schedule, so dependence on them is not measured.")
    other = sorted({run.restart for run in record.runs} - {MAIN_RULE, SENSITIVITY_RULE})
    said += [f"Runs with restart {rule} are in the record and in no table." for rule in other]
    return said


def _constant(record: Record, comparisons: Sequence[Comparison]) -> list[str]:
    return [
        f"{record.title(one.first)} less {record.title(one.second)}, {one.what}: every seed gives the same difference, "
        "so its spread is not known and nothing is told from it."
        for one in comparisons
        if one.difference.note and len(one.difference.values) > 1 and abs(one.difference.mean) > 1e-12
    ]


def _seed_list(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {listing([str(seed) for seed in seeds])}"
