"""On a CPU Hugging Face trains in a separate process without our process settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comparisons.hf_sides import HFSideSettings, hf_sides
from comparisons.hugging_face import HuggingFaceModel, build_sides
from ernie2.batches.batch import PackedBatch, Targets, pack_sequences
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.errors import ConfigError
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel

MASKING = "knowledge_masking"
SETTINGS = HFSideSettings(TrainSettings(), 0, "fp32", torch.device("cpu"), 16)


def model_of(kind: str = "transformer") -> MultiTaskModel:
    settings = EncoderSettings(kind=kind, layers=1, hidden=8, heads=2, position_rows=16, dropout=0.0)
    return MultiTaskModel(settings, 64, [HeadSpec(MASKING, "token", None)], 0)


def pack() -> PackedBatch:
    targets = {MASKING: Targets(np.array([1, 4]), np.array([9, 9]), 2)}
    sequences = [np.arange(5, 12), np.arange(5, 8)]
    segments = [np.zeros(7), np.zeros(3)]
    return pack_sequences(sequences, segments, [0, 0], targets, size=12, longest=16, pad=0)


def test_sides_train_in_another_process_as_they_would_in_this_one() -> None:
    pytest.importorskip("transformers")
    names = ["hf-padded", "hf-grouped"]
    here = build_sides(
        HuggingFaceModel(model_of(), SETTINGS.settings, 0, SETTINGS.device), "fp32", SETTINGS.device, 16, names
    )
    with hf_sides(model_of(), SETTINGS, names) as there:
        assert [side.name for side in there.sides] == ["padded", "grouped by length"]
        assert "ErnieForMaskedLM" in there.library
        for side, same in zip(there.sides, here, strict=True):
            made, expected = side.step([pack()]), same.step([pack()])
            assert (made.tokens, made.flops, made.with_padding) == (10, expected.flops, expected.with_padding)
            assert made.seconds > 0
            assert side.largest == same.largest


def test_recurrent_layers_have_no_hugging_face_side() -> None:
    with (
        pytest.raises(ConfigError, match="not support kind=lstm"),
        hf_sides(model_of("lstm"), SETTINGS, ["hf-padded"]),
    ):
        pass
