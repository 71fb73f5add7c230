"""Training steps on the real stream: base with a profile, large, the ablation, and the input pipeline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from comparisons.ablation import ablation_variants
from ernie2.benchmarking.bench import Bench, Note
from ernie2.benchmarking.input_pipeline import loader_rate, measure_loader_wait
from ernie2.model import optimizations
from ernie2.training.measuring import StepRunner
from gpu_parts.job import Job

TOP_KERNELS = 40


def bench_of(job: Job, steps: int, *overrides: str, **facts: Any) -> Bench:
    """Build and warm up a bench of base with `overrides`; record the time, and every later step."""
    began = time.monotonic()
    bench = Bench(job.recipe(*overrides), job.open_shards(), job.device, steps, note=note_of(job, **facts))
    graphs = bench.ours.graphs
    took = round(time.monotonic() - began, 1)
    job.note("ready", **facts, **_facts(bench), compiled=graphs is not None, graphs=graphs, seconds=took)
    return bench


def note_of(job: Job, **facts: Any) -> Note:
    """Return a callback that records every measurement of a bench with `facts`, except warm-up steps."""

    def record(what: str, measured: Mapping[str, Any]) -> None:
        if what != "warm_up":
            job.note(what, **facts, **measured)

    return record


def measure_base(job: Job) -> None:
    """Measure steps of the base model in the plan's mix, then profile a step with the most tasks."""
    bench = bench_of(job, job.scale.steps)
    job.note("rates", **_facts(bench), **bench.measure_steps()["step"])
    _profile(job, bench)


def measure_large(job: Job) -> None:
    """Measure steps of the large model."""
    bench = bench_of(job, job.scale.few, *job.scale.large)
    job.note("rates", **_facts(bench), **bench.measure_steps()["step"])


def measure_ablation(job: Job) -> None:
    """Record base with all optimisations, with none, and without each; every variant is recompiled."""
    measured = ablation_variants(list(optimizations.OPTIMIZATIONS))
    for form in [measured[0], *measured[:0:-1]] if measured[1:] else measured:
        torch._dynamo.reset()
        with optimizations.disabled(*form.off):
            bench = bench_of(job, job.scale.few, form=form.name)
            bench.ours.runner = StepRunner(bench.trainer)  # start again from the first packs
            job.note("variant", form=form.name, off=list(form.off), **bench.measure_steps()["step"])
        del bench
        if job.device.type == "cuda":
            torch.cuda.empty_cache()


def measure_input(job: Job) -> None:
    """Measure the rate of one loader worker, and how long training waits for packs with several."""
    bench = bench_of(job, job.scale.few)
    job.note("one_process", **loader_rate(bench.trainer.streams, bench.sets))
    for workers in job.scale.workers:
        job.note("waiting", **measure_loader_wait(bench.ours.runner, bench.sets, workers, job.scale.few))


def _facts(bench: Bench) -> dict[str, Any]:
    """Return model and batch sizes of a bench."""
    parameters = sum(parameter.numel() for parameter in bench.trainer.model.parameters())
    encoder, batch = bench.recipe.encoder, bench.recipe.batch
    return {
        "layers": encoder.layers,
        "hidden": encoder.hidden,
        "parameters": parameters,
        "batch_tokens": batch.batch_tokens,
        "pack_tokens": batch.pack_tokens,
        "sequence_tokens": batch.sequence_tokens,
        "precision": bench.precision,
    }


def _profile(job: Job, bench: Bench) -> None:
    """Record the time of one step by kernel on a GPU, by operator on a CPU."""
    on_card = job.device.type == "cuda"
    chosen = max(bench.counts, key=lambda each: len(each.active))
    packs = bench.ours.runner.packs(chosen)
    bench.ours.runner.train(packs)
    with profile(activities=[ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU]) as profiler:
        seconds = bench.ours.runner.train(packs)
    wanted = DeviceType.CUDA if on_card else DeviceType.CPU
    rows = [
        (event.self_device_time_total if on_card else event.self_cpu_time_total, event.count, event.key)
        for event in profiler.key_averages()
        if event.device_type == wanted
    ]
    rows = sorted((row for row in rows if row[0] > 0), reverse=True)
    total = sum(row[0] for row in rows)
    job.note(
        "profile",
        active=list(chosen.active),
        step_ms=round(1e3 * seconds, 3),
        kernels_ms=round(total / 1e3, 3),
        kernels=[
            {"ms": round(time / 1e3, 3), "share": round(time / total, 4), "calls": count, "name": name[:150]}
            for time, count, name in rows[:TOP_KERNELS]
        ],
    )
