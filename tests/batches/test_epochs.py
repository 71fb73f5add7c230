"""Estimated epochs match those of the run, and too many are refused by name."""

from __future__ import annotations

import time

import numpy as np
import pytest

import tiny
from ernie2.batches.epochs import check_epochs, expected_epochs, format_epochs, steps_by_main_task
from ernie2.batches.feeds import build_feeds
from ernie2.batches.packing import Caps
from ernie2.batches.stages import Stage, StagePlan, assign
from ernie2.batches.streams import DataStreams, Feed, StreamState
from ernie2.errors import ConfigError

LEVELS = {name: tiny.task(name).level for name in tiny.FOUR}
MASKING = "knowledge_masking"


def stream_over(shards, names, *, pack_tokens=256, sequence_tokens=64, count=2):
    tasks = [tiny.task(name) for name in names]
    feed, _ = build_feeds(shards, tasks, sequence_tokens=sequence_tokens)
    ids = {name: number for number, name in enumerate(names)}
    caps = Caps.of(pack_tokens, sequence_tokens, tasks)
    return DataStreams(feed, tasks, tiny.VOCABULARY, caps, ids, seed=3, count=count)


def alone(task, steps):
    return StagePlan(Stage(((task, steps),), (task,)), LEVELS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    made = {
        "long": [tiny.random_document(rng, sentences=14, name=f"a{i}", group=i) for i in range(60)],
        "short": [tiny.random_document(rng, sentences=5, name=f"b{i}", group=100 + i) for i in range(40)],
    }
    return tiny.write_corpora(tmp_path_factory.mktemp("epochs"), made)


def test_a_task_reads_its_corpora_only_in_steps_it_is_the_main_task_of():
    plan = StagePlan(Stage(((MASKING, 10), ("sentence_reordering", 8)), ()), LEVELS)
    # 1 iteration in 10 of masking is token-only, 8 are attached to reordering, and 1 does not fit there
    assert steps_by_main_task([plan, alone(MASKING, 5)]) == {MASKING: 7, "sentence_reordering": 8}


def test_documents_of_one_known_size_give_epochs_worked_out_by_hand(tmp_path):
    # 8 documents of one sentence of 10 tokens: sequences of 12, five to a pack of 64, so 4 steps of 2 data streams take
    # 8 packs = 40 instances = 40 documents = 5 epochs
    made = [tiny.document([[list(range(5, 15))]], name=f"d{i}", group=i) for i in range(8)]
    shards = tiny.write_corpora(tmp_path, {"text": made})
    streams = stream_over(shards, [MASKING], pack_tokens=96, sequence_tokens=32)
    caps = Caps(64, 32, 8, {MASKING: 64})
    streams = DataStreams(streams.feeds, [tiny.task(MASKING)], tiny.VOCABULARY, caps, {MASKING: 0}, seed=3, count=2)
    assert expected_epochs(streams, [alone(MASKING, 4)]) == {MASKING: {"text": pytest.approx(5.0)}}


@pytest.mark.parametrize("main_task", [MASKING, "sentence_reordering", "token_document_relation"])
def test_estimated_epochs_are_those_of_the_run(shards, main_task):
    streams = stream_over(shards, [main_task])
    expected = expected_epochs(streams, [alone(main_task, 60)])[main_task]
    states = [StreamState() for _ in range(streams.count)]
    for _ in range(60):
        states = [streams.pack(j, state, main_task, (main_task,))[1] for j, state in enumerate(states)]
    for corpus in streams.feeds[main_task].corpora:
        walked = sum(
            streams.tokens_read(main_task, j, corpus, None, state[main_task]) for j, state in enumerate(states)
        ) / corpus.num_tokens("train")
        assert walked > 1
        assert expected[corpus.name] == pytest.approx(walked, rel=0.15)


def test_tokens_read_add_up_to_the_corpus(shards):
    streams = stream_over(shards, ["sentence_reordering"], count=1)
    corpus, cursor, walked = streams.feeds["sentence_reordering"].corpora[0], None, 0
    feed = {"sentence_reordering": Feed([corpus], [1.0])}
    streams = streams.with_feeds(feed, list(streams.tasks.values()), seed=3, split="train")
    while cursor is None or cursor.corpora[corpus.name][0] < corpus.num_documents("train"):
        _, after, _ = streams.instance(0, cursor, "sentence_reordering", ("sentence_reordering",))
        walked += streams.tokens_read("sentence_reordering", 0, corpus, cursor, after)
        cursor = after
    assert walked == streams.tokens_read("sentence_reordering", 0, corpus, None, cursor)
    longest = max(len(corpus.document("train", i)) for i in range(corpus.num_documents("train")))
    assert corpus.num_tokens("train") <= walked < corpus.num_tokens("train") + longest


def test_the_estimate_takes_under_a_second(shards):
    streams = stream_over(shards, tiny.FOUR, pack_tokens=65_536, count=6)
    plans = [StagePlan(stage, LEVELS) for stage in assign(tiny.FOUR, 100)]
    began = time.process_time()
    expected_epochs(streams, plans)
    assert time.process_time() - began < 1


def test_a_plan_within_the_bound_passes_and_one_beyond_is_refused_by_task_corpus_epochs_and_what_to_do():
    epochs = {"sentence_distance": {"wiki": 39.9, "books": 41.2}, MASKING: {"books": 90.0, "wiki": 1.0}}
    check_epochs(epochs, 90)
    with pytest.raises(ConfigError) as refused:
        check_epochs(epochs, 40)
    expected = str(refused.value)
    assert "sentence_distance would read corpus 'books' 41.2 times" in expected
    assert "knowledge_masking would read corpus 'books' 90 times" in expected
    assert "wiki" not in expected
    assert "stages.max_epochs=40 allows" in expected
    assert "stages.steps" in expected
    assert "more text" in expected
    assert "stages.max_epochs=100." in expected


def test_epochs_are_formatted_with_three_digits():
    assert [format_epochs(count) for count in (0.1404, 13.24, 99.6, 1071.3, 13_200)] == [
        "0.14",
        "13.2",
        "99.6",
        "1,071",
        "13,200",
    ]
