"""Copies of checkpoints in an object store or at any other fsspec URL, for machines with temporary disks.

    URL/run.json  URL/metrics.jsonl  URL/checkpoints/step_00001200/ …

A complete checkpoint is copied with its state.json last, without which it does not count. The mirror has the same
checkpoints as the run folder. `fetch` creates a run folder from a mirror.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ernie2.console import log_warning
from ernie2.errors import CheckpointError, ConfigError, StorageError
from ernie2.storage.atomic import download, staged_folder
from ernie2.storage.json_files import parse_json
from ernie2.training.checkpoints import open_checkpoint
from ernie2.training.environment import check_rules
from ernie2.training.hooks.base import Hook
from ernie2.training.run_record import is_run

_RECORDS = ("run.json", "metrics.jsonl")
_LAST = "state.json"


class Mirror(Hook):
    """Copies checkpoints of `run` to `url`; raises `ConfigError` if fsspec cannot open it."""

    required = True

    def __init__(self, run: Path, url: str) -> None:
        self._run, self._url = run, url
        self._files, self._root = _open_filesystem(url)

    def on_checkpoint(self, folder: Path) -> None:
        """Copy one checkpoint with the records, and delete checkpoints that are no longer in the run folder.

        A failure is only reported: the checkpoint is complete on disk, and the next one is copied again.
        """
        try:
            files = self._files
            files.makedirs(f"{self._root}/checkpoints/{folder.name}", exist_ok=True)
            for name in _RECORDS:
                if (self._run / name).exists():
                    files.put_file(str(self._run / name), f"{self._root}/{name}")
            for file in sorted(folder.iterdir(), key=lambda file: file.name == _LAST):
                files.put_file(str(file), f"{self._root}/checkpoints/{folder.name}/{file.name}")
            here = {path.name for path in folder.parent.iterdir()}
            for name in _checkpoints(files, self._root):
                if name not in here:
                    _delete(files, f"{self._root}/checkpoints/{name}")
        except Exception as error:  # any error of an object store's client
            log_warning(f"{folder.name} was not copied to {self._url} ({error}); the next one will be.")


def fetch(url: str, run: Path) -> Path:
    """Create the run folder `run` from the records and the newest complete checkpoint of a mirror; return `run`.

    An existing run is not changed. Raises `CheckpointError` if the mirror has no run, or one that started under other
    rules.
    """
    if is_run(run):
        log_warning(f"{run} already contains a run; nothing was fetched from {url}")
        return run
    files, root = _open_filesystem(url)
    _check_rules(files, root, url)
    try:
        damage = "it has none"
        for name in sorted(_checkpoints(files, root), reverse=True):
            try:
                _get(files, root, name, run, advice=f"Check that {url} can be read, and free space.")
                return run
            except (CheckpointError, FileNotFoundError) as error:
                damage = str(error)
                log_warning(f"Skipping a damaged checkpoint: {url}/checkpoints/{name}: {error}")
    except OSError as error:
        raise StorageError(f"{url} could not be copied to {run}: {error}.") from error
    raise CheckpointError(f"{url} has no complete checkpoint to continue from: {damage}.")


def _check_rules(files: Any, root: str, url: str) -> None:
    try:
        facts = parse_json(files.cat_file(f"{root}/run.json"))
    except (OSError, ValueError):
        return  # missing or damaged: reading the copy raises
    if isinstance(facts, dict):
        check_rules(facts.get("rules"), url)


def _get(files: Any, root: str, name: str, run: Path, advice: str) -> None:
    with staged_folder(run / "checkpoints" / name, replace=True, advice=advice) as folder:
        for path in files.ls(f"{root}/checkpoints/{name}", detail=False):
            download(files, path, folder / path.rpartition("/")[2], advice=advice)
        open_checkpoint(folder)
    for record in reversed(_RECORDS):  # run.json last: it marks a run folder
        download(files, f"{root}/{record}", run / record, advice=advice)


def _checkpoints(files: Any, root: str) -> list[str]:
    folder = f"{root}/checkpoints"
    if not files.exists(folder):
        return []
    files.invalidate_cache(folder)
    return [path.rstrip("/").rpartition("/")[2] for path in files.ls(folder, detail=False)]


def _delete(files: Any, folder: str) -> None:
    if files.exists(f"{folder}/{_LAST}"):  # first the file that makes it count
        files.rm_file(f"{folder}/{_LAST}")
    files.rm(folder, recursive=True)


def _open_filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url} cannot be opened: {error}.") from error
    return files, str(root).rstrip("/")
