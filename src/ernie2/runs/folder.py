"""The folder of a run: who holds it, what is in it, and what is held while it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ernie2.errors import CheckpointError, FolderInUse
from ernie2.shards.shard_folders import reading_shards
from ernie2.shards.store import Shards
from ernie2.storage.atomic import remove_leftovers
from ernie2.storage.locks import FolderLock, owner_of
from ernie2.training.checkpoints import begun
from ernie2.training.distributed import World
from ernie2.training.run_record import read_run


@contextmanager
def locked_run_dir(run: Path, world: World) -> Iterator[None]:
    """Make the run folder and lock it; the first rank does so for all.

    Raises `FolderInUse` where another process holds it, `StorageError` where there can be none.
    """
    with ExitStack() as held:
        with world.together():
            if world.first:
                held.enter_context(FolderLock(run, otherwise="run=FOLDER starts another run"))
                remove_leftovers(run / "checkpoints")
        yield


@contextmanager
def locked_shards(shards: Shards, world: World) -> Iterator[None]:
    """Keep the shards of a run from being replaced; the first rank of each machine does so for all of it."""
    with ExitStack() as held:
        with world.together():
            if world.local_rank == 0:
                held.enter_context(reading_shards(shards))
        yield


def free_or_begun_by(run: Path, world: World) -> bool:
    """`begun_by` before the lock of `run` is held; raises `FolderInUse` where another process holds it."""
    if not world.restarts and (owner := owner_of(run)) is not None:  # else an ended attempt may not be gone yet
        raise FolderInUse(f"{run} {in_use(owner)}")
    return begun_by(run, world)


def in_use(owner: str) -> str:
    """Return what a folder is that `owner` has locked, and what can be done, as the end of a sentence."""
    return f"is in use by {owner}. Wait for it or stop it; run=FOLDER starts another run."


def begun_by(run: Path, world: World) -> bool:
    """Whether this job of torchrun began `run` and now starts anew; raises `CheckpointError` where another did."""
    if not begun(run):
        return False
    if world.restarts or (world.job is not None and read_run(run).job == world.job):
        return True
    raise CheckpointError(f"{run} holds a {how_to_go_on(run)}")


def how_to_go_on(run: Path) -> str:
    """What kind of run a folder holds and what can be done with it, as the end of a sentence."""
    if read_run(run).status == "done":
        return f"finished run: `ernie2 extend {run} --task TASK --data SHARDS` adds a task; run=FOLDER starts another."
    return f"run that is not finished: `ernie2 resume {run}` goes on with it; run=FOLDER starts another."
