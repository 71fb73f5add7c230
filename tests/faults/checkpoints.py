"""Hostile and foreign checkpoints: `convert` reads them whole, or refuses in a line and leaves nothing."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from faults.outcome import Outcome, judge
from faults.workbench import Workbench

KIND = "checkpoint"
SECRET = "a line that must not be copied\n"

Attack = Callable[[Path, np.random.Generator], tuple[str, bool]]
"""Changes a folder; returns (what was done, whether it has to be refused)."""


def attack(bench: Workbench, rng: np.random.Generator) -> Outcome:
    """Attack one checkpoint once."""
    folder = bench.case("done")
    (folder / "secret").write_text(SECRET)
    source = folder / "run" / "hf"
    label, refused = ATTACKS[int(rng.integers(len(ATTACKS)))](source, rng)
    ended, _, _ = bench.ernie2(folder, "convert", "run/hf", "out")
    if (found := judge(KIND, label, ended)) is not None:
        return found
    out = folder / "out"
    if any(SECRET in path.read_text(errors="replace") for path in out.rglob("*") if path.is_file()):
        return Outcome(KIND, label, "silent", "the content of a file outside the folder was copied")
    if (folder / "ran").exists():
        return Outcome(KIND, label, "silent", "code in the checkpoint was run")
    if "\x1b" in ended.output:
        return Outcome(KIND, label, "silent", "an escape sequence reached the terminal")
    if ended.code not in (0, 2):
        return Outcome(KIND, label, "silent", f"exit {ended.code}: {ended.output[-400:]}")
    noted = label.startswith("config.json ") and f"note: {label.split()[1].rstrip(':')} " in ended.output
    if ended.code == 0 and refused and not noted:
        return Outcome(KIND, label, "silent", f"accepted: {ended.output[-400:]}")
    if ended.code == 2 and (out.exists() or any(folder.glob(".*.tmp")) or any(folder.glob("*.tmp"))):
        return Outcome(KIND, label, "left behind", "refused, but something was written")
    return Outcome(KIND, label, "passed")


def _odd_config(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    config = json.loads((folder / "config.json").read_text())
    key = sorted(config)[int(rng.integers(len(config)))]
    odd: list[Any] = [None, [], {}, "x", -1, 0, 10**9, 10**12, 1.5, True, [1] * 5, {"a": {}}, "\x1b[31m", float("inf")]
    config[key] = odd[int(rng.integers(len(odd)))]
    (folder / "config.json").write_text(json.dumps(config))
    return f"config.json {key}: {str(config[key])[:40]!r}", False


def _huge_config(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    sizes = ("hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings", "vocab_size")
    key = sizes[int(rng.integers(len(sizes)))]
    value = (10**6, 10**9, 10**12)[int(rng.integers(3))]
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    return f"config.json {key}: {value}", True


def _link(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    name = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "README.md")[
        int(rng.integers(5))
    ]
    (folder / name).unlink(missing_ok=True)
    os.symlink(folder.parents[1] / "secret", folder / name)
    return f"{name} is a link out of the folder", False


def _odd_tokenizer(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    name = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")[int(rng.integers(3))]
    contents = (b"", b"{}", b"null", b"[]", b"[" * 50_000, b'{"model": {}}', b"\xff\xfe", b"<html></html>", b"{")
    content = contents[int(rng.integers(len(contents)))]
    (folder / name).write_bytes(content)
    return f"{name}: {content[:20]!r}", name == "tokenizer.json"


def _odd_weights(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    way = int(rng.integers(4))
    if way == 0:
        file.write_bytes(content[: int(rng.integers(len(content)))])
        return "model.safetensors cut", True
    if way == 1:
        content[:8] = int(rng.integers(2**62)).to_bytes(8, "little")
        file.write_bytes(content)
        return "model.safetensors with a header of any length", True
    if way == 2:
        at = int(rng.integers(8, 200))
        content[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        return f"model.safetensors byte {at} of the header flipped", False
    from safetensors.numpy import load_file, save_file

    tensors = load_file(file)
    name = sorted(tensors)[int(rng.integers(len(tensors)))]
    tensors[name] = np.full_like(tensors[name], np.nan)
    save_file(tensors, file, metadata={"format": "pt"})
    return f"{name} is NaN", True


def _other_file(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    contents = {
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n",
        "an HTML page": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "nothing": b"",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "text": b"hello\n",
    }
    what = sorted(contents)[int(rng.integers(len(contents)))]
    name = ("model.safetensors", "pytorch_model.bin")[int(rng.integers(2))]
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(contents[what])
    return f"{name} is {what}", True


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def _pickle(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    way = int(rng.integers(3))
    if way == 0:
        file.write_bytes(pickle.dumps(_Runs()))
    elif way == 1:
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("archive/data.pkl", pickle.dumps(_Runs()))
            packed.writestr("archive/version", "3")
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("archive/data.pkl", bytes(300 << 20))
    return ("a pickle that runs code", "a zip whose pickle runs code", "a zip that grows to 300 MB")[way], True


def _index(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    maps: list[Any] = [None, 1, [], {"a": None}, {"a": 5}, {"a": "../../secret"}, {"a": "gone.safetensors"}, "x"]
    content = {"weight_map": maps[int(rng.integers(len(maps)))], "metadata": {}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return f"index with weight_map {content['weight_map']!r}", True


def _wrapped(folder: Path, rng: np.random.Generator) -> tuple[str, bool]:
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    prefix = ("module.", "bert.module.", "\x1b[31m", "a" * 3000 + ".")[int(rng.integers(4))]
    save_file({prefix + name: tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    return f"tensors begin with {prefix[:20]!r}", False


ATTACKS: tuple[Attack, ...] = (
    *(_odd_config, _odd_config, _huge_config, _link, _odd_tokenizer, _odd_weights, _other_file, _pickle, _index),
    _wrapped,
)
