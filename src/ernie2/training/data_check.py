"""Whether the shards a run reads are what was prepared.

Shapes and sizes are compared whenever shards are opened. Contents are compared with their checksums before the first
step of a run; a resumed one, which is to go on at once, compares them beside its steps and stops at the next when
something differs. Ranks share the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, Thread

from ernie2.console import progress
from ernie2.errors import Ernie2Error, ShardError
from ernie2.shards.store import Shard, Shards


def check_now(shards: Shards, rank: int = 0, size: int = 1) -> None:
    """Compares this rank's share of `shards`; raises `ShardError` naming the first file that differs."""
    mine = share(shards, rank, size)
    with progress("Checking shards", len(mine), "shards") as bar:
        for shard in mine:
            _verify(shard)
            bar.advance()


class DataCheck:
    """Compares this rank's share of `shards` in a thread; `raise_damage` raises the `ShardError` it met, if any.

    A context manager; leaving it ends the thread.
    """

    def __init__(self, shards: Shards, rank: int = 0, size: int = 1) -> None:
        self._shards = share(shards, rank, size)
        self._error: Ernie2Error | None = None
        self._left = Event()
        self._thread = Thread(target=self._check, name="ernie2-data-check", daemon=True)

    def __enter__(self) -> DataCheck:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def raise_damage(self) -> None:
        """Raises what was found so far."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Waits until all is compared, then as `raise_damage`."""
        self._thread.join()
        self.raise_damage()

    def _check(self) -> None:
        for shard in self._shards:
            if self._left.is_set():
                return
            try:
                _verify(shard)
            except Ernie2Error as error:
                self._error = error
                return


def share(shards: Shards, rank: int, size: int) -> Sequence[Shard]:
    """Every `size`-th shard from number `rank` on, over all corpora."""
    return [shard for corpus in shards.corpora.values() for shard in corpus.shards][rank::size]


def _verify(shard: Shard) -> None:
    try:
        shard.verify()
    except OSError as error:
        raise ShardError(
            f"{error.filename or shard.folder} cannot be read ({error.strerror}): the shard is damaged. Delete its "
            "folder and run `ernie2 prepare` again."
        ) from error
