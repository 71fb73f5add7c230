from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest

import ernie2
from ernie2.config.overrides import apply_assignments, apply_override, as_override
from ernie2.errors import ConfigError
from ernie2.finetuning.paper import DEFAULT_SETTINGS, settings_for
from ernie2.runs.recipes import load_recipe


def test_values_take_the_types_of_their_settings_and_the_rest_stays_the_papers() -> None:
    made = apply_assignments(
        settings_for("mrpc", "base"), ["epochs=1", "peak_lr=1e-4", "betas=0.9,0.98", "attention_dropout=0"]
    )
    assert (made.epochs, made.peak_lr, made.betas, made.attention_dropout) == (1, 1e-4, (0.9, 0.98), 0.0)
    assert (made.batch_size, made.summary) == (32, "median")
    assert apply_assignments(made, ["decay_from_zero=false", "attention_dropout=none"]).decay_from_zero is False


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as message:
        apply_assignments(DEFAULT_SETTINGS, ["epoch=1", "batch", "peak_lr=fast"])
    assert str(message.value).startswith("settings: 3 problems:\n  - 'batch' is not a key=value\n")
    assert "epoch: there is no such key. Did you mean 'epochs'? Known here: epochs, peak_lr," in str(message.value)
    assert "peak_lr: must be a number (got 'fast')" in str(message.value)


@pytest.mark.parametrize(
    "wrong",
    [
        "epochs=0",
        "batch_size=-1",
        "dropout=1",
        "weight_decay=-0.1",
        "max_length=3",
        "peak_lr=0",
        "peak_lr=nan",
        "max_grad_norm=inf",
        "epochs=1000000000000",
        "pack_tokens=1000000000",
        "betas=0.9,nan",
        "betas=0.9,1",
        "warmup_ratio=nan",
    ],
)
def test_what_no_run_can_have_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        apply_assignments(DEFAULT_SETTINGS, [wrong])


@pytest.mark.parametrize("value", ["epochs=1_0", "peak_lr=1_0e-5", "betas=0.9,0.9_9"])
def test_a_number_with_an_underscore_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a number; write it without _"):
        apply_assignments(DEFAULT_SETTINGS, [value])


@pytest.mark.parametrize("text", ["a #2", "a: b", "[a", "null", "1e3", "", "“é” \\ 'x' \"y\"", "a\tb"])
def test_an_override_of_a_value_says_exactly_that_value(text: str) -> None:
    values: dict[str, Any] = {}
    apply_override(values, as_override("run", text))
    assert values == {"run": text}


@pytest.mark.parametrize("text", ["p/exp #1", "#1", "[a, b] # c", "'a # b' # c", "a\n# b"])
def test_a_comment_never_cuts_an_override(text: str) -> None:
    values: dict[str, Any] = {"run": "before"}
    with pytest.raises(ConfigError, match=r"Remove it, or quote the value: 'run=") as message:
        apply_override(values, f"run={text}")
    (advice,) = shlex.split(str(message.value).rpartition("value: ")[2])
    apply_override(values, advice)
    assert values == {"run": text}


@pytest.mark.parametrize("text", ["p/exp#1", "'a # b'", '"a # b"', "[a, '# b']"])
def test_a_hash_that_begins_no_comment_is_part_of_an_override(text: str) -> None:
    values: dict[str, Any] = {}
    apply_override(values, f"run={text}")
    assert "#" in str(values["run"])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ernie2.pretrain("demo-en", "stages.steps=2"), "overrides"),
        (lambda: ernie2.plan("demo-en", hooks="a:B"), "hooks"),
        (lambda: ernie2.plan("demo-en", init_from="x", grow="vocabulary"), "grow"),
        (lambda: ernie2.study("smoke", "seeds=2"), "overrides"),
        (lambda: ernie2.extend("nowhere", "sentence_distance", "shards", "train.max_grad_norm=2"), "overrides"),
        (lambda: apply_assignments(DEFAULT_SETTINGS, "epochs=2"), "settings"),
    ],
)
def test_one_text_in_place_of_a_list_is_refused(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: pass a list of strings, \[.*\], not a string\.$"):
        call()


def test_overrides_without_a_recipe_before_them_are_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match=r"no shipped recipe 'stages\.steps=10'.* Put the recipe before"):
        load_recipe("stages.steps=10")
