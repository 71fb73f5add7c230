"""The exceptions users meet. Each message says what is wrong, where, and what to do now.

The command line prints `Ernie2Error` without a traceback, after its `heading`, and exits with its `exit_code`: 2 for
wrong input, 1 for a run that failed on its own, 75 for one that was asked to stop.
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
    """Base of every error a user can cause or meet; `exit_code` is what the command line returns."""

    exit_code = 2
    heading = "error"


class ConfigError(Ernie2Error):
    """A recipe or option is wrong; the message lists every wrong key at once."""


class DataError(Ernie2Error):
    """An input file is missing, unreadable, of the wrong form or empty."""


class TokenizerError(Ernie2Error):
    """A vocabulary or tokeniser file cannot be used, or not for what was asked of it."""


class ShardError(Ernie2Error):
    """A shard folder is not one, is damaged, or was made with another tokeniser."""


class UnknownTask(Ernie2Error):
    """No pre-training task has this name."""


class TaskError(Ernie2Error):
    """A task cannot use the corpora it was given, or broke the contract of its base class."""


class CheckpointError(Ernie2Error):
    """A checkpoint folder is not one, is damaged, or does not fit the recipe."""


class StorageError(Ernie2Error):
    """Writing failed: disk full, no permission. What was there before is still whole."""


class DamagedFile(Ernie2Error):
    """A file that ernie2 wrote cannot be read back, or is not as it was written; `reason` says how it shows."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason.rstrip('.')}.")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


class FolderInUse(StorageError):
    """Another process writes into this folder, or reads what was to be replaced."""


class LockLost(StorageError):
    """Another process took over the folder this one was writing into, so it stopped."""

    exit_code = 1


class RunFailed(Ernie2Error):
    """The run itself went wrong (for example a loss that is not finite), though the input was accepted."""

    exit_code = 1


class RunStopped(Ernie2Error):
    """A signal or a hook asked the run to stop, and it did; the message says what was saved and how to go on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: give the same job again
    heading = "stopped"


_MAX_GUESS_LENGTH = 200
"""Characters of a word that may be a slip of the pen; comparing longer ones takes long and finds nothing."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of `known`, or an empty string when none is near.

    Nearest is the one spelled most alike; else the one that shares a whole part with `word` ("masking" →
    "knowledge_masking"), or holds its initials as a part ("learning_rate" → "peak_lr").
    """
    if len(word) > _MAX_GUESS_LENGTH:
        return ""
    names = list(known)
    near = get_close_matches(word, names, n=1) or _with_shared_parts(word.lower(), names)
    return f" Did you mean {near[0]!r}?" if near else ""


def did_you_mean_file(name: str, files: Iterable[str]) -> str:
    """Return `did_you_mean` of a file; like endings (".jsonl.gz") make no two files near."""

    def stem(file: str) -> str:
        return Path(file).name.partition(".")[0]

    return did_you_mean(name, [file for file in files if did_you_mean(stem(name), [stem(file)])])


def _with_shared_parts(word: str, names: Iterable[str]) -> list[str]:
    """The names that share the most parts with `word`, parts being what stands between `_`, `-`, `.` and `/`."""
    parts = set(_SEPARATORS.split(word))
    wanted = parts | {"".join(part[:1] for part in _SEPARATORS.split(word))} if len(parts) > 1 else parts
    shared = {name: len(wanted & set(_SEPARATORS.split(name.lower())) - {""}) for name in names}
    most = max(shared.values(), default=0)
    return [name for name, count in shared.items() if count == most] if most else []


USER_CODE_ERRORS = (Exception, SystemExit)
"""What code of a user that we call may raise; `SystemExit` would end the command as if its work were done."""
_OURS = (f"{Path(__file__).parent}{os.sep}", "<frozen", f"{Path(traceback.__file__).parent / 'importlib'}{os.sep}")


def user_code_location(error: BaseException) -> str:
    """Return ", FILE, line N" where code of a user that we called raised `error`; empty where there is none of it.

    That is the deepest frame in the first file that is neither ours nor Python's import.
    """
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(_OURS)]
    lines = [one.lineno for one in frames if one.filename == frames[0].filename]
    return f", {frames[0].filename}, line {lines[-1]}" if lines else ""


def install_advice(extra: str) -> str:
    """Return the command that installs the extra `extra`, and where to run it: ernie2 is not on PyPI."""
    return f"in the ernie2 checkout run `pip install -c constraints.txt -e '.[{extra}]'`"
