"""Freed memory is kept for the next step where the C library can, and the user's own settings win."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from ernie2.train.allocator import reuse_freed_memory

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(12 << 20) for _ in range(3)]  # 48 MiB each: beyond what glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

told = reuse_freed_memory(torch.device(DEVICE))
for _ in range(8):  # the heap grows until every request finds a place
    faults = step()
print(told, faults)
"""


def _faults(device: str, **settings: str) -> tuple[str, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("DEVICE", repr(device))],
        env=kept | {"OMP_NUM_THREADS": "1"} | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    told, faults = done.stdout.split()
    return told, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_step_on_a_cpu_faults_no_pages_that_the_step_before_had() -> None:
    told, faults = _faults("cpu")
    assert told == "True"
    assert faults < 1_000  # 3 · 48 MiB are 36,864 pages of 4 KiB


@pytest.mark.parametrize(
    ("device", "settings"),
    [
        ("cuda", {}),
        ("cpu", {"MALLOC_TRIM_THRESHOLD_": "131072"}),
        ("cpu", {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}),
    ],
)
def test_nothing_is_set_beside_a_gpu_or_over_settings_of_the_user(device: str, settings: dict[str, str]) -> None:
    assert _faults(device, **settings)[0] == "False"
