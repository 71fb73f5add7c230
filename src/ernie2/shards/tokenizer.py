"""The tokeniser: text → token ids with character offsets.

Any `tokenizers` model can be used that has the five special tokens and gives offsets. Vocabularies of BERT and ERNIE
become a WordPiece model with BERT's rules, configured by the files beside them (`tokenizer_config`). The five special
tokens spelled out in a text, such as "[MASK]", are encoded as ordinary text, so a corpus cannot inject them. Tokens
that were added to a vocabulary, such as entity markers, are matched in texts, as in transformers.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from ernie2.errors import TokenizerError
from ernie2.shards.tokenizer_config import CONFIG, EXTRA, TokenizerConfig, added_tokens_decoder
from ernie2.shards.tokenizer_loading import (
    JSON,
    VOCABULARY,
    bert_keys,
    bert_tokenizer,
    find_special_tokens,
    read_tokenizer,
)
from ernie2.shards.vocabulary import train_vocabulary
from ernie2.storage.atomic import staged_files, write_text

_UNUSED = re.compile(r"\[unused\d+\]")
_CASE_PROBE = "abcdefghijklmnopqrstuvwxyzαβγδεабвгд"
_OFFSET_PROBE = "Ab cd, é文😀 12"


class SubwordTokenizer:
    """A subword tokeniser with the ids and masks that pre-training needs. Can be pickled.

    - `vocab_size`: the largest id plus 1.
    - `tokens`: the token of every id; '' for an id without a token.
    - `fingerprint`: SHA-256 of the tokeniser's JSON with sorted keys.
    - `cased`: whether any letter is encoded differently from its capital.
    - `cls_id`, `sep_id`, `mask_id`, `pad_id`, `unk_id`; `special_ids` holds these and all other special tokens.
    - `ordinary_ids` (N,) int64, ascending: candidates for random replacement; all but special and `[unusedN]` tokens.
    - `is_continuation` (vocab_size,) bool: whether the token continues a word (`##`); all False for models that mark
      the beginning of words instead.
    - `splits_at_punctuation`: whether a space or an ASCII punctuation mark always separates two words, so that the text
      between them can be encoded chunk by chunk.
    - `normalizer`: the keys of `BERT_KEYS` as tokenizer_config.json spells them; empty for other rules than BERT's.
    - `notes`: guesses and ignored settings while loading, one line each.
    """

    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    unk_id: int

    def __init__(
        self,
        tokenizer: Tokenizer,
        where: str = "this tokeniser",
        *,
        config: TokenizerConfig | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Wrap `tokenizer`; raise `TokenizerError`, naming `where`, if special tokens or offsets are missing.

        `config`: content of the files beside it; it names the special tokens and is written back by `save`.
        """
        config = config or TokenizerConfig()
        settings: dict[str, Any] = json.loads(tokenizer.to_str())
        roles = find_special_tokens(tokenizer.get_vocab(with_added_tokens=True), config.roles, where)
        # added special tokens are matched in texts, those of the five roles are not
        self._matched = frozenset(
            entry["content"]
            for entry in settings["added_tokens"]
            if entry["special"] and entry["content"] not in roles.values()
        )
        if self._matched:
            tokenizer = Tokenizer.from_str(json.dumps(_mark_special(settings, self._matched, special=False)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer, self._loaded_config, self.notes = tokenizer, config, tuple(notes)
        settings = json.loads(tokenizer.to_str())
        canonical = json.dumps(settings, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        self.fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
        vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        names = {identity: token for token, identity in vocabulary.items()}
        self.tokens = tuple(names.get(identity, "") for identity in range(self.vocab_size))
        for role, token in roles.items():
            setattr(self, f"{role}_id", vocabulary[token])
        self._roles = roles
        added = {entry["id"] for entry in settings["added_tokens"] if entry["special"]}
        self.special_ids = frozenset({*added, *(vocabulary[token] for token in (*roles.values(), *self._matched))})
        self.ordinary_ids: NDArray[np.int64] = np.array(
            [
                identity
                for identity, token in enumerate(self.tokens)
                if token and identity not in self.special_ids and not _UNUSED.fullmatch(token)
            ],
            dtype=np.int64,
        )
        prefix = settings["model"].get("continuing_subword_prefix") or None
        self.is_continuation: NDArray[np.bool_] = np.array(
            [prefix is not None and token.startswith(prefix) and token != prefix for token in self.tokens], dtype=bool
        )
        self.normalizer = bert_keys(settings)
        self._model_size = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1) + 1
        self._is_wordpiece = settings["model"].get("type") == "WordPiece"
        self.splits_at_punctuation = _splits_at_punctuation(settings)
        self._check_offsets(where)
        letters = self.encode_batch([*_CASE_PROBE, *_CASE_PROBE.upper()])
        half = len(letters) // 2
        self.cased = any(low.ids != high.ids for low, high in zip(letters[:half], letters[half:], strict=True))

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode `texts` without special tokens; offsets are in characters of each text.

        Encoding is fastest for texts up to 10,000 characters; texts of 100,000 take 50 % longer per character.
        `token_columns` converts the result to arrays. Removed characters, such as a combining accent at the end of a
        word, are in no token.
        """
        encodings: list[Encoding] = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return encodings

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, approximately, special tokens spelled out."""
        text: str = self._tokenizer.decode([int(identity) for identity in ids], skip_special_tokens=False)
        return text

    def save(self, folder: str | Path, max_length: int | None = None) -> None:
        """Write vocab.txt (WordPiece only), tokenizer_config.json and tokenizer.json for `AutoTokenizer`.

        `max_length`: tokens per sequence, written as `model_max_length` unless the loaded one is smaller. The files are
        staged together and tokenizer.json is renamed last: if it exists, so do the others. Raises `StorageError`.
        """
        settings = self._to_json()
        files: dict[str, str] = {}
        if self._is_wordpiece:
            files[VOCABULARY] = "".join(f"{token}\n" for token in self.tokens[: self._model_size])
        files[CONFIG] = json.dumps(self._config(settings, max_length), indent=2, ensure_ascii=False) + "\n"
        files[JSON] = json.dumps(settings, indent=2, ensure_ascii=False)
        with staged_files(Path(folder), tuple(files)) as staging:
            for name, content in files.items():
                write_text(staging / name, content)

    def _config(self, settings: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
        carried = dict(self._loaded_config.other_keys)
        known = carried.get("model_max_length")
        if max_length is not None:
            smaller = isinstance(known, int | float) and 0 < known < max_length
            carried["model_max_length"] = int(known) if smaller else max_length  # type: ignore[arg-type]
        if self.normalizer:
            carried |= {"tokenizer_class": "BertTokenizer", **self.normalizer}
        elif self._is_wordpiece or "tokenizer_class" not in carried:
            carried["tokenizer_class"] = "PreTrainedTokenizerFast"
        carried |= {f"{role}_token": token for role, token in self._roles.items()}
        if self._matched:
            carried[EXTRA] = sorted(self._matched, key=self.tokens.index)
        return carried | {"added_tokens_decoder": added_tokens_decoder(settings)}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as JSON: a pickled `Tokenizer` would lose its handling of special tokens."""
        tokenizer = Tokenizer.from_str(json.dumps(self._to_json()))
        return partial(SubwordTokenizer, config=self._loaded_config, notes=self.notes), (tokenizer,)

    def _to_json(self) -> dict[str, Any]:
        """Return the tokeniser as JSON, with its added special tokens marked as special."""
        return _mark_special(json.loads(self._tokenizer.to_str()), self._matched, special=True)

    def _check_offsets(self, where: str) -> None:
        (encoding,) = self.encode_batch([_OFFSET_PROBE])
        offsets, words = encoding.offsets, encoding.word_ids
        starts = [start for start, _ in offsets]
        valid = starts == sorted(starts) and all(0 <= start <= end <= len(_OFFSET_PROBE) for start, end in offsets)
        if not valid or None in words or not any(end > start for start, end in offsets):
            raise TokenizerError(
                f"{where} gives no character offsets, which case labels and knowledge spans need; use a tokeniser with "
                "offsets."
            )


class TokenColumns(NamedTuple):
    """Several encodings, concatenated: T tokens in E encodings.

    `ids` (T,) int32; `starts`, `ends` (T,) int32: characters of the encoding's own text; `word_starts` (T,) bool:
    whether a word begins here; `counts` (E,) int32: tokens per encoding.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.signedinteger[Any]]
    ends: NDArray[np.signedinteger[Any]]
    word_starts: NDArray[np.bool_]
    counts: NDArray[np.signedinteger[Any]]


def token_columns(encodings: Sequence[Encoding]) -> TokenColumns:
    """Concatenate encodings to arrays, about 40 ms per MB of text.

    Garbage collection is paused: it would scan the millions of new offset tuples repeatedly and double the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        ids = [encoding.ids for encoding in encodings]
        counts = np.fromiter(map(len, ids), dtype=np.int32, count=len(ids))
        total = int(counts.sum())

        def flat(parts: Iterable[Iterable[Any]], width: int = 1) -> NDArray[np.int32]:
            return np.fromiter(chain.from_iterable(parts), dtype=np.int32, count=width * total)

        offsets = flat(chain.from_iterable(encoding.offsets for encoding in encodings), 2).reshape(total, 2)
        words = flat(encoding.word_ids for encoding in encodings)
        word_starts = np.ones(total, dtype=np.bool_)
        np.not_equal(words[1:], words[:-1], out=word_starts[1:])
        word_starts[(np.cumsum(counts) - counts)[counts > 0]] = True
        starts, ends = map(np.ascontiguousarray, offsets.T)
        return TokenColumns(flat(ids), starts, ends, word_starts, counts)
    finally:
        if collecting:
            gc.enable()


def load_tokenizer(path: str | Path, lowercase: bool | None = None) -> SubwordTokenizer:
    """Load a BERT vocab.txt, an ERNIE `token<TAB>id` file, a `tokenizers` JSON, or a folder with one of these.

    tokenizer_config.json, special_tokens_map.json and added_tokens.json beside it are read as transformers reads them.
    `lowercase` applies to vocabulary files. With None, the files beside it decide, else whether the vocabulary has no
    capital letters. A JSON contains its own settings, but tokenizer_config.json has priority. `notes` lists guesses,
    contradictions and ignored settings. `path` can be any fsspec URL.

    Raises `TokenizerError` for a file that is missing, of unknown format, not UTF-8, or without all special tokens.
    """
    tokenizer, config, notes = read_tokenizer(str(path), lowercase)
    return SubwordTokenizer(tokenizer, str(path), config=config, notes=notes)


def train_tokenizer(texts: Iterator[str], vocab_size: int, lowercase: bool = True) -> SubwordTokenizer:
    """Train a WordPiece tokeniser of at most `vocab_size` tokens on `texts`; deterministic."""
    where = "the trained vocabulary"
    return SubwordTokenizer(bert_tokenizer(train_vocabulary(texts, vocab_size, lowercase), lowercase, where)[0], where)


def _mark_special(settings: dict[str, Any], tokens: frozenset[str], *, special: bool) -> dict[str, Any]:
    """Return the JSON of a tokeniser with the added `tokens` marked as special, or not."""
    entries = [
        entry | {"special": special} if entry["content"] in tokens else entry for entry in settings["added_tokens"]
    ]
    return settings | {"added_tokens": entries}


def _splits_at_punctuation(settings: dict[str, Any]) -> bool:
    """Return whether the tokeniser with this JSON follows BERT's rules, which split at every such mark."""
    normalizer, splitter = settings["normalizer"], settings["pre_tokenizer"]
    return (
        (normalizer is None or normalizer.get("type") == "BertNormalizer")
        and splitter is not None
        and splitter.get("type") == "BertPreTokenizer"
        and settings["model"].get("type") == "WordPiece"
        and all(entry["special"] for entry in settings["added_tokens"])
    )
