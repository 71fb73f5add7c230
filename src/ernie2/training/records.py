"""Records of a run: `run.json` describes it, `metrics.jsonl` has one JSON object per event.

run.json contains a checksum of itself. Report and model card are built from metrics.jsonl. Every checkpoint, and
run.json at the end, store the extent of metrics.jsonl: bytes, lines and their checksum. Resuming checks it and cuts off
later lines, so that no step appears twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError, DamagedFile
from ernie2.storage.line_files import append_line, check_extent, file_extent, parse_lines, truncate
from ernie2.storage.locks import confirm_lock
from ernie2.training.hooks.base import Hook
from ernie2.training.run_record import RunRecord, is_run, read_run, write_run


class Records(Hook):
    """The two record files of a run folder; as a hook, it writes every line of a run.

    `writes`: false on all ranks except the first, where methods that write do nothing.
    """

    required = True

    def __init__(self, run: Path, *, writes: bool = True) -> None:
        self.run, self._writes = run, writes
        self.metrics = run / "metrics.jsonl"

    def on_line(self, line: Mapping[str, Any]) -> None:
        self.write(**line)

    def write(self, kind: str, **values: Any) -> None:
        """Append one line atomically and hand it to the operating system.

        Raises `StorageError`, after which earlier lines are still complete, and `LockLost` if another process has taken
        over the run.
        """
        if not self._writes:
            return
        confirm_lock(self.run)
        line = {"kind": kind, **values}
        advice = f"Its lines so far are complete. Free space, then {_retry_advice(self.run)}."
        append_line(self.metrics, line, durable=False, advice=advice)

    def extent(self) -> dict[str, Any]:
        """Return the extent of metrics.jsonl, as in `storage.line_files`, after syncing it to disk."""
        return file_extent(self.metrics) if self._writes else {}

    def cut(self, extent: Mapping[str, Any] | None = None) -> None:
        """Cut off lines after `extent`, which the last checkpoint stores; all lines if it is None.

        Raises `CheckpointError` if the lines before it have changed.
        """
        if not self._writes:
            return
        if extent is not None:
            self._check(extent)
        truncate(self.metrics, 0 if extent is None else int(extent["bytes"]))

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, without an incomplete last line of a killed run.

        Raises `CheckpointError` if a line is damaged or has changed since the run ended.
        """
        if is_run(self.run):
            self._check(read_run(self.run).metrics or {"bytes": 0})
        if not self.metrics.exists():
            return []
        try:
            return parse_lines(self.metrics, self.metrics.read_bytes())
        except DamagedFile as error:
            raise self._damaged(error) from error

    def describe(self, record: RunRecord) -> None:
        """Write run.json atomically, with the extent of metrics.jsonl once the run is done.

        Raises `LockLost` if another process has taken over the run.
        """
        if not self._writes:
            return
        confirm_lock(self.run)
        write_run(self.run, record.updated(metrics=self.extent()) if record.status == "done" else record)

    def _check(self, extent: Mapping[str, Any]) -> None:
        try:
            check_extent(self.metrics, extent)
        except DamagedFile as error:
            raise self._damaged(error) from error

    def _damaged(self, error: DamagedFile) -> CheckpointError:
        return CheckpointError(
            f"{error} Put back a copy of the file (train.mirror keeps one), or start a new run in another folder; "
            f"`--init-from {self.run}` starts from its parameters."
        )


def _retry_advice(run: Path) -> str:
    """Return the command that continues the run; without a checkpoint it cannot be resumed."""
    has_checkpoint = any((run / "checkpoints").glob("step_????????"))
    return f"`ernie2 resume {run}`" if has_checkpoint else "run the same command again"
