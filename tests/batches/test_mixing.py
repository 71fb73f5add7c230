"""Corpora are mixed by tokens, however long their documents are."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ernie2.batches.epochs import expected_epochs
from ernie2.batches.feeds import build_feeds
from ernie2.batches.packing import Caps
from ernie2.batches.stages import Stage, StagePlan
from ernie2.batches.streams import DataStreams, Feed, StreamState, next_corpus
from tiny import FOUR, VOCABULARY, document, states_as_json, states_of, task, write_corpora

MASKING, REORDERING = FOUR[0], FOUR[3]
TOKENS = 100_000


def test_the_corpus_that_is_behind_its_share_comes_next():
    assert next_corpus([40, 10], [0.5, 0.5], 64) == 1
    assert next_corpus([60, 20], [0.75, 0.25], 64) == 0, "both have their share: the larger one is due first"
    assert next_corpus([61, 19], [0.75, 0.25], 64) == 1
    assert next_corpus([0, 7, 7], [1 / 3, 1 / 3, 1 / 3], 64) == 0


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(0.001, 1), min_size=2, max_size=7),
    st.lists(st.integers(1, 50), min_size=1, max_size=40),
    st.integers(0, 6),
)
@example([0.41, 0.31, 0.28], [50, 1, 50, 50], 2)
def test_no_corpus_is_ever_more_than_one_instance_from_its_share(weights, lengths, first):
    shares = [weight / sum(weights) for weight in weights]
    tokens = [0] * len(shares)
    chosen = first % len(shares)
    for number in range(400):
        tokens[chosen] += lengths[number % len(lengths)]
        total = sum(tokens)
        assert all(abs(share * total - given) < 50 + 1e-6 for share, given in zip(shares, tokens, strict=True))
        chosen = next_corpus(tokens, shares, 50)


# ---- data streams


@pytest.fixture(scope="module")
def two_corpora(tmp_path_factory):
    return articles_and_dialogs(tmp_path_factory.mktemp("mixed"))


def articles_and_dialogs(folder, weights=None):
    """As many tokens in 10 articles of 40 sentences as in 200 dialogs of two; articles have ids below 400."""
    articles = [
        document([[[10 + (i * 31 + s) % 300] * 10 for s in range(40)]], name=f"a{i}", group=i) for i in range(10)
    ]
    dialogs = [document([[[500 + i % 90] * 10] * 2], name=f"d{i}", group=100 + i) for i in range(200)]
    return write_corpora(folder, {"articles": articles, "dialogs": dialogs}, weights=weights, per_shard=50)


def stream_over(shards, names, count=2, pack_tokens=1024, limit=128, seed=0):
    tasks = [task(name) for name in names]
    feed, _ = build_feeds(shards, tasks, sequence_tokens=limit)
    ids = {name: row for row, name in enumerate(names)}
    caps = Caps.of(pack_tokens, limit, tasks)
    return DataStreams(feed, tasks, VOCABULARY, caps, ids, seed=seed, count=count)


def shown(packs, name=MASKING):
    """Tokens of articles and of dialogs in packs, and how many of each a token task scores."""
    tokens, scored = [0, 0], [0, 0]
    for pack in packs:
        original = pack.tokens.copy()
        target = pack.targets[name]
        original[target.positions[: target.count]] = target.labels[: target.count]
        for which, (low, high) in enumerate(((5, 400), (400, 900))):
            tokens[which] += int(((original >= low) & (original < high)).sum())
            scored[which] += int(
                ((target.labels[: target.count] >= low) & (target.labels[: target.count] < high)).sum()
            )
    return tokens, scored


def packs_of(streams, main_task, active, tokens=TOKENS):
    states, packs = [StreamState() for _ in range(streams.count)], []
    while sum(pack.real_tokens for pack in packs) < tokens:
        for j, state in enumerate(states):
            pack, states[j] = streams.pack(j, state, main_task, active)
            packs.append(pack)
    return packs, states


@pytest.mark.parametrize("share", [0.5, 0.9, 0.2])
@pytest.mark.parametrize("main_task", [MASKING, REORDERING])
def test_articles_and_dialogs_keep_to_their_shares_of_100_000_tokens(tmp_path, main_task, share):
    shards = articles_and_dialogs(tmp_path, {"articles": share, "dialogs": 1 - share})
    streams = stream_over(shards, dict.fromkeys((main_task, MASKING)))
    tokens, scored = shown(packs_of(streams, main_task, tuple(streams.tasks))[0])
    assert tokens[0] / sum(tokens) == pytest.approx(share, abs=0.01)
    assert scored[0] / sum(scored) == pytest.approx(share, abs=0.01)


def test_without_weights_every_corpus_is_read_equally_often(tmp_path):
    streams = stream_over(articles_and_dialogs(tmp_path), [MASKING])
    tokens, scored = shown(packs_of(streams, MASKING, (MASKING,))[0])
    articles, dialogs = (corpus.num_tokens("train") for corpus in streams.feeds[MASKING].corpora)
    assert (articles, dialogs) == (4_000, 4_000)
    assert tokens[0] / sum(tokens) == pytest.approx(0.5, abs=0.01)
    assert scored[0] / sum(scored) == pytest.approx(0.5, abs=0.01)


def test_a_corpus_too_short_for_its_share_is_repeated(tmp_path):
    shards = write_corpora(
        tmp_path,
        {
            "large": [document([[[10] * 30] * 9], name=f"a{i}", group=i) for i in range(90)],
            "small": [document([[[500] * 7]], name="d")],
        },
        weights={"large": 1, "small": 1},
    )
    streams = stream_over(shards, [MASKING], count=1)
    packs, (state,) = packs_of(streams, MASKING, (MASKING,), tokens=20_000)
    tokens, _ = shown(packs)
    assert tokens[0] / sum(tokens) == pytest.approx(0.5, abs=0.01)
    assert state[MASKING].corpora["small"][0] == tokens[1] // 7 > 1_000
    told = expected_epochs(streams, [StagePlan(Stage(((MASKING, len(packs)),), (MASKING,)), {MASKING: "token"})])
    assert told[MASKING]["small"] == pytest.approx(tokens[1] / 7, rel=0.03)
    assert told[MASKING]["large"] == pytest.approx(tokens[0] / (90 * 270), rel=0.03)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=2), st.integers(0, 99), st.integers(0, 2))
def test_every_data_stream_keeps_to_the_shares_within_one_instance(two_corpora, weights, seed, stream_number):
    feed = {MASKING: Feed(list(two_corpora.corpora.values()), weights)}
    tasks = [task(MASKING)]
    streams = DataStreams(feed, tasks, VOCABULARY, Caps.of(512, 64, tasks), {MASKING: 0}, seed=seed, count=3)
    cursor = None
    for _ in range(150):
        _, cursor, _ = streams.instance(stream_number, cursor, MASKING, (MASKING,))
        total = sum(cursor.tokens.values())
        for corpus, weight in zip(feed[MASKING].corpora, weights, strict=True):
            assert abs(weight / sum(weights) * total - cursor.tokens.get(corpus.name, 0)) < 64


def test_tokens_given_are_part_of_the_position_and_count_only_what_was_packed(tmp_path):
    streams = stream_over(articles_and_dialogs(tmp_path), [MASKING], count=1)
    packs, (state,) = packs_of(streams, MASKING, (MASKING,), tokens=10_000)
    stored = states_of(states_as_json([state]))[0]
    assert stored == state
    tokens, _ = shown(packs)
    assert [state[MASKING].tokens[name] for name in ("articles", "dialogs")] == tokens


def test_data_streams_do_not_all_begin_with_the_same_corpus(tmp_path):
    streams = stream_over(articles_and_dialogs(tmp_path), [MASKING], count=16)
    first = {next(iter(streams.instance(j, None, MASKING, (MASKING,))[1].tokens)) for j in range(16)}
    assert first == {"articles", "dialogs"}
