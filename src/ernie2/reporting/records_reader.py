"""Read the records of a run, `RUN/run.json` and `RUN/metrics.jsonl`, as typed values.

Unknown keys are ignored, and optional ones may be missing. An incomplete last line, left by a kill, is ignored. If a
run repeats steps, the later of two lines on the same step counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator

from ernie2.config.problems import explain
from ernie2.errors import DataError
from ernie2.learned import BASELINES, Verdict, verdict
from ernie2.training import records as run_files
from ernie2.training.run_record import RunRecord, read_run

Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict()]


class RecordLine(BaseModel):
    """A JSON object of a record; null means the default of a key."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return (
            {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values
        )


Kind = TypeVar("Kind", bound=RecordLine)


class StageEvent(RecordLine):
    """The begin or end of a stage at global step `step`; at the end with `iterations` and `dropped_iterations` per
    task."""

    event: str
    stage: Integer
    step: Integer
    peak_lr_reached: Number | None = None
    iterations: dict[str, Integer] = {}
    dropped_iterations: dict[str, Integer] = {}


class Step(RecordLine):
    """Means over the steps since the previous line; only tasks trained in them are included.

    `skipped`: the number of steps with a non-finite loss or gradient; they are skipped and not in the means.
    """

    step: Integer
    stage: Integer = 0
    lr: Number | None = None
    grad_norm: Number | None = None
    seconds: Number | None = None
    tokens: Integer | None = None
    tokens_per_second: Number | None = None
    loss: dict[str, Number | None] = {}
    count: dict[str, Integer] = {}
    skipped: Integer = 0


class Baseline(RecordLine):
    """Result of a baseline on the same held-out instances; `feature` is the feature of the feature baseline."""

    accuracy: Number | None = None
    loss: Number | None = None
    macro_f1: Number | None = None
    feature: str = ""


class Result(RecordLine):
    """One task's held-out evaluation; `low` and `high` bound the 95 % interval of `accuracy`.

    The baselines are evaluated on the same instances.
    """

    instances: Integer | None = None
    scored: Integer | None = None
    loss: Number | None = None
    accuracy: Number | None = None
    low: Number | None = None
    high: Number | None = None
    macro_f1: Number | None = None
    majority_baseline: Baseline = Baseline()
    constant_baseline: Baseline = Baseline()
    feature_baseline: Baseline = Baseline()

    @property
    def verdict(self) -> Verdict:
        """Whether the task is learned, and the strongest baseline."""
        accuracies = {key: getattr(self, key) for key in BASELINES}
        return verdict(self.instances, self.low, {key: baseline.accuracy for key, baseline in accuracies.items()})


class HeldOut(RecordLine):
    """A held-out evaluation of all tasks of the run, including those not introduced yet."""

    step: Integer
    stage: Integer = 0
    at: str = "during"
    tasks: dict[str, Result] = {}


class Score(RecordLine):
    """Scores on a downstream task with the pre-trained and with the untrained encoder, one value per seed."""

    name: str
    metric: str = "accuracy"
    train: Integer | None = None
    test: Integer | None = None
    classes: tuple[Any, ...] = ()
    majority: Number | None = None
    seeds: tuple[Integer, ...] = ()
    pretrained: tuple[Number, ...] = ()
    untrained: tuple[Number, ...] = ()
    margin: Number | None = None
    margin_low: Number | None = None
    margin_high: Number | None = None
    margin_note: str = ""


@dataclass(frozen=True)
class Records:
    """The records of a run; `steps` and `heldout` are sorted by step."""

    run: RunRecord
    events: tuple[StageEvent, ...] = ()
    steps: tuple[Step, ...] = ()
    heldout: tuple[HeldOut, ...] = ()
    scores: tuple[Score, ...] = ()


def read_records(run: Path, record: RunRecord | None = None) -> Records:
    """Read the records of a run folder; metrics.jsonl may be missing or empty if the run has just begun.

    `record` replaces the content of run.json. Raises `CheckpointError` if `run` is not a run folder or a record file is
    damaged, `DataError` if a line of metrics.jsonl lacks figures.
    """
    files = run_files.Records(run)
    record = record or read_run(run)
    latest: dict[str, dict[tuple[Any, ...], Any]] = {kind: {} for kind in _KINDS}
    for number, line in enumerate(files.read(), start=1):
        if (name := str(line.get("kind"))) in _KINDS:
            kind, keys = _KINDS[name]
            value = _decode(kind, line, where := f"{files.metrics}, line {number}")
            results = value.tasks.values() if isinstance(value, HeldOut) else ()
            if any(
                one.feature_baseline.accuracy is not None and one.constant_baseline.accuracy is None for one in results
            ):
                raise DataError(
                    f"{where}: the figures lack the constant baseline, so an earlier version of ernie2 wrote this run. "
                    "Write its report with that version, or train it again."
                )
            latest[name][tuple(getattr(value, key) for key in keys)] = value
    return Records(
        run=record,
        events=tuple(latest["stage"].values()),
        steps=tuple(step for _, step in sorted(latest["step"].items())),
        heldout=tuple(sorted(latest["heldout"].values(), key=lambda evaluation: (evaluation.step, evaluation.stage))),
        scores=tuple(latest["score"].values()),
    )


_KINDS: dict[str, tuple[type[RecordLine], tuple[str, ...]]] = {
    "stage": (StageEvent, ("event", "stage")),
    "step": (Step, ("step",)),
    "heldout": (HeldOut, ("step", "stage", "at")),
    "score": (Score, ("name",)),
}
"""`kind` of a line of metrics.jsonl → its class, and the keys that identify a line."""


def _decode(kind: type[Kind], value: Any, where: str) -> Kind:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = explain(error, kind, value)[0].rstrip(".")
        raise DataError(f"{where}: {first}. ernie2 did not write this file.") from error
