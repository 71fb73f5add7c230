"""Environment of a run for run.json: machine, libraries, commits, versions of its rules."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ernie2.errors import CheckpointError
from ernie2.model.attention.fused import active_flash
from ernie2.processes import cores
from ernie2.version import __version__

PACKAGES = (
    "numpy",
    "safetensors",
    "tokenizers",
    "datatrove",
    "pyarrow",
    "pydantic",
    "fsspec",
    "rjieba",
    "scipy",
    "sentencex",
    "ahocorasick-rs",
    "transformers",
    "triton",
    "spacy",
)
"""Libraries that affect batches, training or metrics; those not installed are left out."""


def versions() -> dict[str, str]:
    """Return the versions of ernie2, Python, PyTorch and the installed libraries of `PACKAGES`."""
    installed = {"ernie2": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def environment() -> dict[str, Any]:
    """Return the machine of this process and settings that affect numbers or speed."""
    cuda = torch.cuda.is_available()
    return {
        "host": socket.gethostname(),
        "os": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": machine_memory(),
        "cuda": torch.version.cuda if cuda else None,
        "flash_attention": active_flash(),
        "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if cuda else [],
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
        "package_git": git_state(Path(__file__).parent),
    }


def git_state(folder: Path | None = None) -> str | None:
    """Return the commit of `folder` (default: working directory), "+changes" if it has any; None outside git."""
    command = ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            named = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()


def machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


# Raise SAMPLING if the same recipe, shards, seed and position give other batches: a change to batches/, to arranging or
# labelling, or to random draws. 1 was 0.1.0, which recorded none and drew corpora by instances; 2 draws them by tokens.
SAMPLING = 2
# Raise NUMERICS if the same batches give other parameters: a change to initialisation, forward pass, losses,
# dropout, optimiser or learning rate schedule. 1 was 0.1.0.
NUMERICS = 3


def rules() -> dict[str, int]:
    """Return `rules` of run.json."""
    return {"sampling": SAMPLING, "numerics": NUMERICS}


def same_sampling(theirs: Mapping[str, int] | None) -> bool:
    """Return whether a run with these rules sampled instances as this version does."""
    return (theirs or {}).get("sampling") == SAMPLING


def check_rules(theirs: Any, where: str | Path) -> None:
    """Raise `CheckpointError` if a run started with other rules; `theirs` is None if it recorded none."""
    if theirs != rules():
        raise CheckpointError(
            f"{where} started under other rules ({_format_rules(theirs)}; this version has {_format_rules(rules())}), "
            "so it cannot be continued. Start a new run in another folder; --init-from RUN/hf starts from a finished "
            "run's parameters."
        )


def _format_rules(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return "it records none, as 0.1.0 did"
    return ", ".join(f"{name} {versions.get(name)}" for name in rules())
