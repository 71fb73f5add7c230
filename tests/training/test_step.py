from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ernie2.batches.batch import Targets, pack_sequences
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.errors import ConfigError
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.training import step as step_module
from ernie2.training.optimizers import build_optimizer
from ernie2.training.step import (
    FiniteCheck,
    Interval,
    LocalBatch,
    LossScale,
    StepResult,
    StepSettings,
    choose_precision,
    seed_dropout,
    should_compile,
    take_step,
)

SETTINGS = EncoderSettings(layers=1, hidden=16, heads=2, position_rows=32, dropout=0.0)
SPECS = [HeadSpec("words", "token", None), HeadSpec("order", "sentence", 3)]
CPU = torch.device("cpu")


def pack(*lengths, seed=0, copies=1):
    """Random sequences; every second token is scored by "words" (`copies` times), every sequence by "order"."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(5, 50, size=length) for length in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    scored = np.tile(np.arange(0, starts[-1], 2), copies)
    labels = np.tile(rng.integers(5, 50, size=len(scored) // copies), copies)
    targets = {
        "words": Targets(scored, labels, len(scored)),
        "order": Targets(starts[:-1], rng.integers(3, size=len(lengths)), len(lengths)),
    }
    segments = [np.zeros(length, int) for length in lengths]
    return pack_sequences(tokens, segments, [0] * len(lengths), targets, size=int(starts[-1]) + 5, longest=32, pad=0)


def parameters_after(packs, weights=None, steps=1, precision="fp32", scale=None, model=None):
    model = model or MultiTaskModel(SETTINGS, 50, SPECS, seed=1)
    optimizer = build_optimizer(model, TrainSettings(adam_eps=1.0))  # a large eps: updates follow the gradient's size
    settings = StepSettings(
        weights=weights or {"words": 1.0, "order": 1.0}, max_grad_norm=1e9, precision=precision, device=CPU, scale=scale
    )
    for step in range(steps):
        result = take_step(model, optimizer, LocalBatch.of(packs, (0, step)), settings, 0.1)
    return model.state_dict(), result


def assert_close(one, other):
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


def merge(a, b):
    """Two packs' sequences as one pack."""
    cut = a.real_tokens
    starts = np.concatenate([a.starts, b.starts[1:] + cut])
    lengths = np.diff(starts)
    tokens = np.concatenate([a.tokens[:cut], b.tokens[: b.real_tokens]])
    targets = {
        name: Targets(
            np.concatenate([a.targets[name].positions, b.targets[name].positions + cut]),
            np.concatenate([a.targets[name].labels, b.targets[name].labels]),
            a.targets[name].count + b.targets[name].count,
        )
        for name in a.targets
    }
    sequences = np.split(tokens, starts[1:-1])
    segments = [np.zeros(length, int) for length in lengths]
    return pack_sequences(sequences, segments, [0] * len(lengths), targets, size=len(tokens), longest=32, pad=0)


def test_splitting_a_batch_into_packs_changes_nothing():
    a, b = pack(7, 3, 12, seed=1), pack(20, 2, seed=2)
    (one, whole), (two, split) = parameters_after([merge(a, b)]), parameters_after([a, b])
    assert_close(one, two)
    assert whole.counts == split.counts
    assert torch.isclose(whole.losses["words"], split.losses["words"])


def test_the_order_of_packs_changes_nothing():
    a, b = pack(7, 3, 12, seed=1), pack(20, 2, seed=2)
    assert_close(parameters_after([a, b])[0], parameters_after([b, a])[0])


def test_saying_every_label_of_a_task_twice_changes_nothing():
    assert_close(parameters_after([pack(9, 14)])[0], parameters_after([pack(9, 14, copies=2)])[0])


def test_the_result_counts_what_was_scored_and_how_much_was_right():
    _, result = parameters_after([pack(7, 3), pack(5)])
    assert result.counts == {"words": 5 + 3, "order": 3}
    assert 0 <= int(result.correct["order"]) <= 3


