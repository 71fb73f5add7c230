"""Recognise files that are not weights by their first bytes, and read JSON files from any program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError

_START = 512
_TENSORFLOW = (
    "TensorFlow checkpoint, which is not supported: convert it to PyTorch with transformers 4's "
    "convert_bert_original_tf_checkpoint_to_pytorch, then convert the result"
)
_KERAS = (
    "Keras (HDF5) file of TensorFlow weights, which is not supported: load the folder with transformers 4, "
    "from_pretrained(FOLDER, from_tf=True), save it with save_pretrained, then convert the result"
)
_FLAX = (
    "Flax (msgpack) file, which is not supported: load the folder with transformers 4, from_pretrained(FOLDER, "
    "from_flax=True), save it with save_pretrained, then convert the result"
)
_PACKED = "compressed archive: unpack it and give the folder"
_MAGIC = (
    ((b"\x89HDF\r\n\x1a\n",), _KERAS),
    ((b"GGUF",), "GGUF file of llama.cpp, which is not supported: use the model's safetensors"),
    ((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ"), _PACKED),
)
_FILES = (
    ("*.ckpt.index", _TENSORFLOW),
    ("*.ckpt.data-*", _TENSORFLOW),
    ("*.ckpt.meta", _TENSORFLOW),
    ("saved_model.pb", "TensorFlow SavedModel, which is not supported: use the model's PyTorch weights"),
    ("*.h5", _KERAS),
    ("*.msgpack", _FLAX),
    ("*.onnx", "ONNX graph, which is not supported: use the weights it was exported from"),
)
_TEXT_SUFFIXES = (".tsv", ".csv", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".md", ".py")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pdparams")


def check_is_weights(path: Path) -> None:
    """Raise `CheckpointError` with file type and advice if `path` is recognised as a file without weights."""
    with path.open("rb") as file:
        start = file.read(_START)
    if what := _not_weights(path, start):
        raise CheckpointError(f"{path} is {_with_article(what)}.")


def unread_weights_hint(folder: Path) -> str:
    """Return a sentence about unsupported or unnamed weights in `folder`, with a leading space; '' if none."""
    for pattern, what in _FILES:
        if files := sorted(folder.glob(pattern)):
            return f" It contains {files[0].name}, {_with_article(what)}."
    others = sorted(path.name for pattern in _WEIGHTS for path in folder.glob(pattern))
    return f" Give the weights file itself: {', '.join(others[:5])}." if others else ""


def lfs_pointer(start: bytes) -> str:
    """Return 'Git LFS pointer to a 440.5 MB file: …' for a Git LFS pointer, else ''."""
    if not start.startswith(b"version https://git-lfs"):
        return ""
    size = re.search(rb"^size (\d{1,18})$", start, re.MULTILINE)
    size_of = f"a {int(size[1]) / 1e6:,.1f} MB file" if size else "a file"
    return f"Git LFS pointer to {size_of}, not the file itself: run `git lfs pull` in its folder, or download the file"


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `CheckpointError` if it is unreadable, not JSON, or nested too deeply."""
    try:
        content = path.read_bytes()
        if pointer := lfs_pointer(content[:_START]):
            raise CheckpointError(f"{path} is a {pointer}.")
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise CheckpointError(f"{path} cannot be read as JSON: it is nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error


def _not_weights(path: Path, start: bytes) -> str:
    """Return the file type and advice from the first bytes; '' for weights and unknown files."""
    if pointer := lfs_pointer(start):
        return pointer
    if start.lstrip()[:14].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "web page (HTML or XML), not the file itself: the download failed or required a login; download it again"
    if not start:
        return "empty file: download it again"
    for magic, what in _MAGIC:
        if start.startswith(magic):
            return what
    if _is_msgpack(start):
        return _FLAX
    if start[257:262] == b"ustar":
        return _PACKED
    if re.search(r"\.ckpt(\.|-\d)", path.name):
        return _TENSORFLOW
    if path.suffix.lower() in _TEXT_SUFFIXES or _is_text(start):
        return "text file, not weights: give the folder of a checkpoint, or its weights file"
    return ""


def _is_msgpack(start: bytes) -> bool:
    """Return whether this is a msgpack map with a string as first key; a pickle begins with 0x80, protocol < 6."""
    small = 0x81 <= start[0] <= 0x8F and len(start) > 1 and (0xA1 <= start[1] <= 0xBF or start[1] in (0xD9, 0xDA))
    return small or (start[0] in (0xDE, 0xDF) and len(start) > 5)


def _is_text(start: bytes) -> bool:
    """Return whether this is printable UTF-8 that does not look like a pickle of protocol 0, which is text too."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return False
        text = start[: error.start].decode("utf-8")
    looks_pickled = text.startswith(("c", "(", "}", "]", "I", "S")) and "\n" in text and "\t" not in text
    return not looks_pickled and all(char.isprintable() or char in "\t\r\n\f\ufeff" for char in text)


def _with_article(what: str) -> str:
    return f"an {what}" if what[0] in "AEO" or what.startswith("empty") else f"a {what}"
