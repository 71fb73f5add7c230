import numpy as np
import torch

from ernie2.batches.batch import Targets, end_to_end
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.settings import EncoderSettings, TrainSettings
from ernie2.train.optim import build_optimizer
from ernie2.train.step import choose_precision, seed_dropout, take_step

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
    return end_to_end(tokens, segments, [0] * len(lengths), targets, room=int(starts[-1]) + 5, longest=32, pad=0)


def parameters_after(packs, weights=None, steps=1):
    model = MultiTaskModel(SETTINGS, 50, SPECS, seed=1)
    optimizer = build_optimizer(model, TrainSettings(adam_eps=1.0))  # a large eps: updates follow the gradient's size
    for step in range(steps):
        result = take_step(
            model,
            optimizer,
            packs,
            weights=weights or {"words": 1.0, "order": 1.0},
            lr=0.1,
            clip=1e9,
            precision="fp32",
            device=CPU,
            dropout_key=(0, step),
        )
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
    return end_to_end(sequences, segments, [0] * len(lengths), targets, room=len(tokens), longest=32, pad=0)


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


def test_a_stated_precision_is_taken_and_auto_picks_one_the_device_has():
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
    assert choose_precision("auto", CPU) in ("bf16", "fp32")
