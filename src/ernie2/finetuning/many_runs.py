"""The runs of one data set for several seeds: one after the other, or side by side in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ernie2.console import progress
from ernie2.finetuning.jobs import Job, Run, finished_run
from ernie2.finetuning.runs import prepare, run
from ernie2.finetuning.sources import open_source
from ernie2.processes import cores, done_in_processes, without_main


def devices() -> list[torch.device]:
    """Every CUDA device, or the CPU."""
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count())] or [torch.device("cpu")]


def run_all(job: Job, seeds: Sequence[int], *, parallel: int | None = None, tokenizer: str | None = None) -> list[Run]:
    """The run of every seed, in their order; those that are finished are read. `parallel` runs go side by side, by
    default one for each GPU, and one on a CPU. Figures do not depend on it."""
    identity = job.identity()
    known = {seed: done for seed in seeds if (done := finished_run(job, seed, identity)) is not None}
    left = [seed for seed in seeds if seed not in known]
    found = devices()
    at_once = min(parallel or len(found), len(left))
    if at_once <= 1:
        prepared = prepare(job) if left else None
        return [
            known[seed] if prepared is None or seed in known else run(job, seed, found[0], prepared) for seed in seeds
        ]
    threads = max(1, cores() // at_once)
    bare = replace(job, source=None)  # type: ignore[arg-type]  # opened where it is used
    orders = [
        (bare, job.source.where, tokenizer, seed, str(found[number % len(found)]), threads)
        for number, seed in enumerate(left)
    ]
    with without_main(), progress(f"{job.data.name}, {at_once} at once", len(orders), "runs") as bar:
        advice = "The same command goes on with the runs that are not finished; a smaller --parallel needs less memory."
        for _ in done_in_processes(_run_one, orders, at_once, what_now=advice):
            bar.advance()
    return [one for seed in seeds if (one := finished_run(job, seed, identity)) is not None]


def _run_one(order: tuple[Job, Path, str | None, int, str, int]) -> None:
    """In a process of its own: leaves the result on the disk, where it is read afterwards."""
    bare, checkpoint, tokenizer, seed, device, threads = order
    torch.set_num_threads(threads)
    job = replace(bare, source=open_source(checkpoint, tokenizer))
    run(job, seed, torch.device(device), prepare(job), bar=False)
