"""The package `ernie2`: lazy functions, and a single version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ernie2

HEAVY = ("torch", "numpy", "sklearn", "transformers", "pydantic", "yaml", "pyarrow")


def loaded_after(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after `code`."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*[m for m in {HEAVY} if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


def test_importing_the_package_imports_no_library() -> None:
    assert loaded_after("import ernie2; ernie2.__version__; dir(ernie2)") == set()


def test_every_verb_is_there_and_has_a_docstring() -> None:
    for name in set(ernie2.__all__) - {"__version__"}:
        assert callable(getattr(ernie2, name))
        assert getattr(ernie2, name).__doc__
        assert name in dir(ernie2)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'pretrian'"):
        _ = ernie2.pretrian  # type: ignore[attr-defined]


def test_no_module_has_the_name_of_a_verb() -> None:
    # importing a submodule would put the module in the place of the function
    modules = {path.stem for path in Path(ernie2.__file__).parent.iterdir()}
    assert not modules & set(ernie2.__all__)
