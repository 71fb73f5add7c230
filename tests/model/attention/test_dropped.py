"""Attention with dropped weights is softmax attention times a mask, in its gradient too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.model import levers
from ernie2.model.attention.padded import Padded
from ernie2.model.attention.plan import attend, plan_attention
from ernie2.model.dropout import kept_bits, scale_of
from ernie2.model.inputs import Inputs
from model_packs import make_pack

WIDTH, HEADS = 12, 3


def plan_of(lengths, share, dtype=torch.float32):
    return plan_attention(Inputs.of(make_pack(lengths), "cpu", static=False), dtype, WIDTH // HEADS, share)


def written_out(qkv, padded: Padded, lengths, share, seed):
    """A sequence at a time, with the masks the groups draw; sequences lie in groups from short to long."""
    torch.manual_seed(seed)
    masks = []
    for group in padded.groups:
        kept = kept_bits((group.sequences * HEADS, group.length, group.length), share) != 0
        masks += list(kept.view(group.sequences, HEADS, group.length, group.length))
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    mask_of = dict(zip(order, masks, strict=True))
    outputs = []
    for number, part in enumerate(qkv.split(list(lengths))):
        count = len(part)
        query, key, value = part.view(count, 3, HEADS, -1).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) / (WIDTH / HEADS) ** 0.5).softmax(-1)
        weights = weights * mask_of[number][:, :count, :count] * scale_of(share)
        outputs.append((weights @ value).transpose(0, 1).reshape(count, WIDTH))
    return torch.cat(outputs)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.sampled_from([0.1, 0.5]), st.integers(0, 99))
def test_outputs_and_gradients_equal_masked_softmax_attention_one_sequence_at_a_time(lengths, share, seed):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(sum(lengths), 3 * WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    above = torch.randn(sum(lengths), WIDTH, generator=generator, dtype=torch.float64)
    plan = plan_of(lengths, share, torch.float64)
    torch.manual_seed(seed)
    mixed = attend(qkv, HEADS, plan, share)
    expected = written_out(qkv, plan.padded, lengths, share, seed)
    torch.testing.assert_close(mixed, expected, atol=1e-12, rtol=1e-10)
    (ours,) = torch.autograd.grad((mixed * above).sum(), qkv)
    (theirs,) = torch.autograd.grad((expected * above).sum(), qkv)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


def test_in_bf16_the_gradient_is_as_near_to_fp64_as_that_of_the_plain_form_without_dropout():
    generator = torch.Generator().manual_seed(1)
    lengths, share = [17, 30, 5], 1e-9  # so small a share drops nothing
    exact = torch.randn(sum(lengths), 3 * WIDTH, generator=generator).bfloat16().double().requires_grad_()
    above = torch.randn(sum(lengths), WIDTH, generator=generator).bfloat16()
    wanted = torch.autograd.grad(attend(exact, HEADS, plan_of(lengths, share), share), exact, above.double())[0]
    low = exact.detach().bfloat16().requires_grad_()
    ours = torch.autograd.grad(attend(low, HEADS, plan_of(lengths, share), share), low, above)[0]
    with levers.without("dropped_attention"):
        plain = torch.autograd.grad(attend(low, HEADS, plan_of(lengths, share), share), low, above)[0]
    assert ours.dtype == torch.bfloat16
    assert (ours - wanted).abs().max() <= 1.1 * (plain - wanted).abs().max()


def test_the_share_of_weights_is_dropped_and_the_rest_scaled_up():
    """With queries of 0 all weights are 1 / L, so a value of 1 comes back as the scaled share of weights that stay."""
    torch.manual_seed(0)
    qkv = torch.cat([torch.zeros(4000, 2 * WIDTH), torch.ones(4000, WIDTH)], 1)
    share, length = 0.1, 100
    mixed = attend(qkv, HEADS, plan_of([length] * 40, share), share)[:, :: WIDTH // HEADS]  # (4000, N)
    assert mixed.mean().item() == pytest.approx(1, abs=0.002)  # 1.2 million draws: a deviation of 0.0003
    assert mixed.var().item() == pytest.approx(share / (1 - share) / length, rel=0.05)


def test_masks_depend_on_the_seed_alone():
    qkv, plan = torch.randn(9, 3 * WIDTH), plan_of([4, 5], 0.5)

    def draw(seed):
        torch.manual_seed(seed)
        return attend(qkv, HEADS, plan, 0.5)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_under_autocast_it_computes_in_fp32_and_gives_back_the_dtype_it_was_given():
    qkv, plan = torch.randn(9, 3 * WIDTH).bfloat16(), plan_of([4, 5], 0.1)
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attend(qkv, HEADS, plan, 0.1)
    assert mixed.dtype == torch.bfloat16
    expected = written_out(qkv.float(), plan.padded, [4, 5], 0.1, 5)
    torch.testing.assert_close(mixed.float(), expected, atol=0, rtol=2**-8)
