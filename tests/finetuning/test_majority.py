"""One answer for every example, measured as a model is."""

from __future__ import annotations

import pytest

import tiny_finetuning as tiny
from ernie2.datasets.examples import Example, Head
from ernie2.finetuning.majority import majority_figures


def test_the_commonest_label_of_the_split_is_given_to_every_example() -> None:
    some = tuple(Example(str(i), "w1", label=label) for i, label in enumerate(["bad"] * 3 + ["good"]))
    assert majority_figures(tiny.data("classification", test=some), "test") == {"accuracy": 75.0}


def test_of_tags_the_commonest_tag_is_given_to_every_token_and_entities_are_not_measured() -> None:
    some = (
        Example("0", "w1 w2", label=("B-X", "O"), tokens=("w1", "w2")),
        Example("1", "w3", label=("O",), tokens=("w3",)),
    )
    assert majority_figures(tiny.data("tagging", test=some), "test") == {"token_accuracy": pytest.approx(200 / 3)}


@pytest.mark.parametrize("head", ["span", "regression"])
def test_answers_and_numbers_have_none(head: Head) -> None:
    assert majority_figures(tiny.data(head), "dev") == {}
