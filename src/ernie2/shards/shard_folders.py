"""Lock folders of shards for reading, and load the tokeniser beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ernie2.console import log_debug
from ernie2.errors import ShardError, TokenizerError
from ernie2.shards.store import Shards
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer
from ernie2.storage.readers import reader_lock

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


@contextmanager
def locked_shards(shards: Shards) -> Iterator[None]:
    """Prevent `shards` from being replaced. Raises `ShardError` if they were replaced since they were opened."""
    with ExitStack() as locks:
        for folder in shards.folders:
            locks.enter_context(reader_lock(folder))
        if Shards(*shards.folders).fingerprint != shards.fingerprint:
            raise ShardError(f"{shards.folder} was replaced while this command started. Run the same command again.")
        log_debug(f"reading shards in {', '.join(map(str, shards.folders))}, fingerprint {shards.fingerprint}")
        yield


def load_shards_tokenizer(shards: Shards) -> SubwordTokenizer:
    """Load the tokeniser beside `shards`.

    Raises `ShardError` if its files have changed, or its ids differ from those of the shards.
    """
    shards.verify_files(*TOKENIZER_FILES)
    file = shards.folder / "tokenizer.json"
    try:
        tokenizer = load_tokenizer(file)
    except TokenizerError as error:
        raise ShardError(
            f"{error} The shards beside it are unusable without it: run `ernie2 prepare` again."
        ) from error
    if tokenizer.fingerprint != shards.tokenizer_fingerprint:
        raise ShardError(
            f"{file} is not the tokeniser of these shards (fingerprint {tokenizer.fingerprint[:12]}, expected "
            f"{shards.tokenizer_fingerprint[:12]}). Restore that one, or run `ernie2 prepare` again."
        )
    return tokenizer
