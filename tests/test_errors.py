"""Suggestions of the closest valid name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ernie2.errors import did_you_mean, install_advice

ROOT = Path(__file__).parents[1]

TASKS = ("knowledge_masking", "capitalization_prediction", "sentence_distance")
SETTINGS = ("epochs", "peak_lr", "batch_size", "max_length", "warmup_ratio")


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("sentence_distence", TASKS, "sentence_distance"),
        ("masking", TASKS, "knowledge_masking"),
        ("learning_rate", SETTINGS, "peak_lr"),
        ("lr", SETTINGS, "peak_lr"),
        ("batch", SETTINGS, "batch_size"),
        ("r.yam", ("r.yaml", "other.yaml"), "r.yaml"),
    ],
)
def test_a_name_is_suggested_by_spelling_by_a_shared_part_or_by_initials(word, known, near):
    assert did_you_mean(word, known) == f" Did you mean {near!r}?"


@pytest.mark.parametrize("word", ["device", "", "x_y", "_"])
def test_there_is_no_suggestion_without_a_close_match(word):
    assert did_you_mean(word, SETTINGS) == ""


def test_the_advice_installs_from_the_checkout() -> None:
    assert install_advice("onnx") == "in the ernie2 checkout run `pip install -c constraints.txt -e '.[onnx]'`"


def test_every_extra_that_is_advised_is_declared() -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src" / "ernie2").rglob("*.py"))
    advised = set(re.findall(r"install_advice\(['\"](\w+)['\"]\)", source))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert advised == {"onnx", "spacy", "zh"}
    assert advised <= set(declared)
