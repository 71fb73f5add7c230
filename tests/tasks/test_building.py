"""Tasks of a recipe: validated options, corpora, labels from the data; vocabularies."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ernie2.errors import ConfigError, TaskError
from ernie2.tasks import base
from ernie2.tasks.base import Arrangement, Labels, Options, Segment, TokenTask
from ernie2.tasks.building import (
    build_tasks,
    check_labels,
    corpora_for,
    kind_of_corpus,
    quote_names,
    task_options,
    vocabulary_of,
)
from ernie2.tasks.instances import lay_out
from tiny import VOCABULARY, document, task, write_corpora


def pairs(*labels):
    return [document([[[10]], [[11]]], label=label, name=f"p{i}") for i, label in enumerate(labels)]


TEXT = [document([[[10], [11]]])]


def corpora(folder, **pair_corpora):
    return write_corpora(folder, {"wiki": TEXT, **pair_corpora}).corpora


def built(options, corpora):
    return build_tasks(options, VOCABULARY, corpora)


def test_labels_are_those_of_all_corpora_the_task_reads(tmp_path):
    offered = corpora(tmp_path, web=pairs("so", "but"), books=pairs("and", "but"), clicks=pairs("0", "1"))
    (result,) = built({"discourse_relation": {"corpora": ["web", "books"]}}, offered)
    assert result.labels == result.options.labels == ("and", "but", "so")


def test_integers_are_sorted_as_numbers(tmp_path):
    (result,) = built({"ir_relevance": None}, corpora(tmp_path, clicks=pairs("10", "9", "2")))
    assert result.labels == ("2", "9", "10")


def test_labels_the_options_name_are_kept_in_their_order(tmp_path):
    (result,) = built({"ir_relevance": {"labels": [2, 1, 0]}}, corpora(tmp_path, clicks=pairs("0", "1")))
    assert result.labels == ("2", "1", "0")


def test_tasks_are_in_the_order_of_the_recipe_with_complete_options(tmp_path):
    options = {"ir_relevance": {"loss_weight": 2.0}, "knowledge_masking": {"mask_share": 0.2}}
    result = built(options, corpora(tmp_path, clicks=pairs("0", "1")))
    filled = task_options(result)
    assert list(filled) == ["ir_relevance", "knowledge_masking"]
    assert filled["ir_relevance"] == {
        "corpora": None,
        "loss_weight": 2.0,
        "labels": ["0", "1"],
        "allows_attached_tasks": False,
    }
    assert filled["knowledge_masking"]["mask_share"] == 0.2
    again = built(json.loads(json.dumps(filled)), {})
    assert task_options([again[1]]) == {"knowledge_masking": filled["knowledge_masking"]}


@pytest.mark.parametrize(
    ("result", "options", "message"),
    [
        ({}, {"discourse_relation": {}}, r"needs labelled pairs.* none of these corpora holds any: wiki"),
        ({"web": ("so", "so")}, {"discourse_relation": {}}, r"every pair of web has the label 'so'"),
        (
            {"web": ("so", "but"), "clicks": ("0", "1")},
            {"discourse_relation": {}},
            r"different labels \(web: 'but', 'so'; clicks: '0', '1'\).*tasks.discourse_relation.corpora",
        ),
        (
            {"web": ("so", "but")},
            {"discourse_relation": {"corpora": ["web"]}, "ir_relevance": {}},
            r"'ir_relevance': discourse_relation reads labelled pairs too.*of each task \(web\) under tasks.ir_relevan",
        ),
        ({"web": ("so", "but")}, {"discourse_relation": {"labels": ["so", "and"]}}, r"label 'but' is none of its"),
        ({"web": ("so", "but")}, {"discourse_relation": {"corpora": ["wiki"]}}, r"'wiki' holds documents"),
    ],
    ids=["no pairs", "one label", "two kinds", "two tasks", "unknown label", "wrong kind"],
)
def test_unreadable_corpora_and_labels_are_refused_by_name(tmp_path, result, options, message):
    offered = corpora(tmp_path, **{name: pairs(*labels) for name, labels in result.items()})
    with pytest.raises(TaskError, match=message):
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


def test_the_vocabulary_has_the_ids_of_the_tokeniser():
    pieces = SimpleNamespace(
        vocab_size=9,
        cased=True,
        cls_id=2,
        sep_id=3,
        mask_id=4,
        pad_id=0,
        unk_id=1,
        ordinary_ids=[6, 7, 8],
        tokens=tuple("pucsm a1b"),
    )
    vocabulary = vocabulary_of(pieces)
    assert (
        vocabulary.size,
        vocabulary.cls,
        vocabulary.sep,
        vocabulary.mask,
        vocabulary.pad,
        vocabulary.unk,
        vocabulary.cased,
    ) == (9, 2, 3, 4, 0, 1, True)
    assert vocabulary.ordinary.dtype == np.int64
    assert vocabulary.ordinary.tolist() == [6, 7, 8]
    assert vocabulary.is_text.tolist() == [False] * 5 + [True] * 4
    assert vocabulary.tokens[7] == "1"


class ContainsDigit(TokenTask):
    """The task of docs/add-a-task.md."""

    name, labels = "contains_digit", ("no", "yes")

    def __init__(self, options, vocabulary):
        super().__init__(options, vocabulary)
        self.numeric = np.array([any(map(str.isdigit, token)) for token in vocabulary.tokens])

    def label(self, sequence, rng):
        positions = np.flatnonzero(self.vocabulary.is_text[sequence.tokens])
        return Labels(positions, self.numeric[sequence.tokens[positions]].astype(np.int64))


def test_a_task_sees_the_strings_of_its_tokens():
    strings = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "in", "1859", "##b2", "mp"]
    vocabulary = replace(VOCABULARY, tokens=(*strings, *[""] * (VOCABULARY.size - len(strings))))
    sequence = lay_out(Arrangement((Segment(document([[[5, 6, 8, 7]]]), 0, 4),), None), vocabulary)
    labels = ContainsDigit(Options(), vocabulary).label(sequence, np.random.default_rng(0))
    assert labels.positions.tolist() == [1, 2, 3, 4]
    assert labels.targets.tolist() == [0, 1, 0, 1]


@pytest.fixture(scope="module")
def three_corpora(tmp_path_factory):
    texts = [document([[[10], [11]]], name=f"d{i}") for i in range(4)]
    pairs = [document([[[10]], [[11]]], label="but", name="p0"), document([[[12]], [[13]]], label="and", name="p1")]
    return write_corpora(tmp_path_factory.mktemp("reading"), {"wiki": texts, "pairs": pairs, "news": texts}).corpora


def test_a_corpus_with_labels_holds_pairs(three_corpora):
    assert {name: kind_of_corpus(corpus) for name, corpus in three_corpora.items()} == {
        "wiki": "documents",
        "pairs": "pairs",
        "news": "documents",
    }


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("knowledge_masking", ["wiki", "news"]),
        ("sentence_distance", ["wiki", "news"]),
        ("discourse_relation", ["pairs"]),
    ],
)
def test_by_default_a_task_reads_the_corpora_of_its_kind(three_corpora, name, read):
    assert list(corpora_for(task(name), three_corpora)) == read


def test_a_token_task_reads_pairs_where_it_names_them(three_corpora):
    assert list(corpora_for(task("knowledge_masking", corpora=("pairs", "wiki")), three_corpora)) == ["pairs", "wiki"]


@pytest.mark.parametrize(
    ("name", "corpus", "reason"),
    [
        ("sentence_distance", "pairs", r"documents, but corpus 'pairs' holds labelled pairs"),
        ("discourse_relation", "wiki", r"labelled pairs, but corpus 'wiki' holds documents"),
    ],
)
def test_a_corpus_of_the_wrong_kind_is_refused_by_name(three_corpora, name, corpus, reason):
    with pytest.raises(TaskError, match=rf"task '{name}' reads {reason}. Remove '{corpus}' from tasks.{name}"):
        corpora_for(task(name, corpora=(corpus,)), three_corpora)


def test_an_unknown_corpus_is_refused_with_the_nearest(three_corpora):
    with pytest.raises(TaskError, match=r"'pears'.*Did you mean 'pairs'.*They have: wiki, pairs, news"):
        corpora_for(task("discourse_relation", corpora=("pears",)), three_corpora)


def test_a_label_that_is_none_of_the_classes_is_refused_with_corpus_and_classes(three_corpora):
    tested_task = task("discourse_relation", labels=("but", "so"))
    with pytest.raises(TaskError, match=r"reads corpus 'pairs', whose label 'and' is none of its classes \('but', 's"):
        check_labels(tested_task, {"pairs": three_corpora["pairs"]})
    check_labels(task("discourse_relation", labels=("so", "and", "but")), {"pairs": three_corpora["pairs"]})


def test_only_the_first_names_are_listed():
    assert quote_names(("a", "b", "c"), 2) == "'a', 'b' and 1 other"
    assert quote_names(tuple("abcd"), 1) == "'a' and 3 others"
    assert quote_names(("a", "b"), 2) == "'a', 'b'"
