"""Open folders of shards: one, or several as one, and the tokeniser beside them.

A task that is added later brings a folder of its own; the earlier tasks keep theirs. Ids mean the same tokens
everywhere, so one tokeniser is all the folders need in common; every corpus keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

from ernie2.console import debug
from ernie2.errors import ShardError, TokenizerError
from ernie2.shards.store import Shards
from ernie2.shards.wordpieces import WordPieces, load_wordpieces
from ernie2.storage.readers import reading

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


class JoinedShards(Shards):
    """The corpora of all `folders` in their order; tokeniser and facts are those of the first folder.

    `fingerprint` is the hash of the folders' fingerprints, in order.
    """

    def __init__(self, parts: Sequence[Shards]) -> None:  # without that of Shards, which reads one folder
        first = parts[0]
        self.folders = tuple(part.folder for part in parts)
        self.folder = first.folder
        self.tokenizer_fingerprint = first.tokenizer_fingerprint
        self.fingerprint = sha256("\n".join(part.fingerprint for part in parts).encode()).hexdigest()
        self.corpora = {}
        for part in parts:
            if part.tokenizer_fingerprint != first.tokenizer_fingerprint:
                raise ShardError(
                    f"{part.folder} was made with another tokeniser ({part.tokenizer_fingerprint[:12]}) than "
                    f"{first.folder} ({first.tokenizer_fingerprint[:12]}): its ids mean other tokens. Prepare it again "
                    f"with tokenizer.train=null tokenizer.file={first.folder / 'tokenizer.json'}."
                )
            for name, corpus in part.corpora.items():
                if name in self.corpora:
                    where = next(p.folder for p in parts if name in p.corpora)
                    raise ShardError(
                        f"{where} and {part.folder} both hold a corpus {name!r}. Give the new one another name under "
                        "`corpora` in its recipe, and prepare it into a folder without the old ones."
                    )
                self.corpora[name] = corpus
        longest = [int(part.facts.get("sentence_tokens", 0)) for part in parts]
        self.facts = {
            **first.facts,
            "fingerprint": self.fingerprint,
            "corpora": {name: facts for part in parts for name, facts in part.facts["corpora"].items()},
            **({"sentence_tokens": max(longest)} if any(longest) else {}),
        }


def open_shards(*folders: Path | str) -> Shards:
    """Shards of one folder, or of several as one; a folder named twice is read once.

    Raises `ShardError` where a folder holds none, the tokenisers differ, or two folders hold a corpus of one name.
    """
    different: dict[Path, Path] = {}
    for folder in map(Path, folders):
        different.setdefault(folder.resolve(), folder)
    parts = [Shards(folder) for folder in different.values()]
    return parts[0] if len(parts) == 1 else JoinedShards(parts)


def folders_of(shards: Shards) -> tuple[Path, ...]:
    """The folders behind `shards`: one, or those that were joined."""
    return shards.folders if isinstance(shards, JoinedShards) else (shards.folder,)


@contextmanager
def reading_shards(shards: Shards) -> Iterator[None]:
    """Keep `shards` from being replaced. Raises `ShardError` where they were since they were opened."""
    with ExitStack() as held:
        for folder in folders_of(shards):
            held.enter_context(reading(folder))
        if open_shards(*folders_of(shards)).fingerprint != shards.fingerprint:
            raise ShardError(f"{shards.folder} was replaced while this command started. Run the same command again.")
        debug(f"reading shards in {', '.join(map(str, folders_of(shards)))}, fingerprint {shards.fingerprint}")
        yield


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