def test_a_task_of_weight_zero_leaves_its_head_alone_and_a_head_without_targets_has_no_gradient():
    before = MultiTaskModel(SETTINGS, 50, SPECS, seed=1).state_dict()
    after, _ = parameters_after([pack(7, 3)], weights={"words": 1.0, "order": 0.0})
    undecayed = "heads.order.linear.bias"
    assert torch.equal(before[undecayed], after[undecayed])
    assert not torch.equal(before["heads.words.bias"], after["heads.words.bias"])


def test_dropout_repeats_for_the_same_key_and_differs_for_another():
    drawn = []
    for key in ((1, 2), (1, 2), (1, 3)):
        seed_dropout(*key)
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_pack_draws_its_dropout_from_the_key_of_the_step_and_its_own_number(monkeypatch):
    keys = []
    monkeypatch.setattr(step_module, "seed_dropout", lambda *key: keys.append(key))
    packs = [pack(6, 4), pack(7, seed=1)]
    batch = LocalBatch(packs=packs, dropout_key=(7, "dropout", 5), counts=step_module.counts_of(packs), numbers=[1, 3])
    model = MultiTaskModel(SETTINGS, 50, SPECS, seed=1)
    settings = StepSettings(weights={"words": 1.0, "order": 1.0}, max_grad_norm=1.0, precision="fp32", device=CPU)
    take_step(model, build_optimizer(model, TrainSettings()), batch, settings, 0.1)
    assert keys == [(7, "dropout", 5, 1), (7, "dropout", 5, 3)]


