"""Records of a run: `run.json` says what it is, `metrics.jsonl` what happened, one JSON object a line.

metrics.jsonl is the truth everything else (report, model card) is drawn from. A checkpoint notes its length in bytes,
and resuming cuts it there, so that no step appears twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError, StorageError
from ernie2.storage.atomic import write_json
from ernie2.storage.locks import confirm_lock
from ernie2.train.sinks import Sink


class Records:
    """The two record files of one run folder."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.metrics = run / "metrics.jsonl"
        self.sinks: Sequence[Sink] = ()
        """Where lines go besides; `train.sinks.open_sinks` makes them."""

    def write(self, kind: str, **values: Any) -> None:
        """Appends one line whole, hands it to the operating system, then to the sinks.

        Raises `StorageError` with the lines before still whole, `LockLost` where another process has taken over the
        run.
        """
        confirm_lock(self.run)
        line = {"kind": kind, **values}
        whole = self.metrics.stat().st_size if self.metrics.exists() else 0
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            with suppress(OSError):  # what a full disk took of the line
                os.truncate(self.metrics, whole)
            raise StorageError(
                f"{self.metrics}: {error.strerror}; its lines so far are whole. Free space, then {_again(self.run)}."
            ) from error
        for sink in self.sinks:
            sink.write(int(values.get("step", 0)), line)

    def close(self) -> None:
        """Lets the sinks send what is still waiting."""
        for sink in self.sinks:
            sink.close()

    def length(self) -> int:
        """Bytes of metrics.jsonl so far, all of them on the disk: a checkpoint may rely on them after a power cut."""
        if not self.metrics.exists():
            return 0
        with self.metrics.open("rb") as file:
            os.fsync(file.fileno())
        return self.metrics.stat().st_size

    def cut(self, length: int) -> None:
        """Forgets everything after `length` bytes: what a killed run wrote after its last checkpoint."""
        if self.length() > length:
            with self.metrics.open("r+b") as file:
                file.truncate(length)

    def read(self) -> list[dict[str, Any]]:
        """All lines; a last line cut short by a kill is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write run.json atomically. Raises `LockLost` where another process has taken over the run."""
        confirm_lock(self.run)
        write_json(self.run / "run.json", facts)

    def facts(self) -> dict[str, Any]:
        """Reads run.json; raises `CheckpointError` where this is no run folder."""
        return read_run(self.run)


def _again(run: Path) -> str:
    """How the run goes on: a run without a checkpoint cannot be resumed."""
    has_checkpoint = any((run / "checkpoints").glob("step_????????"))
    return f"`ernie2 resume {run}`" if has_checkpoint else "give the same command again"


class NoRecords(Records):
    """What every rank but the first of a run writes: nothing."""

    def write(self, kind: str, **values: Any) -> None:
        """Does nothing."""

    def length(self) -> int:
        """0, the bytes of nothing."""
        return 0

    def cut(self, length: int) -> None:
        """Does nothing."""

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Does nothing."""


def read_run(run: Path) -> dict[str, Any]:
    """Returns what run.json says; raises `CheckpointError` where `run` is no run folder."""
    try:
        return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        state = "is not a run folder (no run.json)" if run.exists() else "does not exist"
        raise CheckpointError(f"{run} {state}. `ernie2 pretrain RECIPE` makes one.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{run / 'run.json'} cannot be read: {error}.") from error
