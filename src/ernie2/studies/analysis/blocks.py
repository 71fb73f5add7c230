"""A page of headings, paragraphs, lists and tables, and the same page as Markdown. Texts are plain, not yet escaped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ernie2.escaping import in_markdown, markdown_table


@dataclass(frozen=True)
class Heading:
    """A heading of level 1, 2 or 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Prose of our own; names in it are of learning methods and tasks."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list, an item a line."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table with a row of heads; every row has a cell a head."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | Bullets | Table


def markdown(blocks: Iterable[Block]) -> str:
    """Return the blocks as Markdown."""
    return "\n\n".join("\n".join(_lines(block)) for block in blocks) + "\n"


def _lines(block: Block) -> list[str]:
    if isinstance(block, Heading):
        return [f"{'#' * block.level} {in_markdown(block.text)}"]
    if isinstance(block, Paragraph):
        return [in_markdown(block.text)]
    if isinstance(block, Bullets):
        return [f"* {in_markdown(item)}" for item in block.items]
    return markdown_table(block.heads, block.rows)
