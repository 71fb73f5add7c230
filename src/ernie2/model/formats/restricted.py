"""A pickle reader that runs no code: names in the file become placeholder objects, or the file is refused.

A pickle is a program that may call any function of an installed library. Here names are looked up only in a table, so
no function named by a file is called. Memory requests are checked first.
"""

from __future__ import annotations

import os
import pickle
import pickletools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ernie2.errors import CheckpointError

Allowed = Mapping[str, Callable[..., Any] | None]
"""'module.name' -> replacement; None: the name is allowed, but must not be called."""


class ForbiddenPickle(pickle.UnpicklingError):
    """The pickle contains more than data; the text names it."""


@contextmanager
def checkpoint_errors(path: Path, otherwise: str) -> Iterator[None]:
    """Convert errors while reading `path` into `CheckpointError`: "PATH is damaged or OTHERWISE: …"."""
    try:
        yield
    except ForbiddenPickle as error:
        raise CheckpointError(
            f"{path} refers to {error}, which arrays do not need: loading it with pickle could run code. "
            "It was refused, and nothing was run. Get the checkpoint from a source you trust."
        ) from None
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # readers may raise anything for bytes that are not a pickle or zip
        first = (str(error).strip() or type(error).__name__).split("\n")[0].removesuffix(".")
        raise CheckpointError(f"{path} is damaged or {otherwise}: {first}.") from error


class AllowedName:
    """Placeholder for an allowed name: callable if arrays need it, and immutable."""

    __slots__ = ("_build", "name")

    def __init__(self, name: str, build: Callable[..., Any] | None) -> None:
        self.name = name
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        if self._build is None:
            raise ForbiddenPickle(f"a call of {self.name}")
        return self._build(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ForbiddenPickle(f"a change of {self.name}")


class IgnoredObject:
    """Placeholder for an object that is not read, such as a numpy scalar; accepts and ignores any state."""

    __slots__ = ()

    def __init__(self, *_: object) -> None:
        return

    def __setstate__(self, state: object) -> None:
        return


class StateDict(dict[Any, Any]):
    """Mapping that ignores attributes: torch stores `_metadata` on state dicts."""

    def __setstate__(self, state: object) -> None:
        return


COMMON: Allowed = {
    "numpy.dtype": IgnoredObject,
    "numpy.core.multiarray.scalar": IgnoredObject,
    "numpy._core.multiarray.scalar": IgnoredObject,
    "collections.OrderedDict": lambda pairs=(): StateDict(pairs),
}
"""Names allowed in both numpy's and torch's files."""


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler for a seekable `file` that accepts only the names in `allowed`."""

    def __init__(self, file: IO[bytes], allowed: Allowed, **options: Any) -> None:
        _check_memo(file)
        super().__init__(file, **options)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Return the placeholder for an allowed name; raise `ForbiddenPickle` for any other."""
        qualified_name = f"{module}.{name}"
        if qualified_name not in self._allowed:
            raise ForbiddenPickle(qualified_name)
        return AllowedName(qualified_name, self._allowed[qualified_name])


def _check_memo(file: IO[bytes]) -> None:
    """Raise `UnpicklingError` for a memo index beyond the file size: the reader would allocate up to it."""
    begin = file.tell()
    size = file.seek(0, os.SEEK_END) - begin
    file.seek(begin)
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > size:
            raise pickle.UnpicklingError(f"it needs a memo of {argument:,} entries")
    file.seek(begin)
