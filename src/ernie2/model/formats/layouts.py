"""Whatever a checkpoint calls its tensors → Hugging Face's bare names and orientation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ernie2.errors import CheckpointError
from ernie2.model.formats.containers import Container
from ernie2.model.formats.paddle_names import DYGRAPH_WORD_TABLE, FLUID_WORD_TABLE, PADDLENLP_NORM, to_hf_name
from ernie2.model.formats.wrapping import WORD_TABLE, prefix_of

Layout = Literal["Hugging Face", "Paddle fluid", "Paddle dygraph", "PaddleNLP"]


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor, oriented as torch has it, and its name in the file."""

    name: str
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Renamed:
    """The tensors of a container by Hugging Face's bare names; `unknown`: theirs that have none.

    `model`: 'ernie', 'bert' or '', what the names in the file begin with.
    """

    layout: Layout
    tensors: dict[str, Named]
    unknown: tuple[str, ...]
    model: str


def rename(container: Container) -> Renamed:
    """Tells the layout by the names in it and renames; `CheckpointError` where it is none we know."""
    prefixes = prefix_of(container.tensors, container.where)
    bare_names = {name: _bare(name, prefixes) for name in container.tensors}
    layout = _layout(set(bare_names.values()))
    if layout is None:
        raise CheckpointError(f"{container.where} has no word embeddings; is it an ERNIE or BERT model?")
    tensors: dict[str, Named] = {}
    unknown = list(container.unread)
    for name, tensor in container.tensors.items():
        known = _known(layout, bare_names[name])
        if known is None or known[0] in tensors:
            unknown.append(name)
        else:
            tensors[known[0]] = Named(name, tensor.t().contiguous() if known[1] and tensor.ndim == 2 else tensor)
    if WORD_TABLE not in tensors or tensors[WORD_TABLE].tensor.ndim != 2:
        raise CheckpointError(f"{container.where}: its word embeddings are no table.")
    return Renamed(layout, tensors, tuple(unknown), prefixes[1].removesuffix("."))


def _layout(names: set[str]) -> Layout | None:
    if FLUID_WORD_TABLE in names:
        return "Paddle fluid"
    if DYGRAPH_WORD_TABLE in names:
        return "Paddle dygraph"
    if WORD_TABLE not in names:
        return None
    return "PaddleNLP" if PADDLENLP_NORM in names else "Hugging Face"


def _known(layout: Layout, bare: str) -> tuple[str, bool] | None:
    if layout == "Hugging Face":
        return re.sub(
            r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", bare)
        ), False
    return to_hf_name(layout, bare)


def _bare(name: str, prefixes: tuple[str, str]) -> str:
    """Without what stands before every name, and without 'ernie.' or 'bert.', which the head's names do not have."""
    return name.removeprefix(prefixes[0]).removeprefix("ernie.").removeprefix("bert.")
