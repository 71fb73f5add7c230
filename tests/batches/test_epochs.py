"""Epochs told in advance are those a run then walks, and too many are refused by name."""

from __future__ import annotations

import time

import numpy as np
import pytest

import tiny
from ernie2.batches.epochs import check_epochs, expected_epochs, hosted_steps, written
from ernie2.batches.feeds import feeds
from ernie2.batches.packing import Caps
from ernie2.batches.stages import Plan, Stage, assign
from ernie2.batches.stream import Feed, Lane, Stream
from ernie2.errors import ConfigError

LEVELS = {name: tiny.task(name).level for name in tiny.FOUR}
MASKING = "knowledge_masking"


def stream_over(shards, names, *, pack_tokens=256, sequence_tokens=64, lanes=2):
    tasks = [tiny.task(name) for name in names]
    feed, _ = feeds(shards, tasks, sequence_tokens=sequence_tokens)
    ids = {name: number for number, name in enumerate(names)}
    caps = Caps.of(pack_tokens, sequence_tokens, tasks)
    return Stream(feed, tasks, tiny.VOCABULARY, caps, ids, seed=3, lanes=lanes)


def alone(task, steps):
    return Plan(Stage(((task, steps),), (task,)), LEVELS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    made = {
        "long": [tiny.random_document(rng, sentences=14, name=f"a{i}", group=i) for i in range(60)],
        "short": [tiny.random_document(rng, sentences=5, name=f"b{i}", group=100 + i) for i in range(40)],
    }
    return tiny.write_corpora(tmp_path_factory.mktemp("epochs"), made)


def test_only_steps_a_task_hosts_walk_its_corpora():
    plan = Plan(Stage(((MASKING, 10), ("sentence_reordering", 8)), ()), LEVELS)
    # 1 iteration in 10 of masking stays a step of its own, 8 ride on reordering, and 1 finds no place there
    assert hosted_steps([plan, alone(MASKING, 5)]) == {MASKING: 7, "sentence_reordering": 8}


def test_documents_of_one_known_size_give_epochs_worked_out_by_hand(tmp_path):
    # 8 documents of one sentence of 10 tokens: sequences of 12, five to a pack of 64, so 4 steps of 2 lanes take
    # 8 packs = 40 instances = 40 documents = 5 epochs
    made = [tiny.document([[list(range(5, 15))]], name=f"d{i}", group=i) for i in range(8)]
    shards = tiny.write_corpora(tmp_path, {"text": made})
    stream = stream_over(shards, [MASKING], pack_tokens=96, sequence_tokens=32)
    caps = Caps(64, 32, 8, {MASKING: 64})
    stream = Stream(stream.feeds, [tiny.task(MASKING)], tiny.VOCABULARY, caps, {MASKING: 0}, seed=3, lanes=2)
    assert expected_epochs(stream, [alone(MASKING, 4)]) == {MASKING: {"text": pytest.approx(5.0)}}


@pytest.mark.parametrize("host", [MASKING, "sentence_reordering", "token_document_relation"])
def test_the_epochs_told_are_those_that_are_walked(shards, host):
    stream = stream_over(shards, [host])
    told = expected_epochs(stream, [alone(host, 60)])[host]
    lanes = [Lane() for _ in range(stream.lanes)]
    for _ in range(60):
        lanes = [stream.pack(j, lane, host, (host,))[1] for j, lane in enumerate(lanes)]
    for corpus in stream.feeds[host].corpora:
        walked = sum(stream.walked(host, j, corpus, None, lane[host]) for j, lane in enumerate(lanes)) / corpus.tokens(
            "train"
        )
        assert walked > 1
        assert told[corpus.name] == pytest.approx(walked, rel=0.15)


def test_what_instances_walk_over_adds_up_to_the_corpus_whatever_they_use_of_it(shards):
    stream = stream_over(shards, ["sentence_reordering"], lanes=1)
    corpus, cursor, walked = stream.feeds["sentence_reordering"].corpora[0], None, 0
    feed = {"sentence_reordering": Feed([corpus], [1.0])}
    stream = stream.like(feed, list(stream.tasks.values()), seed=3, split="train")
    while cursor is None or cursor.corpora[corpus.name][0] < corpus.num_documents("train"):
        _, after, _ = stream.instance(0, cursor, "sentence_reordering", ("sentence_reordering",))
        walked += stream.walked("sentence_reordering", 0, corpus, cursor, after)
        cursor = after
    assert walked == stream.walked("sentence_reordering", 0, corpus, None, cursor)
    longest = max(len(corpus.document("train", i)) for i in range(corpus.num_documents("train")))
    assert corpus.num_tokens("train") <= walked < corpus.num_tokens("train") + longest


def test_telling_takes_under_a_second(shards):
    stream = stream_over(shards, tiny.FOUR, pack_tokens=65_536, lanes=6)
    plans = [Plan(stage, LEVELS) for stage in assign(tiny.FOUR, 100)]
    began = time.process_time()
    expected_epochs(stream, plans)
    assert time.process_time() - began < 1


def test_a_plan_within_the_bound_passes_and_one_beyond_is_refused_by_task_corpus_epochs_and_what_to_do():
    epochs = {"sentence_distance": {"wiki": 39.9, "books": 41.2}, MASKING: {"books": 90.0, "wiki": 1.0}}
    check_epochs(epochs, 90)
    with pytest.raises(ConfigError) as refused:
        check_epochs(epochs, 40)
    told = str(refused.value)
    assert "sentence_distance would walk corpus 'books' 41.2 times" in told
    assert "knowledge_masking would walk corpus 'books' 90 times" in told
    assert "wiki" not in told
    assert "stages.max_epochs=40 allows" in told
    assert "stages.steps" in told
    assert "more text" in told
    assert "stages.max_epochs=100." in told


def test_epochs_are_written_as_a_person_reads_them():
    assert [written(count) for count in (0.1404, 13.24, 99.6, 1071.3, 13_200)] == [
        "0.14",
        "13.2",
        "99.6",
        "1,071",
        "13,200",
    ]
