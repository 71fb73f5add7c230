"""Logits converted to classes, numbers, tags and answers, independent of the packing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_finetuning as tiny
from ernie2.datasets.examples import Example, Head
from ernie2.finetuning.encoding import ExampleEncoder
from ernie2.finetuning.finetuned_model import FinetunedConfig, FinetunedModel
from ernie2.finetuning.heads import EncoderWithHead, output_count
from ernie2.finetuning.inference.predictions import ExamplePrediction, compute_logits, positive_scores, predict_examples

CPU = torch.device("cpu")


def model_and_encoder(folder: Path, head: Head, **changes: Any) -> tuple[EncoderWithHead, ExampleEncoder]:
    """A model whose head is far from zero, in training mode with dropout."""
    settings = tiny.settings(dropout=0.3, **changes)
    pretrained = tiny.pretrained(folder / "checkpoint", dropout=0.3)
    labels = tiny.LABELS[head]
    model = EncoderWithHead(
        pretrained.build(settings, 0)[0].encoder, head, output_count(head, len(labels)), dropout=0.3
    ).train()
    with torch.no_grad():
        model.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    return model, ExampleEncoder(pretrained.tokenizer, head, labels, settings, 4)


def predicted(model: EncoderWithHead, encoder: ExampleEncoder, some: Sequence[Example]) -> list[ExamplePrediction]:
    head = model.head
    config = FinetunedConfig(head=head, labels=tiny.LABELS[head], settings=encoder.settings, dataset="made-up")
    return predict_examples(FinetunedModel(model, encoder.tokenizer, config, len(tiny.VOCABULARY)), some, CPU)


@pytest.mark.parametrize("head", list(tiny.LABELS))
def test_logits_do_not_depend_on_other_texts_and_keep_their_order(head: Head, tmp_path: Path) -> None:
    model, encoder = model_and_encoder(tmp_path, head)
    sequences = encoder.encode(tiny.examples(head, 9), labelled=False).sequences
    together = list(compute_logits(model, sequences, encoder.settings, CPU))
    assert model.training
    for one, logits in zip(sequences, together, strict=True):
        (alone,) = compute_logits(model, [one], encoder.settings, CPU)
        assert logits.shape == alone.shape
        np.testing.assert_allclose(logits, alone, atol=1e-5)


@pytest.mark.parametrize("head", list(tiny.LABELS))
def test_a_head_computes_in_float32_under_autocast(head: Head, tmp_path: Path) -> None:
    model, encoder = model_and_encoder(tmp_path, head, precision="bf16")
    sequences = encoder.encode(tiny.examples(head, 40), labelled=False).sequences
    logits = np.concatenate([one.ravel() for one in compute_logits(model, sequences, encoder.settings, CPU)])
    rounded = torch.from_numpy(logits).bfloat16().float().numpy()
    assert (logits != rounded).mean() > 0.9  # bf16 would leave none


def test_a_text_in_several_sequences_gets_one_tag_per_token_in_order(tmp_path: Path) -> None:
    model, encoder = model_and_encoder(tmp_path, "tagging", max_length=8)
    some = [Example("0", "", tokens=("w1",) * 15), Example("1", "", tokens=()), Example("2", "", tokens=("w2", "w3"))]
    data = encoder.encode(some, labelled=False)
    predictions = predicted(model, encoder, some)
    assert [len(one.value) for one in predictions] == [15, 0, 2]
    parts = zip(data.sequences, compute_logits(model, data.sequences, encoder.settings, CPU), strict=True)
    logits = [part for one, part in parts if one.example == 0]
    assert predictions[0].value == tuple(tiny.LABELS["tagging"][i] for i in np.concatenate(logits).argmax(-1))
    assert all(1 / 3 <= share <= 1 for share in predictions[0].tag_probabilities)


def test_an_answer_is_the_best_span_of_the_context_and_never_of_the_question(tmp_path: Path) -> None:
    model, encoder = model_and_encoder(tmp_path, "span", max_length=16, stride=4)
    context = " ".join(f"w{i}" for i in range(20, 50))
    some = [Example("0", "w1 w2 w3", context), Example("1", "w1", "")]
    data = encoder.encode(some, labelled=False)
    assert len(data.sequences) > 3
    answered, empty = predicted(model, encoder, some)
    best = answered.answers[0]
    assert answered.value == best.text == context[best.start : best.end]
    assert [one.score for one in answered.answers] == sorted((one.score for one in answered.answers), reverse=True)
    assert empty.value == ""


def test_probabilities_of_classes_sum_to_one_and_those_of_several_labels_are_independent(tmp_path: Path) -> None:
    for head in ("classification", "multi_label"):
        model, encoder = model_and_encoder(tmp_path / head, head)
        some = tiny.examples(head, 4)
        predictions = predicted(model, encoder, some)
        for one in predictions:
            likely = {name for name, share in one.probabilities.items() if share > 0.5}
            if head == "classification":
                assert sum(one.probabilities.values()) == pytest.approx(1.0)
                assert {one.value} == likely
            else:
                assert set(one.value) == likely


def test_positive_scores_are_probabilities_of_the_positive_class() -> None:
    some = [ExamplePrediction("a", {"a": 0.9, "b": 0.1}), ExamplePrediction("b", {"a": 0.2, "b": 0.8})]
    assert positive_scores(some, "b") == [0.1, 0.8]
    assert positive_scores(some, None) is None
