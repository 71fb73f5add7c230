"""The packed kernel is called as every torch release wants it; runs of one length are found."""

from __future__ import annotations

import inspect

import pytest

from ernie2.model.attention.fused import packed_kernel, runs_of


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [([7], ((1, 7),)), ([5, 5, 2, 5], ((2, 5), (1, 2), (1, 5))), ([3, 3, 3], ((3, 3),))],
)
def test_neighbours_of_one_length_are_a_run(lengths, runs):
    assert runs_of(lengths) == runs


def test_this_torch_has_a_packed_kernel_that_can_be_called_as_we_call_it():
    from torch.nn.attention.varlen import varlen_attn

    names = list(inspect.signature(varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert packed_kernel() is not None
