"""Write docs/recipe-keys.md, the reference of all keys, from the settings models: `make keys`.

    python docs/write_recipe_keys.py

A test fails where the page is not what this script writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.runs.recipes import recipe_schema
from ernie2.studies.settings import StudySettings
from ernie2.tasks.base import BUILT_IN

PAGE = Path(__file__).parent / "recipe-keys.md"
TOP = """# Keys of recipes, fine-tuning and studies

`make keys` writes this page from the models in `src/ernie2/config/`, `src/ernie2/tasks/` and `src/ernie2/studies/`.
`ernie2 recipes --schema` prints that of recipes as JSON schema, for editors. A key left out takes its default.
"""

Schema = Mapping[str, Any]


def page() -> str:
    """The whole page as Markdown."""
    recipe = recipe_schema()
    study, tuning = StudySettings.model_json_schema(), FineTuningSettings.model_json_schema()
    lines = [TOP, *sections("Recipe", recipe, recipe["$defs"], ""), "## Tasks", ""]
    common = recipe["properties"]["tasks"]["properties"]["token_document_relation"]["properties"]
    lines += ["Every task has these keys, below `tasks.NAME`:", "", *rows({"properties": common}, {}), ""]
    for name in BUILT_IN:
        task = recipe["properties"]["tasks"]["properties"][name]
        own = {key: value for key, value in task["properties"].items() if key not in common}
        lines += [f"### `{name}`", "", task["description"], ""]
        lines += [*rows({"properties": own}, recipe["$defs"]), ""] if own else []
    lines += [*sections("Fine-tuning", tuning, {}, ""), *sections("Study", study, study["$defs"], "")]
    return "\n".join(lines).rstrip() + "\n"


def sections(title: str, schema: Schema, shared: Schema, key: str) -> Iterator[str]:
    """A heading with a table, then one for each part inside."""
    yield from (f"## {title}", "", schema.get("description", ""), "", *rows(schema, shared), "")
    for name, field in schema["properties"].items():
        if (part := _part(field, shared)) is not None:
            dotted = f"{key}{name}" + (".NAME" if "additionalProperties" in field else "")
            yield from sections(f"`{dotted}`", part, shared, f"{dotted}.")


def rows(schema: Schema, shared: Schema) -> Iterator[str]:
    """A table of the keys of one part."""
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for name, field in schema["properties"].items():
        part, required = _part(field, shared), name in schema.get("required", ())
        default = "required" if required else f"`{_shown(field['default'])}`" if "default" in field and not part else ""
        meaning = " ".join((field.get("description") or (part or {})["description"]).split()).replace("|", "\\|")
        yield f"| `{name}` | {_value(field)} | {default} | {meaning} |"


def _part(field: Schema, shared: Schema) -> Schema | None:
    """The settings that lie below a key, None where it has a value."""
    places = [field, *field.get("anyOf", ()), field.get("additionalProperties") or {}]
    found = [place["$ref"] for place in places if isinstance(place, dict) and "$ref" in place]
    return shared[found[0].rpartition("/")[2]] if found else None


def _value(field: Schema) -> str:
    """What a key accepts, in words."""
    if "anyOf" in field:
        return " or ".join(_value(one) for one in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{one}`" for one in field.get("enum", [field.get("const")]))
    if "$ref" in field:
        return "keys"
    kind = field.get("type")
    if kind == "array":
        parts = field.get("prefixItems", [field.get("items", {})])
        return "list of " + "; ".join(dict.fromkeys(_value(part) for part in parts))
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    words |= {"null": "null", "object": "keys"}
    return f"{words.get(str(kind), 'any')}{_bounds(field)}"


def _bounds(field: Schema) -> str:
    """ ", above 0, at most 100" of a number."""
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = {words: field[name] for name, words in names.items() if name in field}
    return "".join(f", {words} {int(bound) if bound == int(bound) else bound:,}" for words, bound in bounds.items())


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + "}"
    words = {"True": "true", "False": "false", "None": "null", "": '""'}
    return words.get(str(value), str(value))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
