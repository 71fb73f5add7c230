"""`--settings epochs=2 peak_lr=1e-4` → the settings of one data set, with every mistake told at once."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from ernie2.config.plain_yaml import shown
from ernie2.config.problems import explain
from ernie2.errors import ConfigError, did_you_mean
from ernie2.finetuning.paper_settings import Settings

OWN = Settings(
    epochs=3,
    peak_lr=3e-5,
    batch=32,
    max_length=128,
    schedule="linear",
    warmup_share=0.1,
    weight_decay=0.01,
    summary="mean",
)
"""Where a user's own data start from; ours, in the middle of what the paper uses."""
OWN_LENGTHS = {"span": 384, "tagging": 256}
"""`max_length` of own data by kind of task, where it is not 128."""
_MORE_THAN_0 = ("epochs", "peak_lr", "batch", "clip", "stride", "max_query", "max_answer", "n_best", "runs", "adam_eps")
_SHARES = ("warmup_share", "dropout", "attention_dropout")
_LEAST_LENGTH = 8
_PARTED = re.compile(r"[0-9]_[0-9]")
"""What Python and pydantic read as a number and data files do not."""
_AT_MOST = {
    "epochs": 10_000,
    "peak_lr": 100,
    "batch": 1_000_000,
    "max_length": 1_000_000,
    "weight_decay": 100,
    "clip": 1e9,
    "stride": 1_000_000,
    "max_query": 1_000_000,
    "max_answer": 1_000_000,
    "n_best": 1_000_000,
    "task_id": 1_000_000,
    "runs": 1_000,
    "adam_eps": 1,
    "pack_tokens": 2**24,
}
"""What no run needs more of, and memory or time would end at."""


def overridden(settings: Settings, assignments: Sequence[str]) -> Settings:
    """`settings` with `key=value` pairs put in. Raises `ConfigError` with everything that is wrong with them."""
    known = asdict(settings)
    given: dict[str, Any] = {}
    wrong = []
    for assignment in assignments:
        key, equals, value = (part.strip() for part in assignment.partition("="))
        if not equals:
            wrong.append(f"{shown(assignment)} is not a key=value")
        elif key not in known:
            wrong.append(f"there is no setting {shown(key)}.{did_you_mean(key, known)}")
        elif _PARTED.search(value):
            wrong.append(f"{key}: {shown(value)} is no number; write it without _")
        else:
            given[key] = None if value.lower() in ("none", "null") else value.split(",") if key == "betas" else value
    try:
        made = TypeAdapter(Settings).validate_python(known | given)
    except ValidationError as error:
        wrong += explain(error, BaseModel, known | given)
        raise ConfigError(_told(wrong, known)) from error
    wrong += out_of_range(made)
    if wrong:
        raise ConfigError(_told(wrong, known))
    return replace(settings, **{key: getattr(made, key) for key in given})


def out_of_range(settings: Settings) -> list[str]:
    """Return what no run can have among `settings`, one short sentence a value."""
    values = asdict(settings)
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    if wrong := [
        f"{key}={value} must be a finite number" for key, value in numbers.items() if not math.isfinite(value)
    ]:
        return wrong
    wrong = [f"{key}={values[key]} must be above 0" for key in _MORE_THAN_0 if values[key] <= 0]
    wrong += [f"train_examples={n} must be 2 or more" for n in [settings.train_examples] if n is not None and n < 2]
    wrong += [f"{key}={values[key]} must be from 0 to below 1" for key in _SHARES if not 0 <= (values[key] or 0) < 1]
    wrong += [f"{key}={values[key]} must not be below 0" for key in ("weight_decay", "task_id") if values[key] < 0]
    wrong += [f"{key}={values[key]} must be at most {most:,}" for key, most in _AT_MOST.items() if values[key] > most]
    if not all(0 <= beta < 1 for beta in settings.betas):
        wrong.append(f"betas={','.join(map(str, settings.betas))} must be two numbers from 0 to below 1")
    wrong += [
        f"{key}={values[key]} is too little for any text; give {_LEAST_LENGTH} at least"
        for key in ("max_length", "pack_tokens")
        if values[key] < _LEAST_LENGTH
    ]
    return wrong


def _told(wrong: Sequence[str], known: dict[str, Any]) -> str:
    sentences = " ".join(one if one.endswith((".", "?")) else f"{one}." for one in wrong)
    return f"settings: {sentences} Known: {', '.join(known)}."
