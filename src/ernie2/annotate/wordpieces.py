"""The tokeniser: text to word-piece ids with the characters they stand for.

Any `tokenizers` model serves that has the five special tokens and gives offsets; vocabularies of BERT and ERNIE become
a WordPiece model with BERT's rules. Special tokens written out in a text, such as "[MASK]", are ordinary text here: a
corpus cannot smuggle them in.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from ernie2.annotate.vocabulary import LONGEST_WORD, SPECIALS, bert_normalizer, read_vocabulary, train_vocabulary
from ernie2.errors import TokenizerError
from ernie2.storage.atomic import staged_files

_SPECIAL_NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
_UNUSED = re.compile(r"\[unused\d+\]")
_CASED_LETTERS = "abcdefghijklmnopqrstuvwxyzαβγδεабвгд"
_PROBE = "Ab cd, é文😀 12"


class WordPieces:
    """A tokeniser with what pre-training asks of it. It can be sent to another process.

    `vocab_size`: one above the largest id. `fingerprint`: SHA-256 of the tokeniser's JSON with its keys sorted.
    `cased`: whether some letter and its capital are encoded differently.
    `cls_id`, `sep_id`, `mask_id`, `pad_id`, `unk_id`; `special_ids` holds these and all other special tokens.
    `ordinary_ids` (N,) int64, ascending: what a random replacement may draw, every token but special and `[unusedN]`
    ones. `continuing` (vocab_size,) bool: whether the id is a piece that continues a word, by its `##`; all False for
    models that mark the beginning of words instead. `cuts_at_punctuation`: whether a space or an ASCII punctuation mark
    always parts two words, so that what is between them can be encoded piece by piece.
    """

    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    unk_id: int

    def __init__(self, tokenizer: Tokenizer, where: str = "this tokeniser") -> None:
        """Takes over `tokenizer`; raises `TokenizerError`, naming `where`, if special tokens or offsets are missing."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        described: dict[str, Any] = json.loads(tokenizer.to_str())
        canonical = json.dumps(described, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        self.fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
        vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self._tokens = [""] * self.vocab_size
        for token, identity in vocabulary.items():
            self._tokens[identity] = token
        named = self._find_specials(vocabulary, where)
        added = {entry["id"] for entry in described["added_tokens"] if entry["special"]}
        self.special_ids = frozenset(added | set(named.values()))
        self._special_names = {f"{role}_token": self._tokens[identity] for role, identity in named.items()}
        self.ordinary_ids: NDArray[np.int64] = np.array(
            [
                identity
                for identity, token in enumerate(self._tokens)
                if token and identity not in self.special_ids and not _UNUSED.fullmatch(token)
            ],
            dtype=np.int64,
        )
        prefix = described["model"].get("continuing_subword_prefix") or None
        self.continuing: NDArray[np.bool_] = np.array(
            [prefix is not None and token.startswith(prefix) and token != prefix for token in self._tokens], dtype=bool
        )
        self._is_wordpiece = described["model"].get("type") == "WordPiece"
        self.cuts_at_punctuation = _cuts_at_punctuation(described)
        self._lowercase = bool((described["normalizer"] or {}).get("lowercase"))
        self._check_offsets(where)
        letters = self.encode_batch([*_CASED_LETTERS, *_CASED_LETTERS.upper()])
        half = len(letters) // 2
        self.cased = any(low.ids != high.ids for low, high in zip(letters[:half], letters[half:], strict=True))

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encodings of `texts` with offsets in characters of the texts, without special tokens.

        Paragraphs and documents of up to some 10,000 characters are encoded fastest; texts of 100,000 take half as long
        again. `batch_columns` turns the result into arrays. What is cleaned away, such as a combining accent that ends
        a word, lies in no token.
        """
        encodings: list[Encoding] = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return encodings

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` as far as it can be told from them, special tokens written out."""
        text: str = self._tokenizer.decode([int(identity) for identity in ids], skip_special_tokens=False)
        return text

    def token(self, identity: int) -> str:
        """The token of an id; '' for an id no token has."""
        return self._tokens[identity]

    def save(self, folder: str | Path) -> None:
        """Write vocab.txt (of WordPiece), tokenizer_config.json and tokenizer.json: what `AutoTokenizer` reads.

        The files are staged together, and tokenizer.json is renamed last: where it is, all are. Raises `StorageError`.
        """
        files: dict[str, str] = {}
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **self._special_names}
        if self._is_wordpiece:
            files["vocab.txt"] = "".join(f"{token}\n" for token in self._tokens)
            config |= {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": self._lowercase,
                "strip_accents": None,
                "tokenize_chinese_chars": True,
            }
        files["tokenizer_config.json"] = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        files["tokenizer.json"] = self._tokenizer.to_str(pretty=True)
        with staged_files(Path(folder), tuple(files)) as staging:
            for name, content in files.items():
                (staging / name).write_bytes(content.encode())

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_json, (self._tokenizer.to_str(), "this tokeniser")

    def _find_specials(self, vocabulary: dict[str, int], where: str) -> dict[str, int]:
        found: dict[str, int] = {}
        missing = []
        for role, names in _SPECIAL_NAMES.items():
            present = [vocabulary[name] for name in names if name in vocabulary]
            if present:
                found[role] = present[0]
                setattr(self, f"{role}_id", present[0])
            else:
                missing.append(f"{names[0]} (nor {' nor '.join(names[1:])})")
        if missing:
            raise TokenizerError(
                f"{where}: the vocabulary of {len(vocabulary)} tokens has no {', no '.join(missing)}; pre-training "
                "needs all five special tokens, so add what is missing or take another vocabulary."
            )
        return found

    def _check_offsets(self, where: str) -> None:
        (encoding,) = self.encode_batch([_PROBE])
        offsets, words = encoding.offsets, encoding.word_ids
        starts = [start for start, _ in offsets]
        sound = starts == sorted(starts) and all(0 <= start <= end <= len(_PROBE) for start, end in offsets)
        if not sound or None in words or not any(end > start for start, end in offsets):
            raise TokenizerError(
                f"{where} does not say which characters its tokens stand for; case labels and knowledge spans need "
                "that, so take a tokeniser with offsets."
            )


