"""Freed memory is kept for the next step where the C library can, within a bound; the user's own settings win."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from ernie2.training import allocator
from ernie2.training.allocator import SETTLING_STEPS, FreedMemory

PROGRAM = """
import os, resource
import torch
from ernie2.training import allocator

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(12 << 20) for _ in range(3)]  # 48 MiB each: beyond what glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

freed_memory = allocator.reuse_freed_memory(torch.device(DEVICE))
"""
FAULTS = """
for _ in range(8):  # the heap grows until every request finds a place
    faults = step()
    freed_memory.trim_if_grown()
print(freed_memory.kept, faults)
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


def test_freed_memory_is_given_back_where_it_has_grown_by_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = FakeLibc()
    monkeypatch.setattr(allocator, "_resident_bytes", lambda: libc.held)
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
    monkeypatch.setattr(allocator, "_resident_bytes", lambda: libc.held)
    freed_memory = FreedMemory(libc)
    for _ in range(100):
        freed_memory.trim_if_grown()
    assert libc.trims == 0


def test_without_kept_memory_a_step_does_nothing() -> None:
    assert not FreedMemory().kept
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
    allocator.reuse_freed_memory(torch.device("cuda"))
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == settings.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    allocator.reuse_freed_memory(torch.device("cpu"))
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == capacity
