"""Rename the tensors of a checkpoint, wherever they are in a file, to Hugging Face's names without prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ernie2.errors import CheckpointError
from ernie2.model import tensor_names as names
from ernie2.model.tensor_names import Layout

if TYPE_CHECKING:
    from ernie2.model.formats.containers import Container

_TABLES = "|".join(map(re.escape, (names.HF_WORD_TABLE, names.FLUID_WORD_TABLE, names.DYGRAPH_WORD_TABLE)))
_WORD_TABLE = re.compile(rf"(|.*\.)(?:{_TABLES})", re.DOTALL)
"""The token embedding's name in every layout, after any prefix."""
_PREFIX = re.compile(r"((?:module\.|model\.|_orig_mod\.)*)(ernie\.|bert\.|)")
"""Prefixes of data parallelism, trainers and torch.compile, then that of the model."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in torch's orientation, and the names of its parts in the file."""

    tensor: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RenamedTensors:
    """The tensors of a container by Hugging Face's names without prefix; `unknown`: names in the file without one.

    `model`: prefix of the names in the file, 'ernie', 'bert' or ''.
    """

    layout: Layout
    tensors: dict[str, StoredTensor]
    unknown: tuple[str, ...]
    model: str


def rename_tensors(container: Container) -> RenamedTensors:
    """Detect the layout from the names and rename the tensors; `CheckpointError` for an unknown layout."""
    wrapper, model = find_prefix(container.tensors, container.where)
    bare = {  # names of the head have no 'ernie.' or 'bert.'
        name: name.removeprefix(wrapper).removeprefix("ernie.").removeprefix("bert.") for name in container.tensors
    }
    layout = _layout(set(bare.values()))
    if layout is None:
        raise CheckpointError(f"{container.where} has no word embeddings. Is it an ERNIE or BERT model?")
    tensors: dict[str, StoredTensor] = {}
    unknown = list(container.unread)
    for name, tensor in container.tensors.items():
        known = names.to_hf_name(layout, bare[name])
        if known is None or known[0] in tensors:
            unknown.append(name)
        else:
            tensors[known[0]] = StoredTensor(
                tensor.t().contiguous() if known[1] and tensor.ndim == 2 else tensor, (name,)
            )
    if names.HF_WORD_TABLE not in tensors or tensors[names.HF_WORD_TABLE].tensor.ndim != 2:
        raise CheckpointError(f"{container.where}: its word embeddings are not a matrix.")
    return RenamedTensors(layout, tensors, tuple(unknown), model.removesuffix("."))


def unwrap_state_dict(
    content: Mapping[Any, Any], is_array: Callable[[object], bool], where: Path
) -> tuple[Mapping[Any, Any], list[str]]:
    """Return the mapping with the token embedding, `content` or one of its values, and the names of the other entries.

    `is_array`: whether a value is an array. Returns `content` if there is no token embedding. Raises `CheckpointError`
    if several values have one.
    """
    if _has_word_table(content):
        return content, []
    inner = {
        str(name): value
        for name, value in content.items()
        if isinstance(value, Mapping) and any(map(is_array, value.values())) and _has_word_table(value)
    }
    if len(inner) > 1:
        raise CheckpointError(
            f"{where} contains several models, under {', '.join(map(repr, inner))}. Save one of them by itself."
        )
    for name, value in inner.items():
        return value, [str(other) for other in content if str(other) != name]
    return content, []


def find_prefix(names_in_file: Iterable[str], where: Path) -> tuple[str, str]:
    """Return the prefixes of all names: wrapper, such as 'module.', and model, 'ernie.', 'bert.' or ''.

    Derived from the token embedding's name; ('', '') without one. Raises `CheckpointError` for any other prefix or
    several prefixes.
    """
    prefixes = sorted({match[1] for name in names_in_file if (match := _WORD_TABLE.fullmatch(name))})
    known = {prefix: (match[1], match[2]) for prefix in prefixes if (match := _PREFIX.fullmatch(prefix))}
    if len({wrapper for wrapper, _ in known.values()}) == 1:
        return next(iter(known.values()))
    if known:
        raise CheckpointError(
            f"{where} has several token embeddings, under {', '.join(map(repr, known))}. Save one model by itself."
        )
    if prefixes:
        raise CheckpointError(
            f"{where}: the word embeddings have prefix {prefixes[0]!r}, which is not that of an ERNIE or BERT model. "
            "Save the state dict of that part only."
        )
    return "", ""


def _has_word_table(names_in_file: Iterable[Any]) -> bool:
    return any(_WORD_TABLE.fullmatch(str(name)) for name in names_in_file)


def _layout(names_in_file: set[str]) -> Layout | None:
    if names.FLUID_WORD_TABLE in names_in_file:
        return "Paddle fluid"
    if names.DYGRAPH_WORD_TABLE in names_in_file:
        return "Paddle dygraph"
    if names.HF_WORD_TABLE not in names_in_file:
        return None
    return "PaddleNLP" if names.PADDLENLP_NORM in names_in_file else "Hugging Face"
