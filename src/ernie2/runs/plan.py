"""Dry run: the schedule, epochs, memory and time of a recipe. Nothing is trained or saved."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ernie2.batches.epochs import check_epochs, expected_epochs, format_epochs, steps_by_main_task
from ernie2.batches.stages import StagePlan
from ernie2.config.settings import Recipe
from ernie2.console import log_result, log_warning, progress
from ernie2.errors import ShardError
from ernie2.formatting import clock, quantity
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.build import build, build_plans, head_specs
from ernie2.runs.folder import existing_run_advice, lock_advice, warn_about_settings
from ernie2.runs.load import check_warm_start
from ernie2.runs.prepare import RecipeSource, missing_data, require_data, warn_about_corpora
from ernie2.runs.recipes import load_recipe
from ernie2.runs.start import build_initial_model
from ernie2.shards.store import Shards
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.storage.locks import lock_owner
from ernie2.tasks.base import Task
from ernie2.tasks.building import build_task, special_tokens_vocabulary
from ernie2.training.checkpoints import is_started
from ernie2.training.distributed import ProcessGroup
from ernie2.training.hooks.loading import HookSource, create_hooks
from ernie2.training.hooks.trackers import check_trackers
from ernie2.training.measuring import RunCost, count_evaluations_and_checkpoints, forecast, measure, task_sets
from ernie2.training.memory import Memory, estimate, peak_bytes
from ernie2.training.optimizers import state_numbers
from ernie2.training.step import choose_precision

MEASURING_SECONDS = 20.0
"""Approximate seconds of measuring steps; at most twice as long, unless a single step takes longer."""


def plan(
    recipe: RecipeSource,
    overrides: Sequence[str] = (),
    seconds: float | None = None,
    *,
    init_from: str | Path | None = None,
    grow: Sequence[str] = (),
    hooks: Sequence[HookSource] = (),
) -> dict[str, Any]:
    """Log what `pretrain` would do with the same arguments, and return the figures.

    Without shards: schedule, steps, tokens, parameters, and an estimate of memory. With shards also the epochs of each
    task over each corpus, and memory and time, from steps of the real model measured for about `seconds` (20). Prepares
    no shards and writes nothing to the run folder.

    Raises `DataError` listing all missing files if there are neither shards nor the data for them, `ConfigError` if a
    corpus would be read more than `stages.max_epochs` times, and the errors of `pretrain`.
    """
    checked = load_recipe(recipe, overrides)
    create_hooks(hooks)
    check_warm_start(init_from, checked, grow)
    check_trackers(checked.train.trackers)
    run = Path(checked.run)
    if (owner := lock_owner(run)) is not None:
        log_warning(f"Note: {run} {lock_advice(owner)}")
    elif is_started(run):
        log_warning(f"Note: {run} contains {existing_run_advice(run)}")
    warn_about_settings(checked.train, checked.encoder, ProcessGroup())
    shards = _shards(checked)
    if shards is None:
        return _plan_without_shards(checked)
    began = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setup = build(checked, shards, build_initial_model(init_from, checked, shards, grow))
    trainer, precision = setup.trainer, setup.record.precision
    warn_about_corpora(setup.usable, trainer.streams.feeds)
    setting_up = time.monotonic() - began
    figures = _schedule(checked, trainer.plans)
    epochs = expected_epochs(trainer.streams, trainer.plans)
    log_result(f"\nEpochs of each task over each corpus (at most stages.max_epochs={checked.stages.max_epochs:g})")
    for task, counts in epochs.items():
        log_result(f"  {task:<26} " + ", ".join(f"{corpus} {format_epochs(count)}" for corpus, count in counts.items()))
    check_epochs(epochs, checked.stages.max_epochs)
    parameters = setup.record.parameters
    memory = _memory(checked, parameters, precision)
    limit = MEASURING_SECONDS if seconds is None else seconds
    with progress("Measuring steps", None, "steps") as bar:
        measured = measure(trainer, seconds=limit, run_folder=run, advance=lambda: bar.advance())
    cost = forecast(trainer, measured)
    peak = peak_bytes(device)
    where = "of the GPU" if device.type == "cuda" else "of this process, including Python and its libraries"
    log_result(f"  measured peak {where}: {_size(peak)}" if peak else "  the peak could not be measured")
    total = setting_up + cost.steps + cost.evaluations + cost.checkpoints
    _log_time(cost, setting_up, total, count_evaluations_and_checkpoints(trainer), setup.record.device, precision)
    return {
        **figures,
        "epochs": epochs,
        "parameters": parameters,
        "memory_estimate": memory.total,
        "memory_peak": peak,
        "tokens": cost.tokens,
        "tokens_per_second": cost.tokens_per_second,
        "seconds": total,
        "checkpoint_bytes": cost.checkpoint_bytes,
    }


def _shards(recipe: Recipe) -> Shards | None:
    """Return the recipe's shards, or None if there are none yet. Raises `ShardError` if they have other corpora."""
    folder = Path(recipe.shards.folder)
    if not (folder / "shards.json").exists():
        return None
    shards = Shards(folder)
    if set(shards.corpora) != set(recipe.corpora):
        raise ShardError(
            f"{folder} contains corpora {sorted(shards.corpora)}, but the recipe names {sorted(recipe.corpora)}. "
            "Prepare the shards again with `ernie2 prepare`."
        )
    for line in missing_data(recipe):
        log_warning(f"Note: {line} The shards in {folder} are used without it.")
    return shards


