"""Data streams: the same packs from the same position in every process."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.batches import streams as streams_module
from ernie2.batches.feeds import build_feeds
from ernie2.batches.packing import Caps, Packer
from ernie2.batches.stages import StagePlan, assign
from ernie2.batches.streams import DataStreams, Feed, StreamState
from ernie2.errors import TaskError
from ernie2.tasks.base import Arrangement, Labels, Options, Segment, SentenceTask, TokenTask
from tiny import FOUR, MASK, PAD, VOCABULARY, document, random_document, states_as_json, states_of, task, write_corpora

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


def stream_of(shards, *, tasks=None, count=3, seed=0, pack_tokens=512, limit=64, split="train", ids=None, made=None):
    tasks = tasks or [task(name) for name in FOUR]
    made = made or build_feeds(shards, tasks, split, sequence_tokens=limit)[0]
    caps = Caps.of(pack_tokens, limit, tasks)
    return DataStreams(made, tasks, VOCABULARY, caps, ids or IDS, seed=seed, count=count, split=split)


def as_value(pack):
    """A pack as plain values, to compare."""
    targets = {n: (t.positions.tolist(), t.labels.tolist(), t.count) for n, t in sorted(pack.targets.items())}
    arrays = (pack.tokens, pack.positions, pack.segments, pack.task_ids, pack.starts)
    return [array.tolist() for array in arrays], targets


def steps_of_a_run(count=24):
    """Return main task and task set of steps of all four stages, token-only and combined ones among them."""
    steps = [
        (plan.main_task(k), plan.active_tasks(k))
        for stage in assign(FOUR, 20)
        for plan in [StagePlan(stage, LEVELS)]
        for k in range(len(plan))
    ]
    return steps[:: len(steps) // count]


def run(streams, stream_number, steps, state=None):
    state, packs = state or StreamState(), []
    for main_task, active in steps:
        pack, state = streams.pack(stream_number, state, main_task, active)
        packs.append(as_value(pack))
    return packs, state


# ---- position


def test_data_streams_give_the_same_packs_in_any_order_and_in_any_process(shards):
    steps = steps_of_a_run()
    one = stream_of(shards)
    in_turn = [run(one, number, steps)[0] for number in range(3)]
    # now step by step, backwards, with one worker for each data stream
    workers, states, packs = (
        {j: stream_of(shards) for j in range(3)},
        {j: StreamState() for j in range(3)},
        {j: [] for j in range(3)},
    )
    for main_task, active in steps:
        for j in (2, 0, 1):
            pack, states[j] = workers[j].pack(j, states[j], main_task, active)
            packs[j].append(as_value(pack))
    assert [packs[j] for j in range(3)] == in_turn
    assert in_turn[0] != in_turn[1]


@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_data_stream_resumed_from_json_gives_the_same_packs(shards, at):
    steps = steps_of_a_run()
    whole, _ = run(stream_of(shards), 1, steps)
    before, state = run(stream_of(shards), 1, steps[:at])
    stored = states_as_json([state])
    after, _ = run(stream_of(shards), 1, steps[at:], states_of(stored)[0])
    assert before + after == whole
    assert states_of(stored) == [state]


def test_a_pack_depends_only_on_state_main_task_and_active_tasks_and_does_not_change_the_state(shards):
    streams = stream_of(shards)
    _, state = run(streams, 0, steps_of_a_run()[:9])
    before = json.dumps(states_as_json([state]))
    first = as_value(streams.pack(0, state, REORDERING, FOUR)[0])
    streams.pack(2, StreamState(), MASKING, (MASKING,))
    assert as_value(streams.pack(0, state, REORDERING, FOUR)[0]) == first
    assert json.dumps(states_as_json([state])) == before


def test_only_the_cursor_of_the_main_task_advances(shards):
    _, state = stream_of(shards).pack(0, StreamState(), REORDERING, FOUR)
    assert list(state) == [REORDERING]


def test_another_seed_or_split_gives_other_packs(shards):
    steps = [(MASKING, (MASKING,))]
    packs = [run(stream_of(shards, seed=seed), 0, steps)[0] for seed in (0, 1)]
    assert packs[0] != packs[1]
    assert run(stream_of(shards, split="heldout"), 0, steps)[0] not in packs


def numbered(tmp_path, count=11):
    """One corpus of `count` documents of one sentence each, document i saying 100 + i."""
    return write_corpora(tmp_path, {"n": [document([[[100 + i]]], name=str(i), group=i) for i in range(count)]})


def walk(streams, stream_number, count):
    """Return the numbers of the documents that data stream `stream_number` reads."""
    cursor, seen = None, []
    for _ in range(count):
        instance, cursor, _ = streams.instance(stream_number, cursor, MASKING, (MASKING,))
        seen.append(int(instance.sequence.tokens[1]) - 100)
    return seen


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_of_m_data_streams_reads_every_mth_document_of_the_epochs(tmp_path, count):
    shards = numbered(tmp_path)
    masking = [task(MASKING)]
    everything = walk(stream_of(shards, tasks=masking, count=1), 0, 33)
    assert [sorted(everything[i : i + 11]) for i in (0, 11, 22)] == [list(range(11))] * 3
    assert everything[:11] != everything[11:22] != everything[22:]
    streams = stream_of(shards, tasks=masking, count=count)
    for number in range(count):
        expected = everything[number::count]
        assert walk(streams, number, len(expected)) == expected


def test_epochs_count_the_documents_of_all_data_streams(tmp_path):
    streams = stream_of(numbered(tmp_path), tasks=[task(MASKING)], count=2)
    cursor, epochs = None, []
    for _ in range(12):
        _, cursor, _ = streams.instance(0, cursor, MASKING, (MASKING,))
        epochs.append(streams.epoch(MASKING, {MASKING: cursor}))
    assert epochs == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]  # after k documents, 2 k of 11
    assert streams.epoch(MASKING, StreamState()) == 0


# ---- content


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([64, 200, 512]))
def test_packs_keep_their_caps_and_labels_and_no_instance_is_lost(shards, seed, pack_tokens):
    streams = stream_of(shards, seed=seed, pack_tokens=pack_tokens)
    state = StreamState()
    for main_task, active in steps_of_a_run(8):
        drawn = state[main_task].drawn if main_task in state else 0
        pack, state = streams.pack(0, state, main_task, active)
        assert state[main_task].drawn - drawn == len(pack.starts) - 1 > 0
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


def test_token_only_steps_have_their_own_task_id_and_others_that_of_the_sentence_task_or_first_token_task(
    shards,
):
    streams = stream_of(shards)
    for main_task, active, row in [
        (RELATION, (RELATION,), 2),
        (RELATION, (MASKING, CAPITALS, RELATION), 0),
        (RELATION, (CAPITALS, RELATION), 1),
        (REORDERING, FOUR, 3),
    ]:
        pack, _ = streams.pack(0, StreamState(), main_task, active)
        assert set(pack.task_ids[: pack.real_tokens].tolist()) == {row}
        assert set(pack.targets) == set(active)


def test_attached_tasks_do_not_change_the_arranged_text(shards):
    streams = stream_of(shards)
    alone, _, _ = streams.instance(0, None, REORDERING, (REORDERING,))
    together, _, _ = streams.instance(0, None, REORDERING, FOUR)
    assert (alone.sequence.tokens == together.sequence.tokens).all()
    assert alone.labels[REORDERING].targets == together.labels[REORDERING].targets


def test_corpora_are_drawn_by_their_shares(tmp_path):
    texts = {
        name: [document([[[token]]], name=f"{name}{i}") for i in range(5)] for name, token in (("a", 10), ("b", 20))
    }
    shards = write_corpora(tmp_path, texts, weights={"a": 3, "b": 1})
    streams = stream_of(shards, tasks=[task(MASKING)])
    cursor, of_a = None, 0
    for _ in range(2_000):
        instance, cursor, _ = streams.instance(0, cursor, MASKING, (MASKING,))
        of_a += int(instance.sequence.tokens[1] == 10)
    assert of_a / 2_000 == pytest.approx(0.75, abs=0.001)


def test_an_attached_task_labels_only_instances_from_its_own_corpora(shards):
    tasks = [task(MASKING), task(CAPITALS, corpora=("news",))]
    streams = stream_of(shards, tasks=tasks)
    cursor, labelled = None, set()
    for _ in range(60):
        before = cursor.corpora if cursor else {}
        instance, cursor, _ = streams.instance(0, cursor, MASKING, (MASKING, CAPITALS))
        corpus = next(name for name, at in cursor.corpora.items() if before.get(name) != at)
        labelled.add((corpus, CAPITALS in instance.labels))
    assert labelled == {("wiki", False), ("news", True)}


def test_instances_in_which_the_main_task_scores_nothing_are_skipped(tmp_path):
    caseless = [document([[[50]]], caseless={0}, name=f"caseless{i}") for i in range(9)]
    shards = write_corpora(tmp_path, {"mixed": [*caseless, document([[[60]]], name="cased")]})
    streams = stream_of(shards, tasks=[task(CAPITALS)], count=1)
    cursor = None
    for epoch in range(4):
        instance, cursor, _ = streams.instance(0, cursor, CAPITALS, (CAPITALS,))
        assert instance.sequence.tokens[1] == 60
        assert cursor.corpora["mixed"][0] // 10 in (epoch, epoch + 1)


@pytest.mark.parametrize(("corpora", "scored"), [(None, {}), (("news",), {}), (None, {MASKING: 40, CAPITALS: 300})])
def test_packs_of_a_sentence_task_are_those_packed_instance_by_instance(shards, corpora, scored):
    """All corpora alike, an attached task that labels one of two, and caps on scored positions that close the pack."""
    tasks = [task(MASKING), task(CAPITALS, corpora=corpora), task(RELATION), task(REORDERING)]
    streams = stream_of(shards, tasks=tasks, pack_tokens=400)
    caps = streams.caps = replace(streams.caps, scored={**streams.caps.scored, **scored})
    state, cursor, made = StreamState(), None, None
    for _ in range(12):
        pack, state = streams.pack(0, state, REORDERING, FOUR)
        packer = Packer(caps, PAD)
        while True:
            instance, after, row = made or streams.instance(0, cursor, REORDERING, FOUR)
            made = None
            if not packer.add(instance, row):
                made = instance, after, row
                break
            cursor = after
        assert as_value(pack) == as_value(packer.pack())
        assert state[REORDERING] == cursor


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
    monkeypatch.setattr(streams_module, "MAX_ATTEMPTS", 50)

    def first_pack():
        tried = kind(Options(), VOCABULARY)
        stream_of(shards, tasks=[tried], ids={kind.name: 0}, made=untried(shards, tried)).pack(
            0, StreamState(), kind.name, (kind.name,)
        )

    with pytest.raises(TaskError, match=words):
        first_pack()


def test_other_documents_come_from_other_groups_and_labels_equally_often(shards):
    streams = stream_of(shards, tasks=[Others(Options(), VOCABULARY)], ids={"others": 0}, pack_tokens=4_096)
    pack, _ = streams.pack(0, StreamState(), "others", ("others",))
    target = pack.targets["others"]
    assert target.count == 256
    assert target.labels[: target.count].mean() == pytest.approx(0.5, abs=0.1)


def test_sentence_distance_draws_its_classes_equally_takes_attached_tasks_and_reads_the_entire_corpus(shards):
    names = ("sentence_distance", *FOUR[:3])
    tasks = [task(name) for name in names]
    streams = stream_of(shards, tasks=tasks, ids={name: row for row, name in enumerate(names)}, count=1)
    labels, state, documents, cursor = [], StreamState(), set(), None
    for _ in range(30):
        pack, state = streams.pack(0, state, names[0], names)
        assert set(pack.targets) == set(names)
        assert set(pack.task_ids[: pack.real_tokens].tolist()) == {0}
        labels += pack.targets[names[0]].labels[: pack.targets[names[0]].count].tolist()
    assert np.bincount(labels) / len(labels) == pytest.approx([1 / 3] * 3, abs=0.05)
    streams = stream_of(shards, tasks=tasks[:1], ids={names[0]: 0}, count=1)
    while cursor is None or not streams.epoch(names[0], {names[0]: cursor}):
        instance, cursor, _ = streams.instance(0, cursor, names[0], names[:1])
        documents.update(instance.sequence.document_lengths.tolist()[:1])
    # 17 train documents of 20 sentences: 18 of each may come first, about half of them do
    assert len(documents) > 8
    assert 60 < cursor.drawn < 250


def test_a_corpus_of_one_group_has_no_other_document(tmp_path):
    shards = write_corpora(tmp_path, {"one": [document([[[5]]], name=str(i)) for i in range(3)]})
    others = Others(Options(), VOCABULARY)
    streams = stream_of(shards, tasks=[others], ids={"others": 0}, made=untried(shards, others))
    with pytest.raises(
        TaskError, match=r"task 'others' needs.*all train documents of corpus 'one' belong to the group"
    ):
        streams.pack(0, StreamState(), "others", ("others",))


def test_a_second_group_is_found_if_one_group_has_nearly_all_documents(tmp_path):
    """A draw of 100 documents would miss it four times in five."""
    texts = [document([[[5]]], name=str(i), group=i == 0) for i in range(500)]
    shards = write_corpora(tmp_path, {"one": texts}, per_shard=500)
    streams = stream_of(shards, tasks=[Others(Options(), VOCABULARY)], ids={"others": 0})
    for step in range(20):
        streams.pack(step % 3, StreamState(), "others", ("others",))


def test_with_feeds_keeps_the_sizes(shards):
    streams = stream_of(shards)
    feed = {CAPITALS: Feed([shards.corpora["news"]], [1.0])}
    like = streams.with_feeds(feed, [task(CAPITALS)], seed=5, split="heldout")
    instance, _, row = like.instance(0, None, CAPITALS, (CAPITALS,))
    assert (like.caps, like.count, row) == (streams.caps, 1, 1)
    assert instance.sequence.document_lengths.tolist() == [len(shards.corpora["news"].document("heldout", 0))]
