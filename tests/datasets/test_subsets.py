from __future__ import annotations

from dataclasses import replace

import tiny_finetuning as tiny
from ernie2.datasets.subsets import with_train_examples


def test_fewer_examples_are_always_the_same_ones_and_make_the_set_a_subset() -> None:
    data = tiny.data("classification", 30)
    official = replace(data, splits={name: replace(one, standing="official") for name, one in data.splits.items()})
    made = with_train_examples(official, 10)
    train = made.splits["train"]
    assert len(train.examples) == 10
    assert [int(one.id) for one in train.examples] == sorted(int(one.id) for one in train.examples)
    assert (train.standing, made.standing) == ("subset", "subset")
    assert train.notes == ("10 of 30 training examples",)
    assert with_train_examples(official, 10) == made
    assert made.splits["dev"] == official.splits["dev"]


def test_data_of_a_users_own_stay_that_and_no_more_are_made_up() -> None:
    data = tiny.data("classification", 30)
    assert with_train_examples(data, 10).standing == "own"
    assert with_train_examples(data, 30) is data
    assert with_train_examples(data, None) is data
