"""A pickle reader that runs nothing: names a file refers to become inert objects of ours, or the file is refused.

A pickle is a program whose instructions may call any function of any installed library. Here a name is looked up in a
table only, so no function that a file names is called. What the file could ask of memory is checked first.
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
"""'module.name' -> what takes its place; None: it may be named and never called."""


class ForbiddenPickle(pickle.UnpicklingError):
    """The pickle asks for more than data; its text says for what."""


@contextmanager
def checkpoint_errors(path: Path, otherwise: str) -> Iterator[None]:
    """Raise `CheckpointError` for whatever goes wrong while `path` is read; a damaged file may also be `otherwise`."""
    try:
        yield
    except ForbiddenPickle as error:
        raise CheckpointError(
            f"{path} asks for {error}, which no array needs: reading it the usual way could run code. It was refused "
            "and nothing was run. Take the checkpoint from a source you trust."
        ) from None
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # bytes that are no pickle or zip can make the readers raise anything
        first = (str(error).strip() or type(error).__name__).split("\n")[0].removesuffix(".")
        raise CheckpointError(f"{path} is damaged or {otherwise}: {first}.") from error


class AllowedName:
    """What a file gets when it names something allowed: callable where arrays call it, and closed to changes."""

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
    """Stands for an object that is not read, such as a numpy number; takes any state and keeps none."""

    __slots__ = ()

    def __init__(self, *_: object) -> None:
        return

    def __setstate__(self, state: object) -> None:
        return


class StateDict(dict[Any, Any]):
    """A mapping whose attributes are dropped: torch writes `_metadata` on its state dicts."""

    def __setstate__(self, state: object) -> None:
        return


COMMON: Allowed = {
    "numpy.dtype": IgnoredObject,
    "numpy.core.multiarray.scalar": IgnoredObject,
    "numpy._core.multiarray.scalar": IgnoredObject,
    "collections.OrderedDict": lambda pairs=(): StateDict(pairs),
}
"""What both numpy's and torch's files may name beside their arrays."""


class RestrictedUnpickler(pickle.Unpickler):
    """Reads one pickle of `file`, which must be seekable; only names of `allowed` are known."""

    def __init__(self, file: IO[bytes], allowed: Allowed, **options: Any) -> None:
        _check_memo(file)
        super().__init__(file, **options)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """The inert object for a name; `ForbiddenPickle` for any other."""
        wanted = f"{module}.{name}"
        if wanted not in self._allowed:
            raise ForbiddenPickle(wanted)
        return AllowedName(wanted, self._allowed[wanted])


def _check_memo(file: IO[bytes]) -> None:
    """Raises `UnpicklingError` for a place in the memo beyond the file's bytes: the reader would allocate up to it."""
    begin = file.tell()
    size = file.seek(0, os.SEEK_END) - begin
    file.seek(begin)
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > size:
            raise pickle.UnpicklingError(f"it asks for {argument:,} places of memory")
    file.seek(begin)
