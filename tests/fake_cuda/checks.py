"""The whole training step, evaluation and compiling at base size on a card that computes nothing (`card.py`).

Not collected by itself: `test_fake_cuda.py` runs it in a process in which the guard is loaded.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from ernie2.batches.batch import PackedBatch, pack_sequences
from ernie2.model.attention import plan as plan_module
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.transfer import to_host
from ernie2.runs import build as build_module
from ernie2.training import evaluate
from ernie2.training import trainer as trainer_module
from ernie2.training.distributed import ProcessGroup
from ernie2.training.step import LocalBatch, LossScale, StepResult, StepSettings, autocast, take_step
from fake_cuda.base_runs import BaseRun, base_recipe, base_run, build_model
from fake_cuda.card import CUDA, Card

FOLDER = Path(os.environ["FAKE_CUDA_FOLDER"])
RECIPES = os.environ.get("FAKE_CUDA_RECIPES", "all-seven english-base chinese-base").split()
STEPS = {
    f"{name}-{chosen.main_task}-with-{'-'.join(t for t in chosen.active if t != chosen.main_task) or 'none'}": (
        name,
        chosen,
    )
    for name in RECIPES
    for chosen in base_run(name, FOLDER).sets
}
MOST = max((chosen for name, chosen in STEPS.values() if name == "all-seven"), key=lambda chosen: len(chosen.active))
"""The task set with the most tasks."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def step(card: Card, run: BaseRun, model, optimizer, packs, precision="bf16", scale=None) -> StepResult:
    """One step, as the trainer takes it."""
    card.steps += 1
    settings = StepSettings(weights=run.weights, max_grad_norm=1.0, precision=precision, device=CUDA, scale=scale)
    return take_step(model, optimizer, LocalBatch.of(packs, (0, "dropout", card.steps)), settings, 1e-5)


def assert_on_card(result: StepResult, tasks) -> None:
    """The result has figures of `tasks`, and they lie on the card."""
    assert set(result.losses) == set(result.correct) == set(tasks)
    assert {(loss.device.type, loss.dtype) for loss in result.losses.values()} == {("cuda", torch.float32)}
    assert {correct.device.type for correct in result.correct.values()} == {"cuda"}
    assert result.grad_norm.device.type == "cuda"


def pack_of_rows(run: BaseRun, length: int, rows: int | None = None) -> PackedBatch:
    """A pack of sequences of one length that fill it, or of `rows` of them, without targets but those of MOST."""
    rows = run.streams.caps.tokens // length if rows is None else rows
    like = run.pack(MOST)
    ids = [np.full(length, 7)] * rows
    zeros = [np.zeros(length, np.int64)] * rows
    return pack_sequences(ids, zeros, [0] * rows, like.targets, size=like.tokens.size, longest=like.longest, pad=0)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_every_task_set_does_not_synchronise(name):
    recipe, chosen = STEPS[name]
    run = base_run(recipe, FOLDER)
    with Card() as card:
        model, optimizer = build_model(run, layers=2)
        result = step(card, run, model, optimizer, [run.pack(chosen, number) for number in range(2)])
        assert_on_card(result, chosen.active)
    assert card.waits == []


def kernels_of(monkeypatch) -> set[str]:
    """The kernels that are chosen from now on."""
    seen: set[str] = set()
    choose = plan_module.choose_kernel

    def noting(*facts: Any, **more: Any) -> str:
        seen.add(kernel := choose(*facts, **more))
        return kernel

    monkeypatch.setattr(plan_module, "choose_kernel", noting)
    return seen


@pytest.mark.parametrize("activation_checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(
    ("kernel", "dropout", "capability"),
    [
        ("packed", 0.0, (9, 0)),
        ("dense", 0.0, (9, 0)),
        ("dense", 0.1, (9, 0)),
        ("padded", 0.1, (9, 0)),
        ("padded", 0.0, (7, 5)),
    ],
)
def test_a_step_of_every_kernel_and_precision_synchronises_only_for_the_loss_scale(
    kernel, dropout, capability, precision, activation_checkpointing, monkeypatch
):
    if kernel == "packed" and precision == "fp32":
        kernel = "padded"  # the packed kernel is for 16 bits
    seen = kernels_of(monkeypatch)
    run = base_run("all-seven", FOLDER)
    scale = LossScale() if precision == "fp16" else None
    with Card(capability) as card:
        model, optimizer = build_model(run, layers=2, attention_dropout=dropout)
        model.encoder.activation_checkpointing = activation_checkpointing
        pack = pack_of_rows(run, run.streams.caps.longest) if kernel == "dense" else run.pack(MOST)
        assert_on_card(step(card, run, model, optimizer, [pack], precision, scale), MOST.active)
    assert seen == {kernel}
    if scale is None:
        assert card.waits == []
    else:  # the host must know whether gradients overflowed
        assert {wait.rpartition(" ")[2] for wait in card.waits} == {"__bool__)"}


def test_held_out_evaluation_reads_only_losses_and_predictions():
    run = base_run("all-seven", FOLDER)
    with Card() as card:
        model, _ = build_model(run, layers=2)
        for chosen in run.sets:
            packs = [run.pack(chosen, number) for number in range(2)]
            with torch.no_grad(), autocast("bf16", CUDA):
                for pack in packs:
                    made = model.predictions(Inputs.from_batch(pack, CUDA, static=False))
                    assert {losses.device.type for losses, _ in made.values()} == {"cuda"}
        assert card.waits == []


