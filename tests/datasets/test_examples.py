from __future__ import annotations

from dataclasses import replace

import tiny_finetuning as tiny


def test_fewer_examples_are_always_the_same_ones_and_make_the_set_a_subset() -> None:
    data = tiny.data("classification", 30)
    official = replace(data, splits={name: replace(one, provenance="official") for name, one in data.splits.items()})
    result = official.limit_train_examples(10)
    train = result.splits["train"]
    assert len(train.examples) == 10
    assert [int(one.id) for one in train.examples] == sorted(int(one.id) for one in train.examples)
    assert (train.provenance, result.provenance) == ("subset", "subset")
    assert train.notes == ("10 of 30 training examples",)
    assert official.limit_train_examples(10) == result
    assert result.splits["dev"] == official.splits["dev"]


def test_user_data_stay_own_and_are_not_extended() -> None:
    data = tiny.data("classification", 30)
    assert data.limit_train_examples(10).provenance == "own"
    assert data.limit_train_examples(30) is data
    assert data.limit_train_examples(None) is data
