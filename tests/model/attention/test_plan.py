"""The kernel follows from the batch, and every kernel gives what plain attention gives."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ernie2.model.attention.groups import equal_groups
from ernie2.model.attention.plan import AttentionPlan, attend_all, choose_kernel, plan_attention
from ernie2.model.inputs import Inputs
from model_packs import make_pack, small_settings
from plain_attention import one_by_one

WIDTH, HEADS = 12, 3
MIXED, FULL, BUCKETS = [9, 64, 5, 17, 1], [64] * 5, [64] * 5 + [128] * 3 + [32]
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.parametrize(
    ("device", "lengths", "dropout", "dtype", "head_width", "has_packed", "expected"),
    [
        *(("cpu", lengths, 0.0, FP32, 64, False, "padded") for lengths in (MIXED, FULL, BUCKETS)),
        ("cpu", MIXED, 0.1, BF16, 64, False, "padded"),
        ("mps", FULL, 0.0, FP16, 64, False, "padded"),
        *(("cuda", FULL, dropout, dtype, 64, True, "dense") for dropout in (0.0, 0.1) for dtype in (BF16, FP16, FP32)),
        ("cuda", FULL, 0.0, BF16, 64, False, "dense"),
        *(("cuda", lengths, 0.0, BF16, 64, True, "packed") for lengths in (BUCKETS, [32] * 5, [64])),
        *(("cuda", lengths, 0.1, FP16, 64, True, "padded") for lengths in (BUCKETS, [32] * 5, [64])),
        ("cuda", MIXED, 0.0, BF16, 64, True, "packed"),
        ("cuda", MIXED, 0.0, FP16, 64, True, "packed"),
        ("cuda", MIXED, 0.0, FP32, 64, True, "padded"),
        ("cuda", MIXED, 0.1, BF16, 64, True, "padded"),
        ("cuda", MIXED, 0.0, BF16, 60, True, "padded"),
        ("cuda", MIXED, 0.0, BF16, 320, True, "padded"),
        ("cuda", MIXED, 0.0, BF16, 64, False, "padded"),
    ],
)
def test_the_kernel_follows_from_device_lengths_dropout_dtype_and_width(
    device, lengths, dropout, dtype, head_width, has_packed, expected
):
    longest = max(64, *lengths)
    assert choose_kernel(device, lengths, longest, dropout, dtype, head_width, has_packed) == expected


@given(
    st.sampled_from(["cpu", "cuda", "mps", "xpu"]),
    st.lists(st.integers(1, 512), min_size=1, max_size=40),
    st.sampled_from([BF16, FP16, FP32]),
    st.booleans(),
)
def test_attention_dropout_never_meets_the_kernel_that_has_none(device, lengths, dtype, has_packed):
    assert choose_kernel(device, lengths, max(lengths), 0.1, dtype, 64, has_packed) != "packed"


def varlen(query, key, value, starts, longest):
    """What the packed kernel computes, written for a CPU: one attention over the pack, other sequences masked."""
    assert starts.dtype == torch.int32
    assert int(starts.diff().max()) <= longest
    owner = torch.bucketize(torch.arange(len(query)), starts[1:].long(), right=True)
    scores = torch.einsum("tnd,und->ntu", query, key) / query.shape[-1] ** 0.5
    odds = scores.masked_fill(owner[:, None] != owner, -torch.inf).softmax(-1)
    return torch.einsum("ntu,und->tnd", odds, value)


def varlen_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    assert window_size == (-1, -1)
    return varlen(query, key, value, cu_seq_k, max_k)


def varlen_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    assert window_size == (-1, -1)
    return varlen(query, key, value, cu_seq_q, max_q)


def heads_of(hidden, heads, dropout):
    return small_settings(hidden=hidden, heads=heads, attention_dropout=dropout)


def plans(lengths, release=varlen_2_13, dropout=0.0):
    """Every kernel's plan for a pack, as (name, plan)."""
    starts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    inputs = Inputs.from_batch(make_pack(lengths), "cpu", static=False)
    products = plan_attention(inputs, torch.float32, heads_of(WIDTH, HEADS, dropout), training=True)
    yield "products", products
    yield "padded", dataclasses.replace(products, products=None)
    if len(set(lengths)) == 1:
        groups = equal_groups(lengths, torch.device("cpu"))
        yield "dense", AttentionPlan("dense", HEADS, starts, max(lengths), dropout, groups=groups)
    yield "packed", AttentionPlan("packed", HEADS, starts, max(lengths), packed=release)


