"""Usable documents, counted."""

from __future__ import annotations

import dataclasses

from ernie2.tasks.capitalization_prediction import CapitalizationPrediction
from ernie2.tasks.usable import count_usable, usable_table
from tiny import VOCABULARY, document, task, write_corpora

LONG = [[[10], [11]]]
SHORT = [[[10]]]


def test_every_document_of_a_small_split_is_counted(tmp_path):
    texts = [document(LONG if i % 4 == 0 else SHORT, name=f"d{i}") for i in range(12)]
    corpus = write_corpora(tmp_path, {"mixed": texts}, heldout={"d0"}).corpora["mixed"]
    reordering = task("sentence_reordering")
    assert count_usable(corpus, reordering) == (2, 11)
    assert count_usable(corpus, reordering, "heldout") == (1, 1)


def test_of_a_large_split_evenly_spaced_documents_are_looked_at(tmp_path):
    # the second half is usable, so a look at the first ten would say none
    texts = [document(LONG if i >= 50 else SHORT, name=f"d{i}") for i in range(100)]
    corpus = write_corpora(tmp_path, {"half": texts}).corpora["half"]
    assert count_usable(corpus, task("sentence_reordering"), most=10) == (5, 10)


def test_a_split_without_documents_counts_none(tmp_path):
    corpus = write_corpora(tmp_path, {"a": [document(LONG)]}).corpora["a"]
    assert count_usable(corpus, task("sentence_reordering"), "heldout") == (0, 0)


def test_a_task_that_refuses_the_tokeniser_can_use_nothing(tmp_path):
    corpus = write_corpora(tmp_path, {"a": [document(LONG)]}).corpora["a"]
    cased = CapitalizationPrediction(CapitalizationPrediction.Options(), dataclasses.replace(VOCABULARY, cased=True))
    assert count_usable(corpus, task("capitalization_prediction")) == (1, 1)
    assert count_usable(corpus, cased) == (0, 1)


def test_the_table_has_every_task_with_the_corpora_it_may_read(tmp_path):
    pairs = [document([[[10]], [[11]]], label=label) for label in ("but", "and", "so")]
    shards = write_corpora(tmp_path, {"long": [document(LONG)], "pairs": pairs})
    tasks = [task("sentence_reordering"), task("discourse_relation", labels=("and", "but"))]
    assert usable_table(shards.corpora, tasks) == {
        "sentence_reordering": {"long": {"usable": 1, "of": 1}},
        "discourse_relation": {"pairs": {"usable": 2, "of": 3}},
    }


def test_the_table_has_every_task_and_corpus(tmp_path):
    shards = write_corpora(tmp_path, {"long": [document(LONG)], "caseless": [document(SHORT, caseless={0})]})
    tasks = [task("sentence_reordering"), task("capitalization_prediction")]
    assert usable_table(shards.corpora, tasks) == {
        "sentence_reordering": {"long": {"usable": 1, "of": 1}, "caseless": {"usable": 0, "of": 1}},
        "capitalization_prediction": {"long": {"usable": 1, "of": 1}, "caseless": {"usable": 0, "of": 1}},
    }