@pytest.mark.parametrize(
    ("kernel", "activation_checkpointing"), [("packed", False), ("packed", True), ("padded", False)]
)
def test_batches_do_not_recompile(kernel, activation_checkpointing, monkeypatch):
    run = base_run("all-seven", FOLDER)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    seen = kernels_of(monkeypatch)
    compiling = torch.compile
    if kernel == "packed":  # the others are left out of the graph of a layer
        monkeypatch.setattr(torch, "compile", lambda *args, **options: compiling(*args, **options, fullgraph=True))
    with Card(watched=False) as card, warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(lru_cache|functools)")
        model, optimizer = build_model(run, layers=2, attention_dropout=0.0 if kernel == "packed" else 0.1)
        model.encoder.activation_checkpointing = activation_checkpointing
        model.compile_parts("eager")
        graphs = []
        for number in range(2):
            with torch._dynamo.config.patch(error_on_recompile=number > 0, fail_on_recompile_limit_hit=True):
                for chosen in run.sets if kernel == "packed" else [MOST]:
                    step(card, run, model, optimizer, [run.pack(chosen, number)])
            graphs.append(counters["stats"]["unique_graphs"])
    assert seen == {kernel}
    assert graphs[1] == graphs[0]
    parts = 1 if kernel == "packed" else 2  # of a layer
    assert graphs[0] <= 1 + parts + len(run.specs) + 1  # embeddings, a layer, a head each, the softmax of a chunk


def test_the_trainer_synchronises_only_to_log_or_evaluate(tmp_path, monkeypatch):
    run = base_run("all-seven", FOLDER)
    changes = ["train.compile=false", "train.workers=0", "train.heldout_instances=8"]
    recipe = base_recipe("all-seven", f"run={tmp_path}", *changes)
    monkeypatch.setattr(evaluate, "FIT_INSTANCES", 50)
    monkeypatch.setattr(build_module, "parameters_digest", lambda encoder: "none")
    monkeypatch.setattr(MultiTaskModel, "to", lambda model, device: model)
    with Card() as card:
        model, _ = build_model(run, layers=2)
        trainer = build_module.build(recipe, run.shards, model=model, group=ProcessGroup(device=CUDA)).trainer
        take = trainer_module.take_step

        def counting(*arguments: Any, **options: Any) -> StepResult:
            card.steps += 1
            return take(*arguments, **options)

        monkeypatch.setattr(trainer_module, "take_step", counting)
        with trainer.inputs:
            for _ in range(5):
                inputs = trainer._next_inputs()
                rate = trainer._count_step(inputs)
                result = trainer_module.take_step(
                    trainer.model, trainer.optimizer, inputs.batch, trainer.step_settings, rate
                )
                trainer._after_step(trainer.plans[-1], inputs, rate, result)
            assert card.waits == []
            trainer._log()
            assert {wait.rpartition(" ")[2] for wait in card.waits} <= {"__bool__)", "line)", "<dictcomp>)"}
            card.waits.clear()
            trainer._evaluate("during")
            assert [wait.partition(" (")[0] for wait in card.waits] == ["copies to the host"]


def test_the_fake_gpu_records_synchronisation():
    with Card() as card:
        values = torch.zeros(3, device="cuda")
        for what, wait in {
            "reads a value": lambda: values[0].item(),
            "reads a value ": lambda: bool(values[0] > 1),
            "copies to the host": lambda: values.cpu(),
            "copies from memory that is not pinned": lambda: torch.ones(3).to("cuda", non_blocking=True),
            "waits for a copy from the host": lambda: torch.ones(3).pin_memory().to("cuda"),
            "waits for the card": lambda: torch.cuda.synchronize(),
            "waits for a stream": lambda: torch.cuda.current_stream().synchronize(),
            "waits for an event of this step": lambda: torch.cuda.current_stream().record_event().synchronize(),
        }.items():
            wait()
            assert [noted.partition(" (")[0] for noted in card.waits] == [what.strip()]
            card.waits.clear()
        torch.ones(3).pin_memory().to("cuda", non_blocking=True)
        values.to("cpu", non_blocking=True)
        event = torch.cuda.current_stream().record_event()
        card.steps += 1
        event.synchronize()  # the step is over
        assert card.waits == []
        for mix in (
            lambda: values + torch.ones(3),
            lambda: values.half() @ values,
            lambda: values.nonzero(),
            lambda: torch.tensor([1.0, 2.0], device="cuda"),
            lambda: values[values > 0],
        ):
            with pytest.raises((RuntimeError, DynamicOutputShapeException)):
                mix()


@pytest.mark.parametrize(("dropout", "copies"), [(0.0, 1), (0.1, 2)], ids=["packed", "padded"])
def test_a_pack_and_its_padded_groups_take_one_copy_each(dropout, copies):
    """Weights of attention are dropped in padded groups only, whose indices are laid out once the kernel is chosen."""
    run = base_run("all-seven", FOLDER)
    with Card() as card:
        model, optimizer = build_model(run, layers=1, attention_dropout=dropout)
        step(card, run, model, optimizer, [run.pack(MOST, number) for number in range(2)])
        assert card.copies == 2 * copies


def test_evaluating_packs_synchronises_once():
    run = base_run("all-seven", FOLDER)
    with Card() as card:
        model, _ = build_model(run, layers=1)
        found = [
            model.predictions(Inputs.from_batch(run.pack(MOST, number), CUDA, static=False)) for number in range(2)
        ]
        losses = [losses for predicted in found for losses, _ in predicted.values()]
        assert not card.waits
        assert [len(one) for one in to_host(losses)] == [len(one) for one in losses]
        assert len(card.waits) == 1
