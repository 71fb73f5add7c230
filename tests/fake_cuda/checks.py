"""The whole training step, evaluation and compiling at base size on a card that computes nothing (`card.py`).

Not collected by itself: `test_fake_cuda.py` runs it in a process in which the guard is loaded.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ernie2.model.inputs import Inputs
from ernie2.model.transfer import to_host
from ernie2.train.measuring import TaskSet
from ernie2.train.step import take_step
from fake_cuda.base_runs import VOCABULARY, BaseRun, base_run, build_model
from fake_cuda.card import CUDA, Card

FOLDER = Path(os.environ["FAKE_CUDA_FOLDER"])
MASKING = TaskSet("knowledge_masking", ("knowledge_masking",))
STEPS = [(name, chosen) for name in VOCABULARY for chosen in base_run(name, FOLDER).sets]
NAMES = [f"{name}-{chosen.host}-with-{len(chosen.active) - 1}" for name, chosen in STEPS]


def step(card, run: BaseRun, model, optimizer, chosen: TaskSet, precision="bf16", scale=None, packs=None):
    """One step of two packs; asserts that the host waited for nothing and that the results lie on the card."""
    packs = packs or [run.pack(chosen, lane) for lane in range(2)]
    card.steps += 1
    result = take_step(
        model,
        optimizer,
        packs,
        weights=run.weights,
        lr=1e-5,
        clip=1.0,
        precision=precision,
        device=CUDA,
        dropout_key=(0, "dropout", card.steps),
        scale=scale,
    )
    assert card.waits == ([] if scale is None else card.waits[:1])
    assert set(result.losses) == set(chosen.active)
    assert {loss.device.type for loss in result.losses.values()} == {"cuda"}
    assert {loss.dtype for loss in result.losses.values()} == {torch.float32}
    assert {correct.device.type for correct in result.correct.values()} == {"cuda"}
    return result


@pytest.mark.parametrize(("name", "chosen"), STEPS, ids=NAMES)
def test_a_step_of_every_task_set_waits_for_nothing(name, chosen):
    run = base_run(name, FOLDER)
    with Card() as card:
        model, optimizer = build_model(run, VOCABULARY[name], layers=3)
        step(card, run, model, optimizer, chosen)


@pytest.mark.parametrize(("dropout", "copies"), [(0.0, 1), (0.1, 2)], ids=["packed", "padded"])
def test_a_pack_and_its_padded_groups_come_over_in_a_copy_each(dropout, copies):
    """Weights of attention are dropped in padded groups only, whose indices are laid out once the kernel is chosen."""
    run = base_run("all-seven", FOLDER)
    with Card() as card:
        model, optimizer = build_model(run, VOCABULARY["all-seven"], layers=1, attention_dropout=dropout)
        step(card, run, model, optimizer, MASKING)
        assert card.copies == 2 * copies


def test_evaluating_packs_waits_for_the_card_once():
    run = base_run("all-seven", FOLDER)
    with Card() as card:
        model, _ = build_model(run, VOCABULARY["all-seven"], layers=1)
        found = [model.predictions(Inputs.of(run.pack(MASKING, lane), CUDA, static=False)) for lane in range(2)]
        losses = [losses for predicted in found for losses, _ in predicted.values()]
        assert not card.waits
        assert [len(one) for one in to_host(losses)] == [len(one) for one in losses]
        assert len(card.waits) == 1
