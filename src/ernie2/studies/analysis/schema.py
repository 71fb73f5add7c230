"""A study's record as typed values, and what must hold before its arms may be compared.

Only what the analysis uses is read; other keys are ignored. What is not finite is None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from operator import attrgetter
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ernie2.errors import DataError
from ernie2.learned import BASELINES, Verdict, verdict

FORMAT = 2
"""The `format` of a study's record that this module reads."""
MAIN_RULE = "per_stage"
"""The schedule's restart in the main comparison."""
SENSITIVITY_RULE = "never"
"""The schedule's restart in the runs beside it."""

FiniteOrNone = Annotated[float | None, AfterValidator(lambda value: value if math.isfinite(value or 0) else None)]
"""A number, or None where it is not known or not finite."""


def _sorted_by(*names: str) -> AfterValidator:
    """What is computed must not hang on the order of writing."""
    return AfterValidator(lambda values: tuple(sorted(values, key=attrgetter(*names))))


@dataclass(frozen=True)
class Named:
    """A pre-training task or an arm; `title` is for readers."""

    name: str
    title: str


@dataclass(frozen=True)
class Result:
    """One task's held-out result: fractions of 1, and nats; `*_baseline` are accuracies."""

    accuracy: FiniteOrNone
    loss: FiniteOrNone = None
    low: FiniteOrNone = None
    instances: int | None = None
    majority_baseline: FiniteOrNone = None
    constant_baseline: FiniteOrNone = None
    feature_baseline: FiniteOrNone = None

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

    @property
    def at_end(self) -> bool:
        """Whether it was made at the end of its stage."""
        return self.at == "stage_end"


Evaluations = Annotated[tuple[Evaluation, ...], _sorted_by("step", "stage", "at_end")]


@dataclass(frozen=True)
class StageInfo:
    """A stage that was run: the tasks that entered in it."""

    introduced: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """One data set's scores of one run, in percent by fine-tuning seed; None for a run that was given up.

    `standing` says what the data are ("official", "subset", …); `train` and `dev` count examples. `diverged`: why, by
    fine-tuning seed, the figures are not those of a trained model; a run that gave every example the same answer is
    named there and has a score all the same.
    """

    metric: str
    split: str
    standing: str
    train: int
    dev: int
    values: Mapping[int, FiniteOrNone]
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
    heldout: Evaluations
    scores: Mapping[str, Scores] = Field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """It was evaluated at the end of its last stage."""
        last = self.heldout[-1] if self.heldout else None
        return last is not None and last.at_end and last.stage == len(self.stages) - 1

    def __str__(self) -> str:
        return f"arm {self.arm!r} ({self.restart})"


@dataclass(frozen=True)
class Scratch:
    """A task trained alone from the initial parameters of its seed, for the first part of its iterations."""

    task: str
    seed: int
    iterations: int
    initial: str
    heldout: Evaluations
    restart: str = MAIN_RULE

    def __str__(self) -> str:
        return f"{self.task!r} from scratch"


@dataclass(frozen=True)
class Record:
    """One study: its arms and tasks in order, and the runs so far in the order of arm, rule and seed.

    `machine`, `data`, `encoder` and `batch_tokens` are of its first run, and empty before that is finished.
    """

    status: str
    tasks: tuple[Named, ...]
    arms: tuple[Named, ...]
    runs: Annotated[tuple[Run, ...], _sorted_by("arm", "restart", "seed")]
    steps: Mapping[str, int]
    transfer_at: float
    settings: Mapping[str, Any]
    scratch: Annotated[tuple[Scratch, ...], _sorted_by("task", "restart", "seed")] = ()
    preset: str = "own settings"
    finished: str | None = None
    machine: Mapping[str, Any] = Field(default_factory=dict)
    data: Mapping[str, Any] = Field(default_factory=dict)
    encoder: Mapping[str, Any] = Field(default_factory=dict)
    batch_tokens: int | None = None

    def finished_runs(self, arm: str, restart: str) -> tuple[Run, ...]:
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


def parse_record(record: Mapping[str, Any]) -> Record:
    """Raises DataError where `record` is not a study of this format, names what it lacks, or compares unlikes."""
    check_format(record)
    try:
        study = _RECORD.validate_python(dict(record))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"the study's record is damaged at {place!r}: {first['msg']} ({error.error_count()} such); "
            "let `ernie2 study table7` write it again."
        ) from error
    _check_names(study)
    finished = [run for run in study.runs if run.finished]
    starts: list[Run | Scratch] = [*study.runs, *study.scratch]
    _check_alike(((run.seed, run.initial, run) for run in starts), _DIFFERENT_START)
    _check_alike(((run.initial, run.seed, run) for run in starts), _COPIED_SEED)
    tasks = [task.name for task in study.tasks]
    counts = (((run.seed, task), run.iterations.get(task, 0), run) for run in finished for task in tasks)
    _check_alike(counts, _DIFFERENT_ITERATIONS)
    facts = (
        ((dataset, words), getattr(scores, name), run)
        for run in study.runs
        for dataset, scores in sorted(run.scores.items())
        if scores.known  # where all diverged no metric is named
        for name, words in _FACTS.items()
    )
    _check_alike(facts, _DIFFERENT_DATA)
    return study


_DIFFERENT_START = (
    "seed {key}: {run} began with other parameters than {other} ({value:.12} and {expected:.12}), so their difference "
    "would be of the start as well; run one of them again."
)
_COPIED_SEED = (
    "seed {value}: {run} began with the parameters of seed {expected} ({key:.12}): one is a copy of the other, and "
    "counts once. Remove the copy and run its seed again."
)
_DIFFERENT_ITERATIONS = (
    "seed {key[0]}: {run} trained {key[1]!r} for {value:,} iterations and {other} for {expected:,}; arms are compared "
    "at equal iterations only. A stage that ended early forfeits the rest: run the study without ending stages early."
)
_DIFFERENT_DATA = (
    "{key[0]}: the {key[1]} is {value} for arm {run.arm!r}, seed {run.seed}, and {expected} for arm {other.arm!r}, "
    "seed {other.seed}; scores of different data are not compared: fine-tune one of them again."
)
_FACTS = {
    "metric": "metric",
    "split": "split",
    "standing": "standing",
    "train": "number of training examples",
    "dev": "number of dev examples",
}


def _check_alike(facts: Iterable[tuple[Hashable, Any, Run | Scratch]], refusal: str) -> None:
    """Raise `DataError` where a fact, (key, value, run), has another value than the first of its key."""
    first: dict[Hashable, tuple[Any, Run | Scratch]] = {}
    for key, value, run in facts:
        expected, other = first.setdefault(key, (value, run))
        if value != expected:
            raise DataError(refusal.format(key=key, value=value, run=run, expected=expected, other=other))


def _check_names(study: Record) -> None:
    arms, tasks = {arm.name for arm in study.arms}, {task.name for task in study.tasks}
    places = [("runs", run.arm, arms) for run in study.runs]
    places += [("scratch", one.task, tasks) for one in study.scratch]
    places += [("stages", task, tasks) for run in study.runs for stage in run.stages for task in stage.introduced]
    for where, name, known in places:
        if name not in known:
            raise DataError(f"the study's record names {name!r} in its {where}, which is none of {sorted(known)}.")
    for (arm, restart, seed), runs in Counter((run.arm, run.restart, run.seed) for run in study.runs).items():
        if runs > 1:
            raise DataError(f"the study's record has two runs of arm {arm!r}, {restart}, seed {seed}.")
