"""Tasks of a recipe: options checked, labels filled from the data."""

from __future__ import annotations

import json

import pytest

from ernie2.errors import ConfigError, TaskError
from ernie2.tasks import base
from ernie2.tasks.base import TokenTask
from ernie2.tasks.building import build_tasks, task_options
from tiny import VOCABULARY, document, write_corpora


def pairs(*labels):
    return [document([[[10]], [[11]]], label=label, name=f"p{i}") for i, label in enumerate(labels)]


TEXT = [document([[[10], [11]]])]


def corpora(folder, **made):
    return write_corpora(folder, {"wiki": TEXT, **made}).corpora


def built(options, corpora):
    return build_tasks(options, VOCABULARY, corpora)


def test_labels_are_those_of_all_corpora_the_task_reads(tmp_path):
    offered = corpora(tmp_path, web=pairs("so", "but"), books=pairs("and", "but"), clicks=pairs("0", "1"))
    (made,) = built({"discourse_relation": {"corpora": ["web", "books"]}}, offered)
    assert made.labels == made.options.labels == ("and", "but", "so")


def test_integers_stand_in_the_order_of_numbers(tmp_path):
    (made,) = built({"ir_relevance": None}, corpora(tmp_path, clicks=pairs("10", "9", "2")))
    assert made.labels == ("2", "9", "10")


def test_labels_the_options_name_are_kept_in_their_order(tmp_path):
    (made,) = built({"ir_relevance": {"labels": [2, 1, 0]}}, corpora(tmp_path, clicks=pairs("0", "1")))
    assert made.labels == ("2", "1", "0")


def test_tasks_stand_in_the_order_of_the_recipe_with_their_options_filled_in(tmp_path):
    options = {"ir_relevance": {"loss_weight": 2.0}, "knowledge_masking": {"mask_share": 0.2}}
    made = built(options, corpora(tmp_path, clicks=pairs("0", "1")))
    filled = task_options(made)
    assert list(filled) == ["ir_relevance", "knowledge_masking"]
    assert filled["ir_relevance"] == {
        "corpora": None,
        "loss_weight": 2.0,
        "labels": ["0", "1"],
        "hosts_riders": False,
    }
    assert filled["knowledge_masking"]["mask_share"] == 0.2
    again = built(json.loads(json.dumps(filled)), {})
    assert task_options([again[1]]) == {"knowledge_masking": filled["knowledge_masking"]}


@pytest.mark.parametrize(
    ("made", "options", "told"),
    [
        ({}, {"discourse_relation": {}}, r"needs labelled pairs.* none of these corpora holds any: wiki"),
        ({"web": ("so", "so")}, {"discourse_relation": {}}, r"every pair of web has the label 'so'"),
        (
            {"web": ("so", "but"), "clicks": ("0", "1")},
            {"discourse_relation": {}},
            r"several kinds \(web: 'but', 'so'; clicks: '0', '1'\).*tasks.discourse_relation.corpora",
        ),
        (
            {"web": ("so", "but")},
            {"discourse_relation": {"corpora": ["web"]}, "ir_relevance": {}},
            r"'ir_relevance': discourse_relation reads labelled pairs too.*name corpora \(web\) under tasks.ir_relevan",
        ),
        ({"web": ("so", "but")}, {"discourse_relation": {"labels": ["so", "and"]}}, r"label 'but' is none of its"),
        ({"web": ("so", "but")}, {"discourse_relation": {"corpora": ["wiki"]}}, r"'wiki', which holds documents"),
    ],
    ids=["no pairs", "one label", "two kinds", "two tasks", "unknown label", "wrong kind"],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, made, options, told):
    offered = corpora(tmp_path, **{name: pairs(*labels) for name, labels in made.items()})
    with pytest.raises(TaskError, match=told):
        built(options, offered)


def test_wrong_options_are_refused_by_task_and_key(tmp_path):
    with pytest.raises(ConfigError, match=r"options of task 'knowledge_masking': mask_share"):
        built({"knowledge_masking": {"mask_share": 2}}, corpora(tmp_path))


def test_a_constructor_that_fails_is_named_in_one_line(monkeypatch):
    class Fails(TokenTask):
        name, labels = "fails", ("a", "b")

        def __init__(self, options, vocabulary):
            raise KeyError("no such token")

    monkeypatch.setattr(base, "_TASKS", {**base._TASKS, "fails": Fails})
    with pytest.raises(
        TaskError, match=r"task 'fails' of .*test_building cannot be built: KeyError\('no such token'\)"
    ):
        build_tasks({"fails": {}}, VOCABULARY, {})
