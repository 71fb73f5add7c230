"""The tokeniser of a folder of shards, which is the one their ids were made with or none."""

from __future__ import annotations

from ernie2.errors import ShardError, TokenizerError
from ernie2.shards.store import Shards
from ernie2.shards.wordpieces import WordPieces, load_wordpieces

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


def tokenizer_of(shards: Shards) -> WordPieces:
    """Return the tokeniser beside `shards`.

    Raises `ShardError` where its files are not those that were written, or give other ids than the shards have.
    """
    shards.verify_files(*TOKENIZER_FILES)
    file = shards.folder / "tokenizer.json"
    try:
        wordpieces = load_wordpieces(file)
    except TokenizerError as error:
        raise ShardError(
            f"{error} The shards beside it cannot be used without it: run `ernie2 prepare` again."
        ) from error
    if wordpieces.fingerprint != shards.tokenizer_fingerprint:
        raise ShardError(
            f"{file} is another tokeniser than the one these shards were made with ({wordpieces.fingerprint[:12]} for "
            f"{shards.tokenizer_fingerprint[:12]}). Put that one back, or run `ernie2 prepare` again."
        )
    return wordpieces
