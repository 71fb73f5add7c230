"""The runs of one data set for several seeds: one after the other, or side by side in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ernie2.console import progress
from ernie2.datasets.examples import LabelledData
from ernie2.finetuning.jobs import Job, Run, finished_run
from ernie2.finetuning.paper_settings import Settings
from ernie2.finetuning.runs import prepare, run
from ernie2.finetuning.sources import open_source
from ernie2.processes import cores, done_in_processes, without_main


@dataclass(frozen=True)
class _Order:
    """What a process of its own needs to do one run; the checkpoint is opened there."""

    checkpoint: Path
    tokenizer: str | None
    data: LabelledData
    settings: Settings
    task_id: int
    folder: Path
    texts: tuple[str, ...]
    seed: int
    device: str
    threads: int


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
    orders = [
        _Order(
            job.source.where,
            tokenizer,
            job.data,
            job.settings,
            job.task_id,
            job.folder,
            job.texts,
            seed,
            str(found[number % len(found)]),
            max(1, cores() // at_once),
        )
        for number, seed in enumerate(left)
    ]
    with without_main(), progress(f"{job.data.name}, {at_once} at once", len(orders), "runs") as bar:
        advice = "The same command goes on with the runs that are not finished; a smaller --parallel needs less memory."
        for _ in done_in_processes(_carry_out, orders, at_once, what_now=advice):
            bar.advance()
    return [one for seed in seeds if (one := finished_run(job, seed, identity)) is not None]


def _carry_out(order: _Order) -> None:
    """In a process of its own: leaves the result on the disk, where it is read afterwards."""
    torch.set_num_threads(order.threads)
    source = open_source(order.checkpoint, order.tokenizer)
    job = Job(source, order.data, order.settings, order.task_id, order.folder, order.texts)
    run(job, order.seed, torch.device(order.device), prepare(job), bar=False)
