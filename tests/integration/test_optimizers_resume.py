"""A run killed, resumed and extended ends as an uninterrupted one, with any optimizer and schedule."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

import ernie2
import tiny
import tiny_run
from ernie2.errors import CheckpointError, ConfigError
from ernie2.training.checkpoints import newest
from ernie2.training.records import Records
from ernie2.training.run_record import read_run

NEW = tiny.FOUR[-1]
CLOCKS = ("seconds", "tokens_per_second", "time")
SGD = {"optimizer": "sgd", "momentum": 0.9}


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs in the loop."""


@contextmanager
def killed_after(steps):
    """Dies in the training step after so many; the step that creates state has rate 0 and does not count."""
    numbers = itertools.count()

    def die(optimizer, _args, _kwargs):
        if optimizer.param_groups[0]["lr"] and next(numbers) == steps:
            raise Killed

    hook = register_optimizer_step_pre_hook(die)
    try:
        with pytest.raises(Killed):
            yield
    finally:
        hook.remove()


def pretrained(folder, train, kill=None):
    folder.mkdir()
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder, train=train).model_dump(mode="json")
    recipe["tasks"] = {name: {} for name in tiny.FOUR if name != NEW}
    if kill is None:
        return ernie2.pretrain(recipe)
    with killed_after(kill):
        ernie2.pretrain(recipe)
    return ernie2.resume(folder / "run")


def extended(folder, kill=None):
    def extend():
        return ernie2.extend(folder / "run", NEW, folder / "shards", ["stages.steps=4"])

    if kill is None:
        return extend()
    with killed_after(kill):
        extend()
    return ernie2.resume(folder / f"run+{NEW}")


def left_behind(run):
    """What a run leaves: its last checkpoint's tensors and every record but for clocks."""
    last = newest(run).folder
    tensors = [(last / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]
    records = [{key: value for key, value in line.items() if key not in CLOCKS} for line in Records(run).read()]
    return tensors, records


@pytest.mark.parametrize(
    "train",
    [
        SGD,
        SGD | {"momentum": 0.0, "schedule": "linear", "restart": "never"},
        {"schedule": "wsd", "lr_decay": 2, "restart": "per_task"},
    ],
    ids=["sgd", "sgd without momentum, linear", "adamw, wsd"],
)
def test_a_run_killed_resumed_and_extended_ends_bit_identical(tmp_path, train):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first = left_behind(pretrained(whole, train))
    assert left_behind(pretrained(broken, train, kill=5)) == first
    second = left_behind(extended(whole))
    assert left_behind(extended(broken, kill=2)) == second
    assert first != second


@pytest.mark.parametrize("override", ["train.optimizer=adamw", "train.momentum=0"])
def test_an_extension_cannot_change_to_an_optimizer_with_other_state(tmp_path, override):
    folder = tmp_path / "sgd"
    run = pretrained(folder, SGD)
    with pytest.raises(ConfigError, match=r"Do not change train\.optimizer and train\.momentum"):
        ernie2.extend(run, NEW, folder / "shards", ["stages.steps=4", override])
    assert not (folder / f"run+{NEW}").exists()


def test_a_checkpoint_of_another_optimizer_is_not_resumed(tmp_path):
    folder = tmp_path / "sgd"
    run = pretrained(folder, SGD)
    recipe = read_run(run).recipe
    recipe["train"]["optimizer"] = "adamw"
    tiny_run.write_run_json(run, status="stopped", recipe=recipe)
    with pytest.raises(CheckpointError, match="state of another optimizer"):
        ernie2.resume(run)
