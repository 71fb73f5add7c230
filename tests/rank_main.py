"""What one rank of a group does in tests, started by `tests/ranks.py`: trains tiny runs and notes every step.

    RANK=0 WORLD_SIZE=2 … python rank_main.py JOBS.json

A job names a run folder, shards, changes to the tiny recipe, and optionally `stop` (steps after which it stops with a
checkpoint), `resume`, or `only` (by task, the one data stream in which it scores). Rank 0 writes what it noted into
JOBS.out.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import tiny_run
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.build import build
from ernie2.shards.store import Shards
from ernie2.training import checkpoints
from ernie2.training import trainer as trainer_module
from ernie2.training.distributed import open_process_group


class Stopped(BaseException):
    """The run is as if it had been stopped after a checkpoint."""


def fingerprint(pack):
    """A hash of everything in a pack."""
    seen = hashlib.blake2b(digest_size=8)
    arrays = [pack.tokens, pack.positions, pack.segments, pack.task_ids, pack.starts]
    for name in sorted(pack.targets):
        arrays += [pack.targets[name].positions, pack.targets[name].labels]
        seen.update(f"{name} {pack.targets[name].count}".encode())
    for array in arrays:
        seen.update(np.ascontiguousarray(array).tobytes())
    return seen.hexdigest()


def score_only_in(streams, loader):
    """Let each task of `streams` score in one data stream only, so that one rank uses its head and others do not."""
    load = loader.load

    def loading(stage, step, states):
        packs, after = load(stage, step, states)
        kept = [
            replace(pack, targets={name: t for name, t in pack.targets.items() if streams.get(name, number) == number})
            for number, pack in zip(loader.numbers, packs, strict=True)
        ]
        return kept, after

    loader.load = loading


def train(job, group):
    """Runs a job; returns what happened in every step, the same on all ranks."""
    steps, take = [], trainer_module.take_step
    folder = Path(job["folder"])
    trainer = build(tiny_run.recipe(folder, **job.get("changes", {})), Shards(Path(job["shards"])), group=group).trainer
    score_only_in(job.get("only", {}), trainer.inputs.loader)
    if job.get("resume"):
        trainer.restore(group.run_on_first(lambda: checkpoints.newest(folder / "run")))

    def noting(model, optimizer, batch, *options):
        result = take(model, optimizer, batch, *options)
        mine = [fingerprint(pack) for pack in batch.packs[: len(trainer.inputs.numbers)]]
        by_rank = group.all_gather(mine)
        found = [by_rank[number % group.size][number // group.size] for number in range(trainer.streams.count)]
        losses = {name: float(loss) / result.counts[name] for name, loss in result.losses.items()}
        idle = sorted(n for n, h in model.heads.items() if all(p.grad is None for p in h.parameters()))
        steps.append({"packs": found, "losses": losses, "norm": float(result.grad_norm), "idle": idle})
        return result

    trainer_module.take_step = noting
    save = trainer._save

    def saving(*arguments, **options):
        save(*arguments, **options)
        if trainer.position.step == job.get("stop"):
            raise Stopped

    trainer._save = saving
    try:
        trainer.train()
    except Stopped:
        pass
    finally:
        trainer_module.take_step = take
    return {"steps": steps, "position": trainer.position.state() | {"seconds": 0}}


def main(file):
    jobs = json.loads(file.read_text())
    trainer_module.should_compile = lambda wanted, device: wanted is True
    compile_parts = MultiTaskModel.compile_parts
    MultiTaskModel.compile_parts = lambda model: compile_parts(model, "eager")  # all of it but making kernels
    with open_process_group() as group:
        found = [train(job, group) for job in jobs]
        if group.is_first:
            file.with_suffix(".out").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
