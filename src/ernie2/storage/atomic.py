"""Atomic writes: readers see a complete file or folder, or none.

Content is written to a staging directory next to the target (``.NAME.XXXXXXXX.tmp``), flushed to disk and renamed. The
target's parent is flushed too, so the rename survives a power cut. A process holds a ``flock`` on its staging
directory. The kernel releases it when the process ends, even after a kill. A staging directory without a lock is
therefore a leftover: the next write of the same target removes it, and so does `remove_leftovers`.

Files inside a folder that this process is staging are written in place, as no reader sees them before the folder is
renamed. Disk errors there are raised as the `StorageError` of that folder.
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

ADVICE = "Free space or choose another path, then try again."
"""Default advice at the end of a `StorageError`."""

_STAGING = re.compile(r"\.(?P<target>.+)\.[a-z0-9_]{8}\.tmp")
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100
_open_stagings: set[Path] = set()
"""Staging directories of this process."""


@contextmanager
def staged_file(path: Path, *, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a path to write to; on success, rename that file to `path`, replacing an existing file.

    If the body raises, `path` is unchanged. Missing parent folders are created. A symbolic link is followed. Devices
    and pipes are written to directly. Raises `StorageError`, ending in `advice`, if a write fails.
    """
    if path.is_symlink():
        path = path.resolve()
    if not _open_stagings.isdisjoint(path.absolute().parents):
        yield path  # the staging of its folder converts errors
        return
    if path.exists() and not path.is_file() and not path.is_dir():
        with storage_errors(path, advice=advice):
            yield path
        return
    with temporary_folder(path, advice=advice) as staging:
        yield staging / path.name
        _publish(staging / path.name, path, _file_mode(staging))


@contextmanager
def staged_files(folder: Path, names: Sequence[str], *, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a folder to write files called `names` to; on success, rename them into `folder`, in this order.

    All are written before the first is renamed, so the presence of the last means that all are complete. Names that the
    body does not write are skipped. If the body raises, `folder` is unchanged.
    """
    with temporary_folder(folder / names[-1], advice=advice) as staging:
        yield staging
        mode = _file_mode(staging)
        for name in names:
            if (staging / name).exists():
                _publish(staging / name, folder / name, mode)


@contextmanager
def staged_folder(path: Path, *, replace: bool = False, advice: str = ADVICE) -> Iterator[Path]:
    """Yield an empty folder to fill; on success, rename it to `path`.

    With `replace`, an existing folder is exchanged for the new one in one step and then deleted. Otherwise a non-empty
    folder at `path` raises `StorageError` before the body runs. If the body raises, `path` is unchanged.
    """
    if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StorageError(f"{path} already exists; choose another path or delete it first.")
    with temporary_folder(path, advice=advice) as staging:
        new = staging / path.name
        new.mkdir()
        yield new
        _publish(new, path, _file_mode(staging))


def make_folder(path: Path, *, advice: str = ADVICE) -> None:
    """Create a folder and its missing parents. Raises `StorageError`."""
    with storage_errors(path, advice=advice):
        path.mkdir(parents=True, exist_ok=True)


def move(source: Path, target: Path, *, advice: str = ADVICE) -> None:
    """Rename a file or folder within its file system, replacing `target`. Raises `StorageError`.

    A folder at `target` is removed first, so a kill in between leaves no `target`.
    """
    with storage_errors(target, advice=advice):
        if source.is_dir():
            remove(target, advice=advice)
        os.replace(source, target)
        flush(target.parent)


def move_aside(path: Path, suffix: str) -> Path:
    """Append `suffix` to the name of `path`, with a number if that name exists. Raises `StorageError`."""
    names = (path.with_name(f"{path.name}{suffix}{number or ''}") for number in itertools.count())
    aside = next(name for name in names if not name.exists())
    move(path, aside)
    return aside


def write_text(path: Path, text: str, *, advice: str = ADVICE) -> None:
    """Write a UTF-8 text file atomically, without newline translation."""
    write_bytes(path, text.encode(), advice=advice)


def write_bytes(path: Path, content: bytes, *, advice: str = ADVICE) -> None:
    with staged_file(path, advice=advice) as file:
        file.write_bytes(content)


def download(files: Any, source: str, target: Path, *, advice: str = ADVICE) -> None:
    """Copy `source` of the fsspec file system `files` to `target`, atomically.

    Raises `FileNotFoundError` if `source` does not exist, `StorageError` if it cannot be copied.
    """
    if not files.exists(source):
        raise FileNotFoundError(f"there is no {source}")
    with staged_file(target, advice=advice) as file:
        files.get_file(source, str(file))


@contextmanager
def open_zstd(path: Path, *, advice: str = ADVICE) -> Iterator[IO[bytes]]:
    """Yield a binary file; its content becomes `path`, compressed with zstd level 1, atomically at the end."""
    compressor = zstandard.ZstdCompressor(level=1)
    with staged_file(path, advice=advice) as new, zstandard.open(new, "wb", cctx=compressor) as file:
        yield file


def write_json(path: Path, values: Mapping[str, Any] | Sequence[Any], *, advice: str = ADVICE) -> None:
    """Write a JSON file atomically, indented and ending in a line feed."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n", advice=advice)


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
    """Remove staging directories of killed processes anywhere below `folder`, and return their paths.

    Directories locked by a running process stay. On a file system without ``flock``, all stay.
    """
    paths = [Path(here) / name for here, names, _ in os.walk(folder) for name in names if _STAGING.fullmatch(name)]
    return [path for path in sorted(paths) if _remove_if_unlocked(path)]


@contextmanager
def temporary_folder(path: Path, *, advice: str = ADVICE) -> Iterator[Path]:
    """Yield an empty folder next to `path` for temporary files, and remove it at the end in any case.

    Missing parent folders are created. After a kill it is a leftover, like a staging directory.
    """
    with storage_errors(path, advice=advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if (match := _STAGING.fullmatch(leftover.name)) and match["target"] == path.name:
                _remove_if_unlocked(leftover)
        staging, lock = _locked_staging(path)
        _open_stagings.add(staging.absolute())
        try:
            yield staging
        finally:
            _open_stagings.discard(staging.absolute())
            discard(staging)
            os.close(lock)


@contextmanager
def storage_errors(path: Path, *, advice: str = ADVICE) -> Iterator[None]:
    """Convert an `OSError` of the body to a `StorageError` about `path` that ends in `advice`.

    `ConnectionError`, also an `OSError`, is raised unchanged: it comes from a pipe between processes.
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
        raise StorageError(f"{path} cannot be written: {reason}{where}; nothing was changed. {advice}") from error


def _locked_staging(path: Path) -> tuple[Path, int]:
    """Create a staging directory for `path`; return it and the descriptor that locks it."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            lock = os.open(staging, os.O_RDONLY)
        except FileNotFoundError:  # another process removed it before it was locked
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
    """Exchange the names of two folders in one step, or in two if the system lacks ``renameat2``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if not libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE):
            return
        if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(old))
    os.rename(old, new.with_name(f"{new.name}.replaced"))
    os.rename(new, old)


def _remove_if_unlocked(staging: Path) -> bool:
    """Remove a staging directory unless a running process holds its lock; return whether it was removed."""
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
    """Return the mode of a new file under the process's umask, without changing the umask."""
    probe = Path(tempfile.mkdtemp(dir=staging)) / "probe"
    probe.touch()
    return probe.stat().st_mode & 0o777
