"""Whether the shards a run reads are what was prepared.

Shapes and sizes are compared whenever shards are opened. Contents are compared with their checksums before the first
step of a run; a resumed one, which is to go on at once, compares them beside its steps and stops at the next when
something differs. Ranks share the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event

from ernie2.console import progress
from ernie2.errors import ShardError
from ernie2.shards.store import Shard, Shards
from ernie2.training.hooks.base import Hook, OpenRun


def check_shards(shards: Shards, rank: int = 0, size: int = 1) -> None:
    """Compares this rank's share of `shards`; raises `ShardError` naming the first file that differs."""
    mine = shards_of_rank(shards, rank, size)
    with progress("Checking shards", len(mine), "shards") as bar:
        for shard in mine:
            _verify(shard)
            bar.advance()


class ShardCheck(Hook):
    """Compares this rank's share of `shards`: at once for a run that starts, in a thread beside one that is resumed.

    Raises `ShardError` for the first file that differs: at once, or before the next step.
    """

    required = True
    every_rank = True

    def __init__(self, shards: Shards, rank: int = 0, size: int = 1) -> None:
        self._shards, self._rank, self._size = shards, rank, size
        self._left = Event()
        self._checking: Future[None] | None = None

    def open(self, run: OpenRun) -> None:
        if not run.step:
            check_shards(self._shards, self._rank, self._size)
            return
        thread = ThreadPoolExecutor(1, "ernie2-shard-check")
        self._checking = thread.submit(self._check)
        thread.shutdown(wait=False)

    def before_step(self, step: int) -> None:
        if self._checking is not None and self._checking.done():
            self._checking.result()

    def on_batch_error(self, error: Exception) -> None:
        """Wait until all is compared: damaged shards are the first thing to report."""
        if self._checking is not None:
            self._checking.result()

    def close(self) -> None:
        self._left.set()
        if self._checking is not None:
            wait([self._checking])

    def _check(self) -> None:
        for shard in shards_of_rank(self._shards, self._rank, self._size):
            if self._left.is_set():
                return
            _verify(shard)


def shards_of_rank(shards: Shards, rank: int, size: int) -> Sequence[Shard]:
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
