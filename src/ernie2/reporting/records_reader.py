"""What a run wrote down, read back as typed values: `RUN/run.json` and `RUN/metrics.jsonl`.

Unknown keys are ignored and optional ones may be missing, so a report can be made of a run that an older or newer
version wrote. A run killed while writing leaves its last line cut short; that line is ignored. Where a run repeats
steps, of two lines about the same one the later counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator

from ernie2.config.problems import explain
from ernie2.errors import CheckpointError, DamagedFile, DataError
from ernie2.learned import Verdict, verdict
from ernie2.storage.json_files import read_checked_json, read_json
from ernie2.storage.line_files import check_extent, parse_lines

FORMAT = 2
"""The `format` of run.json this module reads."""

Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]


class Values(BaseModel):
    """What a JSON object of a record says; null stands for a key's default."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return (
            {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values
        )


Kind = TypeVar("Kind", bound=Values)


class Corpus(Values):
    """One corpus as it was prepared: counts of documents and tokens, and of what was dropped, by reason."""

    language: str = ""
    licence: str = ""
    documents: Whole = 0
    heldout_documents: Whole = 0
    tokens: Whole = 0
    dropped: dict[str, Whole] = {}


class Usable(Values):
    """How many of a corpus's documents a task could use, the share of tokens it scores there, and what to warn of."""

    usable: Whole
    of: Whole
    scored: Number | None = None
    notes: tuple[str, ...] = ()


class Data(Values):
    """The shards of a run, of one folder or several; `usable` is task → corpus → counts."""

    shards: tuple[str, ...] = ()
    fingerprint: str = ""
    vocab_size: Whole | None = None
    corpora: dict[str, Corpus] = {}
    usable: dict[str, dict[str, Usable]] = {}


class Task(Values):
    """A pre-training task; `labels` is None where the classes are the vocabulary."""

    name: str
    id: Whole | None = None
    level: str = ""
    labels: tuple[Any, ...] | None = None
    title: str = ""
    about: str = ""

    @property
    def shown(self) -> str:
        """The title, or the name made readable where a run gives no title."""
        return self.title or self.name.replace("_", " ").capitalize()


class Stage(Values):
    """A planned stage: iterations of each task, optimiser steps, and the tasks that enter here."""

    name: str = ""
    iterations: dict[str, Whole] = {}
    steps: Whole = 0
    introduced: tuple[str, ...] = ()


class Extension(Values):
    """Where an extended run began: the finished run, its last step, how many stages it had, and the task that came.

    `replay` is what was asked for: iterations of each earlier task, or None for the default.
    """

    run: str
    step: Whole
    stages: Whole
    task: str
    data: str = ""
    replay: Whole | None = None


class Run(Values):
    """run.json."""

    name: str
    tasks: tuple[Task, ...]
    stages: tuple[Stage, ...]
    about: str = ""
    created: str = ""
    finished: str | None = None
    status: str = "running"
    seed: Whole | None = None
    recipe: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    versions: dict[str, str | None] = {}
    git: str | None = None
    device: str = ""
    precision: str = ""
    parameters: Whole | None = None
    data: Data = Data()
    batch_tokens: Whole | None = None
    initialised_from: str | None = None
    extended_from: Extension | None = None


class StageEvent(Values):
    """A stage began or ended at global step `step`; `iterations` and `forfeited` are per task, at its end."""

    event: str
    stage: Whole
    step: Whole
    peak_lr_reached: Number | None = None
    iterations: dict[str, Whole] = {}
    forfeited: dict[str, Whole] = {}


class Step(Values):
    """Means over the steps since the line before; a task that was not active is absent.

    `skipped`: how many of them were not finite, changed nothing and are in no mean.
    """

    step: Whole
    stage: Whole = 0
    lr: Number | None = None
    grad_norm: Number | None = None
    seconds: Number | None = None
    tokens: Whole | None = None
    tokens_per_second: Number | None = None
    loss: dict[str, Number | None] = {}
    count: dict[str, Whole] = {}
    skipped: Whole = 0


class Baseline(Values):
    """What a baseline reaches on the same held-out instances; `rule` names the feature of the feature baseline."""

    accuracy: Number | None = None
    loss: Number | None = None
    macro_f1: Number | None = None
    rule: str = ""


class Result(Values):
    """One task's held-out evaluation; `low` and `high` bound the 95 % interval of `accuracy`.

    Baselines: `majority` class of training, best `constant` answer on these instances, `cheap` the feature baseline.
    """

    instances: Whole | None = None
    scored: Whole | None = None
    loss: Number | None = None
    accuracy: Number | None = None
    low: Number | None = None
    high: Number | None = None
    macro_f1: Number | None = None
    majority: Baseline = Baseline()
    constant: Baseline = Baseline()
    cheap: Baseline = Baseline()

    @property
    def verdict(self) -> Verdict:
        """Whether the task is learned, and the strongest baseline."""
        accuracies = {"majority": self.majority, "constant": self.constant, "cheap": self.cheap}
        return verdict(self.instances, self.low, {key: baseline.accuracy for key, baseline in accuracies.items()})


