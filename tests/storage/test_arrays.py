"""Tensors come back as they were, and a full disk is an error of the disk."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ernie2.errors import StorageError
from ernie2.storage.arrays import save_tensors
from ernie2.storage.atomic import staged_files


def test_tensors_come_back_bit_for_bit_in_a_file_that_others_may_read(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    (tmp_path / "usual").touch()
    with staged_files(tmp_path, ("w.safetensors",)) as staging:
        save_tensors(staging / "w.safetensors", {"a": weight.t()}, {"format": "pt"})
    assert torch.equal(load_file(tmp_path / "w.safetensors")["a"], weight.detach().t())
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 1,000 bytes: the kernel refuses as a full disk does."""
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_raises_a_storage_error(tmp_path: Path, small_files: None) -> None:
    message = r"w\.safetensors cannot be written: .*File too large"
    with pytest.raises(StorageError, match=message), staged_files(tmp_path, ("w.safetensors",)) as staging:
        save_tensors(staging / "w.safetensors", {"a": torch.zeros(1_000)})
    assert list(tmp_path.iterdir()) == []
