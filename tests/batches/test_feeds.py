"""Which corpora each task reads, and what is refused before a run begins."""

from __future__ import annotations

import dataclasses

import pytest

from ernie2.batches.feeds import apart, feeds
from ernie2.errors import TaskError
from ernie2.tasks.capitalization_prediction import CapitalizationPrediction
from tiny import VOCABULARY, document, task, write_corpora


def texts(count, usable, words=1):
    """Documents of which the first `usable` have two sentences."""
    long, short = [[[10] * words, [11]]], [[[10] * words]]
    return [document(long if i < usable else short, name=f"d{i}") for i in range(count)]


def corpora_of(feed):
    return {corpus.name: share for corpus, share in zip(feed.corpora, feed.shares, strict=True)}


def test_a_task_reads_every_corpus_of_which_it_can_use_one_percent_and_draws_by_tokens(tmp_path):
    shards = write_corpora(tmp_path, {"long": texts(4, 4), "rarely": texts(100, 1), "hardly": texts(101, 1)})
    made, table = feeds(shards, [task("sentence_reordering"), task("knowledge_masking")])
    assert corpora_of(made["sentence_reordering"]) == {"long": 8.0, "rarely": 101.0}
    assert corpora_of(made["knowledge_masking"]) == {"long": 8.0, "rarely": 101.0, "hardly": 102.0}
    assert table["sentence_reordering"]["hardly"] == {"usable": 1, "of": 101}


def test_given_weights_are_the_shares(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": texts(9, 9)}, weights={"a": 3, "b": 1})
    made, _ = feeds(shards, [task("knowledge_masking")])
    assert corpora_of(made["knowledge_masking"]) == {"a": 3.0, "b": 1.0}


def test_a_task_may_name_its_corpora(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": texts(3, 3)})
    made, _ = feeds(shards, [task("knowledge_masking", corpora=("b",)), task("sentence_reordering", corpora=("a",))])
    assert list(corpora_of(made["knowledge_masking"])) == ["b"]
    assert apart(made) == {("knowledge_masking", "sentence_reordering"), ("sentence_reordering", "knowledge_masking")}


def test_tasks_that_share_a_corpus_are_not_apart(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": texts(3, 3)})
    made, _ = feeds(shards, [task("knowledge_masking"), task("sentence_reordering", corpora=("a",))])
    assert apart(made) == frozenset()


def test_a_named_corpus_that_offers_too_little_is_refused_with_the_counts(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "short": texts(1_200, 3)})
    with pytest.raises(TaskError, match=r"'sentence_reordering' can use 3 of 1,200 documents of corpus 'short'.*needs"):
        feeds(shards, [task("sentence_reordering", corpora=("a", "short"))])


def test_a_task_without_any_corpus_is_refused_with_the_counts_of_all(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 0), "b": texts(200, 1)})
    with pytest.raises(TaskError, match=r"0 of 3 documents of 'a'; 1 of 200 documents of 'b'.*at least two sentences"):
        feeds(shards, [task("sentence_reordering")])


def test_an_unknown_corpus_is_refused_with_the_nearest(tmp_path):
    shards = write_corpora(tmp_path, {"wiki": texts(3, 3)})
    with pytest.raises(TaskError, match=r"'wikki'.*Did you mean 'wiki'"):
        feeds(shards, [task("knowledge_masking", corpora=("wikki",))])


def test_a_refused_tokeniser_is_a_reason_to_stop(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3)})
    cased = CapitalizationPrediction(CapitalizationPrediction.Options(), dataclasses.replace(VOCABULARY, cased=True))
    with pytest.raises(TaskError, match=r"'capitalization_prediction' cannot run.*tokeniser is cased"):
        feeds(shards, [cased])


def test_held_out_feeds_leave_out_corpora_without_held_out_documents(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": [document([[[5], [6]]], name="x")] * 2}, heldout={"d0"})
    made, _ = feeds(shards, [task("sentence_reordering")], split="heldout")
    assert list(corpora_of(made["sentence_reordering"])) == ["a"]
