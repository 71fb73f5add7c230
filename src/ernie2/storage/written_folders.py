"""Model folders that leave our hands: checksums of what was written, so that a later change is noticed and said.

People edit such folders, and may: a config, a card, a tokeniser. So a difference is a line on standard error, with the
names of the files, and never an error.
"""

from __future__ import annotations

from pathlib import Path

from ernie2.console import warn
from ernie2.errors import DamagedFile
from ernie2.storage.atomic import checksum
from ernie2.storage.json_files import read_checked_json, write_checked_json

CHECKSUMS = "ernie2_checksums.json"
_WEIGHTS = ".safetensors"
_reported: set[Path] = set()


def note_checksums(folder: Path) -> None:
    """Write the checksums of all files in `folder`, which is being staged, into `CHECKSUMS`. Raises `StorageError`."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != CHECKSUMS)
    write_checked_json(folder / CHECKSUMS, {"files": {file.name: checksum(file) for file in files}})


def is_complete(folder: Path) -> bool:
    """Whether every file that was written into `folder` is still there, changed or not."""
    try:
        return all((folder / name).is_file() for name in read_checked_json(folder / CHECKSUMS)["files"])
    except (OSError, DamagedFile):
        return False


def report_changes(folder: Path) -> None:
    """Say, once per process, which files of `folder` are not as they were written; a warning where weights are not.

    Nothing is said of folders without `CHECKSUMS`, which others wrote.
    """
    if folder.resolve() in _reported:
        return
    _reported.add(folder.resolve())
    try:
        expected = read_checked_json(folder / CHECKSUMS)["files"]
    except FileNotFoundError:
        return
    except DamagedFile as error:
        warn(f"warning: {error} The weights beside it were not checked.")
        return
    changed = [name for name, value in expected.items() if not _fits(folder / name, value)]
    weights = [name for name in changed if name.endswith(_WEIGHTS)]
    if weights:
        warn(
            f"warning: {', '.join(weights)} in {folder} changed after ernie2 wrote it: the model may be damaged, and "
            "its answers wrong. Write it again, or put back a copy."
        )
    if others := [name for name in changed if name not in weights]:
        warn(f"note: {', '.join(others)} in {folder} changed after ernie2 wrote it; used as it is now.")


def _fits(file: Path, expected: str) -> bool:
    try:
        return checksum(file) == expected
    except OSError:
        return False
