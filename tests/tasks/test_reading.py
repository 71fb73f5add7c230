"""Which corpora a task may read, by kind and by name."""

from __future__ import annotations

import pytest

from ernie2.errors import TaskError
from ernie2.tasks.building import check_labels, corpora_for, kind_of, listed
from tiny import document, task, write_corpora


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    texts = [document([[[10], [11]]], name=f"d{i}") for i in range(4)]
    pairs = [document([[[10]], [[11]]], label="but", name="p0"), document([[[12]], [[13]]], label="and", name="p1")]
    return write_corpora(tmp_path_factory.mktemp("reading"), {"wiki": texts, "pairs": pairs, "news": texts}).corpora


def test_a_corpus_with_labels_holds_pairs(corpora):
    assert {name: kind_of(corpus) for name, corpus in corpora.items()} == {
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
def test_by_default_a_task_reads_the_corpora_of_its_kind(corpora, name, read):
    assert list(corpora_for(task(name), corpora)) == read


def test_a_token_task_reads_pairs_where_it_names_them(corpora):
    assert list(corpora_for(task("knowledge_masking", corpora=("pairs", "wiki")), corpora)) == ["pairs", "wiki"]


@pytest.mark.parametrize(
    ("name", "corpus", "told"),
    [
        ("sentence_distance", "pairs", r"'pairs', which holds labelled pairs, but it reads documents"),
        ("discourse_relation", "wiki", r"'wiki', which holds documents, but it reads labelled pairs"),
    ],
)
def test_a_corpus_of_the_wrong_kind_is_refused_by_name(corpora, name, corpus, told):
    with pytest.raises(TaskError, match=rf"task '{name}' is to read corpus {told}. Take '{corpus}' off tasks.{name}"):
        corpora_for(task(name, corpora=(corpus,)), corpora)


def test_an_unknown_corpus_is_refused_with_the_nearest(corpora):
    with pytest.raises(TaskError, match=r"'pears'.*Did you mean 'pairs'.*They have: wiki, pairs, news"):
        corpora_for(task("discourse_relation", corpora=("pears",)), corpora)


def test_a_label_that_is_none_of_the_classes_is_refused_with_corpus_and_classes(corpora):
    made = task("discourse_relation", labels=("but", "so"))
    with pytest.raises(TaskError, match=r"reads corpus 'pairs', whose label 'and' is none of its classes \('but', 's"):
        check_labels(made, {"pairs": corpora["pairs"]})
    check_labels(task("discourse_relation", labels=("so", "and", "but")), {"pairs": corpora["pairs"]})


def test_only_the_first_names_are_listed():
    assert listed(("a", "b", "c"), 2) == "'a', 'b' and 1 other"
    assert listed(tuple("abcd"), 1) == "'a' and 3 others"
    assert listed(("a", "b"), 2) == "'a', 'b'"
