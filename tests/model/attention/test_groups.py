"""Padded groups see a token's own sequence and nothing else, however sequences fall into groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.model import optimizations, transfer
from ernie2.model.attention.groups import _GROUP_COST, _ROW_COST, group_bounds, pad_groups, place_rows
from ernie2.model.attention.plan import attend_all, plan_attention
from ernie2.model.inputs import Inputs
from model_packs import make_pack, small_settings
from plain_attention import one_by_one

WIDTH, HEADS = 12, 3


def plan_of(lengths, dropout=0.0, tail=0):
    inputs = Inputs.from_batch(make_pack(lengths, tail=tail), "cpu", static=tail > 0)
    settings = small_settings(hidden=WIDTH, heads=HEADS, attention_dropout=dropout)
    return plan_attention(inputs, torch.float32, settings, training=True)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 99))
def test_outputs_and_gradients_equal_attention_one_sequence_at_a_time(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(sum(lengths), 3 * WIDTH, generator=generator, requires_grad=True)
    weights = torch.randn(sum(lengths), WIDTH, generator=generator)
    mixed = attend_all(qkv, plan_of(lengths))
    expected = one_by_one(qkv, lengths, HEADS)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad((mixed * weights).sum(), qkv)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), qkv)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_sequences_of_one_length_need_no_mask_and_no_padding():
    groups = plan_of([7, 7, 7, 7]).groups
    assert [(group.sequences, group.length, group.mask) for group in groups.groups] == [(4, 7, None)]
    assert groups.tokens.real is None
    assert groups.tokens.gather.tolist() == list(range(28))


def test_the_indices_and_masks_of_all_groups_reach_a_card_in_one_copy(monkeypatch):
    lengths, copies = [3, 1, 40, 40, 38, 3], []
    monkeypatch.setattr(transfer, "_copy_async", lambda host, device: copies.append(host) or host.clone())
    row_starts = np.array([0, 1, 2, 10, 10, 11, 11])
    there, here = (pad_groups(lengths, torch.device(kind), row_starts) for kind in ("cuda", "cpu"))
    assert len(copies) == 1
    assert there.scored.widths == here.scored.widths == (1, 8)
    for mine, layout in ((there.tokens, here.tokens), (there.scored, here.scored)):
        for name in ("gather", "scatter", "real"):
            assert torch.equal(getattr(mine, name), getattr(layout, name))
    assert len(there.groups) == 2
    for mine, group in zip(there.groups, here.groups, strict=True):
        assert (mine.sequences, mine.length) == (group.sequences, group.length)
        assert torch.equal(mine.mask, group.mask)


def test_a_group_of_two_lengths_masks_the_shorter():
    groups = plan_of([3, 1]).groups
    (group,) = groups.groups
    assert group.mask is not None
    assert group.mask.squeeze().tolist() == [[True, False, False], [True, True, True]]
    assert groups.tokens.gather.tolist() == [3, 3, 3, 0, 1, 2]
    assert groups.tokens.scatter.tolist() == [3, 4, 5, 0]


def test_the_fused_kernel_computes_in_fp32_on_a_cpu_and_comes_back_in_the_dtype_it_was_given():
    qkv = torch.randn(9, 3 * WIDTH).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16), optimizations.disabled("attention_products"):
        mixed = attend_all(qkv, plan_of([4, 5]))
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), one_by_one(qkv.float(), [4, 5], HEADS), atol=0, rtol=2**-8)


def test_dropped_attention_weights_change_the_outcome_but_not_its_mean():
    torch.manual_seed(0)
    qkv = torch.randn(6, 3 * WIDTH)
    plan = plan_of([4, 2], dropout=0.5)
    drawn = torch.stack([attend_all(qkv, plan) for _ in range(4000)])
    assert drawn.std(0).min() > 0.01
    torch.testing.assert_close(drawn.mean(0), one_by_one(qkv, [4, 2], HEADS), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("lengths", "bounds"),
    [([5], [(0, 1)]), ([20, 20, 20], [(0, 3)]), ([30, 31, 32], [(0, 3)]), ([20, 20, 500], [(0, 2), (2, 3)])],
)
def test_very_different_lengths_get_separate_groups(lengths, bounds):
    assert group_bounds(lengths) == bounds


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200))
def test_groups_cover_all_sequences_once_in_order(lengths):
    bounds = group_bounds(sorted(lengths))
    assert [begin for begin, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == len(lengths)
    assert all(begin < end for begin, end in bounds)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6))
def test_no_other_cut_does_less_work(lengths):
    def work(bounds):
        return sum((e - b) * ordered[e - 1] * (ordered[e - 1] + _ROW_COST) + _GROUP_COST for b, e in bounds)

    ordered = sorted(lengths)
    cuts = [
        list(itertools.pairwise([0, *inner, len(ordered)]))
        for count in range(len(ordered))
        for inner in itertools.combinations(range(1, len(ordered)), count)
    ]
    assert work(group_bounds(ordered)) == min(work(bounds) for bounds in cuts)


def test_rows_of_a_group_are_padded_to_the_most_of_one_sequence():
    widths, (gather, scatter, real) = place_rows([2], np.array([0, 1]), np.array([0, 1, 3]))
    assert widths == (2,)
    assert gather.tolist() == [0, 0, 1, 2]
    assert scatter.tolist() == [0, 2, 3]
    assert real.squeeze(1).tolist() == [True, False, True, True]


def test_groups_follow_the_order_and_a_sequence_without_rows_has_one_place_of_padding():
    widths, (gather, scatter, real) = place_rows([1, 2], np.array([2, 0, 1]), np.array([0, 0, 2, 3]))
    assert widths == (1, 2)
    assert gather.tolist() == [2, 0, 0, 0, 1]
    assert scatter.tolist() == [3, 4, 0]
    assert real.squeeze(1).tolist() == [True, False, False, True, True]


def test_there_is_no_padding_if_all_sequences_have_equal_rows():
    widths, arrays = place_rows([3], np.array([1, 2, 0]), np.arange(4))
    assert widths == (1,)
    assert [array.tolist() for array in arrays] == [[1, 2, 0], [2, 0, 1]]
