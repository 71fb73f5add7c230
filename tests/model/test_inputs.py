"""A packed batch as tensors: trimmed where shapes may vary, covered by sequences where they may not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ernie2.batches.batch import Targets
from ernie2.model import transfer
from ernie2.model.inputs import Inputs
from model_packs import make_pack, with_targets


def test_trimmed_inputs_hold_real_tokens_and_real_targets_only():
    inputs = Inputs.from_batch(make_pack([4, 2, 5], tail=9, target_tail=6), "cpu", static=False)
    assert inputs.tokens.shape == inputs.positions.shape == inputs.segments.shape == inputs.task_ids.shape == (11,)
    assert inputs.starts.tolist() == [0, 4, 6, 11]
    assert inputs.lengths == (4, 2, 5)
    assert inputs.longest == 5
    for targets in inputs.targets.values():
        assert len(targets.positions) == len(targets.labels) == targets.count
        assert targets.weights is None


@pytest.mark.parametrize(
    ("tail", "lengths"),
    [(0, (4, 2, 5)), (1, (4, 2, 5, 1)), (8, (4, 2, 5, 8)), (9, (4, 2, 5, 8, 1)), (16, (4, 2, 5, 8, 8))],
)
def test_static_inputs_cover_the_tail_with_sequences_no_longer_than_the_limit(tail, lengths):
    inputs = Inputs.from_batch(make_pack([4, 2, 5], tail=tail, longest=8), "cpu", static=True)
    assert inputs.lengths == lengths
    assert inputs.starts.tolist() == [0, *np.cumsum(lengths)]
    assert inputs.tokens.shape == (11 + tail,)
    assert inputs.longest == 8


def test_static_targets_keep_their_shape_and_padding_has_weight_0():
    batch = with_targets(make_pack([4, 2]), {"task": Targets(np.array([3, 5, 0, 0]), np.array([1, 2, 0, 0]), 2)})
    targets = Inputs.from_batch(batch, "cpu", static=True).targets["task"]
    assert targets.positions.tolist() == [3, 5, 0, 0]
    assert targets.weights is not None
    assert targets.weights.tolist() == [1, 1, 0, 0]
    assert targets.count == 2


def test_tasks_that_score_nothing_are_absent():
    batch = with_targets(make_pack([4, 2]), {"task": Targets(np.zeros(3), np.zeros(3), 0)})
    assert not Inputs.from_batch(batch, "cpu", static=True).targets


def test_indices_are_int64_starts_int32_and_regression_labels_float32():
    batch = with_targets(make_pack([4, 2]), {"task": Targets(np.zeros(1, np.int32), np.array([0.5], np.float64), 1)})
    inputs = Inputs.from_batch(batch, "cpu", static=False)
    assert (
        inputs.tokens.dtype == inputs.positions.dtype == inputs.segments.dtype == inputs.task_ids.dtype == torch.int64
    )
    assert inputs.starts.dtype == torch.int32
    assert inputs.targets["task"].labels.dtype == torch.float32


def test_arrays_lie_at_the_same_places_on_the_device_whatever_the_number_of_sequences():
    # code compiled for inputs at multiples of 16 bytes copies every input that lies elsewhere
    offsets = set()
    for lengths in ([4, 2, 6], [12], [3, 3, 3, 3]):
        positions = np.zeros(8, np.int32)
        batch = with_targets(make_pack(lengths, tail=4), {name: Targets(positions, positions, 3) for name in "ab"})
        inputs = Inputs.from_batch(batch, "cpu", static=True)
        tensors = [inputs.tokens, inputs.positions, inputs.segments, inputs.task_ids]
        tensors += [each for targets in inputs.targets.values() for each in (targets.positions, targets.labels)]
        offsets.add(tuple(each.storage_offset() * each.element_size() for each in tensors))
    ((*places,),) = offsets
    assert places == [0, 128, 256, 384, 512, 576, 640, 704]


def test_inputs_do_not_share_memory_with_the_batch():
    batch = make_pack([4])
    inputs = Inputs.from_batch(batch, "cpu", static=True)
    before = inputs.tokens.clone()
    batch.tokens[:] = 0
    assert torch.equal(inputs.tokens, before)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    tail=st.integers(0, 20),
    target_tail=st.integers(0, 5),
    static=st.booleans(),
    width=st.sampled_from([(), (2,)]),
    floats=st.booleans(),
)
def test_a_pack_reaches_a_card_in_one_copy_with_the_values_it_has_on_a_cpu(
    lengths, tail, target_tail, static, width, floats
):
    batch = make_pack(lengths, tail=tail, target_tail=target_tail, longest=9)
    labels = np.arange(np.prod((len(lengths), *width))).reshape(-1, *width)
    extra = Targets(batch.starts[:-1], labels.astype(np.float32 if floats else np.int64), len(lengths))
    batch = with_targets(batch, {**batch.targets, "extra": extra, "nothing": Targets(np.zeros(3), np.zeros(3), 0)})
    copies = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "_copy_async", lambda host, device: copies.append(host) or host.clone())
        there = Inputs.from_batch(batch, "cuda", static)
    here = Inputs.from_batch(batch, "cpu", static)
    assert len(copies) == 1
    kept = slice(None) if static else slice(batch.real_tokens)
    for name in ("tokens", "positions", "segments", "task_ids"):
        assert getattr(here, name).tolist() == getattr(batch, name)[kept].tolist()
        assert torch.equal(getattr(there, name), getattr(here, name))
    assert torch.equal(there.starts, here.starts)
    assert (there.lengths, there.longest, list(there.targets)) == (here.lengths, here.longest, list(here.targets))
    for name, targets in here.targets.items():
        kept = slice(None if static else targets.count)
        assert targets.positions.tolist() == batch.targets[name].positions[kept].tolist()
        assert targets.labels.tolist() == batch.targets[name].labels[kept].tolist()
        assert torch.equal(there.targets[name].positions, targets.positions)
        assert torch.equal(there.targets[name].labels, targets.labels)
        assert there.targets[name].labels.dtype == targets.labels.dtype
        if static:
            assert torch.equal(there.targets[name].weights, targets.weights)