@dataclass(frozen=True, slots=True)
class Columns:
    """What several encodings hold, end to end. T tokens in E encodings; all arrays int32.

    `ids` (T,); `starts`, `ends` (T,): characters of the encoding's own text; `words` (T,): number of the pre-token in
    its own text; `counts` (E,): tokens of every encoding.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    words: NDArray[np.int32]
    counts: NDArray[np.int32]

    @property
    def word_starts(self) -> NDArray[np.bool_]:
        """(T,) whether a word begins here: words [0, 0, 1, 0] of counts [3, 1] -> [True, False, True, True]."""
        begins = np.ones(len(self.words), dtype=bool)
        np.not_equal(self.words[1:], self.words[:-1], out=begins[1:])
        firsts = np.cumsum(self.counts) - self.counts
        begins[firsts[firsts < len(begins)]] = True
        return begins


def columns(encoding: Encoding) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """(ids, starts, ends, word ids) of one encoding, each (T,) int32; `batch_columns` is faster for many."""
    flat = batch_columns([encoding])
    return flat.ids, flat.starts, flat.ends, flat.words


def batch_columns(encodings: Sequence[Encoding]) -> Columns:
    """The columns of many encodings end to end, about 40 ms per MB of text.

    Every offset is a new tuple, and the collector would search them all again and again for cycles that cannot be
    there: it rests meanwhile, which halves the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        ids = [encoding.ids for encoding in encodings]
        counts = np.fromiter(map(len, ids), dtype=np.int32, count=len(ids))
        total = int(counts.sum())
        flat = chain.from_iterable
        offsets = np.fromiter(
            flat(flat([encoding.offsets for encoding in encodings])), dtype=np.int32, count=2 * total
        ).reshape(total, 2)
        words = np.fromiter(flat([encoding.word_ids for encoding in encodings]), dtype=np.int32, count=total)
        return Columns(
            ids=np.fromiter(flat(ids), dtype=np.int32, count=total),
            starts=np.ascontiguousarray(offsets[:, 0]),
            ends=np.ascontiguousarray(offsets[:, 1]),
            words=words,
            counts=counts,
        )
    finally:
        if collecting:
            gc.enable()


def load_wordpieces(path: str | Path, lowercase: bool = True) -> WordPieces:
    """The tokeniser of a BERT vocab.txt, an ERNIE `token<TAB>id` file, a `tokenizers` JSON, or a folder that holds one.

    `lowercase` (with accents stripped) is for vocabulary files; a JSON says itself what it does. Takes any fsspec URL.
    Raises `TokenizerError` for a file that is missing, of no known form, not UTF-8, or without all special tokens.
    """
    where = str(path)
    text = _read(where)
    if text.lstrip().startswith("{"):
        return _from_json(text, where)
    return _bert(read_vocabulary(text, where), lowercase, where)


def train_wordpieces(texts: Iterator[str], vocab_size: int, lowercase: bool = True) -> WordPieces:
    """A WordPiece tokeniser of at most `vocab_size` tokens trained on `texts`; the same texts always give the same."""
    return _bert(train_vocabulary(texts, vocab_size, lowercase), lowercase, "the trained vocabulary")


def _cuts_at_punctuation(described: dict[str, Any]) -> bool:
    """Whether the tokeniser with this JSON follows BERT's rules, under which nothing looks across such a mark."""
    normalizer, splitter = described["normalizer"], described["pre_tokenizer"]
    return (
        (normalizer is None or normalizer.get("type") == "BertNormalizer")
        and splitter is not None
        and splitter.get("type") == "BertPreTokenizer"
        and described["model"].get("type") == "WordPiece"
        and all(entry["special"] for entry in described["added_tokens"])
    )


def _bert(vocabulary: dict[str, int], lowercase: bool, where: str) -> WordPieces:
    """A WordPiece tokeniser with BERT's rules."""
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
    tokenizer.normalizer = bert_normalizer(lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    present = [token for token in SPECIALS if token in vocabulary]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in present])
    if "[CLS]" in present and "[SEP]" in present:
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
    return WordPieces(tokenizer, where)


def _from_json(text: str, where: str) -> WordPieces:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the binding raises bare Exception
        raise TokenizerError(f"{where} is not a tokeniser file of the `tokenizers` library: {error}.") from error
    return WordPieces(tokenizer, where)


def _read(where: str) -> str:
    try:
        system, inner = fsspec.core.url_to_fs(where)
        if system.isdir(inner):
            names = [f"{inner}/{name}" for name in ("tokenizer.json", "vocab.txt")]
            present = [name for name in names if system.exists(name)]
            if not present:
                raise TokenizerError(
                    f"the folder {where} holds neither tokenizer.json nor vocab.txt; name the file itself."
                )
            inner = present[0]
        content: bytes = system.cat_file(inner)
    except FileNotFoundError as error:
        raise TokenizerError(f"there is no tokeniser file {where!r}; check the path.") from error
    except (OSError, ValueError, ImportError) as error:
        raise TokenizerError(f"{where} cannot be read: {error}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TokenizerError(
            f"{where}, line {line}: not UTF-8 (byte {error.start + 1} of the file); save it as UTF-8."
        ) from error
    if not text.strip():
        raise TokenizerError(f"{where} is empty; give a vocabulary with one token a line.")
    return text
