"""Fingerprints of packs: the same seed draws the same packs, bit by bit, as it did when `SAMPLING` was last raised."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest

import tiny
from ernie2.batches.feeds import build_feeds
from ernie2.batches.packing import Caps
from ernie2.batches.streams import DataStreams, StreamState
from ernie2.training.environment import SAMPLING

MASKING, CAPITALS, RELATION, REORDERING = tiny.FOUR
DISTANCE, DISCOURSE, RELEVANCE = "sentence_distance", "discourse_relation", "ir_relevance"
PACKS = 50

# (main_task, active): digests of 50 packs at limits of 64 and 128 tokens, from one corpus and from two.
EXPECTED = {
    (MASKING, (MASKING,)): ["75e9f6ef48df03fc", "68154b39d36d043f", "d5930a2d9aa9b7d8", "c8e8d903b4556e69"],
    (CAPITALS, (CAPITALS,)): ["d32c207261d99dc0", "4d3dd899b94185b2", "006aee352a4fe5ae", "0fc833075b9dd48c"],
    (RELATION, (RELATION,)): ["1e34199022e01bfb", "60d04a3b9e717bf7", "a4e466cf3824fbb1", "1015f1e13c816b1d"],
    (REORDERING, (REORDERING,)): ["75994296c5f14708", "4a6ada7a41e14101", "7dc0c8bd30146176", "274e6a99806858a5"],
    (DISTANCE, (DISTANCE,)): ["d9b5c50a3adcbbb1", "5a2682387abfe44f", "d9b5c50a3adcbbb1", "5a2682387abfe44f"],
    (DISCOURSE, (DISCOURSE,)): ["b4e0fc02a95a000a", "b4e0fc02a95a000a", "34d93c7a52ac67e5", "34d93c7a52ac67e5"],
    (RELEVANCE, (RELEVANCE,)): ["5f230edd1356fc12", "5f230edd1356fc12", "17637b9248379fb6", "17637b9248379fb6"],
    (MASKING, (MASKING, CAPITALS, RELATION)): [
        "34bad544b030c928",
        "84c527c29ca7a459",
        "73126cc7b670a4c1",
        "b6396c93694f8c15",
    ],
    (RELATION, (CAPITALS, RELATION)): ["5c08f7fa0e5442ee", "7d71370b5ec4c7e6", "d7eb4d1202b95046", "c65b982c5972c585"],
    (CAPITALS, (MASKING, CAPITALS)): ["db2f8fbcbdddda32", "a1496edcfcb058fc", "92f4d42313e190c8", "985d7b166a495d3c"],
    (REORDERING, tiny.FOUR): ["7df7b18330c86ffb", "93f25710a4f1fa9d", "f4895e91d414dde0", "e0ca41d412bb7983"],
    (REORDERING, (CAPITALS, REORDERING)): [
        "2ee33278fd044b7c",
        "375255ac8442d873",
        "8addb5e4d9d25d89",
        "7dee6a97b8217a0f",
    ],
    (DISTANCE, (MASKING, CAPITALS, RELATION, DISTANCE)): [
        "b64270821bd5e22f",
        "8a3a179b398d6c5d",
        "b64270821bd5e22f",
        "8a3a179b398d6c5d",
    ],
    (DISTANCE, (MASKING, DISTANCE)): ["d8cbc7721e86af89", "09606f4379bca771", "d8cbc7721e86af89", "09606f4379bca771"],
    (DISCOURSE, (MASKING, DISCOURSE)): ["d089afcd96f13dce", "d089afcd96f13dce", "b04ae12fb504a3ab", "b04ae12fb504a3ab"],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    corpora = {
        "wiki": [tiny.random_document(rng, sentences=20, name=f"w{i}", group=i) for i in range(23)],
        "news": [tiny.random_document(rng, sentences=25, name=f"n{i}", group=i // 2) for i in range(14)],
        "pairs": [pair(rng, i) for i in range(30)],
    }
    return tiny.write_corpora(
        tmp_path_factory.mktemp("shards"), corpora, heldout={"w3", "n1", "p5"}, weights={"wiki": 3, "news": 1}
    )


def pair(rng, number):
    texts = [[rng.integers(5, 200, size=int(rng.integers(3, most))).tolist()] for most in (30, 50)]
    return tiny.document(texts, name=f"p{number}", group=number, label=str(number % 3))


def stream_of(shards, limit, text):
    labelled = {"labels": ("0", "1", "2"), "corpora": ("pairs",)}
    options = {name: {"corpora": text} for name in (*tiny.FOUR, DISTANCE)}
    options[MASKING] = {"corpora": (*text, "pairs"), "mix": {"basic": 0.2, "word": 0.2, "phrase": 0.2, "all": 0.4}}
    options |= {DISCOURSE: {**labelled, "allows_attached_tasks": True}, RELEVANCE: labelled}
    tasks = [tiny.task(name, **given) for name, given in options.items()]
    feed, _ = build_feeds(shards, tasks, sequence_tokens=limit)
    caps = Caps.of(1_024, limit, tasks)
    ids = {task.name: row for row, task in enumerate(tasks)}
    return DataStreams(feed, tasks, tiny.VOCABULARY, caps, ids, seed=5, count=2)


def digest_of(streams, main_task, active):
    """Digest `PACKS` packs of two data streams in turns and the cursors after them, in wide types."""
    digest, states = blake2b(digest_size=8), [StreamState(), StreamState()]
    for number in range(PACKS):
        pack, states[number % 2] = streams.pack(number % 2, states[number % 2], main_task, active)
        for array in (pack.tokens, pack.positions, pack.segments, pack.task_ids, pack.starts):
            digest.update(array.astype(np.int64).tobytes())
        for name, targets in sorted(pack.targets.items()):
            digest.update(name.encode())
            digest.update(targets.positions.astype(np.int64).tobytes())
            digest.update(targets.labels.astype(np.int64).tobytes())
    digest.update(repr(tiny.states_as_json(states)).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("host_and_active", EXPECTED, ids=lambda value: f"{value[0]}-{len(value[1])}")
def test_the_same_seed_draws_the_same_packs_as_ever(shards, host_and_active):
    assert SAMPLING == 2, "digests belong to a version of the sampling rules: make them again"
    found = [
        digest_of(stream_of(shards, limit, text), *host_and_active)
        for limit in (64, 128)
        for text in (("wiki",), ("wiki", "news"))
    ]
    assert found == EXPECTED[host_and_active]
