"""Rows of a head follow the names of its classes."""

from __future__ import annotations

import torch

from ernie2.config.settings import EncoderSettings
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.training.label_rows import other_labels, rows_by_label

SETTINGS = EncoderSettings(layers=1, hidden=8, heads=1, position_rows=16)
WEIGHT, BIAS = "heads.discourse_relation.linear.weight", "heads.discourse_relation.linear.bias"


def model(classes):
    return MultiTaskModel(SETTINGS, 40, [HeadSpec("discourse_relation", "sentence", classes)], seed=3)


def test_only_tasks_with_other_classes_or_another_order_are_moved():
    theirs = {"a": ["x", "y"], "b": ["x", "y"], "c": None, "d": ["x", "y"]}
    ours = {"a": ("x", "y"), "b": ("y", "x"), "c": ("x", "y"), "e": ("x", "y")}
    assert other_labels(theirs, ours) == {"b": (("x", "y"), ("y", "x"))}


def test_a_label_keeps_its_row_wherever_it_stands_and_new_ones_start_as_in_a_new_model():
    theirs = {WEIGHT: torch.arange(24.0).reshape(3, 8), BIAS: torch.tensor([1.0, 2.0, 3.0])}
    made, fresh = model(4), model(4).state_dict()
    moved = rows_by_label(theirs, made, {"discourse_relation": (("and", "but", "so"), ("so", "then", "and", "if"))})
    weight, bias = made.state_dict()[WEIGHT], made.state_dict()[BIAS]
    assert torch.equal(weight[[0, 2]], theirs[WEIGHT][[2, 0]])
    assert torch.equal(weight[[1, 3]], fresh[WEIGHT][[1, 3]])
    assert bias.tolist() == [3.0, 0.0, 1.0, 0.0]
    assert moved.tensors == {WEIGHT, BIAS}
    assert moved.new == ("heads.discourse_relation, labels 'then', 'if'",)
    assert moved.left_out == ("heads.discourse_relation, labels 'but'",)


def test_of_many_labels_the_first_ten_are_named():
    theirs = {WEIGHT: torch.zeros(2, 8), BIAS: torch.zeros(2)}
    wanted = tuple(f"l{i}" for i in range(174))
    moved = rows_by_label(theirs, model(174), {"discourse_relation": (("a", "b"), wanted)})
    assert moved.new[0].endswith("'l9' and 164 others")
