"""The packed kernel is called as every torch release wants it."""

from __future__ import annotations

import inspect

from ernie2.model.attention.fused import packed_kernel


def test_this_torch_has_a_packed_kernel_that_can_be_called_as_we_call_it():
    from torch.nn.attention.varlen import varlen_attn

    names = list(inspect.signature(varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert packed_kernel() is not None
