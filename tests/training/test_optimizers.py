import re
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import pytest
import torch
from torch import nn

from ernie2.config.settings import OPTIMIZERS, TrainSettings
from ernie2.training.optimizers import build_optimizer, state_numbers

STATES = [
    ({"optimizer": "adamw"}, {"step", "exp_avg", "exp_avg_sq"}, 2),
    ({"optimizer": "sgd"}, {"momentum_buffer"}, 1),
    ({"optimizer": "sgd", "momentum": 0.0}, set(), 0),
]


@pytest.mark.parametrize(("train", "kinds", "numbers"), STATES)
def test_every_optimizer_has_its_state_in_zeros_from_the_start_and_parameters_stay(train, kinds, numbers):
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    settings = TrainSettings(**train)
    optimizer = build_optimizer(model, settings)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert set(optimizer.state[parameter]) == kinds
        assert all((tensor == 0).all() for tensor in optimizer.state[parameter].values())
    assert {group["lr"] for group in optimizer.param_groups} == {settings.peak_lr}
    assert state_numbers(settings) == numbers


def test_the_tables_have_every_optimizer_a_recipe_can_name():
    named = set(get_args(TrainSettings.model_fields["optimizer"].annotation))
    assert named == set(OPTIMIZERS) == {train["optimizer"] for train, *_ in STATES}
    page = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)`.* \| `torch\.", page, re.MULTILINE)) == named


def test_the_page_names_every_place_an_optimizer_is_added_to():
    page = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    for place in ("make keys", "recipes/demo-en.yaml", "`STATES`", "`OPTIMIZERS`"):
        assert place in page.partition("## Add an optimiser")[2]


@pytest.mark.parametrize("train", [train for train, *_ in STATES])
def test_biases_and_norms_are_not_decayed(train):
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    optimizer = build_optimizer(model, TrainSettings(weight_decay=0.5, **train))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.5,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_created_at_the_start_gives_the_updates_of_lazy_state(name):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    settings = TrainSettings(optimizer=name, peak_lr=0.1)
    path, keys = OPTIMIZERS[name]
    groups = [{"params": [theirs.weight], "weight_decay": 0.01}, {"params": [theirs.bias], "weight_decay": 0.0}]
    options = {option: getattr(settings, key) for option, key in keys.items()}
    optimizers = (build_optimizer(ours, settings), resolve_name(path)(groups, lr=0.1, **options))
    for _ in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).pow(2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-6, atol=0)
