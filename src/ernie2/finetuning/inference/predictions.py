"""Predictions of a fine-tuned model: logits, converted to classes, numbers, tags or answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.console import progress
from ernie2.datasets.examples import Example, Head
from ernie2.finetuning.encoding import EncodedData, EncodedSequence, ExampleEncoder, build_packs, split_within
from ernie2.finetuning.finetuned_model import FinetunedModel
from ernie2.finetuning.heads import EncoderWithHead
from ernie2.finetuning.scoring.metrics import PredictedValue
from ernie2.finetuning.spans import Candidate, best_spans
from ernie2.model.inputs import Inputs
from ernie2.model.transfer import to_host
from ernie2.training.step import autocast, choose_precision

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ExamplePrediction:
    """The prediction for one example.

    `value`: a class name, number, class names, tags, or the text of an answer. `probabilities`: by class; for several
    labels, each label separately. `tag_probabilities`: of the predicted tags. `answers`: the best spans.
    `null_score`: of a question, the score of [CLS] (the lowest of its windows) minus that of the best span.
    """

    value: PredictedValue
    probabilities: Mapping[str, float] = field(default_factory=dict)
    tag_probabilities: tuple[float, ...] = ()
    answers: tuple[Candidate, ...] = ()
    null_score: float | None = None


def predict_examples(
    finetuned: FinetunedModel,
    examples: Sequence[Example],
    device: torch.device,
    data: EncodedData | None = None,
    *,
    title: str | None = None,
) -> list[ExamplePrediction]:
    """Return one prediction per example. `data`: `encode_examples` of the examples, if computed before.

    Dropout is disabled. The result does not depend on the packing. A question whose null score is above the model's
    threshold gets the empty answer. `title`: of the progress bar; None for no bar.
    """
    config, data = finetuned.config, data or encode_examples(finetuned, examples)
    task_id, pad = finetuned.task_id, finetuned.tokenizer.pad_id
    logits = list(
        compute_logits(finetuned.model, data.sequences, config.settings, device, task_id=task_id, pad=pad, title=title)
    )
    if config.head == "span":
        return apply_threshold(_span_predictions(data, examples, logits, config.settings), config.null_threshold)
    if config.head == "tagging":
        return _tag_predictions(data, examples, logits, config.labels)
    return _sequence_predictions(config.head, np.concatenate(logits), config.labels) if logits else []


def compute_logits(
    model: EncoderWithHead,
    sequences: Sequence[EncodedSequence],
    settings: FineTuningSettings,
    device: torch.device,
    *,
    task_id: int = 0,
    pad: int = 0,
    title: str | None = None,
) -> Iterator[Array]:
    """Return float32 logits by sequence: (P, C) at the scored positions, for spans (n, 2) at every token.

    Sequences are packed by length to reduce padding in attention, at most `settings.pack_tokens` tokens per pack.
    """
    precision = choose_precision(settings.precision, device)
    order = np.argsort([len(one.tokens) for one in sequences], kind="stable")
    chosen_by_pack, logits_by_pack = [], []
    training = model.training
    model.to(device).eval()
    try:
        with progress(title, len(sequences), "sequences") as bar:
            for start, end in split_within([len(sequences[i].tokens) for i in order], settings.pack_tokens):
                chosen = order[start:end]
                (pack,) = build_packs([sequences[i] for i in chosen], settings, task_id, pad)
                with torch.inference_mode(), autocast(precision, device):
                    logits_by_pack.append(model.scores(Inputs.from_batch(pack, device, static=False)))
                chosen_by_pack.append(chosen)
                bar.advance(len(chosen))
    finally:
        model.train(training)
    by_sequence: dict[int, Array] = {}
    for chosen, scores in zip(chosen_by_pack, to_host(logits_by_pack), strict=True):
        counts = [len(sequences[i].tokens if model.head == "span" else sequences[i].positions) for i in chosen]
        by_sequence |= zip(chosen.tolist(), np.split(scores, np.cumsum(counts)[:-1]), strict=True)
    return (by_sequence[i] for i in range(len(sequences)))


def positive_scores(predictions: Sequence[ExamplePrediction], positive: str | None) -> list[float] | None:
    """Return the probability of the class `positive` per example, for mrr; None without that class."""
    if positive is None or not predictions or positive not in predictions[0].probabilities:
        return None
    return [prediction.probabilities[positive] for prediction in predictions]


def apply_threshold(predictions: Sequence[ExamplePrediction], threshold: float | None) -> list[ExamplePrediction]:
    """Return `predictions` with empty answers for null scores above `threshold`; unchanged if it is None."""
    if threshold is None:
        return list(predictions)
    return [
        replace(prediction, value="") if (prediction.null_score or 0.0) > threshold else prediction
        for prediction in predictions
    ]


def encode_examples(finetuned: FinetunedModel, examples: Sequence[Example]) -> EncodedData:
    """Encode unlabelled examples for a fine-tuned model."""
    config = finetuned.config
    encoder = ExampleEncoder(
        finetuned.tokenizer,
        config.head,
        config.labels,
        config.settings,
        finetuned.model.encoder.settings.segment_types,
    )
    return encoder.encode(examples, labelled=False)


def _sequence_predictions(head: Head, scores: Array, labels: Sequence[str]) -> list[ExamplePrediction]:
    """scores (n, C) float32 -> n predictions."""
    if head == "regression":
        return [ExamplePrediction(value) for value in scores[:, 0].tolist()]
    logits = scores.astype(np.float64)
    shares = 1 / (1 + np.exp(-logits)) if head == "multi_label" else _softmax(logits)
    by_label = [dict(zip(labels, row, strict=True)) for row in shares.tolist()]
    if head == "multi_label":
        return [ExamplePrediction(tuple(name for name, share in one.items() if share > 0.5), one) for one in by_label]
    return [
        ExamplePrediction(labels[best], one) for best, one in zip(logits.argmax(-1).tolist(), by_label, strict=True)
    ]


def _tag_predictions(
    data: EncodedData, examples: Sequence[Example], logits: Sequence[Array], labels: Sequence[str]
) -> list[ExamplePrediction]:
    """Join the tags of all sequences of a text."""
    tags: list[list[str]] = [[] for _ in examples]
    probabilities: list[list[float]] = [[] for _ in examples]
    for one, scores in zip(data.sequences, logits, strict=True):
        best = scores.argmax(-1)
        tags[one.example] += [labels[i] for i in best]
        probabilities[one.example] += _softmax(scores.astype(np.float64))[np.arange(len(best)), best].tolist()
    return [
        ExamplePrediction(tuple(names), tag_probabilities=tuple(shares))
        for names, shares in zip(tags, probabilities, strict=True)
    ]


def _span_predictions(
    data: EncodedData, examples: Sequence[Example], logits: Sequence[Array], settings: FineTuningSettings
) -> list[ExamplePrediction]:
    by_example: list[list[tuple[EncodedSequence, Array]]] = [[] for _ in examples]
    for one, scores in zip(data.sequences, logits, strict=True):
        by_example[one.example].append((one, scores))
    predictions = []
    for example, places, parts in zip(examples, data.offsets, by_example, strict=True):
        windows = [one.window for one, _ in parts if one.window is not None]
        context_scores = [
            scores[one.context : one.context + window.length]
            for (one, scores), window in zip(parts, windows, strict=True)
        ]
        candidates = best_spans(
            example.pair or "",
            places,
            windows,
            [scores[:, 0] for scores in context_scores],
            [scores[:, 1] for scores in context_scores],
            n_best=settings.n_best,
            max_answer_length=settings.max_answer_length,
        )
        null = min(float(scores[0, 0]) + float(scores[0, 1]) for _, scores in parts)
        predictions.append(
            ExamplePrediction(candidates[0].text, answers=tuple(candidates), null_score=null - candidates[0].score)
        )
    return predictions


def _softmax(scores: Array) -> Array:
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(-1, keepdims=True)
    return shares
