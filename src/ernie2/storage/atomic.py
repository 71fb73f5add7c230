"""Atomic writes: a file or folder appears whole under its name, or not at all.

Content is written into a staging folder beside the target (``.NAME.XXXXXXXX.tmp``), flushed to the disk and renamed;
the folder that holds the target is flushed too, so a rename survives a power cut. A process holds a ``flock`` on its
staging folder. The kernel releases it when the process ends, however it ends, so a staging folder without a lock is a
leftover of a killed process: the next write of the same target removes it, and so does `remove_leftovers`.

Inside a folder that this process is staging, files are written in place: nobody sees them before the folder appears,
and an error of the disk becomes the `StorageError` of that folder.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import zstandard

from ernie2.errors import StorageError
from ernie2.storage.removing import discard, remove

WHAT_NOW = "Free space or choose another place, then try again."
"""Advice at the end of a `StorageError`, unless the caller knows better."""

_STAGING = re.compile(r"\.(?P<target>.+)\.[a-z0-9_]{8}\.tmp")
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100
_open_stagings: set[Path] = set()
"""Staging folders of this process."""


@contextmanager
def staged_file(path: Path, *, what_now: str = WHAT_NOW) -> Iterator[Path]:
    """Yield a path to write to; on success its content becomes `path`, replacing a file that is there.

    When the body raises, `path` stays as it was. Missing parent folders are made. A link is followed, and what is no
    regular file (a device, a pipe) is written to as it stands. Raises `StorageError`, ending in `what_now`, where the
    disk refuses a write.
    """
    if path.is_symlink():
        path = path.resolve()
    if not _open_stagings.isdisjoint(path.absolute().parents):
        yield path  # whoever stages the folder names what could not be written, and what to do now
        return
    if path.exists() and not path.is_file() and not path.is_dir():
        with storage_errors(path, what_now=what_now):
            yield path
        return
    with scratch_folder(path, what_now=what_now) as staging:
        yield staging / path.name
        _publish(staging / path.name, path, _file_mode(staging))


@contextmanager
def staged_files(folder: Path, names: Sequence[str], *, what_now: str = WHAT_NOW) -> Iterator[Path]:
    """Yield a folder to write files called `names` into; on success they are renamed into `folder`, in this order.

    None is renamed before all are written, so the last name is a sign that all are there. A name that the body does
    not write is passed over. When the body raises, `folder` stays as it was.
    """
    with scratch_folder(folder / names[-1], what_now=what_now) as staging:
        yield staging
        mode = _file_mode(staging)
        for name in names:
            if (staging / name).exists():
                _publish(staging / name, folder / name, mode)


@contextmanager
def staged_folder(path: Path, *, replace: bool = False, what_now: str = WHAT_NOW) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes `path`.

    With `replace`, a folder at `path` is exchanged for the new one in a single step and then deleted. Without it, a
    non-empty folder at `path` is a `StorageError`, raised before the body runs. When the body raises, `path` stays as
    it was.
    """
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StorageError(f"{path} is there already; choose another place or delete it first.")
    with scratch_folder(path, what_now=what_now) as staging:
        new = staging / path.name
        new.mkdir()
        yield new
        _publish(new, path, _file_mode(staging))


def make_folder(path: Path, *, what_now: str = WHAT_NOW) -> None:
    """Make a folder and its parents where they are missing. Raises `StorageError`."""
    with storage_errors(path, what_now=what_now):
        path.mkdir(parents=True, exist_ok=True)


def move(source: Path, target: Path, *, what_now: str = WHAT_NOW) -> None:
    """Rename a file or folder within its file system, in place of a file or folder at `target`. Raises `StorageError`.

    A folder at `target` is removed first: after a kill there may be none.
    """
    with storage_errors(target, what_now=what_now):
        if source.is_dir():
            remove(target, what_now=what_now)
        os.replace(source, target)
        flush(target.parent)


def move_aside(path: Path, mark: str) -> Path:
    """Rename `path` to its name with `mark` at the end, numbered where that is taken. Raises `StorageError`."""
    names = (path.with_name(f"{path.name}{mark}{number or ''}") for number in itertools.count())
    aside = next(name for name in names if not name.exists())
    move(path, aside)
    return aside


def write_text(path: Path, text: str, *, what_now: str = WHAT_NOW) -> None:
    """Write a UTF-8 text file atomically; line feeds stay as they are on every system."""
    write_bytes(path, text.encode(), what_now=what_now)


def write_bytes(path: Path, content: bytes, *, what_now: str = WHAT_NOW) -> None:
    with staged_file(path, what_now=what_now) as file:
        file.write_bytes(content)


