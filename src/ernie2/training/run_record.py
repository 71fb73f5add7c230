"""`run.json`: recipe, data, machine and status of a run.

The file contains a checksum of itself and a fingerprint of its recipe. Keys that are missing, unknown or of the wrong
type are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ernie2.config.problems import explain
from ernie2.errors import CheckpointError, DamagedFile
from ernie2.storage.json_files import read_versioned_json, write_checked_json

NAME = "run.json"
FORMAT: Final = 3
"""The `format` of run.json."""
Status = Literal["running", "stopped", "done"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """Return it as in run.json, without keys that were never set."""
        return self.model_dump(mode="json", exclude_unset=True)


class CorpusRecord(_Part):
    """A prepared corpus; `dropped` counts documents by reason."""

    language: str = ""
    licence: str = ""
    documents: int = 0
    heldout_documents: int = 0
    tokens: int = 0
    dropped: dict[str, int] = {}


class UsableRecord(_Part):
    """`usable` documents of `of` examined ones; `why` none is usable; for token-level tasks `scored`, the share of
    scored tokens; `notes`: warnings."""

    usable: int
    of: int
    why: str | None = None
    scored: float | None = None
    notes: tuple[str, ...] = ()


class DataRecord(_Part):
    """The data of a run: folders and fingerprints of shards and tokeniser, corpora; `usable` by task, then corpus."""

    shards: tuple[str, ...]
    fingerprint: str
    tokenizer: str
    vocab_size: int
    corpora: dict[str, CorpusRecord]
    usable: dict[str, dict[str, UsableRecord]]


class TaskRecord(_Part):
    """A pre-training task; `id` is its row of the task embedding, `labels` is None if they are the vocabulary."""

    name: str
    id: int
    level: Literal["token", "sentence"]
    labels: tuple[str, ...] | None
    title: str
    about: str


class StageRecord(_Part):
    """A planned stage: iterations of each task, optimiser steps, and the tasks that enter here."""

    name: str
    iterations: dict[str, int]
    steps: int
    introduced: tuple[str, ...]


class ExtensionRecord(_Part):
    """Origin of an extended run: the finished run, its steps and stages, the new task and its data.

    `replay`: configured iterations of each earlier task, or None for the default.
    """

    run: str
    step: int
    stages: int
    task: str
    data: str
    replay: int | None


class RunRecord(_Part):
    """Content of run.json, immutable; `updated` returns a changed copy."""

    format: Literal[3]
    name: str
    about: str
    created: str
    finished: str | None
    status: Status
    seed: int
    recipe: dict[str, Any]
    recipe_fingerprint: str
    rules: dict[str, int] | None = None
    versions: dict[str, str]
    environment: dict[str, Any]
    job: str | None
    git: str | None
    device: str
    precision: str
    run_id: str | None = None
    parameters: int
    initial_parameters: str
    data: DataRecord
    tasks: tuple[TaskRecord, ...]
    stages: tuple[StageRecord, ...]
    batch_tokens: int
    initialised_from: str | None
    extended_from: ExtensionRecord | None
    metrics: dict[str, Any] | None = None
    """Extent of metrics.jsonl at the end of the run, as in `storage.line_files`."""

    def updated(self, **changes: Any) -> Self:
        """Return a copy with changed values."""
        return self.model_copy(update=changes)


def fingerprint(values: Any) -> str:
    """Return the SHA-256 of JSON values, independent of the order of keys."""
    return sha256(dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def is_run(folder: Path) -> bool:
    """Return whether a folder contains a run.json."""
    return (folder / NAME).exists()


def write_run(run: Path, record: RunRecord) -> None:
    write_checked_json(run / NAME, record.as_json())


def read_run(run: Path) -> RunRecord:
    """Read RUN/run.json.

    Raises `CheckpointError` if `run` is not a run folder, run.json is damaged, or another version wrote it.
    """
    file = run / NAME

    def other_format(number: object) -> CheckpointError:
        older = " (ernie2 0.1 wrote it)" if number == 1 else ""
        return CheckpointError(
            f"{run} is a run of format {number!r}{older}; this version reads {FORMAT}. Start a new run in another "
            f"folder; `--init-from {run / 'hf'}` starts from the parameters of a finished one."
        )

    try:
        values = read_versioned_json(file, FORMAT, other_format)
    except (FileNotFoundError, NotADirectoryError):
        state = "is not a run folder (no run.json)" if run.exists() else "does not exist"
        raise CheckpointError(f"{run} {state}. Create one with `ernie2 pretrain RECIPE`.") from None
    except DamagedFile as error:
        raise CheckpointError(f"{error} {_RESTORE}") from error
    try:
        record = RunRecord.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{file} is damaged: {_problems(error, values)} {_RESTORE}") from error
    if fingerprint(record.recipe) != record.recipe_fingerprint:
        raise CheckpointError(f"{file} is damaged: its recipe does not match recipe_fingerprint. {_RESTORE}")
    return record


_RESTORE = "Put back a copy of the file (train.mirror keeps one), or start a new run in another folder."
_MAX_PROBLEMS = 5


def _problems(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Return the first problems in one line; unknown keys may be from a newer version."""
    problems = [problem.rstrip(".") for problem in explain(error, RunRecord, values)]
    more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
    newer = any(problem["type"] == "extra_forbidden" for problem in error.errors())
    advice = " If a newer ernie2 wrote it, read it with that version." if newer else ""
    return f"{'; '.join(problems[:_MAX_PROBLEMS])}{more}.{advice}"
