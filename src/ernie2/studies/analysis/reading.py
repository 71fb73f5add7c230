"""A study's record as typed values, and what must hold before its arms may be compared.

Only what the analysis uses is read; other keys are ignored. What is not finite is None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ernie2.errors import DataError
from ernie2.learned import BASELINES, Verdict, verdict

FORMAT = 1
"""The `format` of a study's record that this module reads."""
MAIN_RULE = "per_stage"
"""The schedule's restart in the main comparison."""
SENSITIVITY_RULE = "never"
"""The schedule's restart in the runs beside it."""


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


Known = Annotated[float | None, AfterValidator(_finite)]
"""A number, or None where it is not known or not finite."""


@dataclass(frozen=True)
class Titled:
    """A pre-training task or an arm; `title` is for readers."""

    name: str
    title: str


@dataclass(frozen=True)
class Result:
    """One task's held-out result: fractions of 1, and nats; `majority`, `constant` and `cheap` are baselines."""

    accuracy: Known
    loss: Known = None
    low: Known = None
    instances: int | None = None
    majority: Known = None
    constant: Known = None
    cheap: Known = None

    @property
    def verdict(self) -> Verdict:
        """Whether the task is learned, and the strongest baseline."""
        return verdict(self.instances, self.low, {key: getattr(self, key) for key in BASELINES})


@dataclass(frozen=True)
class Evaluation:
    """All tasks' held-out results after `step` steps; `iterations` are each task's own so far."""

    step: int
    stage: int
    at: str
    iterations: Mapping[str, int]
    tasks: Mapping[str, Result]


@dataclass(frozen=True)
class StageInfo:
    """A stage that was run: the tasks that entered in it."""

    introduced: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """One data set's scores of one run, in percent by fine-tuning seed; None for a run that was given up.

    `diverged`: why, by fine-tuning seed, the figures are not those of a trained model; a run that gave every example
    the same answer is named there and has a score all the same.
    """

    metric: str
    split: str
    standing: str
    train: int
    dev: int
    values: Mapping[int, Known]
    diverged: Mapping[int, str] = Field(default_factory=dict)

    @property
    def known(self) -> dict[int, float]:
        """The finite scores, by rising fine-tuning seed."""
        return {seed: value for seed, value in sorted(self.values.items()) if value is not None}


@dataclass(frozen=True)
class Run:
    """One pre-training run; `iterations` were counted while it trained."""

    arm: str
    restart: str
    seed: int
    initial: str
    iterations: Mapping[str, int]
    steps: int
    passes: int
    tokens: int
    seconds: float
    stages: tuple[StageInfo, ...]
    heldout: tuple[Evaluation, ...]
    scores: Mapping[str, Scores] = Field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """It was evaluated at the end of its last stage."""
        last = self.heldout[-1] if self.heldout else None
        return last is not None and last.at == "stage_end" and last.stage == len(self.stages) - 1


@dataclass(frozen=True)
class Scratch:
    """A task trained alone from the initial parameters of its seed, for the first part of its iterations."""

    task: str
    seed: int
    iterations: int
    initial: str
    heldout: tuple[Evaluation, ...]
    restart: str = MAIN_RULE


@dataclass(frozen=True)
class Record:
    """One study: its arms and tasks in order, and the runs so far in the order of arm, rule and seed."""

    format: Literal[1]
    kind: Literal["study"]
    study: Literal["table7"]
    status: str
    tasks: tuple[Titled, ...]
    arms: tuple[Titled, ...]
    runs: tuple[Run, ...]
    steps: Mapping[str, int]
    transfer_at: float
    scratch: tuple[Scratch, ...] = ()

    def finished(self, arm: str, restart: str) -> tuple[Run, ...]:
        """The runs of an arm under a rule that reached their end, by rising seed."""
        return tuple(run for run in self.runs if (run.arm, run.restart) == (arm, restart) and run.finished)

    def title(self, arm: str) -> str:
        """The arm's title, for readers."""
        return next((one.title for one in self.arms if one.name == arm), arm)


_RECORD = TypeAdapter(Record)


def check_format(record: Mapping[str, Any]) -> None:
    """Raises DataError where `record` is not a study of Table 7 in the form of this version."""
    if record.get("kind") != "study" or record.get("study") != "table7":
        raise DataError("this is not a Table 7 study record; give the folder in which `ernie2 study table7` ran.")
    if record.get("format") != FORMAT:
        raise DataError(
            f"this study's record has format {record.get('format')!r}; this version reads {FORMAT}: "
            "read it with the version that wrote it, or run the study again."
        )


