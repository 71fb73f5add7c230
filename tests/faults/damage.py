"""Damage on disk: every file that is read back gets a flipped bit, loses its end, vanishes, or says something else.

A command that reads it must refuse, or name the file in a warning, or come to the same result as without the damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults.outcome import Outcome, judge
from faults.workbench import FINETUNE, Workbench, digest

KIND = "damage"
_DEEP = b"[" * 100_000


@dataclass(frozen=True)
class Reader:
    """A command that reads a template back."""

    name: str
    needs: tuple[str, ...]
    damaged: str
    """The folder of which one file is damaged."""
    command: tuple[object, ...]
    results: tuple[str, ...]
    """Files that hold what it found; what it prints is compared where there are none."""


READERS = (
    Reader(
        "resume", ("shards", "stopped"), "run", ("resume", "run"), ("run/hf/*.safetensors", "run/hf/tokenizer.json")
    ),
    Reader("resume, shards", ("shards", "stopped"), "shards", ("resume", "run"), ("run/hf/*.safetensors",)),
    Reader("pretrain, shards", ("shards",), "shards", ("pretrain", "recipe.yaml"), ("run/hf/*.safetensors",)),
    Reader("evaluate", ("shards", "done"), "run", ("evaluate", "run"), ()),
    Reader("evaluate, shards", ("shards", "done"), "shards", ("evaluate", "run"), ()),
    Reader("finetune, run", ("shards", "done"), "run", FINETUNE, ("tuned/**/model.safetensors",)),
    Reader("convert", ("done",), "run/hf", ("convert", "run/hf", "out"), ("out/model.safetensors", "out/vocab.txt")),
    Reader("predict", ("tuned",), "tuned", ("predict", "MODEL", "train.tsv"), ()),
)
_UNREAD = ("lock", "report.html", "results.html", "results.md", "README.md")
"""Files that no command reads back, or that say nothing of the content."""


class Undamaged:
    """What each reader comes to without damage."""

    def __init__(self, bench: Workbench) -> None:
        self.results: dict[str, object] = {}
        for reader in READERS:
            folder = bench.case(*reader.needs)
            ended, _, _ = bench.ernie2(folder, *_command(reader, folder))
            if ended.code:
                raise RuntimeError(f"undamaged, {reader.name} ended with {ended.code}: {ended.output}")
            self.results[reader.name] = _result(reader, folder, ended.output)


def damage(bench: Workbench, undamaged: Undamaged, rng: np.random.Generator, reader: Reader) -> Outcome:
    """Damage one file once and let `reader` read it."""
    folder = bench.case(*reader.needs)
    command = _command(reader, folder)
    files = sorted(p for p in (folder / reader.damaged).rglob("*") if p.is_file() and p.name not in _UNREAD)
    file = files[int(rng.integers(len(files)))]
    label = f"{reader.name}: {hurt(file, rng)} in {file.relative_to(folder)}"
    ended, _, _ = bench.ernie2(folder, *command)
    if (found := judge(KIND, label, ended)) is not None:
        return found
    if ended.code not in (0, 1, 2):
        return Outcome(KIND, label, "silent", f"exit {ended.code}: {ended.output[-400:]}")
    told = file.name in ended.output or (file.parent.name in ended.output and "damage" in ended.output.lower())
    if ended.code == 0 and not told and _result(reader, folder, ended.output) != undamaged.results[reader.name]:
        return Outcome(KIND, label, "silent", f"exit 0 with another result: {ended.output[-400:]}")
    return Outcome(KIND, label, "passed")


def hurt(file: Path, rng: np.random.Generator) -> str:
    """Damage a file in one of several ways; return what was done."""
    content = bytearray(file.read_bytes())
    ways = (
        ["a bit"] * 6 + ["zeros", "a cut", "deleted"] + (["empty list", "null", "deep"] if ".json" in file.name else [])
    )
    way = ways[int(rng.integers(len(ways)))]
    at = int(rng.integers(max(len(content), 1)))
    if way == "a bit" and content:
        bit = int(rng.integers(8))
        content[at] ^= 1 << bit
        way = f"bit {bit} of byte {at}"
    elif way == "zeros" and content:
        content[at : at + 64] = bytes(len(content[at : at + 64]))
        way = f"64 zeros at byte {at}"
    elif way in ("empty list", "null", "deep"):
        content = bytearray({"empty list": b"[]", "null": b"null", "deep": _DEEP}[way])
    elif way == "deleted":
        file.unlink()
        return "file deleted"
    else:
        content, way = content[:at], f"cut at byte {at}"
    file.write_bytes(content)
    return way


def _command(reader: Reader, folder: Path) -> tuple[object, ...]:
    if "MODEL" not in reader.command:
        return reader.command
    model = next(path.parent for path in sorted((folder / "tuned").rglob("model.safetensors")))
    return tuple(model.relative_to(folder) if part == "MODEL" else part for part in reader.command)


def _result(reader: Reader, folder: Path, output: str) -> object:
    return digest(folder, reader.results) if reader.results else output
