"""The record of a study as typed values, with checks that its methods are comparable.

Keys that the analysis does not use are ignored. Values that are not finite become None.
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
"""The `format` of the records that this module reads."""
MAIN_RULE = "per_stage"
"""The schedule's restart in the main comparison."""
SENSITIVITY_RULE = "never"
"""The schedule's restart in the additional runs without restarts."""

FiniteOrNone = Annotated[float | None, AfterValidator(lambda value: value if math.isfinite(value or 0) else None)]
"""A finite number, or None."""


def _sorted_by(*names: str) -> AfterValidator:
    """Sort, so that results do not depend on the order in the record."""
    return AfterValidator(lambda values: tuple(sorted(values, key=attrgetter(*names))))


@dataclass(frozen=True)
class Named:
    """A pre-training task or a method; `title` is its name in reports."""

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
        """Whether this is the evaluation at the end of its stage."""
        return self.at == "stage_end"


Evaluations = Annotated[tuple[Evaluation, ...], _sorted_by("step", "stage", "at_end")]


@dataclass(frozen=True)
class StageInfo:
    """A trained stage: the tasks it introduced."""

    introduced: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """The scores of one run on one dataset, in percent by fine-tuning seed; None for a run that diverged.

    `provenance` is that of the data ("official", "subset", …); `train` and `dev` are numbers of examples.
    `diverged`: the reason by fine-tuning seed. A run that gives the same answer for every example is listed there, but
    has a score.
    """

    metric: str
    split: str
    provenance: str
    train: int
    dev: int
    values: Mapping[int, FiniteOrNone]
    diverged: Mapping[int, str] = Field(default_factory=dict)

    @property
    def known(self) -> dict[int, float]:
        """The finite scores by fine-tuning seed, ascending."""
        return {seed: value for seed, value in sorted(self.values.items()) if value is not None}


@dataclass(frozen=True)
class Run:
    """One pre-training run; `iterations` were counted while it trained."""

    method: str
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
        """Whether it was evaluated at the end of its last stage."""
        last = self.heldout[-1] if self.heldout else None
        return last is not None and last.at_end and last.stage == len(self.stages) - 1

    def __str__(self) -> str:
        return f"method {self.method!r} ({self.restart})"


@dataclass(frozen=True)
class Scratch:
    """A single task trained from the initial parameters of its seed, for the first part of its iterations."""

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
    """One study: its methods and tasks in order, and its finished runs sorted by method, rule and seed.

    `machine`, `data`, `encoder` and `batch_tokens` are those of the first run, and empty before it is finished.
    """

    status: str
    tasks: tuple[Named, ...]
    methods: tuple[Named, ...]
    runs: Annotated[tuple[Run, ...], _sorted_by("method", "restart", "seed")]
    steps: Mapping[str, int]
    forward_transfer_at: float
    settings: Mapping[str, Any]
    scratch: Annotated[tuple[Scratch, ...], _sorted_by("task", "restart", "seed")] = ()
    preset: str = "own settings"
    finished: str | None = None
    machine: Mapping[str, Any] = Field(default_factory=dict)
    data: Mapping[str, Any] = Field(default_factory=dict)
    encoder: Mapping[str, Any] = Field(default_factory=dict)
    batch_tokens: int | None = None

    def finished_runs(self, method: str, restart: str) -> tuple[Run, ...]:
        """Return the finished runs of a method under a rule, by ascending seed."""
        return tuple(run for run in self.runs if (run.method, run.restart) == (method, restart) and run.finished)

    def title(self, method: str) -> str:
        """Return the title of a method."""
        return next((one.title for one in self.methods if one.name == method), method)


_RECORD = TypeAdapter(Record)


def check_format(record: Mapping[str, Any]) -> None:
    """Raise `DataError` unless `record` is a study of Table 7 in the format of this version."""
    if record.get("kind") != "study" or record.get("study") != "table7":
        raise DataError("not a Table 7 study record; give a study.json written by `ernie2 study table7`.")
    if record.get("format") != FORMAT:
        raise DataError(
            f"this study's record has format {record.get('format')!r}; this version reads format {FORMAT}. "
            "Read it with the version that wrote it, or run the study again."
        )


def parse_record(record: Mapping[str, Any]) -> Record:
    """Return the record as typed values; raises `DataError` for another format, damage, or runs not comparable."""
    check_format(record)
    try:
        study = _RECORD.validate_python(dict(record))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"the study's record is damaged at {place!r}: {first['msg']} ({error.error_count()} errors). "
            "Run `ernie2 study table7` again to rewrite it."
        ) from error
    _check_names(study)
    finished = [run for run in study.runs if run.finished]
    starts: list[Run | Scratch] = [*study.runs, *study.scratch]
    _check_equal(((run.seed, run.initial, run) for run in starts), _DIFFERENT_START)
    _check_equal(((run.initial, run.seed, run) for run in starts), _COPIED_SEED)
    tasks = [task.name for task in study.tasks]
    counts = (((run.seed, task), run.iterations.get(task, 0), run) for run in finished for task in tasks)
    _check_equal(counts, _DIFFERENT_ITERATIONS)
    facts = (
        ((dataset, words), getattr(scores, name), run)
        for run in study.runs
        for dataset, scores in sorted(run.scores.items())
        if scores.known  # without a finite score there is no metric
        for name, words in _FACTS.items()
    )
    _check_equal(facts, _DIFFERENT_DATA)
    return study


_DIFFERENT_START = (
    "seed {key}: {run} has other initial parameters than {other} ({value:.12} and {expected:.12}), so the runs are not "
    "comparable. Run one of them again."
)
_COPIED_SEED = (
    "seed {value}: {run} has the initial parameters of seed {expected} ({key:.12}), so one is a copy of the other. "
    "Remove the copy and run its seed again."
)
_DIFFERENT_ITERATIONS = (
    "seed {key[0]}: {run} trained {key[1]!r} for {value:,} iterations and {other} for {expected:,}; methods are "
    "compared at equal iterations only. A stage ended early: run the study without recipe.stages.patience."
)
_DIFFERENT_DATA = (
    "{key[0]}: the {key[1]} is {value} for method {run.method!r}, seed {run.seed}, and {expected} for method "
    "{other.method!r}, seed {other.seed}; scores on different data are not compared. Fine-tune one of them again."
)
_FACTS = {
    "metric": "metric",
    "split": "split",
    "provenance": "provenance",
    "train": "number of training examples",
    "dev": "number of dev examples",
}


def _check_equal(facts: Iterable[tuple[Hashable, Any, Run | Scratch]], message: str) -> None:
    """Raise `DataError` if (key, value, run) has another value than the first with the same key."""
    first: dict[Hashable, tuple[Any, Run | Scratch]] = {}
    for key, value, run in facts:
        expected, other = first.setdefault(key, (value, run))
        if value != expected:
            raise DataError(message.format(key=key, value=value, run=run, expected=expected, other=other))


def _check_names(study: Record) -> None:
    methods, tasks = {method.name for method in study.methods}, {task.name for task in study.tasks}
    places = [("runs", run.method, methods) for run in study.runs]
    places += [("scratch", one.task, tasks) for one in study.scratch]
    places += [("stages", task, tasks) for run in study.runs for stage in run.stages for task in stage.introduced]
    for where, name, known in places:
        if name not in known:
            raise DataError(f"the study's record has an unknown name {name!r} in its {where}. Known: {sorted(known)}.")
    for (method, restart, seed), runs in Counter((run.method, run.restart, run.seed) for run in study.runs).items():
        if runs > 1:
            raise DataError(f"the study's record has two runs of method {method!r}, {restart}, seed {seed}.")
