"""The share of [UNK] among the tokens of a text: a measure of how badly a vocabulary fits it."""

from __future__ import annotations

from collections.abc import Iterable

from ernie2.errors import TokenizerError
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.shards.units import UnitDocument

HIGH_SHARE = 0.05
"""Warn above this share; text that a vocabulary was built for has less than 1 %."""
SAMPLE_CHARACTERS = 300_000
"""Characters of a corpus that are checked before all of it is tokenised."""


def check_share(corpus: str, share: float, limit: float, counted: str = "its tokens") -> None:
    """Raise `TokenizerError` if the share of [UNK] in `corpus` is above `limit`; `counted`: names the tokens."""
    if share > limit:
        raise TokenizerError(
            f"corpora.{corpus}: {share:.1%} of {counted} are [UNK], more than tokenizer.max_unknown={limit:g}: the "
            "vocabulary does not fit this text. Use another (tokenizer.file or tokenizer.train), or allow it with "
            "tokenizer.max_unknown=1."
        )


def check_sample(corpus: str, documents: Iterable[UnitDocument], tokenizer: SubwordTokenizer, limit: float) -> None:
    """Like `check_share`, for the first `SAMPLE_CHARACTERS` of `documents`."""
    tokens = unknown = characters = 0
    for document in documents:
        if characters >= SAMPLE_CHARACTERS:
            break
        characters += len(document.text)
        for encoding in tokenizer.encode_batch(document.text[:SAMPLE_CHARACTERS].split("\n\n")):
            tokens += len(encoding.ids)
            unknown += encoding.ids.count(tokenizer.unk_id)
    check_share(corpus, unknown / max(tokens, 1), limit, f"its first {tokens:,} tokens")


def describe_share(share: float) -> str:
    """Return the share as text, with a warning if it is high.

    >>> describe_share(0.00213)
    '0.21 % of tokens are [UNK]'
    """
    text = f"{share:.2%}".replace("%", " %") + " of tokens are [UNK]"
    return text + (" (high: this vocabulary does not fit this text well)" if share > HIGH_SHARE else "")
