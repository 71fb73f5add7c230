import numpy as np
import pytest
import torch

from ernie2.batches.order import generator
from ernie2.finetuning import classification
from ernie2.finetuning.classification import Examples, FineTuneSettings, classifier_of, fine_tune, predict
from ernie2.model.multitask import MultiTaskModel
from ernie2.settings import EncoderSettings

CPU = torch.device("cpu")
ENCODER = EncoderSettings(layers=1, hidden=32, heads=2, position_rows=32)


def examples(count, seed):
    """Class 1 holds token 7 somewhere, class 0 token 8."""
    rng = generator("examples", seed)
    tokens, labels = [], np.arange(count) % 2
    for label in labels:
        sequence = rng.integers(10, 50, size=int(rng.integers(4, 20)))
        sequence[rng.integers(1, len(sequence))] = 7 if label else 8
        tokens.append(sequence)
    return Examples(tokens, labels)


def trained(seed=0):
    model = classifier_of(MultiTaskModel(ENCODER, 50, [], 1), 2, seed)
    settings = FineTuneSettings(epochs=25, batch=16, peak_lr=3e-3)
    fine_tune(model, examples(64, 0), settings, seed, CPU)
    return model, settings


@pytest.fixture(scope="module")
def model():
    return trained()


def test_it_learns_what_one_token_tells_and_generalises(model):
    held = examples(60, 1)
    assert (predict(*model[:1], held, model[1], CPU) == held.labels).mean() > 0.9


def test_the_same_seed_gives_the_same_parameters(model):
    again, _ = trained()
    for name, parameter in model[0].state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name


def test_the_encoder_it_starts_from_is_copied_not_changed():
    source = MultiTaskModel(ENCODER, 50, [], 1)
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    made = classifier_of(source, 3, seed=0)
    fine_tune(made, examples(8, 0), FineTuneSettings(epochs=1, batch=4), 0, CPU)
    assert all(torch.equal(before[name], tensor) for name, tensor in source.state_dict().items())
    assert made.heads["classification"].linear.weight.shape == (3, 32)


def test_predictions_do_not_depend_on_how_examples_are_batched(model, monkeypatch):
    held = examples(10, 2)
    together = predict(model[0], held, model[1], CPU)
    monkeypatch.setattr(classification, "_PREDICT_EXAMPLES", 3)
    assert (predict(model[0], held, model[1], CPU) == together).all()


def test_the_rate_warms_up_over_a_tenth_and_decays_counted_from_step_0():
    settings = FineTuneSettings(peak_lr=1.0, warmup_share=0.1)
    rates = [classification._rate(step, 20, settings) for step in (1, 2, 11, 20)]
    assert rates == pytest.approx([0.5, 1 - 1 / 20, 0.5, 1 - 19 / 20])


def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own():
    epochs = list(classification._batches(10, FineTuneSettings(epochs=2, batch=4), seed=0))
    assert [len(batch) for batch in epochs] == [4, 4, 2] * 2
    first, second = np.concatenate(epochs[:3]), np.concatenate(epochs[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
