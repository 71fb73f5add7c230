"""Dropout keeps the mean, drops the given share, and masks the gradient in the same way."""

from __future__ import annotations

import pytest
import torch

from ernie2.model import optimizations
from ernie2.model.dropout import Dropout, draw_keep_mask


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_rest_scaled_up(share):
    torch.manual_seed(1)
    dropped = Dropout(share)(torch.ones(400, 999))
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    kept = dropped[dropped != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - share), rel=1e-3)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)


def test_the_gradient_follows_the_mask():
    values = torch.full((7, 13), 2.0, requires_grad=True)
    dropped = Dropout(0.4)(values)
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, dropped.detach() / 2)


def test_evaluation_mode_and_share_0_drop_nothing():
    values = torch.randn(5, 3)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_masks_depend_only_on_the_seed():
    def draw(seed):
        torch.manual_seed(seed)
        return Dropout(0.5)(torch.ones(33))

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_every_16_bits_of_a_draw_are_used_alike():
    torch.manual_seed(0)
    dropped = Dropout(0.25)(torch.ones(100_000, 4)) == 0
    assert dropped.float().mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_the_dtype_stays():
    assert Dropout(0.1)(torch.ones(8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_masks_of_bits_give_what_masks_of_bools_give(dtype):
    values = torch.randn(9, 31, dtype=dtype).t()  # not contiguous
    torch.manual_seed(2)
    ours = Dropout(0.3)(values)
    with optimizations.disabled("dropout_bit_masks"):
        torch.manual_seed(2)
        assert torch.equal(Dropout(0.3)(values), ours)


@pytest.mark.parametrize("levels", [0, 1, 32_768, 65_535])
def test_an_element_is_dropped_where_its_16_bits_are_below_the_share(levels):
    torch.manual_seed(0)
    kept = draw_keep_mask((64, 4096), levels / 65_536)
    assert set(kept.unique().tolist()) <= {-1, 0}
    assert (kept == 0).float().mean().item() == pytest.approx(levels / 65_536, abs=0.005)
    if levels == 0:
        assert bool((kept == -1).all())


def test_the_draws_are_fixed_by_the_seed():
    """Numbers that a new version must not change unseen: a run is continued with the masks it began with."""
    torch.manual_seed(7)
    assert draw_keep_mask((16,), 0.5).tolist() == [-1, -1, -1, 0, -1, 0, 0, -1, 0, -1, -1, -1, -1, -1, -1, -1]
