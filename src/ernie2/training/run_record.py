"""`run.json`: what a run is, from which recipe and data, on which machine, and how far it has come.

The file carries a checksum of itself and a fingerprint of its recipe. Keys that are missing, unknown or of another
kind are refused, so nothing is built from a record that was not written by ernie2.
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
        """Return what run.json holds of it; keys that were never given are left out."""
        return self.model_dump(mode="json", exclude_unset=True)


class CorpusRecord(_Part):
    """One corpus as it was prepared; `dropped` counts documents by reason."""

    language: str = ""
    licence: str = ""
    documents: int = 0
    heldout_documents: int = 0
    tokens: int = 0
    dropped: dict[str, int] = {}


class UsableRecord(_Part):
    """`usable` documents of the `of` looked at; `why` none can be used; of a token task `scored`, the share of tokens
    it scores, and `notes`, what to warn of."""

    usable: int
    of: int
    why: str | None = None
    scored: float | None = None
    notes: tuple[str, ...] = ()


class DataRecord(_Part):
    """The shards of a run: folders, fingerprints of shards and tokeniser, corpora; `usable` by task, then corpus."""

    shards: tuple[str, ...]
    fingerprint: str
    tokenizer: str
    vocab_size: int
    corpora: dict[str, CorpusRecord]
    usable: dict[str, dict[str, UsableRecord]]


class TaskRecord(_Part):
    """A pre-training task; `id` is its row of the task embedding, `labels` is None where they are the vocabulary."""

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
    """Where an extended run began: the finished run with its steps and stages, the task that came and its data.

    `replay` is what was asked for: iterations of each earlier task, or None for the default.
    """

    run: str
    step: int
    stages: int
    task: str
    data: str
    replay: int | None


class RunRecord(_Part):
    """run.json as a value; a changed one is a copy made by `updated`."""

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
    """How far metrics.jsonl was written when the run was done, as `storage.line_files` notes it."""

    def updated(self, **changes: Any) -> Self:
        """Return a copy with other values for some keys."""
        return self.model_copy(update=changes)


def fingerprint(values: Any) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their keys."""
    return sha256(dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run.json."""
    return (folder / NAME).exists()


def write_run(run: Path, record: RunRecord) -> None:
    write_checked_json(run / NAME, record.as_json())


def read_run(run: Path) -> RunRecord:
    """Return what RUN/run.json says.

    Raises `CheckpointError` where `run` is not a run folder, run.json is damaged, or another version wrote it.
    """
    file = run / NAME

    def other(found: object) -> CheckpointError:
        older = " (ernie2 0.1 wrote it)" if found == 1 else ""
        return CheckpointError(
            f"{run} is a run of format {found!r}{older}; this version reads {FORMAT}. Start a new run in another "
            f"folder; `--init-from {run / 'hf'}` takes over the parameters of a finished one."
        )

    try:
        values = read_versioned_json(file, FORMAT, other)
    except (FileNotFoundError, NotADirectoryError):
        state = "is not a run folder (no run.json)" if run.exists() else "does not exist"
        raise CheckpointError(f"{run} {state}. `ernie2 pretrain RECIPE` makes one.") from None
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
_MOST_PROBLEMS = 5


def _problems(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Return the first problems as one line; an unknown key may also be one of a newer version."""
    problems = [problem.rstrip(".") for problem in explain(error, RunRecord, values)]
    more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
    newer = any(problem["type"] == "extra_forbidden" for problem in error.errors())
    advice = " If a newer ernie2 wrote it, read it with that." if newer else ""
    return f"{'; '.join(problems[:_MOST_PROBLEMS])}{more}.{advice}"