def read(record: Mapping[str, Any]) -> Record:
    """Raises DataError where `record` is not a study of this format, names what it lacks, or compares unlikes."""
    check_format(record)
    try:
        made = _RECORD.validate_python(dict(record))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"the study's record is damaged at {place!r}: {first['msg']} ({error.error_count()} such); "
            "let `ernie2 study table7` write it again."
        ) from error
    made = _ordered(made)
    _check_names(made)
    _check_same_start(made)
    _check_same_iterations(made)
    _check_same_data(made)
    return made


def _ordered(record: Record) -> Record:
    """Runs by arm, rule and seed, evaluations by step: what is computed must not hang on the order of writing."""

    def timely(evaluations: Iterable[Evaluation]) -> tuple[Evaluation, ...]:
        return tuple(sorted(evaluations, key=lambda one: (one.step, one.stage, one.at == "stage_end")))

    runs = [replace(run, heldout=timely(run.heldout)) for run in record.runs]
    scratch = [replace(one, heldout=timely(one.heldout)) for one in record.scratch]
    return replace(
        record,
        runs=tuple(sorted(runs, key=lambda run: (run.arm, run.restart, run.seed))),
        scratch=tuple(sorted(scratch, key=lambda one: (one.task, one.restart, one.seed))),
    )


def _check_names(record: Record) -> None:
    arms, tasks = {arm.name for arm in record.arms}, {task.name for task in record.tasks}
    places = [("runs", run.arm, arms) for run in record.runs]
    places += [("scratch", one.task, tasks) for one in record.scratch]
    places += [("stages", task, tasks) for run in record.runs for stage in run.stages for task in stage.introduced]
    for where, name, known in places:
        if name not in known:
            raise DataError(f"the study's record names {name!r} in its {where}, which is none of {sorted(known)}.")
    for (arm, restart, seed), runs in Counter((run.arm, run.restart, run.seed) for run in record.runs).items():
        if runs > 1:
            raise DataError(f"the study's record has two runs of arm {arm!r}, {restart}, seed {seed}.")


def _check_same_start(record: Record) -> None:
    """Every run of a seed, those from scratch included, began with the same parameters, and no two seeds did."""
    first: dict[int, tuple[str, str]] = {}
    starts = [(run.seed, f"arm {run.arm!r} ({run.restart})", run.initial) for run in record.runs]
    starts += [(one.seed, f"{one.task!r} from scratch", one.initial) for one in record.scratch]
    for seed, who, initial in starts:
        other, expected = first.setdefault(seed, (who, initial))
        if initial != expected:
            raise DataError(
                f"seed {seed}: {who} began with other parameters than {other} ({initial[:12]} and {expected[:12]}), "
                "so their difference would be of the start as well; run one of them again."
            )
    seeds: dict[str, int] = {}
    for seed, (who, initial) in first.items():
        if (other_seed := seeds.setdefault(initial, seed)) != seed:
            raise DataError(
                f"seed {seed}: {who} began with the parameters of seed {other_seed} ({initial[:12]}): one is a copy of "
                "the other, and counts once. Remove the copy and run its seed again."
            )


def _check_same_iterations(record: Record) -> None:
    """Every finished run of a seed trained every task for the same iterations, as counted while it trained."""
    first: dict[int, Run] = {}
    for run in filter(lambda run: run.finished, record.runs):
        other = first.setdefault(run.seed, run)
        for task in (task.name for task in record.tasks):
            ours, theirs = run.iterations.get(task, 0), other.iterations.get(task, 0)
            if ours != theirs:
                raise DataError(
                    f"seed {run.seed}: arm {run.arm!r} ({run.restart}) trained {task!r} for {ours:,} iterations and "
                    f"arm {other.arm!r} ({other.restart}) for {theirs:,}; arms are compared at equal iterations only. "
                    "A stage that ended early forfeits the rest: run the study without ending stages early."
                )


def _check_same_data(record: Record) -> None:
    """Every run was scored on the same split of the same data by the same metric; where all diverged none is named."""
    facts = {
        "metric": "metric",
        "split": "split",
        "standing": "standing",
        "train": "number of training examples",
        "dev": "number of dev examples",
    }
    first: dict[str, tuple[Run, Scores]] = {}
    for run in record.runs:
        for dataset, scores in sorted(run.scores.items()):
            if not scores.known:
                continue
            other, expected = first.setdefault(dataset, (run, scores))
            for name, what in facts.items():
                if (ours := getattr(scores, name)) != (theirs := getattr(expected, name)):
                    raise DataError(
                        f"{dataset}: the {what} is {ours} for arm {run.arm!r}, seed {run.seed}, and {theirs} for arm "
                        f"{other.arm!r}, seed {other.seed}; scores of different data are not compared: fine-tune one "
                        "of them again."
                    )
