"""The nearest right name is suggested however a user came to the wrong one."""

from __future__ import annotations

import pytest

from ernie2.errors import did_you_mean

TASKS = ("knowledge_masking", "capitalization_prediction", "sentence_distance")
SETTINGS = ("epochs", "peak_lr", "batch", "max_length", "warmup_share")


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("sentence_distence", TASKS, "sentence_distance"),
        ("masking", TASKS, "knowledge_masking"),
        ("learning_rate", SETTINGS, "peak_lr"),
        ("lr", SETTINGS, "peak_lr"),
        ("batch_size", SETTINGS, "batch"),
        ("r.yam", ("r.yaml", "other.yaml"), "r.yaml"),
    ],
)
def test_a_name_is_suggested_by_spelling_by_a_shared_part_or_by_initials(word, known, near):
    assert did_you_mean(word, known) == f" Did you mean {near!r}?"


@pytest.mark.parametrize("word", ["device", "", "x_y", "_"])
def test_nothing_is_suggested_where_nothing_is_near(word):
    assert did_you_mean(word, SETTINGS) == ""
