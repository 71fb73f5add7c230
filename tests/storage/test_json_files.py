import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.errors import DamagedFile
from ernie2.storage.json_files import json_with_checksum, read_checked_json, read_json, write_checked_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"[]", "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b'{"a": 1', "Expecting"),
        (b'{"a": "\xff"}', "decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_whatever_is_wrong_with_a_file_is_one_error_in_one_line(tmp_path, content, reason):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    for read in (lambda: read_json(file, dict), lambda: read_checked_json(file)):
        with pytest.raises(DamagedFile, match=f"{file} is damaged: ") as caught:
            read()
        assert "\n" not in str(caught.value)
    with pytest.raises(DamagedFile, match=reason):
        read_json(file, dict)


def test_a_folder_is_damage_and_a_missing_file_is_missing(tmp_path):
    for read in (lambda file: read_json(file, list), read_checked_json):
        with pytest.raises(DamagedFile, match="Is a directory"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nowhere")


def test_a_damaged_file_is_the_same_error_in_another_process(tmp_path):
    error = pickle.loads(pickle.dumps(DamagedFile(tmp_path, "cut short")))  # noqa: S301 (our own pickle)
    assert str(error) == f"{tmp_path} is damaged: cut short."


def test_half_a_surrogate_pair_is_written_and_read(tmp_path):
    write_checked_json(tmp_path / "a.json", {"label": "\ud800"})
    assert read_checked_json(tmp_path / "a.json") == {"label": "\ud800"}


@given(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4).filter(lambda values: "checksum" not in values))
def test_a_checked_file_comes_back_as_it_was_and_is_plain_json(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("checked") / "a.json"
    write_checked_json(file, values)
    assert read_checked_json(file) == values
    assert {key: value for key, value in json.loads(file.read_bytes()).items() if key != "checksum"} == values


def test_no_bit_of_a_checked_file_can_flip_unnoticed(tmp_path):
    file, content = tmp_path / "a.json", json_with_checksum({"step": 3, "task": "x", "deep": [1.5, {"ü": None}]})
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(DamagedFile):
            read_checked_json(file)


def test_a_checked_file_that_was_cut_lengthened_or_edited_is_damaged(tmp_path):
    file, content = tmp_path / "a.json", json_with_checksum({"seed": 1, "lr": 0.1})
    for changed in (
        content[:-1],
        content + b"\n",
        content.replace(b'"seed": 1', b'"seed": 2'),
        b'{"seed": 1}',
        b" " + content,
    ):
        file.write_bytes(changed)
        with pytest.raises(DamagedFile):
            read_checked_json(file)