class HeldOut(Values):
    """A held-out evaluation of all tasks of the run, also of those not introduced yet."""

    step: Whole
    stage: Whole = 0
    at: str = "during"
    tasks: dict[str, Result] = {}


class Score(Values):
    """A downstream task, learned by the pre-trained and by the untrained encoder, one value a seed."""

    name: str
    metric: str = "accuracy"
    train: Whole | None = None
    test: Whole | None = None
    classes: tuple[Any, ...] = ()
    majority: Number | None = None
    seeds: tuple[Whole, ...] = ()
    pretrained: tuple[Number, ...] = ()
    untrained: tuple[Number, ...] = ()
    margin: Number | None = None
    margin_low: Number | None = None
    margin_high: Number | None = None
    margin_note: str = ""


@dataclass(frozen=True)
class Records:
    """Everything a report is made of; `steps` and `heldout` are in order of their step."""

    run: Run
    events: tuple[StageEvent, ...] = ()
    steps: tuple[Step, ...] = ()
    heldout: tuple[HeldOut, ...] = ()
    scores: tuple[Score, ...] = ()


def read_records(run: Path, changed: Mapping[str, Any] | None = None) -> Records:
    """Read the records of a run folder; a missing or empty metrics.jsonl is a run that has only just begun.

    `changed`: values that replace those of run.json. Raises `CheckpointError` where `run` is not a run folder and
    `DataError` where a record file is damaged.
    """
    described = run / "run.json"
    if not described.is_file():
        what = "has no run.json" if run.is_dir() else "is not a folder" if run.exists() else "does not exist"
        raise CheckpointError(
            f"{run} is not a run: it {what}. Give the folder that `ernie2 pretrain` wrote (`run:` in its recipe)."
        )
    values = _described(described) | dict(changed or {})
    metrics = run / "metrics.jsonl"
    latest: dict[str, dict[tuple[Any, ...], Any]] = {kind: {} for kind in _KINDS}
    for number, line in enumerate(_lines(metrics, values.get("metrics") or {"bytes": 0}), start=1):
        if (name := str(line.get("kind"))) in _KINDS:
            kind, keys = _KINDS[name]
            value = _decode(kind, line, where := f"{metrics}, line {number}")
            if isinstance(value, HeldOut) and any(_lacks_constant(result) for result in value.tasks.values()):
                raise DataError(
                    f"{where}: the figures lack the best constant answer, so an earlier ernie2 wrote this run. "
                    "Make its report with the version that made it, or train it again."
                )
            latest[name][tuple(getattr(value, key) for key in keys)] = value
    return Records(
        run=_decode(Run, values, str(described)),
        events=tuple(latest["stage"].values()),
        steps=tuple(step for _, step in sorted(latest["step"].items())),
        heldout=tuple(sorted(latest["heldout"].values(), key=lambda evaluation: (evaluation.step, evaluation.stage))),
        scores=tuple(latest["score"].values()),
    )


_KINDS: dict[str, tuple[type[Values], tuple[str, ...]]] = {
    "stage": (StageEvent, ("event", "stage")),
    "step": (Step, ("step",)),
    "heldout": (HeldOut, ("step", "stage", "at")),
    "score": (Score, ("name",)),
}
"""`kind` of a line of metrics.jsonl → its values, and what tells two such lines apart."""


def _lacks_constant(result: Result) -> bool:
    return result.cheap.accuracy is not None and result.constant.accuracy is None


def _described(file: Path) -> dict[str, Any]:
    """run.json, as it was written."""
    try:
        try:
            values = read_checked_json(file)
        except DamagedFile:
            values = read_json(file, dict)  # earlier formats have no checksum
            if values.get("format", FORMAT) == FORMAT:
                raise
    except DamagedFile as error:
        raise DataError(f"{error} Put back a copy of the file.") from error
    if values.get("format", FORMAT) != FORMAT:
        raise DataError(
            f"{file}: format {values['format']!r} is not {FORMAT}, the one this version reads. "
            "Make the report with the version of ernie2 that made the run."
        )
    return values


def _lines(path: Path, extent: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl, which must be those that run.json notes once the run is done."""
    try:
        check_extent(path, extent)
        return parse_lines(path, path.read_bytes()) if path.exists() else []
    except DamagedFile as error:
        raise DataError(f"{error} Put back a copy of the file.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error


def _decode(kind: type[Kind], value: Any, where: str) -> Kind:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = explain(error, kind, value)[0].rstrip(".")
        raise DataError(f"{where}: {first}. The file was not written by ernie2.") from error