@pytest.mark.parametrize("release", [varlen_2_11, varlen_2_13])
@pytest.mark.parametrize("lengths", [[5, 5, 5], [64, 5, 5, 17, 1], [1]])
@pytest.mark.parametrize("dtype", [FP32, torch.float64])
def test_all_kernels_agree_with_plain_attention_in_fp64(release, lengths, dtype):
    generator = torch.Generator().manual_seed(1)
    exact = torch.randn(sum(lengths), 3 * WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(sum(lengths), WIDTH, generator=generator, dtype=torch.float64)
    expected = one_by_one(exact, lengths, HEADS)
    (slope,) = torch.autograd.grad((expected * weights).sum(), exact)
    for _, plan in plans(lengths, release):
        qkv = exact.detach().to(dtype).requires_grad_()
        mixed = attend_all(qkv, plan)
        assert mixed.dtype == dtype
        near = 1e-5 if dtype == FP32 else 1e-12
        torch.testing.assert_close(mixed.double(), expected, atol=near, rtol=0)
        (ours,) = torch.autograd.grad((mixed * weights.to(dtype)).sum(), qkv)
        torch.testing.assert_close(ours.double(), slope, atol=10 * near, rtol=0)


@pytest.mark.parametrize("kernel", ["products", "padded", "dense"])
def test_dropped_weights_are_dropped_in_every_kernel_that_has_dropout(kernel):
    torch.manual_seed(0)
    plan = dict(plans([3, 3], dropout=0.5))[kernel]
    qkv = torch.randn(6, 3 * WIDTH)
    drawn = torch.stack([attend_all(qkv, plan) for _ in range(400)])
    assert drawn.std(0).min() > 0.01


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize(
    ("lengths", "dropout", "kernel"),
    [
        ([64, 5, 17, 1, 30, 2], 0.0, "packed"),
        ([64, 5, 17, 1, 30, 2], 1e-9, "padded"),
        ([128] * 6, 0.0, "dense"),
        ([128, 128, 64, 64, 32], 1e-9, "padded"),
    ],
)
def test_kernels_on_a_card_agree_with_plain_attention_in_fp64(lengths, dropout, kernel, dtype):
    heads, width = 4, 64
    inputs = Inputs.from_batch(make_pack(lengths, longest=128), "cuda", static=False)
    plan = plan_attention(inputs, dtype, heads_of(heads * width, heads, dropout), training=True)
    assert plan.kernel == kernel
    qkv = torch.randn(sum(lengths), 3 * heads * width, device="cuda", dtype=dtype, requires_grad=True)
    exact = qkv.detach().double().requires_grad_()
    expected = []
    for part in exact.split(lengths):
        query, key, value = part.view(len(part), 3, heads, width).permute(1, 2, 0, 3)
        odds = (query @ key.transpose(1, 2) / width**0.5).softmax(-1)
        expected.append((odds @ value).transpose(0, 1).reshape(len(part), -1))
    mixed, reference = attend_all(qkv, plan), torch.cat(expected)
    torch.testing.assert_close(mixed.double(), reference, atol=2e-2, rtol=2e-2)
    (ours,) = torch.autograd.grad(mixed.float().square().sum(), qkv)
    (theirs,) = torch.autograd.grad(reference.square().sum(), exact)
    torch.testing.assert_close(ours.double(), theirs, atol=6e-2, rtol=6e-2)