def moved_by(clip):
    """How far one step of plain descent at rate 0.1 moves all parameters together, and the norm it reports."""
    model = MultiTaskModel(SETTINGS, 50, SPECS, seed=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    settings = StepSettings(weights={"words": 1.0, "order": 1.0}, max_grad_norm=clip, precision="fp32", device=CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    result = take_step(model, optimizer, LocalBatch.of([pack(6, 4)], (0, 0)), settings, 0.1)
    moves = [(now.detach() - then).double() for now, then in zip(model.parameters(), before, strict=True)]
    return sum(float((move**2).sum()) for move in moves) ** 0.5, float(result.grad_norm)


def test_gradients_are_clipped_at_the_norm_of_all_of_them_together():
    free, norm = moved_by(1e9)
    assert free == pytest.approx(0.1 * norm, rel=1e-4)  # nothing is clipped
    for clip in (norm / 2, norm / 10):
        moved, reported = moved_by(clip)
        assert moved == pytest.approx(0.1 * clip, rel=1e-4)
        assert reported == norm  # that before clipping
    assert moved_by(norm * 1.01)[0] == pytest.approx(free, rel=1e-6)


def test_a_configured_precision_is_used_and_auto_picks_one_of_the_device():
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("auto", CPU) in ("bf16", "fp32")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32")],
)
def test_auto_takes_fp16_on_cards_that_only_emulate_bf16(capability, precision, monkeypatch):
    def is_supported(including_emulation=True):
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda")) == precision
    assert choose_precision("fp32", torch.device("cuda")) == "fp32"


def test_a_scaled_loss_gives_the_step_of_the_loss_itself():
    (plain, one), (scaled, two) = (parameters_after([pack(9, 14)], scale=scale) for scale in (None, LossScale()))
    assert_close(plain, scaled)
    assert not two.skipped
    assert two.losses["words"] == one.losses["words"]
    torch.testing.assert_close(one.grad_norm, two.grad_norm)


def test_fp16_stays_close_to_fp32():
    plain, _ = parameters_after([pack(9, 14)], steps=3)
    scale = LossScale()
    rough, _ = parameters_after([pack(9, 14)], steps=3, precision="fp16", scale=scale)
    assert scale == LossScale(good=3)
    for name, parameter in plain.items():
        torch.testing.assert_close(rough[name], parameter, atol=2e-3, rtol=2e-2)


def test_small_gradients_survive_fp16_only_if_the_loss_is_scaled():
    weights = {"words": 0.0, "order": 1e-7}  # gradients of the head's input near 1e-9, below what fp16 can say
    slopes = []
    for scale in (None, LossScale()):
        model = MultiTaskModel(SETTINGS, 50, SPECS, seed=1)
        parameters_after([pack(9, 14)], weights=weights, precision="fp16", scale=scale, model=model)
        slopes.append(model.encoder.layers[0].ffn.inner.weight.grad.abs().sum().item())
    assert slopes[0] == 0
    assert slopes[1] > 0


def test_a_gradient_that_overflows_changes_only_the_scale():
    model = MultiTaskModel(SETTINGS, 50, SPECS, seed=1)
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    scale = LossScale(value=1e38, bad=1)
    after, result = parameters_after([pack(9, 14)], precision="fp16", scale=scale, model=model)
    assert result.skipped
    assert all(torch.equal(parameter, after[name]) for name, parameter in before.items())
    assert scale == LossScale(value=1e38 * 0.8)
    _, next_one = parameters_after([pack(9, 14)], precision="fp16", scale=LossScale(), model=model)
    assert not next_one.skipped
    assert not torch.equal(model.encoder.pooler.weight, before["encoder.pooler.weight"])


def test_compiling_is_for_cuda_unless_it_is_asked_for(monkeypatch):
    assert should_compile("auto", CPU) is False
    assert should_compile(False, torch.device("cuda")) is False
    monkeypatch.setattr(step_module, "has_triton", lambda: True)
    assert should_compile("auto", torch.device("cuda")) is True
    monkeypatch.setattr(step_module, "_has_cpp_compiler", lambda: True)
    assert should_compile(True, CPU) is True


def test_compiling_without_a_compiler_is_refused_if_configured_and_skipped_otherwise(monkeypatch):
    monkeypatch.setattr(step_module, "has_triton", lambda: False)
    monkeypatch.setattr(step_module, "_has_cpp_compiler", lambda: False)
    assert should_compile("auto", torch.device("cuda")) is False
    with pytest.raises(ConfigError, match=r"triton.*train.compile=false"):
        should_compile(True, torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"C\+\+ compiler"):
        should_compile(True, CPU)


@pytest.mark.parametrize(
    ("losses", "norm", "finite"),
    [
        ({"a": 1.0, "b": 2.0}, 3.0, True),
        ({}, 3.0, True),
        ({"a": 1.0, "b": float("nan")}, 3.0, False),
        ({"a": float("inf")}, 3.0, False),
        ({"a": 1.0}, float("nan"), False),
        ({"a": 1.0}, float("inf"), False),
    ],
)
def test_a_step_is_finite_if_every_loss_and_the_gradient_are(losses, norm, finite):
    verdict = FiniteCheck({name: torch.tensor(loss) for name, loss in losses.items()}, torch.tensor(norm))
    assert bool(verdict) is finite
    assert verdict.bad.item() == (0.0 if finite else 1.0)
    assert verdict.known


def test_the_fused_optimiser_changes_nothing_after_a_bad_step():
    """What CUDA relies on: the kernel itself heeds the verdict, and takes Adam's step count back."""
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(5))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    parameter.grad = torch.ones(5)
    optimizer.step()
    before = parameter.detach().clone()
    state = {key: value.clone() for key, value in optimizer.state[parameter].items()}
    parameter.grad = torch.full((5,), float("nan"))
    optimizer.found_inf = FiniteCheck({}, parameter.grad.norm()).bad
    optimizer.step()
    del optimizer.found_inf
    assert torch.equal(parameter, before)
    assert all(torch.equal(value, optimizer.state[parameter][key]) for key, value in state.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_verdict_arrives_behind_the_work():
    verdict = FiniteCheck({"a": torch.tensor(float("nan"), device="cuda")}, torch.tensor(1.0, device="cuda"))
    assert not verdict
    assert verdict.known


def after(*finite):
    scale = LossScale()
    for one in finite:
        scale.update(one)
    return scale


def test_it_starts_at_102400_and_doubles_after_a_hundred_good_steps_in_a_row():
    assert LossScale().value == 102_400
    assert after(*[True] * 99).value == 102_400
    assert after(*[True] * 100).value == 204_800
    assert after(*[True] * 200).value == 409_600


def test_a_bad_step_starts_the_hundred_anew():
    assert after(*[True] * 99, False, *[True] * 99).value == 102_400
    assert after(*[True] * 99, False, *[True] * 100).value == 204_800


def test_two_bad_steps_in_a_row_take_a_fifth_off_and_two_apart_do_not():
    assert after(False).value == 102_400
    assert after(False, False).value == 81_920
    assert after(False, True, False).value == 102_400
    assert after(False, False, False, False).value == 65_536


def test_it_never_falls_below_1():
    assert after(*[False] * 1000).value == 1.0


@given(st.lists(st.booleans(), max_size=300), st.lists(st.booleans(), max_size=300))
def test_its_state_goes_through_json_exactly(before, later):
    scale = after(*before)
    again = LossScale()
    again.restore(json.loads(json.dumps(scale.state())))
    for one in later:
        scale.update(one)
        again.update(one)
    assert again == scale


def result(losses, counts):
    correct = {name: torch.tensor(1) for name in losses}
    sums = {name: torch.tensor(value) for name, value in losses.items()}
    norm = torch.tensor(0.5)
    return StepResult(sums, correct, counts, norm, FiniteCheck(sums, norm))


def test_a_line_holds_means_over_everything_scored_in_the_interval():
    interval = Interval()
    interval.add(result({"knowledge_masking": 6.0}, {"knowledge_masking": 2}), 1e-3, 100)
    interval.add(result({"knowledge_masking": 3.0}, {"knowledge_masking": 1}), 2e-3, 50)
    line = interval.line()
    assert line["loss"] == {"knowledge_masking": 3.0}  # (6 + 3) / (2 + 1)
    assert line["accuracy"] == {"knowledge_masking": 2 / 3}
    assert line["lr"] == 2e-3
    assert line["grad_norm"] == 0.5


def test_the_note_names_every_task_in_full_whichever_others_there_are():
    for names, note in (
        (["sentence_reordering"], "sentence_reordering 1.00"),
        (["sentence_reordering", "sentence_distance"], "sentence_reordering 1.00, sentence_distance 1.00"),
    ):
        interval = Interval()
        interval.add(result(dict.fromkeys(names, 2.0), dict.fromkeys(names, 2)), 1e-3, 100)
        interval.line()
        assert interval.note == note


def test_a_step_that_was_skipped_counts_and_leaves_no_loss():
    interval = Interval()
    interval.add(result({"knowledge_masking": float("nan")}, {"knowledge_masking": 2}), 1e-3, 100)
    interval.add(result({"knowledge_masking": 4.0}, {"knowledge_masking": 2}), 1e-3, 100)
    assert (interval.skipped, interval.steps) == (1, 2)
    assert interval.line()["loss"] == {"knowledge_masking": 2.0}


def test_what_a_step_gave_stays_as_it_came_until_a_line_is_due():
    given = result({"knowledge_masking": 6.0}, {"knowledge_masking": 2})
    interval = Interval()
    interval.add(given, 1e-3, 100)
    assert interval._norm is given.grad_norm  # compared with a zero of the host, the host would wait for the card
    assert interval._losses["knowledge_masking"] is given.losses["knowledge_masking"]


def test_a_line_of_skipped_steps_only_has_no_norm():
    interval = Interval()
    interval.add(result({"knowledge_masking": float("inf")}, {"knowledge_masking": 2}), 1e-3, 100)
    assert interval.line()["grad_norm"] == 0.0
