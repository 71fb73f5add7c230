"""What is not a file of weights is named by its first bytes, with what to do."""

from __future__ import annotations

import pytest

from ernie2.errors import CheckpointError
from ernie2.model.formats.containers import read_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440473133\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, r"is a Git LFS pointer to a 440\.5 MB file, not the file itself: run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html><body>Log in</body></html>", r"is a web page \(HTML or XML\)"),
        (b"<html>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"is a Keras \(HDF5\) file of TensorFlow weights"),
        (b"\x83\xaaembeddings\x81\xa6kernel", r"is a Flax \(msgpack\) file"),
        (b"GGUF\x03\x00", "is a GGUF file"),
        (b"\x1f\x8b\x08\x00", "is a compressed archive: unpack it"),
        (b"", "is an empty file"),
        (b"text\tlabel\nA film.\t1\n", "is a text file, not weights"),
        ("文本\n".encode() * 300, "is a text file, not weights"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "x.pdparams"])
def test_a_file_of_another_type_is_recognised(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} {message}"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"],
         r"It contains bert_model\.ckpt\.index, a TensorFlow checkpoint, .*convert_bert_original_tf_checkpoint"),
        (["tf_model.h5"], r"It contains tf_model\.h5, a Keras .*from_tf=True"),
        (["flax_model.msgpack"], r"It contains flax_model\.msgpack, a Flax .*from_flax=True"),
        (["saved_model.pb"], "a TensorFlow SavedModel, which is not supported"),
        (["step_7.pt"], r"Give the weights file itself: step_7\.pt\."),
    ],
)  # fmt: skip
def test_unsupported_weights_in_a_folder_are_named_with_advice(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path)
