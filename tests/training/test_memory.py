from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from ernie2.config.settings import EncoderSettings
from ernie2.errors import ConfigError
from ernie2.training import memory
from ernie2.training.memory import SETTLING_STEPS, FreedMemory, check_memory, estimate, peak_bytes

BASE = EncoderSettings()  # 12 layers, 768 wide, 3,072 in the feed-forward layer


def test_parameters_gradients_and_two_moments_take_four_bytes_each():
    memory = estimate(BASE, 110_000_000, 512, "fp32", activation_checkpointing=False)
    assert (memory.parameters, memory.gradients, memory.optimizer) == (440_000_000, 440_000_000, 880_000_000)
    assert memory.total == 1_760_000_000 + memory.activations


def test_a_token_keeps_34_bytes_times_hidden_in_every_layer_and_four_more_for_norms_in_fp32():
    # per element of width 768: norms 4 x 2, six halves of matrices 12, feed-forward 2 x 4 x 2 = 16, masks 2 -> 38
    assert estimate(BASE, 0, 1, "bf16", activation_checkpointing=False).activations == 12 * 38 * 768
    # in fp32: 8 + 24 + 32 + 2 = 66
    assert estimate(BASE, 0, 1, "fp32", activation_checkpointing=False).activations == 12 * 66 * 768


def test_attention_weights_take_two_bytes_a_head_and_pair_of_tokens_in_bf16_if_they_are_stored():
    without, kept = (estimate(BASE, 0, 512, "bf16", False, longest).activations for longest in (0, 512))
    assert kept - without == 12 * 12 * 512 * 512 * 2  # layers, heads, pairs of one sequence of 512


def test_computing_layers_again_keeps_their_inputs_and_one_layer():
    assert estimate(BASE, 0, 10, "bf16", activation_checkpointing=True).activations == 10 * (12 * 4 * 768 + 38 * 768)


def test_a_recurrent_layer_keeps_its_gates():
    recurrent = EncoderSettings(kind="lstm", layers=2, hidden=64)
    assert estimate(recurrent, 0, 1, "bf16", activation_checkpointing=False).activations == 2 * 4 * 8 * 64


def test_the_peak_of_this_process_is_at_least_what_was_just_used():
    pytest.importorskip("resource")
    held = torch.ones(40_000_000)
    assert (peak_bytes(torch.device("cpu")) or 0) > held.numel() * 4


def test_a_model_larger_than_the_machine_is_refused_before_it_is_built(monkeypatch):
    # 12 layers of 12 x 768 x 768, 532 rows of positions, segments and task ids and 30,000 words of 768: 108 million
    assert BASE.parameters + 30_000 * 768 == 12 * 12 * 768 * 768 + 30_532 * 768 == 108_383_232
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 * 2**30)
    check_memory(BASE, 30_000, torch.device("cpu"))
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**30)
    with pytest.raises(
        ConfigError, match=r"about 0\.1 billion parameters need 2 GiB of memory, and this machine has 1"
    ):
        check_memory(BASE, 30_000, torch.device("cpu"))
    check_memory(BASE, 30_000, torch.device("cuda"))


PROGRAM = """
import os, resource
import torch
from ernie2.training import memory

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(12 << 20) for _ in range(3)]  # 48 MiB each: beyond what glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

freed_memory = memory.reuse_freed_memory(torch.device(DEVICE))
"""
FAULTS = """
for _ in range(8):  # the heap grows until every request finds a place
    faults = step()
    freed_memory.trim_if_grown()
print(freed_memory._libc is not None, faults)
"""
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")


def _run(program: str, device: str, **settings: str) -> tuple[str, float]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("DEVICE", repr(device)) + program],
        env=kept | {"OMP_NUM_THREADS": "1"} | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    reported, figure = done.stdout.split()
    return reported, float(figure)


@GLIBC
def test_a_step_on_a_cpu_faults_no_pages_that_the_step_before_had() -> None:
    kept, faults = _run(FAULTS, "cpu")
    assert kept == "True"
    assert faults < 10_000  # 3 · 48 MiB are 36,864 pages of 4 KiB; the C library keeps some corners for itself


@pytest.mark.parametrize(
    ("device", "settings"),
    [
        ("cuda", {}),
        ("cpu", {"MALLOC_TRIM_THRESHOLD_": "131072"}),
        ("cpu", {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}),
    ],
)
def test_nothing_is_set_beside_a_gpu_or_over_settings_of_the_user(device: str, settings: dict[str, str]) -> None:
    assert _run(FAULTS, device, **settings)[0] == "False"


class FakeLibc:
    """A heap that grows by 100 bytes a step and falls to 1,000 when it is trimmed."""

    def __init__(self) -> None:
        self.held, self.trims = 1000, 0

    def step(self) -> None:
        self.held += 100

    def malloc_trim(self, _: int) -> None:
        self.held, self.trims = 1000, self.trims + 1


def test_freed_memory_is_released_after_growing_by_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = FakeLibc()
    monkeypatch.setattr(memory, "_resident_bytes", lambda: libc.held)
    freed_memory, most, trimmed = FreedMemory(libc), 0, []
    for step in range(1, 41):
        libc.step()
        most = max(most, libc.held)
        before = libc.trims
        freed_memory.trim_if_grown()
        if libc.trims > before:
            trimmed.append(step)
    # the first 8 steps hold at most 1,800: a quarter more is 2,250, which step 13 passes with 2,300
    assert SETTLING_STEPS == 8
    assert trimmed == [13, 26, 39]
    assert most == 2300


def test_memory_that_does_not_grow_is_never_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = FakeLibc()
    monkeypatch.setattr(memory, "_resident_bytes", lambda: libc.held)
    freed_memory = FreedMemory(libc)
    for _ in range(100):
        freed_memory.trim_if_grown()
    assert libc.trims == 0


def test_without_retained_memory_a_step_does_nothing() -> None:
    assert FreedMemory()._libc is None
    FreedMemory().trim_if_grown()


@pytest.mark.parametrize(
    ("settings", "capacity"),
    [({}, "128"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7"), ({"DNNL_PRIMITIVE_CACHE_CAPACITY": "7"}, None)],
)
def test_onednn_keeps_few_kernels_unless_the_user_says_how_many(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], capacity: str | None
) -> None:
    import torch

    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_PERTURB_", "0")  # leaves the allocator of this process alone
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    memory.reuse_freed_memory(torch.device("cuda"))
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == settings.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    memory.reuse_freed_memory(torch.device("cpu"))
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == capacity
