"""The stream: the same packs from the same position, whoever asks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.batches import stream as streams
from ernie2.batches.feeds import feeds
from ernie2.batches.packing import Caps, Packer
from ernie2.batches.stages import Plan, assign
from ernie2.batches.stream import Feed, Lane, Stream
from ernie2.errors import TaskError
from ernie2.tasks.base import Arrangement, Labels, Options, Segment, SentenceTask, TokenTask
from tiny import FOUR, MASK, PAD, VOCABULARY, document, lanes_as_json, lanes_of, random_document, task, write_corpora

MASKING, CAPITALS, RELATION, REORDERING = FOUR
IDS = {name: row for row, name in enumerate(FOUR)}
LEVELS = {MASKING: "token", CAPITALS: "token", RELATION: "token", REORDERING: "sentence"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    corpora = {
        name: [random_document(rng, sentences=20, name=f"{name}{i}", group=i) for i in range(count)]
        for name, count in (("wiki", 13), ("news", 7))
    }
    return write_corpora(tmp_path_factory.mktemp("shards"), corpora, heldout={"wiki3", "news1"})


def stream_of(shards, *, tasks=None, lanes=3, seed=0, pack_tokens=512, limit=64, split="train", ids=None, made=None):
    tasks = tasks or [task(name) for name in FOUR]
    made = made or feeds(shards, tasks, split, sequence_tokens=limit)[0]
    caps = Caps.of(pack_tokens, limit, tasks)
    return Stream(made, tasks, VOCABULARY, caps, ids or IDS, seed=seed, lanes=lanes, split=split)


def as_value(pack):
    """A pack as plain values, to compare."""
    targets = {n: (t.positions.tolist(), t.labels.tolist(), t.count) for n, t in sorted(pack.targets.items())}
    arrays = (pack.tokens, pack.positions, pack.segments, pack.task_ids, pack.starts)
    return [array.tolist() for array in arrays], targets


def steps_of_a_run(count=24):
    """Hosts and task sets of all four stages, plain and combined steps among them."""
    steps = [
        (plan.host_at(k), plan.at(k))
        for stage in assign(FOUR, 20)
        for plan in [Plan(stage, LEVELS)]
        for k in range(len(plan))
    ]
    return steps[:: len(steps) // count]


def run(stream, lane_number, steps, lane=None):
    lane, packs = lane or Lane(), []
    for host, active in steps:
        pack, lane = stream.pack(lane_number, lane, host, active)
        packs.append(as_value(pack))
    return packs, lane


# ---- position


def test_lanes_give_the_same_packs_in_whatever_order_and_by_whomever_they_are_owned(shards):
    steps = steps_of_a_run()
    one = stream_of(shards)
    in_turn = [run(one, lane, steps)[0] for lane in range(3)]
    # now lane by lane and step by step, backwards, every lane with a worker of its own
    workers, lanes, packs = (
        {j: stream_of(shards) for j in range(3)},
        {j: Lane() for j in range(3)},
        {j: [] for j in range(3)},
    )
    for host, active in steps:
        for j in (2, 0, 1):
            pack, lanes[j] = workers[j].pack(j, lanes[j], host, active)
            packs[j].append(as_value(pack))
    assert [packs[j] for j in range(3)] == in_turn
    assert in_turn[0] != in_turn[1]


@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_lane_resumed_from_json_gives_the_very_same_packs(shards, at):
    steps = steps_of_a_run()
    whole, _ = run(stream_of(shards), 1, steps)
    before, lane = run(stream_of(shards), 1, steps[:at])
    stored = lanes_as_json([lane])
    after, _ = run(stream_of(shards), 1, steps[at:], lanes_of(stored)[0])
    assert before + after == whole
    assert lanes_of(stored) == [lane]


def test_a_pack_is_a_function_of_lane_host_and_active_and_leaves_the_lane_as_it_was(shards):
    stream = stream_of(shards)
    _, lane = run(stream, 0, steps_of_a_run()[:9])
    before = json.dumps(lanes_as_json([lane]))
    first = as_value(stream.pack(0, lane, REORDERING, FOUR)[0])
    stream.pack(2, Lane(), MASKING, (MASKING,))
    assert as_value(stream.pack(0, lane, REORDERING, FOUR)[0]) == first
    assert json.dumps(lanes_as_json([lane])) == before


def test_riders_advance_no_cursor_but_the_hosts(shards):
    _, lane = stream_of(shards).pack(0, Lane(), REORDERING, FOUR)
    assert list(lane) == [REORDERING]


def test_the_seed_and_the_split_name_another_walk(shards):
    steps = [(MASKING, (MASKING,))]
    packs = [run(stream_of(shards, seed=seed), 0, steps)[0] for seed in (0, 1)]
    assert packs[0] != packs[1]
    assert run(stream_of(shards, split="heldout"), 0, steps)[0] not in packs


def numbered(tmp_path, count=11):
    """One corpus of `count` documents of one sentence each, document i saying 100 + i."""
    return write_corpora(tmp_path, {"n": [document([[[100 + i]]], name=str(i), group=i) for i in range(count)]})


def walk(stream, lane_number, count):
    """The documents lane `lane_number` walks, by the number they say."""
    cursor, seen = None, []
    for _ in range(count):
        instance, cursor, _ = stream.instance(lane_number, cursor, MASKING, (MASKING,))
        seen.append(int(instance.sequence.tokens[1]) - 100)
    return seen


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_m_lanes_share_out_the_permutations_of_the_epochs_every_mth_document_each(tmp_path, lanes):
    shards = numbered(tmp_path)
    masking = [task(MASKING)]
    everything = walk(stream_of(shards, tasks=masking, lanes=1), 0, 33)
    assert [sorted(everything[i : i + 11]) for i in (0, 11, 22)] == [list(range(11))] * 3
    assert everything[:11] != everything[11:22] != everything[22:]
    stream = stream_of(shards, tasks=masking, lanes=lanes)
    for lane in range(lanes):
        expected = everything[lane::lanes]
        assert walk(stream, lane, len(expected)) == expected


def test_epochs_are_counted_by_what_all_lanes_have_walked(tmp_path):
    stream = stream_of(numbered(tmp_path), tasks=[task(MASKING)], lanes=2)
    cursor, epochs = None, []
    for _ in range(12):
        _, cursor, _ = stream.instance(0, cursor, MASKING, (MASKING,))
        epochs.append(stream.epoch(MASKING, {MASKING: cursor}))
    assert epochs == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]  # after k documents, 2 k of 11
    assert stream.epoch(MASKING, Lane()) == 0


# ---- content


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([64, 200, 512]))
def test_packs_keep_their_caps_and_labels_and_no_instance_is_lost(shards, seed, pack_tokens):
    stream = stream_of(shards, seed=seed, pack_tokens=pack_tokens)
    lane = Lane()
    for host, active in steps_of_a_run(8):
        drawn = lane[host].drawn if host in lane else 0
        pack, lane = stream.pack(0, lane, host, active)
        assert lane[host].drawn - drawn == len(pack.starts) - 1 > 0
        assert pack.real_tokens <= pack_tokens
        assert max(np.diff(pack.starts)) <= 64
        assert set(pack.targets) <= set(active)
        masking = pack.targets.get(MASKING)
        hidden = set(masking.positions[: masking.count].tolist()) if masking else set()
        assert set(np.flatnonzero(pack.tokens == MASK).tolist()) <= hidden
        if REORDERING in active:
            assert (
                pack.targets[REORDERING].positions[: pack.targets[REORDERING].count].tolist()
                == pack.starts[:-1].tolist()
            )


def test_plain_steps_have_their_own_task_id_and_combined_ones_that_of_the_sentence_task_or_the_first_token_task(shards):
    stream = stream_of(shards)
    for host, active, row in [
        (RELATION, (RELATION,), 2),
        (RELATION, (MASKING, CAPITALS, RELATION), 0),
        (RELATION, (CAPITALS, RELATION), 1),
        (REORDERING, FOUR, 3),
    ]:
        pack, _ = stream.pack(0, Lane(), host, active)
        assert set(pack.task_ids[: pack.real_tokens].tolist()) == {row}
        assert set(pack.targets) == set(active)


def test_the_same_text_is_arranged_whoever_rides(shards):
    stream = stream_of(shards)
    alone, _, _ = stream.instance(0, None, REORDERING, (REORDERING,))
    together, _, _ = stream.instance(0, None, REORDERING, FOUR)
    assert (alone.sequence.tokens == together.sequence.tokens).all()
    assert alone.labels[REORDERING].targets == together.labels[REORDERING].targets


def test_corpora_are_drawn_by_their_shares(tmp_path):
    texts = {
        name: [document([[[token]]], name=f"{name}{i}") for i in range(5)] for name, token in (("a", 10), ("b", 20))
    }
    shards = write_corpora(tmp_path, texts, weights={"a": 3, "b": 1})
    stream = stream_of(shards, tasks=[task(MASKING)])
    cursor, of_a = None, 0
    for _ in range(2_000):
        instance, cursor, _ = stream.instance(0, cursor, MASKING, (MASKING,))
        of_a += int(instance.sequence.tokens[1] == 10)
    assert of_a / 2_000 == pytest.approx(0.75, abs=0.001)


def test_a_rider_labels_only_what_comes_from_its_own_corpora(shards):
    tasks = [task(MASKING), task(CAPITALS, corpora=("news",))]
    stream = stream_of(shards, tasks=tasks)
    cursor, labelled = None, set()
    for _ in range(60):
        before = cursor.corpora if cursor else {}
        instance, cursor, _ = stream.instance(0, cursor, MASKING, (MASKING, CAPITALS))
        corpus = next(name for name, at in cursor.corpora.items() if before.get(name) != at)
        labelled.add((corpus, CAPITALS in instance.labels))
    assert labelled == {("wiki", False), ("news", True)}


def test_instances_in_which_the_host_scores_nothing_are_passed_over(tmp_path):
    caseless = [document([[[50]]], caseless={0}, name=f"caseless{i}") for i in range(9)]
    shards = write_corpora(tmp_path, {"mixed": [*caseless, document([[[60]]], name="cased")]})
    stream = stream_of(shards, tasks=[task(CAPITALS)], lanes=1)
    cursor = None
    for epoch in range(4):
        instance, cursor, _ = stream.instance(0, cursor, CAPITALS, (CAPITALS,))
        assert instance.sequence.tokens[1] == 60
        assert cursor.corpora["mixed"][0] // 10 in (epoch, epoch + 1)


@pytest.mark.parametrize(("corpora", "scored"), [(None, {}), (("news",), {}), (None, {MASKING: 40, CAPITALS: 300})])
def test_packs_of_a_sentence_task_are_those_packed_instance_by_instance(shards, corpora, scored):
    """All corpora alike, a rider that labels one of two, and caps on scored positions that close the pack."""
    tasks = [task(MASKING), task(CAPITALS, corpora=corpora), task(RELATION), task(REORDERING)]
    stream = stream_of(shards, tasks=tasks, pack_tokens=400)
    caps = stream.caps = replace(stream.caps, scored={**stream.caps.scored, **scored})
    lane, cursor, made = Lane(), None, None
    for _ in range(12):
        pack, lane = stream.pack(0, lane, REORDERING, FOUR)
        packer = Packer(caps, PAD)
        while True:
            instance, after, row = made or stream.instance(0, cursor, REORDERING, FOUR)
            made = None
            if not packer.add(instance, row):
                made = instance, after, row
                break
            cursor = after
        assert as_value(pack) == as_value(packer.pack())
        assert lane[REORDERING] == cursor


# ---- tasks that cannot go on


class Nothing(SentenceTask):
    """Never finds what it needs."""

    name, labels, needs, title, about = "nothing", ("no", "yes"), "unicorns", "Nothing", "Nothing?"

    def arrange(self, source, label, max_tokens, rng):
        return None


class Raises(Nothing):
    """Breaks at once."""

    name = "raises"

    def arrange(self, source, label, max_tokens, rng):
        raise RuntimeError("oops")


class WrongLabel(Nothing):
    """Has a label of its own."""

    name = "wrong_label"

    def arrange(self, source, label, max_tokens, rng):
        return Arrangement((Segment(source.document, 0, 1),), 7)


class Others(Nothing):
    """Wants a document of another group."""

    name = "others"

    def arrange(self, source, label, max_tokens, rng):
        other = source.other_document
        assert other.group != source.document.group
        return Arrangement((Segment(source.document, 0, 1), Segment(other, 0, 1)), self.labels.index(label))


class Outside(TokenTask):
    """Scores beyond the sequence."""

    name, labels = "outside", ("no", "yes")

    def label(self, sequence, rng):
        return Labels(np.array([len(sequence.tokens)]), np.array([0]))


class Silent(TokenTask):
    """Scores nothing, ever."""

    name, labels, needs = "silent", ("no", "yes"), "silence"

    def label(self, sequence, rng):
        return Labels(np.zeros(0, np.int64), np.zeros(0, np.int64))


def untried(shards, task):
    """All corpora, as if the task had been found to show something in each."""
    return {task.name: Feed(list(shards.corpora.values()), [1.0] * len(shards.corpora))}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Nothing, r"'nothing' found nothing to score in 50 attempts.*corpus '(wiki|news)' for label.*needs unicorns"),
        (Raises, r"'raises' failed on document '(wiki|news)\d+'.*oops"),
        (WrongLabel, r"'wrong_label', document '(wiki|news)\d+': label 7"),
        (Outside, r"'outside', document '(wiki|news)\d+': scores positions"),
        (Silent, r"'silent' found nothing to score.*needs silence"),
    ],
)
def test_a_task_that_cannot_go_on_is_stopped_by_name(shards, monkeypatch, kind, words):
    monkeypatch.setattr(streams, "MAX_ATTEMPTS", 50)

    def first_pack():
        tried = kind(Options(), VOCABULARY)
        stream_of(shards, tasks=[tried], ids={kind.name: 0}, made=untried(shards, tried)).pack(
            0, Lane(), kind.name, (kind.name,)
        )

    with pytest.raises(TaskError, match=words):
        first_pack()


def test_other_documents_come_from_other_groups_and_labels_equally_often(shards):
    stream = stream_of(shards, tasks=[Others(Options(), VOCABULARY)], ids={"others": 0}, pack_tokens=4_096)
    pack, _ = stream.pack(0, Lane(), "others", ("others",))
    target = pack.targets["others"]
    assert target.count == 256
    assert target.labels[: target.count].mean() == pytest.approx(0.5, abs=0.1)


def test_sentence_distance_draws_its_classes_equally_allows_attached_tasks_and_goes_through_the_corpus(shards):
    names = ("sentence_distance", *FOUR[:3])
    tasks = [task(name) for name in names]
    stream = stream_of(shards, tasks=tasks, ids={name: row for row, name in enumerate(names)}, lanes=1)
    labels, lane, documents, cursor = [], Lane(), set(), None
    for _ in range(30):
        pack, lane = stream.pack(0, lane, names[0], names)
        assert set(pack.targets) == set(names)
        assert set(pack.task_ids[: pack.real_tokens].tolist()) == {0}
        labels += pack.targets[names[0]].labels[: pack.targets[names[0]].count].tolist()
    assert np.bincount(labels) / len(labels) == pytest.approx([1 / 3] * 3, abs=0.05)
    stream = stream_of(shards, tasks=tasks[:1], ids={names[0]: 0}, lanes=1)
    while cursor is None or not stream.epoch(names[0], {names[0]: cursor}):
        instance, cursor, _ = stream.instance(0, cursor, names[0], names[:1])
        documents.update(instance.sequence.document_lengths.tolist()[:1])
    # 17 train documents of 20 sentences: 18 of each may come first, about half of them do
    assert len(documents) > 8
    assert 60 < cursor.drawn < 250


def test_a_corpus_of_one_group_has_no_other_document(tmp_path):
    shards = write_corpora(tmp_path, {"one": [document([[[5]]], name=str(i)) for i in range(3)]})
    others = Others(Options(), VOCABULARY)
    stream = stream_of(shards, tasks=[others], ids={"others": 0}, made=untried(shards, others))
    with pytest.raises(TaskError, match=r"task 'others' needs.*all train documents of corpus 'one' are of the group"):
        stream.pack(0, Lane(), "others", ("others",))


def test_a_second_group_is_found_where_one_group_has_nearly_all_documents(tmp_path):
    """A draw of 100 documents would miss it four times in five."""
    texts = [document([[[5]]], name=str(i), group=i == 0) for i in range(500)]
    shards = write_corpora(tmp_path, {"one": texts}, per_shard=500)
    stream = stream_of(shards, tasks=[Others(Options(), VOCABULARY)], ids={"others": 0})
    for step in range(20):
        stream.pack(step % 3, Lane(), "others", ("others",))


def test_a_stream_like_another_reads_other_feeds_with_the_same_sizes(shards):
    stream = stream_of(shards)
    feed = {CAPITALS: Feed([shards.corpora["news"]], [1.0])}
    like = stream.like(feed, [task(CAPITALS)], seed=5, split="heldout")
    instance, _, row = like.instance(0, None, CAPITALS, (CAPITALS,))
    assert (like.caps, like.lanes, row) == (stream.caps, 1, 1)
    assert instance.sequence.document_lengths.tolist() == [len(shards.corpora["news"].document("heldout", 0))]
