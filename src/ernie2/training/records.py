"""Records of a run: `run.json` says what it is, `metrics.jsonl` what happened, one JSON object a line.

run.json carries a checksum of itself. Report and model card are drawn from metrics.jsonl. Every checkpoint, and
run.json at the end, notes how far that was written: its bytes, its lines and their checksum. Resuming checks that and
cuts off what came later, so that no step appears twice.
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
    """The two record files of one run folder; as a hook, it writes every line of a training.

    `writes`: false on every rank but the first, where all that would write does nothing.
    """

    required = True

    def __init__(self, run: Path, *, writes: bool = True) -> None:
        self.run, self._writes = run, writes
        self.metrics = run / "metrics.jsonl"

    def on_line(self, line: Mapping[str, Any]) -> None:
        self.write(**line)

    def write(self, kind: str, **values: Any) -> None:
        """Append one line whole and hand it to the operating system.

        Raises `StorageError` with the lines before still whole, `LockLost` where another process has taken over the
        run.
        """
        if not self._writes:
            return
        confirm_lock(self.run)
        line = {"kind": kind, **values}
        advice = f"Its lines so far are whole. Free space, then {_again(self.run)}."
        append_line(self.metrics, line, durable=False, advice=advice)

    def extent(self) -> dict[str, Any]:
        """Return how far metrics.jsonl was written, as `storage.line_files` notes it; all of that is on the disk."""
        return file_extent(self.metrics) if self._writes else {}

    def cut(self, extent: Mapping[str, Any] | None = None) -> None:
        """Cut off what a killed run wrote after its last checkpoint, which notes `extent`; everything without one.

        Raises `CheckpointError` where the lines before are not those that were written.
        """
        if not self._writes:
            return
        if extent is not None:
            self._check(extent)
        truncate(self.metrics, 0 if extent is None else int(extent["bytes"]))

    def read(self) -> list[dict[str, Any]]:
        """Return all lines; a last line cut short by a kill is left out.

        Raises `CheckpointError` where one is damaged, or is not as it was when the run ended.
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

        Raises `LockLost` where another process has taken over the run.
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
            f"`--init-from {self.run}` takes over the parameters."
        )


def _again(run: Path) -> str:
    """How the run goes on: a run without a checkpoint cannot be resumed."""
    has_checkpoint = any((run / "checkpoints").glob("step_????????"))
    return f"`ernie2 resume {run}`" if has_checkpoint else "give the same command again"