def download(files: Any, source: str, target: Path, *, what_now: str = WHAT_NOW) -> None:
    """Copy `source` of the fsspec file system `files` to `target`, atomically.

    Raises `FileNotFoundError` where there is no such file, `StorageError` where it cannot be copied.
    """
    if not files.exists(source):
        raise FileNotFoundError(f"there is no {source}")
    with staged_file(target, what_now=what_now) as file:
        files.get_file(source, str(file))


@contextmanager
def open_zstd(path: Path, *, what_now: str = WHAT_NOW) -> Iterator[IO[bytes]]:
    """Yield a file for bytes that become `path`, compressed at zstd's level 1, atomically at the end."""
    compressor = zstandard.ZstdCompressor(level=1)
    with staged_file(path, what_now=what_now) as new, zstandard.open(new, "wb", cctx=compressor) as file:
        yield file


def write_json(path: Path, values: Mapping[str, Any] | Sequence[Any], *, what_now: str = WHAT_NOW) -> None:
    """Write a JSON file atomically, indented and ending in a line feed."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n", what_now=what_now)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk (fsync). Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the staging folders anywhere below `folder` that killed processes left, and return them.

    Staging folders that a living process writes to are kept. Where the file system has no ``flock``, all are kept.
    """
    found = [Path(here) / name for here, names, _ in os.walk(folder) for name in names if _STAGING.fullmatch(name)]
    return [path for path in sorted(found) if _removed(path)]


@contextmanager
def scratch_folder(path: Path, *, what_now: str = WHAT_NOW) -> Iterator[Path]:
    """Yield an empty folder beside `path` for temporary files; it is removed at the end, whatever happened.

    Missing parent folders are made. What a killed process left of it is a leftover like a staging folder.
    """
    with storage_errors(path, what_now=what_now):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if (match := _STAGING.fullmatch(leftover.name)) and match["target"] == path.name:
                _removed(leftover)
        staging, lock = _locked_staging(path)
        _open_stagings.add(staging.absolute())
        try:
            yield staging
        finally:
            _open_stagings.discard(staging.absolute())
            discard(staging)
            os.close(lock)


@contextmanager
def storage_errors(path: Path, *, what_now: str = WHAT_NOW) -> Iterator[None]:
    """Turn an `OSError` of the body into a `StorageError` about `path` that ends in `what_now`.

    Broken connections between processes are `OSError` too, and are let through.
    """
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        file = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        elsewhere = file != path and not any(_STAGING.fullmatch(part) for part in file.parts)
        where = f" at {file}" if elsewhere else ""
        raise StorageError(f"{path} cannot be written: {reason}{where}; nothing was changed. {what_now}") from error


def _locked_staging(path: Path) -> tuple[Path, int]:
    """A new staging folder for `path` and the descriptor that locks it."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            lock = os.open(staging, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for a leftover before it was locked
            continue
        with suppress(OSError):  # a file system without flock
            fcntl.flock(lock, fcntl.LOCK_EX)
        if staging.exists():
            return staging, lock
        os.close(lock)


def _publish(new: Path, path: Path, file_mode: int) -> None:
    """Flush `new`, a file or folder, and rename it to `path`."""
    folders, files = [], [new]
    if new.is_dir():
        os.chmod(new, file_mode | (file_mode & 0o444) >> 2)
        folders = [Path(folder) for folder, _, _ in os.walk(new)]
        files = [folder / name for folder in folders for name in os.listdir(folder) if (folder / name).is_file()]
    for file in files:
        if not os.access(file, os.X_OK):
            os.chmod(file, file_mode)  # some libraries write files that only their owner may read
        flush(file)
    for folder in reversed(folders):
        flush(folder)
    if path.is_dir() and new.is_dir():
        _exchange(new, path)
    else:
        os.replace(new, path)
    flush(path.parent)


def _exchange(new: Path, old: Path) -> None:
    """Let two folders swap names in one step; in two where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if not libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE):
            return
        if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(old))
    os.rename(old, new.with_name(f"{new.name}.replaced"))
    os.rename(new, old)


def _removed(staging: Path) -> bool:
    """Remove a staging folder unless a living process holds it; whether it was removed."""
    with suppress(OSError, StorageError):
        lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(staging)
            return True
        finally:
            os.close(lock)
    return False


def _file_mode(staging: Path) -> int:
    """The mode a new file gets under the process's umask, found without changing the umask."""
    probe = Path(tempfile.mkdtemp(dir=staging)) / "probe"
    probe.touch()
    return probe.stat().st_mode & 0o777
