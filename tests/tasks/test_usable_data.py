"""Usable documents and scored tokens of corpora."""

from __future__ import annotations

import dataclasses

import pytest

from ernie2.batches.feeds import build_feeds, heldout_feed
from ernie2.errors import TaskError
from ernie2.tasks.base import Options, SentenceTask
from ernie2.tasks.capitalization_prediction import CapitalizationPrediction
from ernie2.tasks.usable_data import (
    count_usable,
    describe_usable,
    is_sufficient,
    unusable_reason,
    usable_table,
)
from tiny import FOUR, VOCABULARY, document, task, write_corpora

LONG = [[[10], [11]]]
SHORT = [[[10]]]


def test_every_document_of_a_small_split_is_counted(tmp_path):
    texts = [document(LONG if i % 4 == 0 else SHORT, name=f"d{i}") for i in range(12)]
    corpus = write_corpora(tmp_path, {"mixed": texts}, heldout={"d0"}).corpora["mixed"]
    reordering = task("sentence_reordering")
    assert count_usable(corpus, reordering) == (2, 11)
    assert count_usable(corpus, reordering, "heldout") == (1, 1)


def test_evenly_spaced_documents_of_a_large_split_are_checked(tmp_path):
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
        "capitalization_prediction": {
            "long": {"usable": 1, "of": 1, "scored": 1.0, "notes": []},
            "caseless": {"usable": 0, "of": 1},
        },
    }


def mixed(words, caseless):
    """A document of so many words, the first `caseless` of a script without case."""
    return document([[list(range(10, 10 + words))]], caseless=set(range(caseless)))


def test_a_document_with_a_latin_word_here_and_there_is_of_no_use_to_capitalization(tmp_path):
    texts = [mixed(100, 99), mixed(100, 96), mixed(100, 95), mixed(100, 0), document(SHORT, caseless={0})]
    corpus = write_corpora(tmp_path, {"mixed": texts}).corpora["mixed"]
    assert count_usable(corpus, task("capitalization_prediction")) == (2, 5), "those with case in one of twenty"


def test_a_corpus_serves_by_its_share_of_scored_tokens(tmp_path):
    """One article in ten with case: documents enough, but 4 % of the tokens are too few."""
    texts = [mixed(100, 60 if i % 10 == 0 else 100) for i in range(20)]
    shards = write_corpora(tmp_path, {"zh": texts})
    capitals = task("capitalization_prediction")
    counts = usable_table(shards.corpora, [capitals])[capitals.name]["zh"]
    assert (counts["usable"], counts["of"], counts["scored"]) == (2, 20, 0.04)
    assert not is_sufficient(capitals, counts)
    assert describe_usable(capitals, counts) == "2 of 20 documents (4.0% of tokens scored)"


def test_a_corpus_that_gives_a_task_few_labels_serves_with_a_note(tmp_path):
    shards = write_corpora(tmp_path, {"zh": [mixed(100, 93)]})
    capitals = task("capitalization_prediction")
    counts = usable_table(shards.corpora, [capitals])[capitals.name]["zh"]
    assert is_sufficient(capitals, counts)
    assert counts["notes"] == ["it scores 7.0% of the tokens, less than 10%: few labels for the steps it takes."]


def test_documents_that_fit_into_a_sequence_give_token_document_relation_nothing_to_score(tmp_path):
    shards = write_corpora(tmp_path, {"short": [document([[[10, 11], [12, 13]]])]})
    relation = task("token_document_relation")
    long, short = (usable_table(shards.corpora, [relation], sequence_tokens=n)[relation.name]["short"] for n in (8, 5))
    assert long == {"usable": 0, "of": 1, "why": "none of 2,000 attempts had anything to score"}
    assert (short["scored"], short["notes"]) == (1.0, [])


THREE = [[[10, 11], [12, 13], [14, 15]]]


def corpus_of(tmp_path, groups, heldout=(), paragraphs=THREE):
    texts = [document(paragraphs, name=f"d{i}", group=group) for i, group in enumerate(groups)]
    return write_corpora(tmp_path, {"text": texts}, heldout=heldout)


def why(shards, name, split="train", tokens=16):
    return unusable_reason(task(name), shards.corpora["text"], split, tokens)


@pytest.mark.parametrize("name", ["sentence_distance", "sentence_reordering", "knowledge_masking"])
def test_a_corpus_that_shows_every_class_has_no_reason_against_it(tmp_path, name):
    assert why(corpus_of(tmp_path, [1, 2]), name) is None


def test_sentence_distance_needs_documents_of_two_origins(tmp_path):
    assert why(corpus_of(tmp_path, [1, 1, 1]), "sentence_distance") == "all are of one group"


def test_sentence_distance_needs_pairs_of_sentences_that_fit_a_sequence(tmp_path):
    """Nine tokens leave room for six; no two sentences of four fit."""
    shards = corpus_of(tmp_path, [1, 2], paragraphs=[[[10] * 4, [11] * 4, [12] * 4]])
    assert why(shards, "sentence_distance", tokens=9) == "none of 2,000 attempts showed the label 'adjacent'"


def test_token_document_relation_needs_documents_longer_than_a_sequence(tmp_path):
    shards = corpus_of(tmp_path, [1, 2])
    assert why(shards, FOUR[2], tokens=16) == "none of 2,000 attempts had anything to score"
    assert why(shards, FOUR[2], tokens=6) is None


def test_a_task_is_refused_by_name_with_the_reason(tmp_path):
    shards = corpus_of(tmp_path, [1, 1, 1])
    match = r"'sentence_distance' has nothing to read.*0 of 3 documents \(all are of one group\) of 'text'.*than one gr"
    with pytest.raises(TaskError, match=match):
        build_feeds(shards, [task("sentence_distance")])


def test_what_no_held_out_document_shows_is_not_measured(tmp_path):
    shards = corpus_of(tmp_path, [1, 2, 3], heldout={"d0"})
    result, _ = build_feeds(shards, [task("sentence_distance"), task("sentence_reordering")], sequence_tokens=16)
    assert not heldout_feed(result["sentence_distance"], task("sentence_distance"), 16).corpora
    assert heldout_feed(result["sentence_reordering"], task("sentence_reordering"), 16).corpora


class Fails(SentenceTask):
    """Raises at every document."""

    name, labels, needs = "fails", ("no", "yes"), "luck"

    def arrange(self, source, label, max_tokens, rng):
        raise ZeroDivisionError("oops")


def test_a_task_that_fails_is_named_before_training(tmp_path):
    with pytest.raises(TaskError, match=r"'fails' failed on document 'd0'.*oops"):
        build_feeds(corpus_of(tmp_path, [1, 2]), [Fails(Options(), VOCABULARY)])
