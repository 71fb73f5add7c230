"""Prefixes and mappings around an encoder are found by its word table."""

from __future__ import annotations

import pytest

from ernie2.errors import CheckpointError
from ernie2.model.formats.wrapping import prefix_of

TABLE = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("prefix", "split"),
    [
        ("", ("", "")),
        ("bert.", ("", "bert.")),
        ("ernie.", ("", "ernie.")),
        ("module.bert.", ("module.", "bert.")),
        ("model.", ("model.", "")),
        ("module._orig_mod.model.ernie.", ("module._orig_mod.model.", "ernie.")),
    ],
)
def test_the_word_table_says_what_stands_before_every_name(prefix, split):
    assert prefix_of([f"{prefix}{TABLE}", "cls.predictions.bias", "step"], "x") == split


def test_a_prefix_that_is_no_wrapper_is_told():
    with pytest.raises(CheckpointError, match=r"word embeddings stand under 'question_encoder.bert.'"):
        prefix_of([f"question_encoder.bert.{TABLE}"], "x")


def test_two_word_tables_are_refused():
    with pytest.raises(CheckpointError, match=r"several word tables, under 'bert.', 'module.bert.'"):
        prefix_of([f"module.bert.{TABLE}", f"bert.{TABLE}"], "x")
