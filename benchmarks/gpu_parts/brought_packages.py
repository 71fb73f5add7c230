"""Which packages a pack for a bare machine brings, and which the machine must have: from the project's metadata.

    python benchmarks/gpu_parts/brought_packages.py PYTHON_VERSION NEEDS

prints a requirement a line for every wheel to bring, with the version of constraints.txt, and writes to the file NEEDS
the version of Python and what it must have on the machine. Run it where the project's dependencies are installed.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ON_THE_MACHINE = (
    "torch",
    "transformers",
    "pytest",
    "hypothesis",
    "tokenizers",
    "scikit-learn",
    "scipy",
    "pyarrow",
    "typer",
    "rich",
    "jinja2",
)
"""What the machine must have: large, or bound to its CUDA. The packages that these need are there with them."""
BROUGHT_ANYWAY = ("pydantic",)
"""The newest transformers need it, older ones do not."""


def packages(python: str) -> tuple[list[str], list[str]]:
    """Requirements of the wheels to bring to a machine with Python `python`, and requirements of that machine.

    Brought is what the project's dependencies need, but for what the machine has. Extras of a dependency, such as
    those of datatrove, are left out: they serve readers that no part of a GPU run calls. The machine's requirements
    have the project's own ranges.
    """
    direct, tests = ([Requirement(each) for each in requirements] for requirements in declared())
    there = closure(map(Requirement, ON_THE_MACHINE), python).keys() - closure(map(Requirement, BROUGHT_ANYWAY), python)
    brought = closure(direct, python).keys() - there
    wanted = [each for each in [*direct, *tests] if canonicalize_name(each.name) in ON_THE_MACHINE]
    needs = {canonicalize_name(each.name): "" for name in brought for each in required(name, python)}
    needs |= {canonicalize_name(each.name): str(each.specifier) for each in [*wanted, *direct]}
    pins = pinned()
    return [pins.get(name, name) for name in sorted(brought)], [n + needs[n] for n in sorted(needs.keys() - brought)]


def declared() -> tuple[list[str], list[str]]:
    """The dependencies that pyproject.toml declares, and those of development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project["optional-dependencies"]["dev"]


def closure(roots: Iterable[Requirement], python: str) -> Mapping[str, Requirement]:
    """The packages of `roots` and all that they need, by canonical name; extras are left out."""
    found: dict[str, Requirement] = {}
    left = list(roots)
    while left:
        each = left.pop()
        name = canonicalize_name(each.name)
        if name not in found:
            found[name] = each
            left += required(name, python)
    return found


def required(name: str, python: str) -> list[Requirement]:
    """What the installed package `name` needs on Linux x86-64 with CPython `python`, extras left out."""
    target = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "extra": "",
    }
    every = map(Requirement, metadata.requires(name) or [])
    return [each for each in every if each.marker is None or each.marker.evaluate(target)]


def pinned() -> dict[str, str]:
    """`NAME==VERSION` of every package in constraints.txt, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]): line for line in lines if "==" in line}


def main() -> None:
    """Writes both lists."""
    python, needs_file = sys.argv[1:]
    try:
        brought, needs = packages(python)
    except metadata.PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed in {sys.executable}; run `make setup`, or name another with PYTHON=…")
    Path(needs_file).write_text("\n".join([python, *needs]) + "\n", encoding="utf-8")
    print("\n".join(brought))


if __name__ == "__main__":
    main()
