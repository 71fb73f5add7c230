"""What holds while a run is trained: its folder is this job's alone, its shards are watched, its sinks are open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ernie2.annotate.shards import Shards
from ernie2.errors import StorageError
from ernie2.train.data_check import DataCheck, check_now
from ernie2.train.distributed import World
from ernie2.train.lock import RunLock
from ernie2.train.pretraining import Pretraining
from ernie2.train.sinks import open_sinks


@contextmanager
def holding(run: Path, world: World) -> Iterator[None]:
    """Makes the run folder and keeps other processes out of it; the first rank does so for all.

    Raises `CheckpointError` where another process holds it, `StorageError` where there can be none.
    """
    with ExitStack() as held:
        with world.together():
            if world.first:
                make_folder(run)
                held.enter_context(RunLock(run))
        yield


@contextmanager
def following(made: Pretraining, shards: Shards) -> Iterator[None]:
    """Opens the sinks of a run that is about to be trained, and has shards compared with their checksums.

    Before the first step they are compared now; a run that goes on compares them beside its steps. The ranks of a
    machine share the work. Raises `ShardError` for damage that is found at once.
    """
    trainer, world = made.trainer, made.trainer.world
    with ExitStack() as open_ones:
        if trainer.step:
            trainer.data_check = open_ones.enter_context(DataCheck(shards, world.local_rank, world.local_size))
        else:
            with world.together():
                check_now(shards, world.local_rank, world.local_size)
        if world.first:
            trainer.records.sinks = open_sinks(trainer.settings.sinks, trainer.run, made.facts, trainer.step)
            open_ones.callback(trainer.records.close)
        yield


def make_folder(run: Path) -> None:
    """Makes a run folder; raises `StorageError` where there can be none."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{run} cannot be a run folder: {error.strerror}. Name another with run=FOLDER.") from error
