"""Arrays of a pickle are read unchanged; no code in it is run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from ernie2.errors import CheckpointError
from ernie2.model.formats.pickles import read_pickle

NUMBERS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "?", ">f4"]


class Runs:
    """Makes a file when it is unpickled the usual way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class Calls:
    """Calls `function` when it is unpickled the usual way."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def written(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "model_state.pdparams"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@given(
    array=st.sampled_from(NUMBERS).flatmap(
        lambda kind: arrays.arrays(np.dtype(kind), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    fortran=st.booleans(),
    protocol=st.integers(0, 5),
)
def test_every_array_comes_back_from_every_protocol(tmp_path_factory, array, fortran, protocol):
    laid = np.asfortranarray(array) if fortran and array.ndim else array
    read, others = read_pickle(written(tmp_path_factory.mktemp("pickle"), {"a": laid}, protocol))
    assert others == ()
    assert read["a"].shape == array.shape
    assert read["a"].dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(read["a"], array, equal_nan=array.dtype.kind == "f")
    read["a"].fill(0)  # it is nobody else's memory


def test_other_entries_are_named_and_paddles_table_of_names_is_not_one(tmp_path):
    content = OrderedDict(w=np.ones(2), StructuredToParameterName={"w": "w_0"}, step=3)
    content["StructuredToParameterName@@"] = {"w": "linear_0.w_0"}
    read, others = read_pickle(written(tmp_path, content))
    assert list(read) == ["w"]
    assert others == ("StructuredToParameterName", "step")


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_scalars_are_only_listed(tmp_path, protocol):
    read, others = read_pickle(written(tmp_path, {"w": np.ones(2), "step": np.float32(1)}, protocol))
    assert (list(read), others) == (["w"], ("step",))


def test_arrays_in_a_nested_mapping_are_read_and_other_entries_listed(tmp_path):
    inner = {"embeddings.word_embeddings.weight": np.ones((2, 2))}
    read, others = read_pickle(written(tmp_path, {"model": inner, "step": 3}))
    assert (list(read), others) == (["embeddings.word_embeddings.weight"], ("step",))


def test_arrays_that_all_claim_the_same_bytes_are_refused(tmp_path):
    names = [f"w{i}" for i in range(50)]
    path = written(tmp_path, dict.fromkeys(names, np.ones(1000)))  # one array under 50 names is 50 copies when read
    with pytest.raises(CheckpointError, match="its arrays need more bytes than the file has"):
        read_pickle(path)


def test_a_memo_index_beyond_the_file_is_refused_before_allocation(tmp_path):
    with pytest.raises(CheckpointError, match="needs a memo of 4,000,000,000 entries"):
        read_pickle(written(tmp_path, b"\x80\x02}r" + (4_000_000_000).to_bytes(4, "little") + b"."))


def test_a_tensor_with_its_name_is_read(tmp_path):
    read, _ = read_pickle(written(tmp_path, {"w": ("linear_0.w_0", np.arange(3.0))}))
    assert read["w"].tolist() == [0, 1, 2]


def test_a_file_of_python_2_is_read(tmp_path):
    # as Python 2 wrote it: names and bytes are its str, here SHORT_BINSTRING 'U'
    head = b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    read, _ = read_pickle(
        written(tmp_path, head + b"(K\x01K\x02\x85" + kind + b"\x89U\x08\x00\x00\x80?\x00\x00\x00@tbs.")
    )
    assert read["w"].tolist() == [1.0, 2.0]


def test_a_pickle_that_would_run_a_command_runs_nothing_and_is_refused_with_its_name(tmp_path):
    mark = tmp_path / "mark"
    path = written(tmp_path, {"w": np.ones(2), "evil": Runs(mark)})
    with pytest.raises(CheckpointError, match=rf"refers to {os.system.__module__}\.system, .*nothing was run"):
        read_pickle(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # noqa: S301
    assert mark.exists(), "the pickle of this test does nothing, so it tests nothing"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"cos\nsystem\n(S'exit'\ntR.", r"os\.system"),
        (b"(S'exit'\nios\nsystem\n.", r"os\.system"),
        (pickle.dumps({"w": Calls(eval, "1")}), r"builtins\.eval"),
        (pickle.dumps({"w": getattr}), r"builtins\.getattr"),
        (pickle.dumps({"w": np.load}), r"numpy.*\.load"),
        (pickle.dumps({"w": np.array([print], dtype=object)}), r"builtins\.print"),
        (pickle.dumps({"w": np.array([1, "x"], dtype=object)}), "an array of type 'O8'"),
        (pickle.dumps({"w": np.zeros(2, [("a", "i4")])}), r"an array of type 'V4'"),
        (b"\x80\x02cnumpy\nndarray\nK\x02\x85R.", r"a call of numpy\.ndarray"),
        (b"\x80\x02cnumpy\ndtype\n}U\x01xK\x01sb.", r"a change of numpy\.dtype"),
        (b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.", r"numpy\.ndarray\.__reduce__"),
        (b"\x80\x02c_codecs\nencode\nU\x01xU\x03bz2\x86R.", "_codecs.encode to bz2"),
    ],
)
def test_what_is_no_array_is_refused_by_name(tmp_path, content, wanted):
    with pytest.raises(CheckpointError, match=f"refers to {wanted}"):
        read_pickle(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or not a pickle"),
        (b"\x80\x04what is this", "damaged or not a pickle"),
        (pickle.dumps([np.ones(2)]), "does not contain a mapping"),
        (pickle.dumps({"w": np.ones(200)})[:-300], "damaged or not a pickle"),
        (pickle.dumps({"w": np.ones(3)}).replace(b"K\x03\x85", b"K\x04\x85"), "damaged or not a pickle"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read_pickle(written(tmp_path, content))


@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_be_refused(tmp_path_factory, content):
    path = written(tmp_path_factory.mktemp("bytes"), b"\x80\x04" + content)
    with suppress(CheckpointError):
        read_pickle(path)
