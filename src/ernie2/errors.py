"""Exceptions for errors that users can cause. Each message says what is wrong, where, and what to do now.

The command line prints `heading: message` of an `Ernie2Error` without a traceback and exits with its `exit_code`: 2 for
wrong input, 1 for a failed run, 75 for a run stopped by a signal or hook.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_SEPARATORS = re.compile(r"[_\-./ ]")


class Ernie2Error(Exception):
    """Base class of all errors; `exit_code` is the exit code of the command line."""

    exit_code = 2
    heading = "error"


class ConfigError(Ernie2Error):
    """A recipe or option is invalid; the message lists all invalid keys."""


class DataError(Ernie2Error):
    """An input file is missing, unreadable, malformed or empty."""


class TokenizerError(Ernie2Error):
    """A vocabulary or tokeniser file cannot be used, or not with these settings."""


class ShardError(Ernie2Error):
    """A folder does not contain shards, is damaged, or was prepared with another tokeniser."""


class UnknownTask(Ernie2Error):
    """No pre-training task has this name."""


class TaskError(Ernie2Error):
    """A task cannot use its corpora, or violates the contract of its base class."""


class CheckpointError(Ernie2Error):
    """A path is not a checkpoint, or the checkpoint is damaged or does not match the recipe."""


class StorageError(Ernie2Error):
    """A write failed, for example because the disk is full. Existing files are unchanged."""


class DamagedFile(Ernie2Error):
    """A file written by ernie2 is unreadable or was changed; `reason` says how this was detected."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason.rstrip('.')}.")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class FolderInUse(StorageError):
    """Another process is writing to this folder, or is reading files that would be replaced."""


class LockLost(StorageError):
    """Another process locked the folder this process was writing to, so this process stopped."""

    exit_code = 1


class RunFailed(Ernie2Error):
    """A run failed with valid input, for example because the loss was not finite."""

    exit_code = 1


class RunStopped(Ernie2Error):
    """A signal or hook stopped the run; the message says what was saved and how to resume."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: submit the same job again
    heading = "stopped"


_MAX_GUESS_LENGTH = 200
"""Longer words are not compared: it is slow, and they are not typing errors."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest match in `known`, or "" if none is close.

    The closest match is the one with the most similar spelling; else one that shares a part with `word` ("masking" →
    "knowledge_masking") or contains its initials as a part ("learning_rate" → "peak_lr").
    """
    if len(word) > _MAX_GUESS_LENGTH:
        return ""
    names = list(known)
    near = get_close_matches(word, names, n=1) or _with_shared_parts(word.lower(), names)
    return f" Did you mean {near[0]!r}?" if near else ""


def did_you_mean_file(name: str, files: Iterable[str]) -> str:
    """Return `did_you_mean` for a file name, ignoring suffixes such as ".jsonl.gz" in the comparison."""

    def stem(file: str) -> str:
        return Path(file).name.partition(".")[0]

    return did_you_mean(name, [file for file in files if did_you_mean(stem(name), [stem(file)])])


def _with_shared_parts(word: str, names: Iterable[str]) -> list[str]:
    """Return the names that share the most parts with `word`; parts are separated by `_`, `-`, `.` and `/`."""
    parts = set(_SEPARATORS.split(word))
    accepted = parts | {"".join(part[:1] for part in _SEPARATORS.split(word))} if len(parts) > 1 else parts
    shared = {name: len(accepted & set(_SEPARATORS.split(name.lower())) - {""}) for name in names}
    most = max(shared.values(), default=0)
    return [name for name, count in shared.items() if count == most] if most else []


USER_CODE_ERRORS = (Exception, SystemExit)
"""Exceptions to catch around calls to user code; an uncaught `SystemExit` would end the command with exit code 0."""
_OURS = (f"{Path(__file__).parent}{os.sep}", "<frozen", f"{Path(traceback.__file__).parent / 'importlib'}{os.sep}")


def user_code_location(error: BaseException) -> str:
    """Return ", FILE, line N" for the line of user code that raised `error`, or "" if no user code was involved.

    This is the deepest frame in the first file that belongs neither to ernie2 nor to Python's import system.
    """
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(_OURS)]
    lines = [one.lineno for one in frames if one.filename == frames[0].filename]
    return f", {frames[0].filename}, line {lines[-1]}" if lines else ""


def install_advice(extra: str) -> str:
    """Return how to install the extra `extra`; ernie2 is not on PyPI."""
    return f"in the ernie2 checkout run `pip install -c constraints.txt -e '.[{extra}]'`"
