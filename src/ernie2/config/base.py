"""Base class of all settings, and validated text types."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from ernie2.config.plain_yaml import check_text

MAX_COUNT = 1_000_000_000
"""Upper limit of counts without a tighter one, such as the steps between two checkpoints."""


def _reject_bools(schema: Any, model: type) -> Any:
    """Return pydantic's schema of `model` with numbers that reject true and false instead of reading 1 and 0."""
    if isinstance(schema, list | tuple):
        return type(schema)(_reject_bools(inner, model) for inner in schema)
    if not isinstance(schema, dict) or schema.get("cls", model) is not model:  # nested models do this themselves
        return schema
    if (kind := schema.get("type")) in ("int", "float"):
        return core_schema.no_info_before_validator_function(partial(_reject_bool, f"{kind}_type"), schema)
    return {key: _reject_bools(inner, model) for key, inner in schema.items()}


def _reject_bool(error: Any, value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError(error)
    return value


class SettingsModel(BaseModel):
    """Base class of settings: frozen; rejects unknown keys, non-finite numbers, and true or false for a number.

    The docstring below a field is its description in the JSON schema and in docs/recipe-keys.md.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Former names of keys → the names now, for the error about a former one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = _reject_bools(handler(source), cls)
        return schema


def _check_path(path: str) -> str:
    """Reject text that is not a valid path on any file system; for a URL, check only the total length."""
    if not path:
        raise ValueError("a path cannot be empty")
    names = [] if "://" in path else path.split("/")
    if len(path.encode()) > 4_000 or any(len(name.encode()) > 255 for name in names):
        raise ValueError(f"the path {path[:40]}… is too long: a name has at most 255 bytes, a path 4,000")
    return path


PathText = Annotated[str, AfterValidator(_check_path)]
"""A path or a URL."""


def _single_line(text: str) -> str:
    return check_text(text.strip(), allowed="")


LineText = Annotated[str, Field(max_length=1_000), AfterValidator(_single_line)]
"""One line of text, without control characters."""
