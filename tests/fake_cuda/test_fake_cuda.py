"""Runs the files of checks with the do-nothing CUDA device of `guard.cpp`: the CUDA path without a card."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

import ranks

HERE = Path(__file__).parent
WITH_GUARD = (
    "import ctypes, sys; ctypes.CDLL(sys.argv.pop(1), mode=ctypes.RTLD_GLOBAL); import pytest; sys.exit(pytest.main())"
)

pytestmark = [
    pytest.mark.fake_cuda,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which builds the CUDA device that does nothing"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, whose guard cannot be replaced"),
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """The library of `guard.cpp`."""
    built = tmp_path_factory.mktemp("guard") / "guard.so"
    lib = Path(torch.__file__).parent / "lib"
    libraries = [f"-L{lib}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{lib}"]
    includes = [f"-I{folder}" for folder in include_paths()]
    command = ["g++", "-O0", "-shared", "-fPIC", "-std=c++20", *includes, HERE / "guard.cpp", "-o", built, *libraries]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


@pytest.mark.slow
def test_the_cuda_path_does_not_synchronise_or_mix_devices(guard, tmp_path):
    run_checks(guard, [HERE / "checks.py", HERE / "finetuning_checks.py"], FAKE_CUDA_FOLDER=str(tmp_path))


def test_a_step_with_the_most_tasks_does_not_synchronise(guard, tmp_path):
    chosen = ["-k", "every_task_set and sentence_distance-with-knowledge_masking-capitalization"]
    folders = {"FAKE_CUDA_FOLDER": str(tmp_path), "FAKE_CUDA_RECIPES": "all-seven"}
    assert "1 passed" in run_checks(guard, [HERE / "checks.py", *chosen], **folders)


def run_checks(guard, arguments, **variables):
    """What pytest prints for `arguments` in a process with the guard; fails where a check does."""
    command = [sys.executable, "-c", WITH_GUARD, guard, "--tb=short", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, env=ranks.environment(**variables), cwd=HERE.parent.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout
