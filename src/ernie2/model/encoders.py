"""Encoder classes by the value of `encoder.kind`."""

from __future__ import annotations

from ernie2.config.settings import EncoderSettings
from ernie2.model.encoder import Encoder
from ernie2.model.rnn import RecurrentEncoder

ENCODERS: dict[str, type[Encoder]] = {"transformer": Encoder, "lstm": RecurrentEncoder, "gru": RecurrentEncoder}


def build_encoder(settings: EncoderSettings, vocab_rows: int, seed: int = 0) -> Encoder:
    """Return a new encoder of kind `settings.kind`."""
    return ENCODERS[settings.kind](settings, vocab_rows, seed)
