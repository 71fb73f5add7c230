"""Damaged and hostile recipes are accepted or refused with a message, quickly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ernie2.config.recipe import shipped_recipes
from ernie2.errors import ConfigError, Ernie2Error
from ernie2.runs.recipes import load_recipe
from ernie2.storage.listing import list_files
from ernie2.studies.settings import load_settings

SECONDS, LONGEST = 1.0, 5_000
TEXT = shipped_recipes()["demo-en"]
HOSTILE = (
    ".inf", "-.inf", ".nan", "1.0e+300", "-1", "0", "1000000000000", "9" * 5_000, "0x" + "f" * 3_000, "0x_",
    "190:20:30", "2001-99-99", "2001-01-01", "!!int x", "!!timestamp x", "!!binary aGk=", "!!set {a, b}", "!!str", "~",
    "[]", "{}",
    "''", '"a\\0b"', '"\\ud800"', "a" * 300, "/".join(["a" * 200] * 30), "[[[[1]]]]", "{a: {b: {c: 1}}}",
    "[" * 3_000, "{a: " * 3_000, "&a [*a]", "*nowhere", "<<", "'/**/[.txt'", "s3://", "package:", "|", "- ",
    "? x", "true",
)  # fmt: skip


def keys(values: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key of nested values, as a path."""
    if not isinstance(values, dict):
        return []
    return [path for key, inner in values.items() for path in [(*above, key), *keys(inner, (*above, key))]]


KEYS = keys(yaml.safe_load(TEXT))


def with_value(path: tuple[Any, ...], raw: str) -> str:
    """The recipe with `raw` as the YAML of one key."""
    values = yaml.safe_load(TEXT)
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "PLACE"
    return yaml.safe_dump(values, sort_keys=False).replace("PLACE", raw)


def refusal(attempt: Callable[[], object]) -> str:
    """The message by which `attempt` was refused, "" where it was not; any other exception fails the test."""
    try:
        attempt()
    except Ernie2Error as error:
        return str(error)
    return ""


def load(tmp_path, text: str | bytes, overrides=()) -> None:
    """Loads a recipe file with that text; whatever is not a recipe or an error of ours fails the test."""
    file = tmp_path / "recipe.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    began = time.process_time()

    def attempt():
        for corpus in load_recipe(file, overrides).corpora.values():
            list_files(corpus.paths, (".txt", ".jsonl"))

    told = refusal(attempt)
    assert len(told.encode()) < LONGEST
    assert time.process_time() - began < SECONDS


many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@many
@given(st.sampled_from(KEYS), st.sampled_from(HOSTILE))
def test_a_hostile_value_anywhere_is_accepted_or_refused(tmp_path, path, raw):
    load(tmp_path, with_value(path, raw))


@many
@given(st.data())
def test_a_recipe_damaged_anywhere_is_accepted_or_refused(tmp_path, data):
    text = bytearray(TEXT.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        change = data.draw(st.sampled_from(("flip", "cut", "double", "insert")))
        if change == "flip":
            text[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "cut":
            del text[at : at + data.draw(st.integers(1, 200))]
        elif change == "double":
            text[at:at] = text[at : at + data.draw(st.integers(1, 200))]
        else:
            text[at:at] = data.draw(st.sampled_from(HOSTILE))[:200].encode()
    load(tmp_path, bytes(text))


@many
@given(st.sampled_from(KEYS), st.sampled_from(HOSTILE))
def test_a_hostile_override_is_accepted_or_refused(tmp_path, path, raw):
    load(tmp_path, TEXT, [".".join(map(str, path)) + "=" + raw])
    override = "recipe." + ".".join(map(str, path)) + "=" + raw
    assert len(refusal(lambda: load_settings("smoke", [override]))) < LONGEST


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(10**400)
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 2), inner, max_size=3)
    ),
    max_leaves=6,
)


@many
@given(st.sampled_from(KEYS), plain_values)
def test_any_value_of_a_mapping_is_accepted_or_refused(path, value):
    values = yaml.safe_load(TEXT)
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert len(refusal(lambda: load_recipe(values))) < LONGEST


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.hidden=1000000000", "encoder.hidden: must be at most"),
        ("encoder.layers=1000000000", "encoder.layers: must be at most 1,000 "),
        ("encoder={layers: 900, hidden: 65536, heads: 64}", "billion parameters; at most 20 billion are allowed"),
        ("tokenizer.train=1.0e+30", "tokenizer.train: the number is too large"),
        ("stages.steps=1000000000000", "stages.steps: must be at most 4,000,000"),
        ("stages.steps=3999999", "stages.steps gives 1.,999,996 iterations; at most 4,000,000 over all tasks"),
        ("train.watchdog_seconds=1.0e+300", r"train.watchdog_seconds: must be at most 2,592,000"),
        ("train.watchdog_seconds=.inf", "train.watchdog_seconds: must be a finite number"),
        ("train.warmup=.inf", "train.warmup: must be a finite number"),
        ("encoder.norm_eps=.inf", "encoder.norm_eps: must be a finite number"),
        ("tasks.knowledge_masking.loss_weight=.inf", "tasks.knowledge_masking.loss_weight: must be a finite number"),
        ("tasks.knowledge_masking.loss_weight=1.0e+9", "tasks.knowledge_masking.loss_weight: must be at most"),
        ("batch={batch_tokens: 1073741824, pack_tokens: 32, sequence_tokens: 32}", "packs of pack_tokens=32; at most"),
        ("run=" + "a" * 300, "run: the path a+… is too long"),
        ("shards.folder=" + "a/" * 3_000, "shards.folder: the path .* is too long"),
        ("run=''", "run: a path cannot be empty"),
        ("a." * 40 + "b=1", "no key is nested this deep"),
    ],
)
def test_numbers_and_paths_beyond_all_reason_are_refused_by_key(override, message):
    with pytest.raises(ConfigError, match=message) as refused:
        load_recipe("demo-en", [override])
    assert len(str(refused.value)) < 1_000


def test_an_override_below_a_value_that_has_no_keys_shows_little_of_it():
    values = {**yaml.safe_load(TEXT), "about": [["x" * 100] * 10] * 10}
    with pytest.raises(ConfigError, match=r"'about' is \[\['x.*, it has no keys") as refused:
        load_recipe(values, ["about.b=1"])
    assert len(str(refused.value)) < 400
