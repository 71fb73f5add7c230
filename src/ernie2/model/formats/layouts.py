"""Whatever a checkpoint calls its tensors, and wherever in a file they stand → Hugging Face's bare names."""

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
"""The word table's name in every layout, behind whatever prefix."""
_PREFIX = re.compile(r"((?:module\.|model\.|_orig_mod\.)*)(ernie\.|bert\.|)")
"""What data parallelism, trainers and torch.compile put before every name, then that of the model."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor, oriented as torch has it, and the names its parts have in the file."""

    tensor: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RenamedTensors:
    """The tensors of a container by Hugging Face's bare names; `unknown`: theirs that have none.

    `model`: 'ernie', 'bert' or '', what the names in the file begin with.
    """

    layout: Layout
    tensors: dict[str, StoredTensor]
    unknown: tuple[str, ...]
    model: str


def rename_tensors(container: Container) -> RenamedTensors:
    """Tells the layout by the names in it and renames; `CheckpointError` where it is none we know."""
    wrapper, model = find_prefix(container.tensors, container.where)
    bare = {  # the head's names come without 'ernie.' or 'bert.'
        name: name.removeprefix(wrapper).removeprefix("ernie.").removeprefix("bert.") for name in container.tensors
    }
    layout = _layout(set(bare.values()))
    if layout is None:
        raise CheckpointError(f"{container.where} has no word embeddings; is it an ERNIE or BERT model?")
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
        raise CheckpointError(f"{container.where}: its word embeddings are no table.")
    return RenamedTensors(layout, tensors, tuple(unknown), model.removesuffix("."))


def unwrap_state_dict(
    content: Mapping[Any, Any], is_array: Callable[[object], bool], where: Path
) -> tuple[Mapping[Any, Any], list[str]]:
    """The mapping that holds the word table, `content` itself or one of its values, and the names of what lies beside.

    `is_array`: whether a value is an array. Where none holds a word table it is `content`. Raises `CheckpointError`
    where several of its values do.
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
            f"{where} holds several models, under {', '.join(map(repr, inner))}; save the one you mean by itself."
        )
    for name, value in inner.items():
        return value, [str(other) for other in content if str(other) != name]
    return content, []


def find_prefix(found: Iterable[str], where: Path) -> tuple[str, str]:
    """(wrapper, model): what stands before every name, such as 'module.', and after it 'ernie.', 'bert.' or ''.

    Read off the word table's name; ('', '') without one. Raises `CheckpointError` where it stands under any other
    prefix or under several.
    """
    prefixes = sorted({match[1] for name in found if (match := _WORD_TABLE.fullmatch(name))})
    known = {prefix: (match[1], match[2]) for prefix in prefixes if (match := _PREFIX.fullmatch(prefix))}
    if len({wrapper for wrapper, _ in known.values()}) == 1:
        return next(iter(known.values()))
    if known:
        raise CheckpointError(
            f"{where} has several word tables, under {', '.join(map(repr, known))}; save the model you mean by itself."
        )
    if prefixes:
        raise CheckpointError(
            f"{where}: the word embeddings stand under {prefixes[0]!r}, which is not an ERNIE or BERT model by itself; "
            "save the state dict of that part alone."
        )
    return "", ""


def _has_word_table(found: Iterable[Any]) -> bool:
    return any(_WORD_TABLE.fullmatch(str(name)) for name in found)


def _layout(found: set[str]) -> Layout | None:
    if names.FLUID_WORD_TABLE in found:
        return "Paddle fluid"
    if names.DYGRAPH_WORD_TABLE in found:
        return "Paddle dygraph"
    if names.HF_WORD_TABLE not in found:
        return None
    return "PaddleNLP" if names.PADDLENLP_NORM in found else "Hugging Face"
