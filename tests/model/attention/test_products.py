"""Attention by matrix products is softmax attention, times a mask where weights are dropped, in its gradient too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.model import optimizations
from ernie2.model.attention.groups import Groups
from ernie2.model.attention.plan import attend_all, plan_attention
from ernie2.model.dropout import draw_keep_mask, keep_scale
from ernie2.model.inputs import Inputs
from model_packs import make_pack, small_settings

WIDTH, HEADS = 12, 3


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_gradients_of_queries_keys_and_values_are_written_into_one_buffer(share):
    lengths = [3, 7, 5]
    qkv = torch.randn(sum(lengths), 3 * WIDTH, requires_grad=True)
    mixed = attend_all(qkv, plan_of(lengths, share))
    with torch.profiler.profile() as seen:
        mixed.sum().backward()
    called = {event.key for event in seen.key_averages()}
    assert "aten::baddbmm" in called
    assert not called & {"aten::cat", "aten::stack", "aten::zeros"}


def plan_of(lengths, share, dtype=torch.float32):
    settings = small_settings(hidden=WIDTH, heads=HEADS, attention_dropout=share)
    return plan_attention(Inputs.from_batch(make_pack(lengths), "cpu", static=False), dtype, settings, training=True)


def written_out(qkv, groups: Groups, lengths, share, seed):
    """A sequence at a time, with the masks the groups draw; sequences lie in groups from short to long."""
    torch.manual_seed(seed)
    masks = []
    for group in groups.groups:
        kept = draw_keep_mask((group.sequences * HEADS, group.length, group.length), share) != 0
        masks += list(kept.view(group.sequences, HEADS, group.length, group.length))
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    mask_of = dict(zip(order, masks, strict=True))
    outputs = []
    for number, part in enumerate(qkv.split(list(lengths))):
        count = len(part)
        query, key, value = part.view(count, 3, HEADS, -1).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) / (WIDTH / HEADS) ** 0.5).softmax(-1)
        weights = weights * mask_of[number][:, :count, :count] * keep_scale(share)
        outputs.append((weights @ value).transpose(0, 1).reshape(count, WIDTH))
    return torch.cat(outputs)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 99))
def test_outputs_and_gradients_equal_masked_softmax_attention_one_sequence_at_a_time(lengths, share, seed):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(sum(lengths), 3 * WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    above = torch.randn(sum(lengths), WIDTH, generator=generator, dtype=torch.float64)
    plan = plan_of(lengths, share, torch.float64)
    torch.manual_seed(seed)
    mixed = attend_all(qkv, plan)
    expected = written_out(qkv, plan.groups, lengths, share, seed)
    torch.testing.assert_close(mixed, expected, atol=1e-12, rtol=1e-10)
    (ours,) = torch.autograd.grad((mixed * above).sum(), qkv)
    (theirs,) = torch.autograd.grad((expected * above).sum(), qkv)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 1e-9])  # the second is so small that it drops nothing
def test_it_is_about_as_near_to_fp64_as_the_fused_kernel(dtype, share):
    generator = torch.Generator().manual_seed(1)
    lengths = [17, 130, 64, 128]
    exact = torch.randn(sum(lengths), 3 * WIDTH, generator=generator).to(dtype).double().requires_grad_()
    above = torch.randn(sum(lengths), WIDTH, generator=generator).to(dtype)
    low = exact.detach().to(dtype).requires_grad_()

    def run(qkv, above):
        mixed = attend_all(qkv, plan_of(lengths, share, qkv.dtype))
        (slope,) = torch.autograd.grad(mixed, qkv, above)
        assert mixed.dtype == slope.dtype == qkv.dtype
        return mixed.detach().double(), slope.double()

    wanted, ours = run(exact, above.double()), run(low, above)
    with optimizations.disabled("attention_products"):
        plain = run(low, above)
    for each, other, right in zip(ours, plain, wanted, strict=True):
        assert (each - right).norm() <= 2 * (other - right).norm()  # weights are rounded to bf16, too: 1.4 and 1.6
    assert dtype == torch.float32 or (ours[0] - wanted[0]).norm() < 2**-8 * wanted[0].norm()


def test_scores_are_not_rounded_to_bf16():
    """Scores near 300 lie 2 apart in bf16: weights of 0.5 and 0.5 would come out as 0.12 and 0.88, or 1 and 0."""
    keys = torch.tensor([[256.0, 1.0], [256.0, 0.0]])
    query = torch.tensor([[1.0, 1.0], [1.0, 1.0]]) * 2**0.5  # makes up for the scale
    value = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    qkv = torch.cat([query, keys, value], 1).bfloat16()
    settings = small_settings(hidden=8, heads=1).model_copy(update={"hidden": 2})
    plan = plan_attention(
        Inputs.from_batch(make_pack([2]), "cpu", static=False), torch.bfloat16, settings, training=True
    )
    odds = attend_all(qkv, plan)[0].float()
    weight = 1 / (1 + torch.tensor(-1.0).exp())  # scores 257 and 256
    torch.testing.assert_close(odds, torch.stack([weight, 1 - weight]), atol=0.01, rtol=0)


def test_the_precision_of_other_products_is_left_as_it_was():
    before = torch.backends.mkldnn.matmul.fp32_precision
    qkv = torch.randn(9, 3 * WIDTH).bfloat16().requires_grad_()
    attend_all(qkv, plan_of([4, 5], 0.0)).sum().backward()
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_the_share_of_weights_is_dropped_and_the_rest_scaled_up():
    """With queries of 0 all weights are 1 / L, so a value of 1 comes back as the scaled share of weights that stay."""
    torch.manual_seed(0)
    qkv = torch.cat([torch.zeros(4000, 2 * WIDTH), torch.ones(4000, WIDTH)], 1)
    share, length = 0.1, 100
    mixed = attend_all(qkv, plan_of([length] * 40, share))[:, :: WIDTH // HEADS]  # (4000, N)
    assert mixed.mean().item() == pytest.approx(1, abs=0.002)  # 1.2 million draws: a deviation of 0.0003
    assert mixed.var().item() == pytest.approx(share / (1 - share) / length, rel=0.05)


def test_masks_depend_only_on_the_seed():
    qkv, plan = torch.randn(9, 3 * WIDTH), plan_of([4, 5], 0.5)

    def draw(seed):
        torch.manual_seed(seed)
        return attend_all(qkv, plan)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_under_autocast_it_computes_in_fp32_and_gives_back_the_dtype_it_was_given():
    qkv, plan = torch.randn(9, 3 * WIDTH).bfloat16(), plan_of([4, 5], 0.1)
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attend_all(qkv, plan)
    assert mixed.dtype == torch.bfloat16
    expected = written_out(qkv.float(), plan.groups, [4, 5], 0.1, 5)
    torch.testing.assert_close(mixed.float(), expected, atol=2**-7, rtol=2**-7)
