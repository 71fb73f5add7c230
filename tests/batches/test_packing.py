"""Packs: nothing dropped, no cap passed, labels where they belong."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.batches.batch import PackedBatch, Targets
from ernie2.batches.packing import Caps, Packer
from ernie2.tasks.base import Labels, TokenSequence
from ernie2.tasks.instances import Instance
from tiny import FOUR, PAD, task


def instance(inputs, segment=None, **labels):
    inputs = np.array(inputs)
    segment = np.zeros(len(inputs), np.int64) if segment is None else np.array(segment)
    made = {name: Labels(np.array(positions), np.array(targets)) for name, (positions, targets) in labels.items()}
    empty = TokenSequence(inputs, *(np.zeros(len(inputs), np.int64),) * 4, {}, 1, np.zeros(0))
    return Instance(inputs, segment, made, empty)


def test_sequences_lie_end_to_end_with_positions_labels_and_task_ids():
    packer = Packer(Caps(tokens=10, longest=5, sequences=4, scored={"word": 4, "order": 4}), PAD)
    assert packer.add(instance([2, 7, 3], word=([1], [70]), order=([0], [5])), 6)
    assert packer.add(instance([2, 8, 9, 3], [0, 0, 1, 1], word=([1, 2], [80, 90]), order=([0], [6])), 1)
    pack = packer.pack()
    assert pack.tokens.tolist() == [2, 7, 3, 2, 8, 9, 3, PAD, PAD, PAD]
    assert pack.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 0, 0]
    assert pack.segments.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert pack.task_ids.tolist() == [6, 6, 6, 1, 1, 1, 1, 0, 0, 0]
    assert pack.starts.tolist() == [0, 3, 7]
    assert (pack.real_tokens, pack.longest) == (7, 5)
    assert pack.targets["word"].positions.tolist() == [1, 4, 5, 0]
    assert pack.targets["word"].labels.tolist() == [70, 80, 90, 0]
    assert pack.targets["word"].count == 3
    assert pack.targets["order"].positions[:2].tolist() == [0, 3]
    assert pack.targets["order"].labels[:2].tolist() == [5, 6]
    kinds = [array.dtype for array in (pack.tokens, pack.positions, pack.segments, pack.task_ids, pack.starts)]
    assert kinds == [np.int32] * 5
    assert (pack.targets["word"].positions.dtype, pack.targets["word"].labels.dtype) == (np.int32, np.int32)


def test_a_pack_closes_when_tokens_sequences_or_scored_positions_reach_their_cap():
    caps = Caps(tokens=6, longest=6, sequences=2, scored={"word": 3})
    by_tokens = Packer(caps, PAD)
    assert [by_tokens.add(instance([2, 7, 8, 3]), 0), by_tokens.add(instance([2, 7, 3]), 0)] == [True, False]
    assert by_tokens.add(instance([2, 3]), 0)  # a shorter one still fits
    by_sequences = Packer(caps, PAD)
    assert [by_sequences.add(instance([2]), 0) for _ in range(3)] == [True, True, False]
    by_scored = Packer(caps, PAD)
    two = instance([2, 7, 3], word=([1, 2], [0, 0]))
    assert [by_scored.add(two, 0), by_scored.add(two, 0)] == [True, False]
    assert by_scored.pack().targets["word"].count == 2


def test_labels_may_be_numbers_or_pairs():
    packer = Packer(Caps(8, 8, 2, {"score": 2, "span": 2}), PAD)
    packer.add(instance([2, 7, 3], score=([0], [0.5]), span=([0], [[1, 2]])), 0)
    pack = packer.pack()
    assert pack.targets["score"].labels.dtype == np.float32
    assert pack.targets["span"].labels.tolist() == [[1, 2], [0, 0]]


def test_a_pack_without_instances_is_all_padding():
    pack = Packer(Caps(4, 4, 1, {"word": 4}), PAD).pack()
    assert (pack.tokens.tolist(), pack.starts.tolist(), pack.real_tokens) == ([PAD] * 4, [0], 0)
    assert not pack.targets


def test_caps_leave_room_for_one_full_sequence():
    caps = Caps.of(4_096, 512, [task(name) for name in FOUR])
    assert (caps.tokens, caps.longest, caps.sequences) == (4_096, 512, 256)
    assert caps.scored == {FOUR[0]: 1_024, FOUR[1]: 4_096, FOUR[2]: 4_096, FOUR[3]: 256}
    assert Caps.of(512, 512, [task(FOUR[0])]).scored == {FOUR[0]: 512}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12), st.booleans()), min_size=1, max_size=40),
    st.integers(12, 60),
    st.integers(1, 8),
)
def test_instances_are_packed_complete_under_the_caps_in_static_shapes(sizes, tokens, sequences):
    caps = Caps(tokens, 12, sequences, {"word": 12, "order": sequences})
    made = []
    for number, (length, scored, ordered) in enumerate(sizes):
        positions = list(range(min(scored, length)))
        inputs = [number * 100 + position for position in range(length)]
        labels = {"word": (positions, [inputs[p] for p in positions])}
        if ordered:
            labels["order"] = ([0], [inputs[0]])
        made.append(instance(inputs, **labels))
    packs, packer = [], Packer(caps, PAD)
    for number, one in enumerate(made):
        if not packer.add(one, number):
            packs.append(packer.pack())
            packer = Packer(caps, PAD)
            assert packer.add(one, number)
    packs.append(packer.pack())

    real = np.concatenate([pack.tokens[: pack.real_tokens] for pack in packs])
    assert real.tolist() == np.concatenate([one.inputs for one in made]).tolist()
    for pack in packs:
        assert pack.real_tokens <= tokens
        assert len(pack.starts) - 1 <= sequences
        assert {len(array) for array in (pack.tokens, pack.positions, pack.segments, pack.task_ids)} == {tokens}
        for name, targets in pack.targets.items():
            assert len(targets.positions) == len(targets.labels) == caps.scored[name] >= targets.count > 0
            # every label was written as the token it scores
            assert (pack.tokens[targets.positions[: targets.count]] == targets.labels[: targets.count]).all()
    for name in ("word", "order"):
        expected = sum(len(one.labels[name].positions) for one in made if name in one.labels)
        assert sum(pack.targets[name].count for pack in packs if name in pack.targets) == expected


def test_a_pack_lies_in_one_buffer_and_its_arrays_are_views_of_it():
    packer = Packer(Caps(4, 4, 2, {"word": 2, "score": 1, "span": 1}), PAD)
    packer.add(instance([2, 7, 3], [0, 1, 1], word=([1], [70]), score=([0], [0.5]), span=([0], [[1, 2]])), 6)
    pack = packer.pack()
    half = int(np.array(0.5, np.float32).view(np.int32))
    laid = [[2, 7, 3, PAD], [0, 1, 2, 0], [0, 1, 1, 0], [6, 6, 6, 0], [1, 0], [70, 0], [0], [half], [0], [1, 2], [0, 3]]
    assert pack.flat.tolist() == [value for array in laid for value in array]
    assert (pack.flat.dtype, pack.layout().sizes) == (np.int32, [len(array) for array in laid])
    pack.flat[:] = 1
    assert pack.targets["span"].labels.tolist() == [[1, 1]]
    assert pack.flattened() is pack


def test_a_pickled_pack_comes_back_in_one_buffer_of_the_same_values():
    targets = {
        "word": Targets(np.array([1, 0], np.int32), np.array([70, 0], np.int64), 1),
        "score": Targets(np.array([0], np.int32), np.array([0.5], np.float32), 1),
        "span": Targets(np.array([0], np.int32), np.array([[1, 2]], np.int64), 1),
    }
    rows = [np.array(row, np.int32) for row in ([2, 7, 3, 0], [0, 1, 2, 0], [0, 1, 1, 0], [6, 6, 6, 0], [0, 3])]
    pack = pickle.loads(pickle.dumps(PackedBatch(*rows, 4, targets)))  # noqa: S301
    assert [pack.tokens.tolist(), pack.positions.tolist(), pack.segments.tolist()] == [row.tolist() for row in rows[:3]]
    assert (pack.task_ids.tolist(), pack.starts.tolist(), pack.longest) == ([6, 6, 6, 0], [0, 3], 4)
    assert {name: (t.positions.tolist(), t.labels.tolist(), t.count) for name, t in pack.targets.items()} == {
        name: (t.positions.tolist(), t.labels.tolist(), t.count) for name, t in targets.items()
    }
    assert pack.targets["score"].labels.dtype == np.float32
    assert np.shares_memory(pack.flat, pack.targets["span"].labels)


def test_a_pack_with_other_targets_is_laid_anew():
    packer = Packer(Caps(3, 3, 1, {"word": 1, "order": 1}), PAD)
    packer.add(instance([2, 7, 3], word=([1], [70]), order=([0], [5])), 6)
    pack = packer.pack()
    fewer = dataclasses.replace(pack, targets={"order": pack.targets["order"]}).flattened()
    assert fewer.flat.tolist() == [2, 7, 3, 0, 1, 2, 0, 0, 0, 6, 6, 6, 0, 5, 0, 3]
