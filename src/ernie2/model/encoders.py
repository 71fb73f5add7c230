"""Every kind of encoder, by the name that `encoder.kind` gives it."""

from __future__ import annotations

from ernie2.config.settings import EncoderSettings
from ernie2.model.encoder import Encoder
from ernie2.model.rnn import RecurrentEncoder

ENCODERS: dict[str, type[Encoder]] = {"transformer": Encoder, "lstm": RecurrentEncoder, "gru": RecurrentEncoder}
"""By the name of `encoder.kind`."""


def build_encoder(settings: EncoderSettings, vocab_rows: int, seed: int = 0) -> Encoder:
    """The encoder of the kind `settings` name."""
    return ENCODERS[settings.kind](settings, vocab_rows, seed)
