"""Predict texts with a fine-tuned model: the API function `ernie2.predict`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase, RawIOBase, TextIOBase
from itertools import islice
from pathlib import Path
from typing import Any

from ernie2.console import log_warning
from ernie2.datasets.examples import Example
from ernie2.datasets.tag_schemes import Scheme, entities
from ernie2.finetuning.finetuned_model import FinetunedModel, load_finetuned
from ernie2.finetuning.inference.predictions import ExamplePrediction, encode_examples, predict_examples
from ernie2.finetuning.inference.unlabelled_examples import (
    examples_from_file,
    examples_from_lines,
    examples_from_stream,
)
from ernie2.finetuning.overwrite_checks import check_predictions_file
from ernie2.finetuning.runs import available_devices
from ernie2.finetuning.spans import Candidate
from ernie2.shards.unknown_tokens import HIGH_SHARE, describe_share
from ernie2.storage.atomic import write_text

_BATCH_SIZE = 256


def predict(
    model: str | Path,
    source: str | Path | BufferedIOBase | RawIOBase | Iterable[str],
    text: str | None = None,
    out: str | Path | None = None,
    *,
    replace: bool = False,
) -> list[dict[str, Any]]:
    """Return the predictions of a fine-tuned model, one mapping per text, in order.

    Classes: `label`, `probabilities` by class. Numbers: `label`. Several labels: `label` (a list), `probabilities`.
    Tags: `tokens`, `label` (one tag per token), `probabilities` of these tags, `entities`. Spans: `label` (the answer),
    `start` and `end` in characters of the context (None for an empty answer), `probability` among the `answers`. If the
    training data had unanswerable questions, spans have a `null_score`, and the label is "" if it is above the model's
    threshold. Each has the `id` of the row, or its number.

    `source`: a table (.tsv, .csv, .jsonl, .json, .parquet, .arrow), a .txt with one text per line, an iterable of
    lines, or an open binary stream such as `sys.stdin.buffer`. `text`: the columns to read, if not named as in
    training. `out`: also write JSON lines to this file; an existing file without predictions is overwritten only with
    `replace`. Warnings report truncated texts, a high share of [UNK] and duplicate ids.
    Raises `CheckpointError` if `model` is not a fine-tuned model, `DataError` for unreadable input, `StorageError` if
    `out` cannot be written.
    """
    if out is not None and not replace:
        check_predictions_file(Path(out))
    predictions = list(iter_predictions(load_finetuned(model), source, text))
    if out is not None:
        write_text(Path(out), "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in predictions))
    return predictions


def iter_predictions(
    finetuned: FinetunedModel, source: str | Path | BufferedIOBase | RawIOBase | Iterable[str], text: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the predictions of `predict` while the source is read."""
    config = finetuned.config
    if isinstance(source, str | Path):
        examples = examples_from_file(str(source), config, text)
    elif isinstance(source, BufferedIOBase | RawIOBase | TextIOBase):
        examples = examples_from_stream(source, config, text)
    else:
        examples = examples_from_lines(source, config, text)
    device = available_devices()[0]
    truncated = count = unknown = tokens = 0
    ids: set[str] = set()
    while chosen := list(islice(examples, _BATCH_SIZE)):
        data = encode_examples(finetuned, chosen)
        ids.update(example.id for example in chosen)
        truncated, count = truncated + data.cut, count + len(chosen)
        unknown, tokens = unknown + data.unknown, tokens + data.tokens
        predictions = predict_examples(finetuned, chosen, device, data)
        for example, prediction in zip(chosen, predictions, strict=True):
            yield prediction_to_json(
                example, prediction, config.head, config.scheme, allow_empty=config.null_threshold is not None
            )
    if duplicates := count - len(ids):
        log_warning(
            f"note: {duplicates:,} of {count:,} predictions have a duplicate id (the id of a row without one is its "
            "number). Match predictions to rows by order."
        )
    if unknown > HIGH_SHARE * tokens:
        log_warning(f"note: {describe_share(unknown / tokens)}")
    if truncated:
        what, limit = (
            ("questions", config.settings.max_query_length)
            if config.head == "span"
            else ("texts", config.settings.max_length)
        )
        log_warning(
            f"note: {truncated:,} of {count:,} {what} were truncated to the {limit} tokens that the model reads"
        )


def prediction_to_json(
    example: Example,
    prediction: ExamplePrediction,
    head: str,
    scheme: Scheme | None = None,
    *,
    allow_empty: bool = False,
) -> dict[str, Any]:
    """Return one prediction as JSON values. `scheme`: of the tags; `allow_empty`: answers may be empty."""
    result: dict[str, Any] = {"id": example.id}
    if head == "tagging":
        assert isinstance(prediction.value, tuple)
        return result | {
            "tokens": list(example.tokens),
            "label": list(prediction.value),
            "probabilities": [round(value, 6) for value in prediction.tag_probabilities],
            "entities": [] if scheme is None else _entities(example, prediction.value, scheme),
        }
    if head == "span":
        answers = [
            {"text": one.text, **_answer_place(one), "probability": round(one.probability, 6)}
            for one in prediction.answers
        ]
        place: dict[str, Any] = {key: value for key, value in answers[0].items() if key != "text"}
        if allow_empty:
            assert prediction.null_score is not None
            place["null_score"] = round(prediction.null_score, 6)
            if prediction.value == "":
                place |= {"start": None, "end": None, "probability": round(_empty_answer_probability(prediction), 6)}
        return result | {"label": prediction.value, **place, "answers": answers}
    result["label"] = list(prediction.value) if isinstance(prediction.value, tuple) else prediction.value
    if prediction.probabilities:
        result["probabilities"] = {name: round(share, 6) for name, share in prediction.probabilities.items()}
    return result


def _answer_place(answer: Candidate) -> dict[str, int | None]:
    """Return start and end of an answer in characters of the context; None for an empty answer."""
    return {"start": answer.start, "end": answer.end} if answer.text else {"start": None, "end": None}


def _empty_answer_probability(prediction: ExamplePrediction) -> float:
    """Return the share of the empty answer in a softmax over it and the `answers`."""
    return 1.0 / (1.0 + math.exp(min(700.0, -(prediction.null_score or 0.0))) / prediction.answers[0].probability)


def _entities(example: Example, tags: Sequence[str], scheme: Scheme) -> list[dict[str, Any]]:
    """Return entities with `start` and `end` (exclusive) in tokens."""
    separator = "" if "".join(example.tokens) == example.text else " "
    return [
        {"kind": kind, "start": start, "end": end, "text": separator.join(example.tokens[start:end])}
        for kind, start, end in entities(tags, scheme)
    ]
