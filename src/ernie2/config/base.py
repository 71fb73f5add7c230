"""What all settings share: frozen models that refuse unknown keys, and checked types of text."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ernie2.config.plain_yaml import check_text

COUNT = 1_000_000_000
"""Largest value of a number that only has to be finite, such as steps between two checkpoints."""


class Part(BaseModel):
    """A frozen piece of a recipe; unknown keys and numbers that are not finite are errors.

    The docstring below a field is its description: in the JSON schema and in docs/recipe-keys.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def _check_path(path: str) -> str:
    """Refuse what can be no path on any file system; of a URL, only the whole length counts."""
    if not path:
        raise ValueError("a path cannot be empty")
    names = [] if "://" in path else path.split("/")
    if len(path.encode()) > 4_000 or any(len(name.encode()) > 255 for name in names):
        raise ValueError(f"the path {path[:40]}… is too long: a name has at most 255 bytes, a path 4,000")
    return path


PathText = Annotated[str, AfterValidator(_check_path)]
"""A path or a URL."""


def _line(text: str) -> str:
    return check_text(text.strip(), allowed="")


LineText = Annotated[str, Field(max_length=1_000), AfterValidator(_line)]
"""Text of one line, without control characters."""
