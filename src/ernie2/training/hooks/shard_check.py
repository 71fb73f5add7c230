"""Check that the shards of a run have not changed since they were prepared.

Opening shards checks shapes and sizes. Checksums of the contents are checked before the first step of a run. A resumed
run starts at once, checks them in a thread, and stops before its next step if one differs. Ranks share the work.
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
    """Check this rank's part of `shards`; raise `ShardError` with the first file that differs."""
    mine = shards_of_rank(shards, rank, size)
    with progress("Checking shards", len(mine), "shards") as bar:
        for shard in mine:
            _verify(shard)
            bar.advance()


class ShardCheck(Hook):
    """Checks this rank's part of `shards`, before the first step of a new run or in a thread of a resumed one.

    Raises `ShardError` for the first file that differs, in a resumed run before the next step.
    """

    required = True
    every_rank = True

    def __init__(self, shards: Shards, rank: int = 0, size: int = 1) -> None:
        self._shards, self._rank, self._size = shards, rank, size
        self._closing = Event()
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
        """Wait for the check: damaged shards are the more specific error."""
        if self._checking is not None:
            self._checking.result()

    def close(self) -> None:
        self._closing.set()
        if self._checking is not None:
            wait([self._checking])

    def _check(self) -> None:
        for shard in shards_of_rank(self._shards, self._rank, self._size):
            if self._closing.is_set():
                return
            _verify(shard)


def shards_of_rank(shards: Shards, rank: int, size: int) -> Sequence[Shard]:
    """Return every `size`-th shard, starting with number `rank`, over all corpora."""
    return [shard for corpus in shards.corpora.values() for shard in corpus.shards][rank::size]


def _verify(shard: Shard) -> None:
    try:
        shard.verify()
    except OSError as error:
        raise ShardError(
            f"{error.filename or shard.folder} cannot be read ({error.strerror}): the shard is damaged. Delete its "
            "folder and run `ernie2 prepare` again."
        ) from error
