"""How to install an optional dependency of ernie2."""

from __future__ import annotations


def install_advice(extra: str) -> str:
    """Return the command that installs `extra`, and where to run it: the package is not on PyPI."""
    return f"in the ernie2 checkout run `pip install -c constraints.txt -e '.[{extra}]'`"
