"""Compiled once, never again: whatever tasks a step has, however long the sequences of a pack and however many.

Compilation is that of dynamo with the graphs run as they are (backend "eager"): what is compiled anew is told by dynamo
alone, and needs no C++ compiler.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ernie2.batches.batch import Targets
from ernie2.model import encoder
from ernie2.model.attention import fused
from ernie2.model.attention import plan as plan_module
from ernie2.model.attention.plan import AttentionPlan
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from model_packs import SPECS, VOCABULARY, make_pack, small_settings, with_targets

SEVEN = (
    *SPECS,
    HeadSpec("token_document_relation", "token", 2),
    HeadSpec("sentence_distance", "sentence", 3),
    HeadSpec("discourse_relation", "sentence", 174),
    HeadSpec("ir_relevance", "sentence", 3),
)
TOKENS, SCORED = 128, 48


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=False):
        yield
    torch._dynamo.reset()


def static_pack(lengths, seed, names):
    """A pack of TOKENS tokens in which each of `names` has SCORED places for targets."""
    made = make_pack(lengths, seed=seed, tail=TOKENS - sum(lengths), tasks=SEVEN)
    targets = {}
    for name in names:
        given = made.targets[name]
        count = min(given.count, SCORED)
        positions, labels = np.zeros(SCORED, np.int32), np.zeros(SCORED, np.int64)
        positions[:count], labels[:count] = given.positions[:count], given.labels[:count]
        targets[name] = Targets(positions, labels, count)
    return with_targets(made, targets)


def losses(model, batch):
    """Sum by task, after forward and backward."""
    made = model(Inputs.from_batch(batch, "cpu", static=True))
    sum(task.sum / task.count for task in made.values()).backward()
    return {name: task.sum.item() for name, task in made.items()}


def packed_on_a_cpu(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    """`varlen_attn` for a CPU; its shapes depend on the number of sequences, as those of the kernel do."""
    asking = torch.bucketize(torch.arange(len(query)), cu_seq_q[1:].long(), right=True)
    owner = torch.bucketize(torch.arange(len(key)), cu_seq_k[1:].long(), right=True)
    scores = torch.einsum("tnd,und->ntu", query, key) / query.shape[-1] ** 0.5
    odds = scores.masked_fill(asking[:, None] != owner, -torch.inf).softmax(-1)
    return torch.einsum("ntu,und->tnd", odds, value)


@pytest.fixture(params=["padded", "packed"])
def _kernel(request, monkeypatch):
    if request.param == "padded":
        return
    monkeypatch.setattr(fused, "has_flash_kernels", lambda device: True)

    def plan(inputs, dtype, settings, training, rows=None):
        torch._dynamo.mark_dynamic(inputs.starts, 0)
        return AttentionPlan("packed", settings.heads, inputs.starts, inputs.longest, packed=packed_on_a_cpu)

    monkeypatch.setattr(encoder, "plan_attention", plan)


def test_the_packed_plan_marks_the_number_of_sequences_as_dynamic(monkeypatch):
    monkeypatch.setattr(fused, "has_flash_kernels", lambda device: True)
    monkeypatch.setattr(plan_module, "choose_kernel", lambda *facts: "packed")
    inputs = Inputs.from_batch(make_pack([3, 4]), "cpu", static=True)
    plan = plan_module.plan_attention(inputs, torch.bfloat16, small_settings(), training=True)
    assert plan.starts is inputs.starts
    assert plan.starts._dynamo_dynamic_indices == {0}


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_no_task_set_and_no_batch_compiles_anything_again(activation_checkpointing):
    model = MultiTaskModel(small_settings(layers=3, dropout=0.1), VOCABULARY, SEVEN, seed=4)
    model.encoder.activation_checkpointing = activation_checkpointing
    model.compile_parts("eager")
    names = [spec.name for spec in SEVEN]
    losses(model, static_pack([20, 30, 7], 0, names))
    losses(model, static_pack([20, 30, 7], 0, names[2:3]))  # the last layer at scored rows only
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    sets = [chosen for count in (1, 2, 3) for chosen in itertools.combinations(names, count)]
    rng = np.random.default_rng(1)
    with torch._dynamo.config.patch(error_on_recompile=True, fail_on_recompile_limit_hit=True):
        for seed, chosen in enumerate([*sets, names, names[:5]]):
            lengths = rng.integers(1, 18, size=int(rng.integers(2, 8))).tolist()
            assert all(np.isfinite(value) for value in losses(model, static_pack(lengths, seed, chosen)).values())
        model.predictions(
            Inputs.from_batch(static_pack([9, 5], 0, names), "cpu", static=False)
        )  # evaluation is not compiled
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_one_graph_serves_all_layers():
    counts = []
    for layers in (2, 5):
        torch._dynamo.reset()
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        model = MultiTaskModel(small_settings(layers=layers), VOCABULARY, SPECS, seed=4)
        model.compile_parts("eager")
        losses(model, static_pack([20, 30, 7], 0, [spec.name for spec in SPECS]))
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
    assert counts[0] == counts[1]


def test_a_shape_that_is_not_static_is_noticed():
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=4)
    model.compile_parts("eager")
    batch = static_pack([20, 30, 7], 0, ["sentence_reordering"])
    losses(model, batch)
    with (
        torch._dynamo.config.patch(error_on_recompile=True),
        pytest.raises(torch._dynamo.exc.RecompileError),
    ):
        model(Inputs.from_batch(batch, "cpu", static=False))


@pytest.mark.parametrize(
    ("_kernel", "kind"), [("padded", "transformer"), ("packed", "transformer"), ("padded", "gru")], indirect=["_kernel"]
)
def test_what_is_compiled_gives_the_same_losses_and_gradients(_kernel, kind):
    results = []
    for backend in (None, "aot_eager"):
        model = MultiTaskModel(small_settings(kind=kind, layers=1, init_std=0.2), VOCABULARY, SPECS, seed=4)
        if backend:
            model.compile_parts(backend)
        task_losses = losses(model, static_pack([20, 30, 7], 0, [spec.name for spec in SPECS]))
        results.append((task_losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (plain, gradients), (task_losses, compiled) = results
    assert task_losses == pytest.approx(plain, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled[name], gradient, atol=1e-4, rtol=1e-3)


def test_names_of_parameters_stay():
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=4)
    before = list(model.state_dict())
    model.compile_parts("eager")
    losses(model, static_pack([20, 30, 7], 0, ["knowledge_masking"]))
    assert list(model.state_dict()) == before
