"""Files of torch.save: every tensor comes back bit for bit, none beyond the bytes that are there."""

from __future__ import annotations

import pickle
import resource
import zipfile
from collections import OrderedDict

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from ernie2.errors import CheckpointError
from ernie2.model.formats.torch_files import read_torch_file

KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
         torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn]  # fmt: skip


def saved(folder, content, *, zipped=True):
    path = folder / "pytorch_model.bin"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def bytes_of(tensor):
    # a copy: a tensor of one element counts as contiguous whatever its strides are
    return tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def repacked(path, change=lambda name, content: content, **options):
    """The archive again, its entries changed by `change(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        entries = {one.filename: archive.read(one) for one in archive.infolist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))
    return path


@given(
    kind=st.sampled_from(KINDS),
    shape=st.lists(st.integers(0, 4), max_size=3),
    turned=st.booleans(),
    zipped=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_tensor_comes_back_as_torch_itself_reads_it(tmp_path_factory, kind, shape, turned, zipped, seed):
    if kind == torch.float8_e4m3fn:
        zipped = True  # the older form does not know it
    values = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(kind)
    tensor = values.transpose(0, -1) if turned and values.ndim > 1 else values
    path = saved(
        tmp_path_factory.mktemp("torch"), {"a": tensor, "b": tensor[:1] if tensor.ndim else tensor}, zipped=zipped
    )
    read, others = read_torch_file(path)
    theirs = torch.load(path, weights_only=True)
    assert others == ()
    for name, wanted in theirs.items():
        assert (read[name].dtype, read[name].shape) == (wanted.dtype, wanted.shape)
        assert torch.equal(bytes_of(read[name]), bytes_of(wanted)), name


@pytest.mark.parametrize("zipped", [True, False])
def test_a_module_with_parameters_and_tied_tables_is_read(tmp_path, zipped):
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    module[1].weight = nn.Parameter(module[0].weight)
    content = OrderedDict(module.state_dict(), step=np.float64(3), extra=nn.Parameter(torch.ones(2)))
    read, others = read_torch_file(saved(tmp_path, content, zipped=zipped))
    assert others == ("step",)
    assert torch.equal(read["1.weight"], module[0].weight)
    assert torch.equal(read["extra"], torch.ones(2))


def test_a_nested_state_dict_is_read_without_the_optimiser(tmp_path):
    inner = {"module.bert.embeddings.word_embeddings.weight": torch.ones(2, 3)}
    read, others = read_torch_file(saved(tmp_path, {"model": inner, "optimizer": {"m": torch.ones(9)}, "epoch": 2}))
    assert (list(read), others) == (list(inner), ("optimizer", "epoch"))


def test_several_models_in_one_file_are_refused_by_name(tmp_path):
    inner = {"embeddings.word_embeddings.weight": torch.ones(2, 3)}
    with pytest.raises(CheckpointError, match="contains several models, under 'model', 'ema'"):
        read_torch_file(saved(tmp_path, {"model": inner, "ema": dict(inner)}))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("sizes", "strides"), [((10**9, 32), (0, 1)), ((3, 4), (2, 1)), ((2, 2), (1, 1))], ids=["row", "overlap", "same"]
)
def test_a_table_that_repeats_its_numbers_is_refused(tmp_path, sizes, strides, zipped):
    table = torch.ones(64).as_strided(sizes, strides)
    with pytest.raises(CheckpointError, match=r"bin: w of shape .* has overlapping elements"):
        read_torch_file(saved(tmp_path, {"w": table}, zipped=zipped))


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(40, 3)})
    repacked(path, lambda name, content: content.replace(b"K(K\x03\x86", b"K\xffK\x03\x86"))
    with pytest.raises(CheckpointError, match=r"w of shape \(255, 3\) is larger than its 480 bytes"):
        read_torch_file(path)


def test_a_storage_that_is_shorter_than_said_is_refused(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(40, 3)})
    repacked(path, lambda name, content: content[:100] if "/data/" in name else content)
    with pytest.raises(CheckpointError, match="w needs 480 bytes and has 100"):
        read_torch_file(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    path = saved(tmp_path, {"w": torch.zeros(1_000_000)})
    repacked(path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"is a compressed archive .*which torch never writes"):
        read_torch_file(path)


def test_a_flipped_bit_is_seen(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(40, 3)})
    content = bytearray(path.read_bytes())
    content[content.index(b"\x00\x00\x80?\x00\x00\x80?") + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or not written by torch: Bad CRC-32"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, device="meta"), "w was saved without values"),
        (torch.eye(3).to_sparse(), "w is sparse"),
    ],
)
def test_unsupported_tensors_are_refused_by_name(tmp_path, tensor, message):
    with pytest.raises(CheckpointError, match=message):
        read_torch_file(saved(tmp_path, {"w": tensor}))


def test_a_zip_that_is_none_of_torchs_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"zip archive without data\.pkl"):
        read_torch_file(path)


def test_a_storage_the_older_form_overstates_is_refused(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(40)}, zipped=False)
    content = path.read_bytes()
    path.write_bytes(content.replace((40).to_bytes(8, "little"), (10**12).to_bytes(8, "little")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="does not have its declared length"):
        read_torch_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@given(st.binary(max_size=80), st.booleans())
def test_no_bytes_do_worse_than_be_refused(tmp_path_factory, content, zipped):
    path = tmp_path_factory.mktemp("bytes") / "x.bin"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02" + content)
    else:
        path.write_bytes(pickle.dumps(1) + content)
    with pytest.raises(CheckpointError):
        read_torch_file(path)
