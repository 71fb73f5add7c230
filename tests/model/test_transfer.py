"""Arrays to a device and back: the same values, one copy each way; a copy in memory replaces the GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from ernie2.model import transfer
from ernie2.model.transfer import to_device, to_host

dtypes = st.sampled_from([np.int32, np.int64, np.float32, np.bool_])
arrays = dtypes.flatmap(lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(max_dims=3, min_side=0)))


class Copied(list):
    """Stands for the copy to a card: keeps what was copied."""

    def __call__(self, host, device):
        self.append(host)
        return host.clone()


@pytest.fixture
def copies(monkeypatch):
    made = Copied()
    monkeypatch.setattr(transfer, "_copy_async", made)
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(arrays, min_size=1, max_size=5))
def test_arrays_come_over_with_values_shapes_and_dtypes_in_one_copy(copies, given_arrays):
    copies.clear()
    there = to_device(given_arrays, "cuda")
    assert len(copies) == 1
    for tensor, array in zip(there, given_arrays, strict=True):
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.storage_offset() * tensor.element_size() % 16 == 0


def test_a_cpu_copies_nothing():
    array = np.arange(5)
    (tensor,) = to_device([array], "cpu")
    array[0] = 7
    assert tensor[0] == 7
    assert to_host([tensor])[0][0] == 7


@given(st.lists(arrays, min_size=1, max_size=5))
def test_the_bytes_of_tensors_become_arrays_again(given_arrays):
    tensors = [torch.from_numpy(array) for array in given_arrays]
    joined = np.concatenate([array.reshape(-1).view(np.uint8) for array in given_arrays])
    for array, expected in zip(transfer._split_bytes(joined, tensors), given_arrays, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
