"""Blocks: layout and labels equal those of single instances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.batches.order import generator
from ernie2.errors import TaskError
from ernie2.tasks.base import Arrangement, Labels, Options, Segment, Source, TokenTask
from ernie2.tasks.blocks import label_block, lay_out_block
from ernie2.tasks.instances import arrange, build_instance, lay_out
from ernie2.tasks.knowledge_masking import KnowledgeMasking
from tiny import FOUR, VOCABULARY, document, random_document, task

MIX = {"basic": 0.3, "word": 0.2, "phrase": 0.2, "entity": 0.2, "all": 0.1}


class EverySecond(TokenTask):
    """Labels every second token by chance; has no `label_block`."""

    name, labels = "every_second", ("no", "yes")

    def label(self, sequence, rng):
        positions = (sequence.document >= 0).nonzero()[0][::2]
        return Labels(positions, rng.integers(2, size=len(positions)))


class OnlyFirst(KnowledgeMasking):
    """Overrides `label` alone."""

    def label(self, sequence, rng):
        first = np.array([1])
        return Labels(first, sequence.tokens[first], sequence.tokens)


class Wrong(EverySecond):
    """Labels beyond its classes in documents called bad."""

    name = "wrong"

    def label(self, sequence, rng):
        return Labels(np.array([1]), np.array([7 if sequence.tokens[1] == 9 else 0]))


def arrangements(seed):
    """Twelve instances of sentence distance and sentence reordering from random documents, some of one document."""
    rng = np.random.default_rng(seed)
    documents = [random_document(rng, name=f"d{i}", group=i) for i in range(4)]
    items = []
    for number in range(12):
        host = task(("sentence_distance", "sentence_reordering")[number % 2])
        source = Source(documents[number % 3], int(rng.integers(4)), lambda: documents[3])
        label = host.labels[number % 3] if host.balanced else None
        items.append(arrange(host, source, label, 48, np.random.default_rng(number)))
    return [one for one in items if one is not None]


def test_a_block_lays_sequences_end_to_end_and_numbers_documents_through():
    one = document([[[10, 11]], [[12]]], spans={"phrase": [(0, 2)]})
    two = document([[[20, 20]]], spans={"phrase": [(0, 2)]})
    block = lay_out_block(
        [Arrangement((Segment(one, 0, 2),), 0), Arrangement((Segment(two, 0, 2), Segment(one, 2, 3)), 1)], VOCABULARY
    )
    assert block.sequence.tokens.tolist() == [2, 10, 11, 3, 2, 20, 20, 3, 12, 3]
    assert block.sequence.document.tolist() == [-1, 0, 0, -1, -1, 1, 1, -1, 2, -1]
    assert block.sequence.segment.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert block.sequence.document_count.tolist() == [0, 1, 1, 0, 0, 2, 2, 0, 1, 0]
    assert block.sequence.document_lengths.tolist() == [3, 2, 3]
    assert block.sequence.spans["phrase"].tolist() == [[1, 3], [5, 7]]
    assert (block.starts.tolist(), len(block)) == ([0, 4, 10], 2)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_every_sequence_of_a_block_is_the_one_laid_out_alone(seed):
    outcome = arrangements(seed)
    block = lay_out_block(outcome, VOCABULARY)
    whole, documents = block.sequence, 0
    for arranged, start, end in zip(outcome, block.starts, block.starts[1:], strict=False):
        alone = lay_out(arranged, VOCABULARY)
        for name in ("tokens", "flags", "document_count", "segment"):
            assert getattr(whole, name)[start:end].tolist() == getattr(alone, name).tolist(), name
            assert getattr(whole, name).dtype == getattr(alone, name).dtype, name
        numbers = np.where(alone.document < 0, -1, alone.document + documents)
        assert whole.document[start:end].tolist() == numbers.tolist()
        known = len(alone.document_lengths)
        assert whole.document_lengths[documents : documents + known].tolist() == alone.document_lengths.tolist()
        documents += known
        for kind, runs in whole.spans.items():
            inside = runs[(runs[:, 0] >= start) & (runs[:, 0] < end)] - start
            assert inside.tolist() == alone.spans.get(kind, np.zeros((0, 2), np.int64)).tolist()
        assert set(alone.spans) <= set(whole.spans)
    assert whole.segment_count == max(lay_out(one, VOCABULARY).segment_count for one in outcome)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sets(st.sampled_from([*FOUR[:3], "every_second"]), min_size=1))
def test_a_block_gets_the_labels_and_inputs_of_its_instances_built_one_by_one(seed, names):
    outcome = arrangements(seed)
    tasks = [EverySecond(Options(), VOCABULARY) if name == "every_second" else task(name) for name in sorted(names)]
    tasks = [task(FOUR[0], mix=MIX) if each.name == FOUR[0] else each for each in tasks]
    block = lay_out_block(outcome, VOCABULARY)
    inputs, labels = label_block(block, tasks, [generator(seed, i) for i in range(len(outcome))])
    alone = [build_instance(one, None, tasks, VOCABULARY, generator(seed, i)) for i, one in enumerate(outcome)]
    starts = block.starts[:-1].tolist()
    assert inputs.tolist() == np.concatenate([one.inputs for one in alone]).tolist()
    assert set(labels) == names
    for name, found in labels.items():
        positions = [one.labels[name].positions + start for one, start in zip(alone, starts, strict=True)]
        assert found.positions.tolist() == np.concatenate(positions).tolist()
        assert found.targets.tolist() == np.concatenate([one.labels[name].targets for one in alone]).tolist()


def test_a_block_of_tokens_nobody_may_hide_is_left_as_it_is():
    unknown = document([[[1, 1]]])
    block = lay_out_block([Arrangement((Segment(unknown, 0, 2),), 0)] * 2, VOCABULARY)
    inputs, labels = label_block(block, [task(FOUR[0])], [generator(0), generator(1)])
    assert (inputs.tolist(), len(labels[FOUR[0]].positions)) == ([2, 1, 1, 3, 2, 1, 1, 3], 0)


def test_a_subclass_that_overrides_only_label_is_called_for_every_sequence():
    items = [Arrangement((Segment(document([[[10, 11, 12]]]), 0, 3),), 0)] * 2
    _, labels = label_block(lay_out_block(items, VOCABULARY), [task_of(OnlyFirst)], [generator(0), generator(1)])
    assert labels[FOUR[0]].positions.tolist() == [1, 6]


def task_of(kind):
    return kind(kind.Options(), VOCABULARY)


def test_a_task_that_labels_wrongly_is_named_with_the_document():
    items = [Arrangement((Segment(document([[[5 + 4 * i]]], name=f"d{i}"), 0, 1),), 0) for i in range(3)]
    with pytest.raises(TaskError, match="'wrong', document 'd1': labels 7…7, but it has 2 classes"):
        label_block(lay_out_block(items, VOCABULARY), [task_of(Wrong)], [generator(i) for i in range(3)])


def test_two_tasks_that_change_the_input_cannot_label_one_block():
    block = lay_out_block([Arrangement((Segment(document([[[10]]]), 0, 1),), 0)], VOCABULARY)
    with pytest.raises(TaskError, match="all change the input"):
        label_block(block, [task(FOUR[0]), task_of(OnlyFirst)], [generator(0)])
