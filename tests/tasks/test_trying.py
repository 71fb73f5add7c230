"""Whether a corpus can show a task at all, found out before training."""

from __future__ import annotations

import pytest

from ernie2.batches.feeds import feeds, heldout_feed
from ernie2.errors import TaskError
from ernie2.tasks.base import Options, SentenceTask
from ernie2.tasks.usable import why_never
from tiny import FOUR, VOCABULARY, document, task, write_corpora

THREE = [[[10, 11], [12, 13], [14, 15]]]


def corpus_of(tmp_path, groups, heldout=(), paragraphs=THREE):
    texts = [document(paragraphs, name=f"d{i}", group=group) for i, group in enumerate(groups)]
    return write_corpora(tmp_path, {"text": texts}, heldout=heldout)


def why(shards, name, split="train", tokens=16):
    return why_never(task(name), shards.corpora["text"], split, tokens)


@pytest.mark.parametrize("name", ["sentence_distance", "sentence_reordering", "knowledge_masking"])
def test_a_corpus_that_shows_every_class_has_no_reason_against_it(tmp_path, name):
    assert why(corpus_of(tmp_path, [1, 2]), name) is None


def test_sentence_distance_needs_documents_of_two_origins(tmp_path):
    assert why(corpus_of(tmp_path, [1, 1, 1]), "sentence_distance") == "all are of one origin"


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
    match = (
        r"'sentence_distance' has nothing to read.*0 of 3 documents \(all are of one origin\) of 'text'.*than one or"
    )
    with pytest.raises(TaskError, match=match):
        feeds(shards, [task("sentence_distance")])


def test_what_no_held_out_document_shows_is_not_measured(tmp_path):
    shards = corpus_of(tmp_path, [1, 2, 3], heldout={"d0"})
    made, _ = feeds(shards, [task("sentence_distance"), task("sentence_reordering")], sequence_tokens=16)
    assert not heldout_feed(made["sentence_distance"], task("sentence_distance"), 16).corpora
    assert heldout_feed(made["sentence_reordering"], task("sentence_reordering"), 16).corpora


class Fails(SentenceTask):
    """Raises at every document."""

    name, labels, needs = "fails", ("no", "yes"), "luck"

    def arrange(self, source, label, room, rng):
        raise ZeroDivisionError("oops")


def test_a_task_that_fails_is_named_before_training(tmp_path):
    with pytest.raises(TaskError, match=r"'fails' failed on document 'd0'.*oops"):
        feeds(corpus_of(tmp_path, [1, 2]), [Fails(Options(), VOCABULARY)])
