"""Mutated recipes: a dry run ends within seconds, well or with a line that says what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from faults.outcome import Outcome, judge
from faults.workbench import Workbench, digest, recipe

KIND = "recipe"

ODD = (
    *("null", "[]", "{}", "true", "''", "-1", "0", "1", "3.5", ".nan", "abc", "2001-99-99", "2001-12-14", "!!int x"),
    *("!!float x", "!!timestamp x", "!!python/object/apply:os.system ['true']", "&a [*a]", "*nowhere", "0x_", "0b_"),
    *("9" * 5000, "1e400", "1e12", "1000000000", "1e30", "-1e9", '"a\\0b"', "a" * 300, "[1, [2, [3]]]", "{a: {b: c}}"),
    *(
        "[" * 3000,
        "{a: " * 3000,
        "%",
        "@x",
        "'",
        '"\\ud800"',
        "/**/[.txt",
        "..",
        "/",
        "~",
        "package:nothing",
        "s3://a/b",
    ),
    *("hf://datasets/none", "chinese", "'en]\\nlicense: x'", "'\\x1b[31mred'"),
)
"""Values put in the place of a scalar; some are right for some keys."""
NEVER = (".inf", "-.inf", ".nan", "1e400")
"""Numbers that no key takes."""


def mutate(bench: Workbench, rng: np.random.Generator) -> Outcome:
    """Change one thing in the recipe and plan the run."""
    folder = bench.case("shards")
    text, what, refused = _mutated(rng)
    (folder / "recipe.yaml").write_bytes(text)
    before = digest(folder)
    ended, _, _ = bench.ernie2(folder, "pretrain", "recipe.yaml", "--dry-run")
    if (found := judge(KIND, what, ended)) is not None:
        return found
    if ended.code not in (0, 2):
        return Outcome(KIND, what, "silent", f"exit {ended.code}: {ended.output[-400:]}")
    if refused and ended.code == 0:
        return Outcome(KIND, what, "silent", f"accepted: {ended.output[-300:]}")
    if len(ended.output) > 20_000:
        return Outcome(KIND, what, "silent", f"{len(ended.output)} characters of output")
    if digest(folder) != before:
        return Outcome(KIND, what, "left behind", "a dry run changed files")
    return Outcome(KIND, what, "passed")


def _mutated(rng: np.random.Generator) -> tuple[bytes, str, bool]:
    """(text, what was changed, whether it has to be refused)."""
    values = recipe()
    paths = list(_scalars(values))
    path = paths[int(rng.integers(len(paths)))]
    way = ("odd", "odd", "odd", "odd", "never", "twice", "unknown key", "bytes", "gone")[int(rng.integers(9))]
    name = ".".join(path)
    if way == "never":
        numbers = [p for p in paths if isinstance(_at(values, p), int | float)]
        path = numbers[int(rng.integers(len(numbers)))]
        word = NEVER[int(rng.integers(len(NEVER)))]
        return _with(values, path, word), f"{'.'.join(path)}: {word}", True
    if way == "odd":
        word = ODD[int(rng.integers(len(ODD)))]
        return _with(values, path, word), f"{name}: {word[:60]}", False
    if way == "twice":
        lines = yaml.safe_dump(values, sort_keys=False).splitlines(keepends=True)
        at = int(rng.integers(len(lines)))
        while not lines[at].startswith("  ") or lines[at].rstrip().endswith(":"):
            at = int(rng.integers(len(lines)))
        return "".join([*lines[: at + 1], *lines[at:]]).encode(), f"twice: {lines[at].strip()}", True
    if way == "unknown key":
        _at(values, path[:-1])[path[-1] + "x"] = 1
        return yaml.safe_dump(values).encode(), f"unknown key {name}x", len(path) > 1
    text = bytearray(yaml.safe_dump(values, sort_keys=False).encode())
    if way == "bytes":
        at = int(rng.integers(len(text)))
        text[at] = int(rng.integers(256))
        return bytes(text), f"byte {at} is {text[at]}", False
    del _at(values, path[:-1])[path[-1]]
    return yaml.safe_dump(values, sort_keys=False).encode(), f"without {name}", False


def _with(values: dict[str, Any], path: tuple[str, ...], word: str) -> bytes:
    _at(values, path[:-1])[path[-1]] = "PLACE"
    return yaml.safe_dump(values, sort_keys=False, width=10_000).replace("PLACE", word).encode("utf-8", "surrogatepass")


def _scalars(value: Any, path: tuple[str, ...] = ()) -> Any:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _scalars(one, (*path, key))
        if not value:
            yield path
    else:
        yield path


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values
