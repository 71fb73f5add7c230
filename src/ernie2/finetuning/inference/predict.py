"""Ask a fine-tuned model about texts."""

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
    """What a fine-tuned model says of every text of a file, or of lines given one by one; a mapping each, in order.

    Classes: `label`, `probabilities` by class. Numbers: `label`. Several labels: `label` a list, `probabilities`. Tags:
    `tokens`, `label` a tag each, `probabilities` of those tags, `entities`. Spans: `label` the answer, `start`, `end`
    in characters of the context (None of an empty answer), `probability` among the `answers`; where the training data
    had unanswerable questions also `null_score`, and the label is "" where that is above the threshold of the model.
    All carry the `id` of the row or its number.

    `source`: a table (.tsv, .csv, .jsonl, .json, .parquet, .arrow), a .txt of one text a line, lines, or an open binary
    stream of lines such as `sys.stdin.buffer`. How many texts were cut at the model's length, a high share
    of [UNK], and how many ids come more than once is said on standard error.
    `text`: the columns, where they are not called as in training. `out`: also write JSON lines there; a file that is
    there and holds no predictions is overwritten only with `replace`. Raises `CheckpointError` where `model` is not a
    fine-tuned model, `DataError` for input that cannot be read, `StorageError` where `out` cannot be written.
    """
    if out is not None and not replace:
        check_predictions_file(Path(out))
    found = list(iter_predictions(load_finetuned(model), source, text))
    if out is not None:
        write_text(Path(out), "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found))
    return found


def iter_predictions(
    finetuned: FinetunedModel, source: str | Path | BufferedIOBase | RawIOBase | Iterable[str], text: str | None = None
) -> Iterator[dict[str, Any]]:
    """As `predict`, one after the other while the source is read."""
    config = finetuned.config
    if isinstance(source, str | Path):
        examples = examples_from_file(str(source), config, text)
    elif isinstance(source, BufferedIOBase | RawIOBase | TextIOBase):
        examples = examples_from_stream(source, config, text)
    else:
        examples = examples_from_lines(source, config, text)
    device = available_devices()[0]
    cut = count = unknown = tokens = 0
    ids: set[str] = set()
    while chosen := list(islice(examples, _BATCH_SIZE)):
        data = encode_examples(finetuned, chosen)
        ids.update(example.id for example in chosen)
        cut, count = cut + data.cut, count + len(chosen)
        unknown, tokens = unknown + data.unknown, tokens + data.tokens
        outcomes = predict_examples(finetuned, chosen, device, data)
        for example, outcome in zip(chosen, outcomes, strict=True):
            yield prediction_to_json(
                example, outcome, config.head, config.scheme, allow_empty=config.null_threshold is not None
            )
    if repeated := count - len(ids):
        log_warning(
            f"note: {repeated:,} of {count:,} predictions have an id that another has too (a row without an id is "
            "called by its number); tell them apart by their order, which is that of the rows"
        )
    if unknown > HIGH_SHARE * tokens:
        log_warning(f"note: {describe_share(unknown / tokens)}")
    if cut:
        what, limit = (
            ("questions", config.settings.max_query) if config.head == "span" else ("texts", config.settings.max_length)
        )
        log_warning(
            f"note: {cut:,} of {count:,} {what} are longer than the {limit} tokens that the model reads, and were cut"
        )


def prediction_to_json(
    example: Example, outcome: ExamplePrediction, head: str, scheme: Scheme | None = None, *, allow_empty: bool = False
) -> dict[str, Any]:
    """One prediction as JSON values; `scheme`: how tags mark entities; `nulls`: whether answers may be empty."""
    told: dict[str, Any] = {"id": example.id}
    if head == "tagging":
        assert isinstance(outcome.value, tuple)
        return told | {
            "tokens": list(example.tokens),
            "label": list(outcome.value),
            "probabilities": [round(value, 6) for value in outcome.tag_probabilities],
            "entities": [] if scheme is None else _entities(example, outcome.value, scheme),
        }
    if head == "span":
        answers = [
            {"text": one.text, **_answer_place(one), "probability": round(one.probability, 6)}
            for one in outcome.answers
        ]
        place: dict[str, Any] = {key: value for key, value in answers[0].items() if key != "text"}
        if allow_empty:
            assert outcome.null_score is not None
            place["null_score"] = round(outcome.null_score, 6)
            if outcome.value == "":
                place |= {"start": None, "end": None, "probability": round(_empty_answer_probability(outcome), 6)}
        return told | {"label": outcome.value, **place, "answers": answers}
    told["label"] = list(outcome.value) if isinstance(outcome.value, tuple) else outcome.value
    if outcome.probabilities:
        told["probabilities"] = {name: round(share, 6) for name, share in outcome.probabilities.items()}
    return told


def _answer_place(answer: Candidate) -> dict[str, int | None]:
    """Return where an answer stands in the context, in characters; None for an empty answer, which stands nowhere."""
    return {"start": answer.start, "end": answer.end} if answer.text else {"start": None, "end": None}


def _empty_answer_probability(outcome: ExamplePrediction) -> float:
    """The share of the empty answer in a softmax over it and the `answers`."""
    return 1.0 / (1.0 + math.exp(min(700.0, -(outcome.null_score or 0.0))) / outcome.answers[0].probability)


def _entities(example: Example, tags: Sequence[str], scheme: Scheme) -> list[dict[str, Any]]:
    """Entities by tokens, `end` exclusive."""
    joined = "" if "".join(example.tokens) == example.text else " "
    return [
        {"kind": kind, "start": start, "end": end, "text": joined.join(example.tokens[start:end])}
        for kind, start, end in entities(tags, scheme)
    ]
