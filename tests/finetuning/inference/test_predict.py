"""Predictions as JSON, and warnings on duplicate ids."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ernie2.datasets.examples import Example
from ernie2.datasets.tag_schemes import Scheme
from ernie2.finetuning.inference import predict as predicting
from ernie2.finetuning.inference.predict import prediction_to_json
from ernie2.finetuning.inference.predictions import ExamplePrediction


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", "I-X I-X O I-Y B-Y"),
        ("IOB2", "B-X I-X O B-Y B-Y"),
        ("IOE1", "I-X I-X O E-Y E-Y"),
        ("IOE2", "I-X E-X O E-Y E-Y"),
        ("BIOES", "B-X E-X O S-Y S-Y"),
        ("BILOU", "B-X L-X O U-Y U-Y"),
        ("BMES", "B-X E-X O S-Y S-Y"),
    ],
)
def test_entities_are_complete_in_every_scheme(scheme: Scheme, tags: str) -> None:
    words = ("Li", "Bai", "met", "Du", "Fu")
    prediction = ExamplePrediction(tuple(tags.split()), tag_probabilities=(1.0,) * 5)
    result = prediction_to_json(Example("0", " ".join(words), tokens=words), prediction, "tagging", scheme)
    entities = [(one["kind"], one["start"], one["end"], one["text"]) for one in result["entities"]]
    if scheme == "IOE1":  # E-Y E-Y at the end of a text is not an IOE1
        assert entities == [("X", 0, 2, "Li Bai")]
    else:
        assert entities == [("X", 0, 2, "Li Bai"), ("Y", 3, 4, "Du"), ("Y", 4, 5, "Fu")]


@pytest.mark.parametrize(("ids", "message"), [("1 1 2 1", "2 of 4 predictions have a duplicate id"), ("0 1 2", "")])
def test_duplicate_ids_give_one_warning(
    ids: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [Example(name, "x") for name in ids.split()]
    monkeypatch.setattr(predicting, "examples_from_lines", lambda *_: iter(examples))
    monkeypatch.setattr(predicting, "encode_examples", lambda *_: SimpleNamespace(cut=0, unknown=0, tokens=1))
    monkeypatch.setattr(
        predicting, "predict_examples", lambda _, chosen, *__: [ExamplePrediction("yes") for _ in chosen]
    )
    monkeypatch.setattr(predicting, "_BATCH_SIZE", 2)
    finetuned: Any = SimpleNamespace(config=SimpleNamespace(head="classification", scheme=None, null_threshold=None))
    assert [one["id"] for one in predicting.iter_predictions(finetuned, [])] == ids.split()
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == bool(message)
