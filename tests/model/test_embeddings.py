"""Embeddings: the sum of their tables, with exact gradients for tables of few rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ernie2.model import optimizations
from ernie2.model.compiling import compile_function, run_module
from ernie2.model.embeddings import _FEW_ROWS, Embeddings, _FewRows
from ernie2.model.inputs import Inputs
from ernie2.model.parameters import initialise
from model_packs import make_pack, small_settings


@given(rows=st.integers(1, _FEW_ROWS), tokens=st.integers(1, 300), seed=st.integers(0, 99))
def test_rows_of_a_small_table_and_their_gradient_are_those_of_an_embedding(rows, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, 8, generator=generator, requires_grad=True)
    ids = torch.randint(0, rows, (tokens,), generator=generator)
    gradient = torch.randn(tokens, 8, generator=generator)
    picked = _FewRows.apply(table, ids)
    assert torch.equal(picked, F.embedding(ids, table))
    (ours,) = torch.autograd.grad(picked, table, gradient)
    exact = table.detach().double().requires_grad_()
    (theirs,) = torch.autograd.grad(F.embedding(ids, exact), exact, gradient.double())
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-6)


def gradients(run, inputs):
    embeddings = Embeddings(small_settings(), 128)
    initialise(embeddings, 0.5, 0, "embeddings")
    generator = torch.Generator().manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summed = run(embeddings, *inputs.ids)
    summed.backward(torch.randn(summed.shape, generator=generator).to(summed.dtype))
    return summed.detach(), {name: parameter.grad for name, parameter in embeddings.named_parameters()}


def graph_of(codes):
    """A backend that runs what it is given and adds the code of the backward pass to `codes`."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def note(graph, _):
        codes.append(graph.code)
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=lambda graph, _: make_boxed_func(graph.forward), bw_compiler=note)


@pytest.mark.parametrize("off", [(), ("small_table_gradients",)])
def test_compiled_under_bf16_gradients_of_small_tables_are_products_in_float32(off):
    inputs = Inputs.from_batch(make_pack([40, 20, 3]), "cpu", static=True)
    plain, expected = gradients(run_module, inputs)
    torch._dynamo.reset()
    codes = []
    with optimizations.disabled(*off):
        summed, found = gradients(compile_function(run_module, graph_of(codes)), inputs)
    torch._dynamo.reset()
    torch.testing.assert_close(summed, plain, atol=0.02, rtol=0.01)
    assert codes[0].count("aten.mm") == (0 if off else 2)  # segment and task
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)


def test_a_table_of_many_rows_keeps_the_gradient_of_an_embedding():
    settings = small_settings(task_ids=_FEW_ROWS + 1)
    torch._dynamo.reset()
    codes = []
    embeddings = Embeddings(settings, 128)
    initialise(embeddings, 0.5, 0, "embeddings")
    inputs = Inputs.from_batch(make_pack([40, 20, 3]), "cpu", static=True)
    compile_function(run_module, graph_of(codes))(embeddings, *inputs.ids).sum().backward()
    torch._dynamo.reset()
    assert codes[0].count("aten.mm") == 1  # segment alone