def _plan_without_shards(recipe: Recipe) -> dict[str, Any]:
    """Plan from the recipe only; raises `DataError` at the end if data are missing."""
    tasks = [build_task(name, options, special_tokens_vocabulary()) for name, options in recipe.tasks.items()]
    figures = _schedule(recipe, build_plans(recipe, tasks, _disjoint_tasks(recipe, tasks)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    file, vocabulary = recipe.tokenizer.file, recipe.tokenizer.train
    if file is not None and Path(file).is_file():
        vocabulary = load_tokenizer(file, recipe.tokenizer.lowercase).vocab_size
    parameters = None
    if vocabulary is not None:
        # on the meta device; a head with classes from the data is counted with two
        specs = [
            replace(spec, classes=None if spec.classes is None else max(2, spec.classes)) for spec in head_specs(tasks)
        ]
        with torch.device("meta"):
            model = MultiTaskModel(recipe.encoder, vocabulary, specs, recipe.seed)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        memory = _memory(recipe, parameters, choose_precision(recipe.train.precision, device))
        figures["memory_estimate"] = memory.total
    require_data(recipe)
    log_result(
        f"\nThere are no shards yet. Prepare them in {recipe.shards.folder} with `ernie2 prepare`; then --dry-run also"
    )
    log_result("reports epochs per task and corpus, and measures memory and time.")
    return {**figures, "parameters": parameters}


def _disjoint_tasks(recipe: Recipe, tasks: Sequence[Task]) -> frozenset[tuple[str, str]]:
    """Return the pairs of tasks that share no corpus according to the recipe."""
    kinds = {name: "documents" if corpus.pairs is None else "pairs" for name, corpus in recipe.corpora.items()}
    reads = {
        task.name: set(task.options.corpora or (name for name, kind in kinds.items() if kind == task.corpus_kind))
        for task in tasks
    }
    return frozenset((a, b) for a in reads for b in reads if reads[a].isdisjoint(reads[b]))


def _schedule(recipe: Recipe, plans: Sequence[StagePlan]) -> dict[str, Any]:
    log_result(f"{recipe.name}: {recipe.stages.method}, {quantity(len(plans), 'stage')}")
    stages = []
    for number, plan in enumerate(plans, 1):
        led, done = steps_by_main_task([plan]), plan.iterations_before(len(plan))
        log_result(
            f"\nStage {number}: {quantity(len(plan), 'step')}"
            + (f", new: {', '.join(plan.stage.introduced)}" if plans else "")
        )
        rows = {}
        for task, iterations in done.items():
            main = led.get(task, 0)
            rows[task] = {"iterations": iterations, "main": main, "attached": iterations - main}
            attached = f", attached in {iterations - main:,}" if iterations > main else ""
            log_result(
                f"  {task:<26} {quantity(iterations, 'iteration'):>19}: main task in {quantity(main, 'step')}{attached}"
            )
        stages.append({"steps": len(plan), "tasks": rows})
    steps = sum(map(len, plans))
    tokens = steps * recipe.batch.batch_tokens
    batch = recipe.batch
    packs = f"{quantity(batch.packs, 'pack')} of {batch.pack_tokens:,}"
    log_result(
        f"\nTotal: {quantity(steps, 'step')} of {batch.batch_tokens:,} tokens ({packs}), at most "
        f"{_rounded(tokens)} tokens."
    )
    return {"stages": stages, "steps": steps, "most_tokens": tokens, "task_sets": len(task_sets(plans))}


def _memory(recipe: Recipe, parameters: int, precision: str) -> Memory:
    weights_tokens = 0 if torch.cuda.is_available() else recipe.batch.sequence_tokens
    memory = estimate(
        recipe.encoder,
        parameters,
        recipe.batch.pack_tokens,
        precision,
        recipe.train.activation_checkpointing,
        weights_tokens,
        state_numbers(recipe.train),
    )
    log_result(
        f"\n{_rounded(parameters)} parameters. Estimated memory of a training step in {precision}: "
        f"{_size(memory.total)}"
    )
    log_result(
        f"  parameters {_size(memory.parameters)}, gradients {_size(memory.gradients)}, optimizer state "
        f"{_size(memory.optimizer)}, activations of a pack {_size(memory.activations)}"
    )
    return memory


def _log_time(
    cost: RunCost, setting_up: float, total: float, counts: tuple[int, int], device: str, precision: str
) -> None:
    evaluations, saved = counts
    log_result(
        f"\nTime on {device}, {precision}, from {cost.measured_sets} of {quantity(cost.sets, 'task set')} measured: "
        f"{clock(total)}"
    )
    rows: Mapping[str, float] = {
        f"steps, {cost.tokens_per_second:,.0f} tokens/s, {_rounded(cost.tokens)} tokens": cost.steps,
        quantity(evaluations, "held-out evaluation"): cost.evaluations,
        quantity(saved, "checkpoint") + (f" of {_size(cost.checkpoint_bytes)}" if cost.checkpoint_bytes else ""): (
            cost.checkpoints
        ),
        "setup": setting_up,
    }
    for what, seconds in rows.items():
        log_result(f"  {what:<50} {clock(seconds):>10}")
    if cost.checkpoint_bytes is None:
        log_result(
            "  The time of a checkpoint was not measured: writing one next to the run folder failed. Check the disk."
        )


def _size(size: float) -> str:
    """Format bytes: 812 MiB, 5.4 GiB."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{max(1, size / 2**20):,.0f} MiB"


def _rounded(count: float) -> str:
    """Format a large count: 812, 3.4 M, 19.7 B."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:,.0f}"
