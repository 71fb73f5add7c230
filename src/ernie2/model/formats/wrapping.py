"""Where the encoder stands in what a program saved: under a prefix of its names, or one mapping further down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError
from ernie2.model.formats.paddle_names import DYGRAPH_WORD_TABLE, FLUID_WORD_TABLE

WORD_TABLE = "embeddings.word_embeddings.weight"
WORD_TABLES = (WORD_TABLE, FLUID_WORD_TABLE, DYGRAPH_WORD_TABLE)
"""The word table's name in every layout."""

_WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What data parallelism, trainers and torch.compile put before every name."""
_MODELS = ("ernie.", "bert.", "")


def unwrapped(
    content: Mapping[Any, Any], is_array: Callable[[object], bool], where: Path
) -> tuple[Mapping[Any, Any], list[str]]:
    """The mapping that holds the word table, `content` itself or one of its values, and the names of what lies beside.

    `is_array`: whether a value is an array. Where none holds a word table it is `content`. Raises `CheckpointError`
    where several of its values do.
    """
    if _word_table_in(content):
        return content, []
    inner = {
        str(name): value
        for name, value in content.items()
        if isinstance(value, Mapping) and any(map(is_array, value.values())) and _word_table_in(value)
    }
    if len(inner) > 1:
        raise CheckpointError(
            f"{where} holds several models, under {', '.join(map(repr, inner))}; save the one you mean by itself."
        )
    for name, value in inner.items():
        return value, [str(other) for other in content if str(other) != name]
    return content, []


def prefix_of(names: Iterable[str], where: Path) -> tuple[str, str]:
    """(wrapper, model): what stands before every name, such as 'module.', and after it 'ernie.', 'bert.' or ''.

    Read off the word table's name; ('', '') without one. Raises `CheckpointError` where it stands under any other
    prefix or under several.
    """
    found = sorted({name[: -len(table)] for name in names for table in WORD_TABLES if _ends_in(name, table)})
    known = {prefix: split for prefix in found if (split := _split(prefix)) is not None}
    if len({wrapper for wrapper, _ in known.values()}) == 1:
        return next(iter(known.values()))
    if known:
        raise CheckpointError(
            f"{where} has several word tables, under {', '.join(map(repr, known))}; save the model you mean by itself."
        )
    if found:
        raise CheckpointError(
            f"{where}: the word embeddings stand under {found[0]!r}, which is not an ERNIE or BERT model by itself; "
            "save the state dict of that part alone."
        )
    return "", ""


def _split(prefix: str) -> tuple[str, str] | None:
    """'module.bert.' -> ('module.', 'bert.'); None for what is not a wrapper."""
    model = next(one for one in _MODELS if prefix.endswith(one))
    wrapper = rest = prefix[: len(prefix) - len(model)]
    while rest:
        outer = next((one for one in _WRAPPERS if rest.startswith(one)), None)
        if outer is None:
            return None
        rest = rest.removeprefix(outer)
    return wrapper, model


def _word_table_in(names: Iterable[Any]) -> bool:
    return any(_ends_in(str(name), table) for name in names for table in WORD_TABLES)


def _ends_in(name: str, table: str) -> bool:
    return name == table or name.endswith(f".{table}")
