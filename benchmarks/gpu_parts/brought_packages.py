"""List the packages to bundle for an offline machine, and those it must have, from the project's metadata.

    python benchmarks/gpu_parts/brought_packages.py PYTHON_VERSION NEEDS

Prints one requirement per wheel to bundle, with the version of constraints.txt. Writes the Python version and the
requirements of the machine to the file NEEDS. Run it in an environment with the project's dependencies.
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
"""Packages the machine must have, large or bound to its CUDA; their dependencies are then installed as well."""
BROUGHT_ANYWAY = ("pydantic",)
"""Required by the newest transformers, not by older ones."""


def packages(python: str) -> tuple[list[str], list[str]]:
    """Return the requirements of the wheels to bundle for Python `python`, and the requirements of the machine.

    The wheels are the dependencies of the project without those of the machine. Extras of a dependency, such as
    datatrove's, are left out: no part of a GPU run uses those readers. The machine's requirements have the version
    ranges of the project.
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
    """Return the dependencies in pyproject.toml, and those for development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project["optional-dependencies"]["dev"]


def closure(roots: Iterable[Requirement], python: str) -> Mapping[str, Requirement]:
    """Return `roots` and their transitive dependencies by canonical name, without extras."""
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
    """Return the requirements of the installed package `name` on Linux x86-64 with CPython `python`, without extras."""
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
    """Return `NAME==VERSION` of every package in constraints.txt, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]): line for line in lines if "==" in line}


def main() -> None:
    """Write both lists."""
    python, needs_file = sys.argv[1:]
    try:
        brought, needs = packages(python)
    except metadata.PackageNotFoundError as error:
        sys.exit(
            f"{error.name} is not installed in {sys.executable}. Run `make setup`, or set PYTHON to another Python"
        )
    Path(needs_file).write_text("\n".join([python, *needs]) + "\n", encoding="utf-8")
    print("\n".join(brought))


if __name__ == "__main__":
    main()
