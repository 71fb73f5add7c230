"""Which corpora each task reads, and what is refused before a run begins."""

from __future__ import annotations

import dataclasses

import pytest

from ernie2.batches.feeds import build_feeds, disjoint_pairs
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
    made, table = build_feeds(shards, [task("sentence_reordering"), task("knowledge_masking")])
    assert corpora_of(made["sentence_reordering"]) == {"long": 8.0, "rarely": 101.0}
    assert corpora_of(made["knowledge_masking"]) == {"long": 8.0, "rarely": 101.0, "hardly": 102.0}
    assert table["sentence_reordering"]["hardly"] == {"usable": 1, "of": 101}


def test_given_weights_are_the_shares(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": texts(9, 9)}, weights={"a": 3, "b": 1})
    made, _ = build_feeds(shards, [task("knowledge_masking")])
    assert corpora_of(made["knowledge_masking"]) == {"a": 3.0, "b": 1.0}


def test_a_task_may_name_its_corpora(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": texts(3, 3)})
    made, _ = build_feeds(
        shards, [task("knowledge_masking", corpora=("b",)), task("sentence_reordering", corpora=("a",))]
    )
    assert list(corpora_of(made["knowledge_masking"])) == ["b"]
    assert disjoint_pairs(made) == {
        ("knowledge_masking", "sentence_reordering"),
        ("sentence_reordering", "knowledge_masking"),
    }


def test_tasks_that_share_a_corpus_are_not_disjoint(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": texts(3, 3)})
    made, _ = build_feeds(shards, [task("knowledge_masking"), task("sentence_reordering", corpora=("a",))])
    assert disjoint_pairs(made) == frozenset()


def test_a_named_corpus_that_offers_too_little_is_refused_with_the_counts(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "short": texts(1_200, 3)})
    with pytest.raises(TaskError, match=r"'sentence_reordering' can use 3 of 1,200 documents of corpus 'short'.*needs"):
        build_feeds(shards, [task("sentence_reordering", corpora=("a", "short"))])


def test_a_task_without_any_corpus_is_refused_with_the_counts_of_all(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 0), "b": texts(200, 1)})
    with pytest.raises(TaskError, match=r"0 of 3 documents of 'a'; 1 of 200 documents of 'b'.*at least two sentences"):
        build_feeds(shards, [task("sentence_reordering")])


def test_an_unknown_corpus_is_refused_with_the_nearest(tmp_path):
    shards = write_corpora(tmp_path, {"wiki": texts(3, 3)})
    with pytest.raises(TaskError, match=r"'wikki'.*Did you mean 'wiki'"):
        build_feeds(shards, [task("knowledge_masking", corpora=("wikki",))])


def test_a_refused_tokeniser_is_a_reason_to_stop(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3)})
    cased = CapitalizationPrediction(CapitalizationPrediction.Options(), dataclasses.replace(VOCABULARY, cased=True))
    with pytest.raises(TaskError, match=r"'capitalization_prediction' cannot run.*tokeniser is cased"):
        build_feeds(shards, [cased])


def test_held_out_feeds_leave_out_corpora_without_held_out_documents(tmp_path):
    shards = write_corpora(tmp_path, {"a": texts(3, 3), "b": [document([[[5], [6]]], name="x")] * 2}, heldout={"d0"})
    made, _ = build_feeds(shards, [task("sentence_reordering")], split="heldout")
    assert list(corpora_of(made["sentence_reordering"])) == ["a"]


def pairs(*labels):
    return [document([[[10]], [[11]]], label=label, name=f"p{i}") for i, label in enumerate(labels)]


def test_text_and_pairs_go_to_tasks_of_their_kind_and_are_disjoint(tmp_path):
    shards = write_corpora(tmp_path, {"wiki": texts(3, 3), "web": pairs("but", "and")})
    tasks = [task("knowledge_masking"), task("discourse_relation", labels=("and", "but")), task("sentence_reordering")]
    made, table = build_feeds(shards, tasks)
    assert {name: list(corpora_of(feed)) for name, feed in made.items()} == {
        "knowledge_masking": ["wiki"],
        "discourse_relation": ["web"],
        "sentence_reordering": ["wiki"],
    }
    assert {name: list(counts) for name, counts in table.items()} == {
        "knowledge_masking": ["wiki"],
        "discourse_relation": ["web"],
        "sentence_reordering": ["wiki"],
    }
    assert ("discourse_relation", "knowledge_masking") in disjoint_pairs(made)


def test_masking_reads_pairs_if_it_names_them(tmp_path):
    shards = write_corpora(tmp_path, {"wiki": texts(3, 3), "web": pairs("but", "and")})
    tasks = [task("knowledge_masking", corpora=("wiki", "web")), task("discourse_relation", labels=("and", "but"))]
    made, _ = build_feeds(shards, tasks)
    assert list(corpora_of(made["knowledge_masking"])) == ["wiki", "web"]
    assert disjoint_pairs(made) == frozenset()


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("sentence_reordering", {"corpora": ("web",)}, r"'sentence_reordering'.*'web' holds labelled pairs"),
        ("discourse_relation", {"corpora": ("wiki",)}, r"'discourse_relation'.*'wiki' holds documents"),
        ("discourse_relation", {"labels": ("and", "so")}, r"'web', whose label 'but' is none of its classes"),
        ("token_document_relation", {"corpora": ("web",)}, r"can use 0 of 2 documents of corpus 'web'"),
    ],
)
def test_a_corpus_a_task_cannot_learn_from_is_refused_before_any_work(tmp_path, name, options, told):
    shards = write_corpora(tmp_path, {"wiki": texts(3, 3), "web": pairs("but", "and")})
    with pytest.raises(TaskError, match=told):
        build_feeds(shards, [task(name, **options)])


def test_the_error_of_a_pair_task_without_pairs_says_so(tmp_path):
    shards = write_corpora(tmp_path, {"wiki": texts(3, 3)})
    with pytest.raises(
        TaskError, match=r"nothing to read.*it can use no corpus, since none contains labelled pairs\. It"
    ):
        build_feeds(shards, [task("discourse_relation", labels=("and", "but"))])


def test_capitals_are_refused_for_a_script_without_them_by_the_share_of_tokens(tmp_path):
    """Every article has a Latin name in it, one word of fifty."""
    chinese = [document([[list(range(10, 60))]], caseless=set(range(49)), name=f"d{i}") for i in range(9)]
    shards = write_corpora(tmp_path, {"zhwiki": chinese})
    with pytest.raises(
        TaskError,
        match=r"can use 0 of 9 documents of 'zhwiki'; at least 1% of documents and 5% of tokens scored are needed",
    ):
        build_feeds(shards, [task("capitalization_prediction")])
    with pytest.raises(
        TaskError, match=r"0 of 9 documents of corpus 'zhwiki', less than 1% of documents and 5% of tok"
    ):
        build_feeds(shards, [task("capitalization_prediction", corpora=("zhwiki",))])
