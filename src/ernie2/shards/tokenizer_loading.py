"""Load the files of a tokeniser as a `tokenizers.Tokenizer` that encodes as transformers does with the same files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import fsspec
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from ernie2.errors import TokenizerError
from ernie2.shards.tokenizer_config import (
    BERT_KEYS,
    CONFIG,
    ROLES,
    AddedToken,
    TokenizerConfig,
    add_tokens,
    read_tokenizer_config,
)
from ernie2.shards.vocabulary import (
    CONTINUATION_PREFIX,
    MAX_WORD_LENGTH,
    bert_normalizer,
    count_lost_by_lowercasing,
    read_vocabulary,
)

JSON, VOCABULARY = "tokenizer.json", "vocab.txt"
LOSS_LIMIT = 0.01
"""Case is preserved for a vocabulary if lower-casing loses at least this share of tokens with case or accents."""


def read_tokenizer(where: str, lowercase: bool | None) -> tuple[Tokenizer, TokenizerConfig, list[str]]:
    """Return the tokeniser of `load_tokenizer`, the files beside it, and notes on guesses and ignored settings."""
    text, read = _read(where)
    config = read_tokenizer_config(read, where)
    if text.lstrip().startswith("{") or where.endswith(f"/{JSON}"):
        tokenizer, notes = _from_json(text, where, config, lowercase)
        return tokenizer, config, notes
    vocabulary, notes = read_vocabulary(text, where)
    lowercase, case_notes = _choose_lowercase(vocabulary, config, lowercase, where)
    tokenizer, more = bert_tokenizer(vocabulary, lowercase, where, config)
    return tokenizer, config, [*notes, *config.notes, *case_notes, *more]


def bert_tokenizer(
    vocabulary: dict[str, int], lowercase: bool, where: str, config: TokenizerConfig | None = None
) -> tuple[Tokenizer, list[str]]:
    """Return a WordPiece tokeniser with BERT's rules, and notes. Raises `TokenizerError` for lack of special tokens."""
    config = config or TokenizerConfig()
    configured = {key: value for key, value in config.normalizer.items() if key != "lowercase" and value is not None}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_LENGTH))
    tokenizer.normalizer = bert_normalizer(
        lowercase, configured.get("strip_accents"), configured.get("handle_chinese_chars", True)
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    settings = json.loads(tokenizer.to_str())
    notes = add_tokens(settings, config.added, where)
    roles = find_special_tokens(
        {**vocabulary, **{entry["content"]: 0 for entry in settings["added_tokens"]}}, config.roles, where
    )
    settings["model"]["unk_token"] = roles["unk"]
    notes += add_tokens(settings, tuple(map(AddedToken, roles.values())), where)
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    ids = tokenizer.get_vocab()
    cls, sep = roles["cls"], roles["sep"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
    )
    return tokenizer, notes


def _from_json(text: str, where: str, config: TokenizerConfig, lowercase: bool | None) -> tuple[Tokenizer, list[str]]:
    notes: list[str] = []
    try:
        settings = json.loads(Tokenizer.from_str(text).to_str())
        _check_model(json.loads(text)["model"], config, where)  # from the text: the library drops duplicates
        notes += add_tokens(settings, config.added, where)
        if bert_keys(settings):
            notes += _apply_config(settings["normalizer"], config, lowercase, where)
        tokenizer = Tokenizer.from_str(json.dumps(settings))
    except TokenizerError:
        raise
    except Exception as error:  # the binding raises bare Exception
        raise TokenizerError(f"{where} is not a tokeniser file of the `tokenizers` library: {error}.") from error
    return tokenizer, notes


def _check_model(model: Mapping[str, Any], config: TokenizerConfig, where: str) -> None:
    """Raise `TokenizerError` for duplicate ids, wide gaps between ids, and another model type than configured."""
    kind, vocabulary = model.get("type", "WordPiece"), model.get("vocab")
    if config.is_bert and kind != "WordPiece":
        raise TokenizerError(
            f"{where} is a {kind} tokeniser, but the {CONFIG} beside it names a BERT tokeniser; use the files of one "
            "tokeniser."
        )
    if not isinstance(vocabulary, dict):  # a list of tokens: the id is the index
        return
    owners: dict[int, str] = {}
    for token, identity in vocabulary.items():
        if (other := owners.setdefault(identity, token)) != token:
            raise TokenizerError(f"{where} is damaged: {other!r} and {token!r} have the id {identity}.")
    if (last := max(owners, default=-1)) > 2 * len(owners) + 1_000:
        raise TokenizerError(f"{where} is damaged: its largest id is {last:,}, with {len(owners):,} tokens.")


def _apply_config(normalizer: dict[str, Any], config: TokenizerConfig, lowercase: bool | None, where: str) -> list[str]:
    """Apply tokenizer_config.json, which has priority in transformers, to BERT's normalizer; return notes."""
    notes = []
    for key, name in BERT_KEYS.items():
        configured = config.normalizer.get(name, normalizer[name])
        if configured == normalizer[name] or (configured is None and name != "strip_accents"):
            continue
        if name == "strip_accents" and bool(normalizer["lowercase"] if configured is None else configured) == bool(
            normalizer["lowercase"] if normalizer[name] is None else normalizer[name]
        ):
            continue  # None means: as lowercase
        notes.append(f"{where}: its {name} is {json.dumps(normalizer[name])}, but the {CONFIG} beside it says "
                     f"{key}={json.dumps(configured)}, which is used.")  # fmt: skip
        normalizer[name] = configured
    if lowercase is not None and lowercase != normalizer["lowercase"]:
        notes.append(f"{where}: tokenizer.lowercase is for lists of tokens; this file says "
                     f"lowercase={json.dumps(normalizer['lowercase'])}, which is used.")  # fmt: skip
    return notes


def find_special_tokens(vocabulary: Mapping[str, int], named: Mapping[str, str], where: str) -> dict[str, str]:
    """Return role → token: the one named beside the vocabulary, else the first usual name in the vocabulary."""
    tokens, missing = {}, []
    for role, names in ROLES.items():
        present = [name for name in (named.get(role), *names) if name in vocabulary]
        if present:
            tokens[role] = str(present[0])
        else:
            missing.append(f"{names[0]} (nor {' nor '.join(names[1:])})")
    if missing:
        raise TokenizerError(
            f"{where}: the vocabulary of {len(vocabulary)} tokens has no {', no '.join(missing)}; pre-training "
            "needs all five special tokens. Add the missing ones or use another vocabulary."
        )
    return tokens


def bert_keys(settings: Mapping[str, Any]) -> dict[str, bool | None]:
    """Return BERT's normalizer settings by their keys in tokenizer_config.json; empty for other rules than BERT's."""
    normalizer, splitter, model = settings["normalizer"] or {}, settings["pre_tokenizer"] or {}, settings["model"]
    bert = (
        normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
        and splitter.get("type") == "BertPreTokenizer"
        and model.get("type") == "WordPiece"
        and model["continuing_subword_prefix"] == CONTINUATION_PREFIX
        and model["max_input_chars_per_word"] == MAX_WORD_LENGTH
    )
    return {key: normalizer[name] for key, name in BERT_KEYS.items()} if bert else {}


def _choose_lowercase(
    vocabulary: Mapping[str, int], config: TokenizerConfig, requested: bool | None, where: str
) -> tuple[bool, list[str]]:
    """Return whether text is lower-cased for a vocabulary file, and notes."""
    configured = config.normalizer.get("lowercase")
    lost, able = count_lost_by_lowercasing(vocabulary)
    if configured is not None:
        if requested in (None, configured):
            return configured, []
        return bool(requested), [f"{where}: do_lower_case is {str(configured).lower()} in the {CONFIG} beside it, but "
                             f"tokenizer.lowercase is {str(requested).lower()}, which is used."]  # fmt: skip
    guess = lost < max(1, LOSS_LIMIT * able)
    evidence = f"{lost:,} of its {able:,} tokens with letters have capitals or combining marks"
    if requested is None:
        done = "text is lower-cased" if guess else "case is preserved"
        return guess, [f"{where}: no file beside it sets do_lower_case; {evidence}, so {done}. To override, set "
                       f"tokenizer.lowercase in a recipe, or do_lower_case in a {CONFIG} beside it."]  # fmt: skip
    if requested and not guess:
        return requested, [f"{where}: {evidence}, which never occur in text lower-cased by tokenizer.lowercase."]
    return requested, []


def _read(where: str) -> tuple[str, Callable[[str], bytes | None]]:
    """Return the text of a tokeniser file, and a function that reads the files beside it."""
    try:
        system, inner = fsspec.core.url_to_fs(where)
        if system.isdir(inner):
            names = [f"{inner}/{name}" for name in (JSON, VOCABULARY)]
            present = [name for name in names if system.exists(name)]
            if not present:
                raise TokenizerError(
                    f"the folder {where} has neither tokenizer.json nor vocab.txt; name the file itself."
                )
            inner = present[0]
        content: bytes = system.cat_file(inner)
    except FileNotFoundError as error:
        raise TokenizerError(f"tokeniser file {where!r} not found; check the path.") from error
    except (OSError, ValueError, ImportError) as error:
        raise TokenizerError(f"{where} cannot be read: {error}.") from error

    def read_beside(name: str) -> bytes | None:
        try:
            data: bytes = system.cat_file(f"{inner.rpartition('/')[0]}/{name}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TokenizerError(f"{name} beside {where} cannot be read: {error}.") from error
        return data

    return _decode(content, where), read_beside


def _decode(content: bytes, where: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TokenizerError(
            f"{where}, line {line}: not UTF-8 (byte {error.start + 1} of the file); save it as UTF-8."
        ) from error
    if not text.strip():
        raise TokenizerError(f"{where} is empty; it must be a vocabulary with one token per line.")
    return text
