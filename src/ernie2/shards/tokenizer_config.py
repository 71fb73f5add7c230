"""The files beside a vocabulary: tokenizer_config.json, special_tokens_map.json, added_tokens.json.

They are read as transformers reads them: if tokenizer_config.json lists the tokens, the two older files are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from ernie2.errors import TokenizerError
from ernie2.shards.vocabulary import fill_unused_ids

CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
ROLES = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Special tokens that pre-training needs: role → usual names."""
BERT_KEYS = {"do_lower_case": "lowercase", "strip_accents": "strip_accents",
             "tokenize_chinese_chars": "handle_chinese_chars"}  # fmt: skip
"""Keys of tokenizer_config.json → keys of the `BertNormalizer` in tokenizer.json."""
EXTRA = "additional_special_tokens"

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_EXTRA_KEYS = ("extra_special_tokens", EXTRA)
_NOT_COPIED = frozenset(
    {"vocab_file", "tokenizer_file", "merges_file", "special_tokens_map_file", "added_tokens_file", "name_or_path",
     "auto_map", "init_inputs", "is_local", "local_files_only", "backend", "added_tokens_decoder", *_EXTRA_KEYS}
)  # fmt: skip
_BERT_CLASSES = frozenset(
    {"Bert", "Ernie", "ErnieGram", "DistilBert", "Electra", "ConvBert", "MobileBert", "SqueezeBert", "Funnel",
     "LayoutLM", "MPNet", "Lxmert", "PreTrained", "TokenizersBackend"}
)  # fmt: skip
"""Classes of transformers and PaddleNLP that follow BERT's rules, without "Tokenizer" and "Fast"."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is matched in a text before anything else; `id` None: the next free one.

    `flags`: those of `tokenizers.AddedToken` that are set explicitly.
    """

    content: str
    id: int | None = None
    special: bool = True
    flags: Mapping[str, bool] = field(default_factory=dict)

    def to_json(self, identity: int) -> dict[str, Any]:
        """Return its entry in tokenizer.json."""
        flags = {**dict.fromkeys(_FLAGS, False), "normalized": not self.special, "special": self.special, **self.flags}
        return {"id": identity, "content": self.content, **flags}


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """The content of the files beside a vocabulary.

    `other_keys`: the other keys of tokenizer_config.json, which are written back. `roles`: role → token (`ROLES`).
    `normalizer`: the values of `BERT_KEYS` that are set, by their name in tokenizer.json.
    """

    other_keys: Mapping[str, Any] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    added: tuple[AddedToken, ...] = ()
    normalizer: Mapping[str, bool | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_bert: bool = False
    """Whether tokenizer_config.json names a class that follows BERT's rules."""


def read_tokenizer_config(read: Callable[[str], bytes | None], where: str) -> TokenizerConfig:
    """Read the files beside a vocabulary; `read(name)` returns the content of one, None if missing.

    Raises `TokenizerError`, naming the file and `where`, for a file that is not a JSON object or has invalid values.
    """
    config = _read_object(read, CONFIG, where)
    older = {} if "added_tokens_decoder" in config else _read_object(read, SPECIAL_TOKENS_MAP, where)
    named = {**config, **older}
    roles = {role: name for role in ROLES if (name := _content(named.get(f"{role}_token")))}
    extras = [token for key in _EXTRA_KEYS for entry in _list(named.get(key)) if (token := _content(entry)) is not None]
    if "added_tokens_decoder" in config:
        listed = _parse_decoder(config["added_tokens_decoder"], where)
    else:
        listed = _parse_added_tokens(_read_object(read, ADDED_TOKENS, where), {*roles.values(), *extras}, where)
    added = sorted(listed, key=lambda token: token.id or 0)
    known = {token.content for token in added}
    added += [AddedToken(name) for name in dict.fromkeys(extras) if name not in known]
    kind = config.get("tokenizer_class")
    family = kind.removesuffix("Fast").removesuffix("Tokenizer") if isinstance(kind, str) else None
    note = f"{where}: {CONFIG} names {kind}, but the vocabulary is read by BERT's rules; check some ids."
    return TokenizerConfig(
        other_keys={key: value for key, value in config.items() if key not in _NOT_COPIED},
        roles=roles,
        added=tuple(added),
        normalizer={theirs: _flag(config[key], key, where) for key, theirs in BERT_KEYS.items() if key in config},
        is_bert=family in _BERT_CLASSES - {"PreTrained"},
        notes=() if family is None or family in _BERT_CLASSES else (note,),
    )


def add_tokens(tokenizer: dict[str, Any], added: tuple[AddedToken, ...], where: str) -> list[str]:
    """Insert `added` into the JSON of a tokeniser if missing, and return notes.

    Ids are those of the files; ids between become `[unusedN]`. Raises `TokenizerError` for an id that is in use.
    """
    vocabulary = tokenizer["model"]["vocab"]
    entries = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    notes = []
    for token in added:
        if token.content in entries:
            continue
        ids = {entry["content"]: entry["id"] for entry in entries.values()}
        if not isinstance(vocabulary, dict):
            raise TokenizerError(f"{where}: {token.content!r} is added beside it, but missing in its tokenizer.json.")
        last = max([*vocabulary.values(), *ids.values()], default=-1)
        identity = vocabulary.get(token.content)
        if identity is None:
            identity = last + 1 if token.id is None else token.id
            if identity <= last:
                owner = next((name for name, i in {**vocabulary, **ids}.items() if i == identity), None)
                raise TokenizerError(
                    f"{where}: the added token {token.content!r} has the id {identity}, which is that of {owner!r}."
                )
            if identity > last + 1:
                if ids and last not in vocabulary.values():
                    raise TokenizerError(f"{where}: no token has the id {last + 1}, below that of {token.content!r}.")
                fill_unused_ids(vocabulary, where, identity)
        elif token.id not in (None, identity):
            notes.append(f"{where}: {token.content!r} has the id {identity}, but {token.id} in the files beside it; "
                         f"{identity} is used.")  # fmt: skip
        entries[token.content] = token.to_json(identity)
    tokenizer["added_tokens"] = sorted(entries.values(), key=lambda entry: int(entry["id"]))
    return notes


def added_tokens_decoder(tokenizer: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `added_tokens_decoder` of tokenizer_config.json from the JSON of a tokeniser."""
    return {
        str(entry["id"]): {"content": entry["content"], **{flag: entry[flag] for flag in _FLAGS}}
        for entry in tokenizer["added_tokens"]
    }


def _read_object(read: Callable[[str], bytes | None], name: str, where: str) -> dict[str, Any]:
    content = read(name)
    if content is None:
        return {}
    try:
        parsed = from_json(content.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise TokenizerError(f"{name} beside {where} is not valid JSON ({error}); fix or remove it.") from error
    if not isinstance(parsed, dict):
        raise TokenizerError(f"{name} beside {where} is not a JSON object; fix or remove it.")
    return parsed


def _parse_decoder(entries: Any, where: str) -> Iterator[AddedToken]:
    if not isinstance(entries, dict):
        raise TokenizerError(f"{CONFIG} beside {where}: added_tokens_decoder is not an object; fix it.")
    for identity, entry in entries.items():
        content = _content(entry)
        if not identity.isdecimal() or len(identity) > 9 or content is None or not isinstance(entry, dict):
            raise TokenizerError(f"{CONFIG} beside {where}: the entry {identity!r} of added_tokens_decoder is invalid.")
        flags = {flag: entry[flag] for flag in _FLAGS if isinstance(entry.get(flag), bool)}
        yield AddedToken(content, int(identity), flags.get("special", False), flags)


def _parse_added_tokens(entries: Mapping[str, Any], special: set[str], where: str) -> Iterator[AddedToken]:
    for content, identity in entries.items():
        if not content or isinstance(identity, bool) or not isinstance(identity, int) or not 0 <= identity < 10**9:
            raise TokenizerError(f"{ADDED_TOKENS} beside {where}: the id {identity!r} of {content!r} is invalid.")
        yield AddedToken(content, identity, content in special)


def _flag(value: Any, key: str, where: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise TokenizerError(f"{CONFIG} beside {where}: {key} is {value!r}; set it to true, false or null.")


def _content(entry: Any) -> str | None:
    """Return the token of an entry: the entry itself, or the content of an object."""
    token = entry.get("content") if isinstance(entry, dict) else entry
    return token if isinstance(token, str) and token else None


def _list(entries: Any) -> list[Any]:
    if isinstance(entries, dict):
        return list(entries.values())
    return entries if isinstance(entries, list) else []
