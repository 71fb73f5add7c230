"""The JSON schema of recipes and the page of keys contain everything in the settings classes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ernie2
from ernie2.cli.app import app
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.recipe import shipped_recipes
from ernie2.runs.recipes import load_recipe
from ernie2.studies.settings import StudySettings

DOCS = Path(__file__).parents[2] / "docs"


def fields_of(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", {}).items()


@pytest.mark.parametrize(
    "schema", [ernie2.recipe_schema(), StudySettings.model_json_schema(), FineTuningSettings.model_json_schema()]
)
def test_every_key_has_a_description(schema: dict[str, Any]) -> None:
    for name, field in fields_of(schema):
        assert field.get("description") or "$ref" in field, name


def test_the_command_prints_the_schema_with_the_options_of_tasks() -> None:
    result = CliRunner().invoke(app, ["recipes", "--schema"])
    assert result.exit_code == 0
    tasks = json.loads(result.output)["properties"]["tasks"]["properties"]
    assert tasks["sentence_reordering"]["properties"]["max_segments"]["default"] == 4
    assert tasks["sentence_reordering"]["properties"]["loss_weight"]["minimum"] == 0


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_are_valid_by_the_schema(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(ernie2.recipe_schema())
    recipe = load_recipe(name).model_dump(mode="json")
    assert list(validator.iter_errors(recipe)) == []
    assert list(validator.iter_errors(recipe | {"sed": 1})) != []


def test_the_page_of_keys_is_what_its_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("write_recipe_keys", DOCS / "write_recipe_keys.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page() == (DOCS / "recipe-keys.md").read_text(encoding="utf-8"), "run `make keys`"
