"""The advice to install an extra works in a checkout and names an extra that there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ernie2.extras import install_advice

ROOT = Path(__file__).parents[1]


def test_the_advice_installs_from_the_checkout() -> None:
    assert install_advice("onnx") == "in the ernie2 checkout run `pip install -c constraints.txt -e '.[onnx]'`"


def test_every_extra_that_is_advised_is_declared() -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src" / "ernie2").rglob("*.py"))
    advised = set(re.findall(r"install_advice\(['\"](\w+)['\"]\)", source))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert advised == {"onnx", "spacy", "zh"}
    assert advised <= set(declared)
