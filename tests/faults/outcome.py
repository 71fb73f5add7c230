"""What became of a case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from faults.children import Ended

Verdict = Literal["passed", "silent", "traceback", "hang", "left behind"]


@dataclass(frozen=True)
class Outcome:
    """The verdict on one case."""

    kind: str
    label: str
    """What was done, exactly enough to do it again by hand."""
    verdict: Verdict
    detail: str = ""


def judge(kind: str, label: str, ended: Ended) -> Outcome | None:
    """The outcome that follows from how a command ended; None where that alone is not a fault."""
    if ended.hung:
        return Outcome(kind, label, "hang", _tail(ended.output))
    if ended.traceback:
        return Outcome(kind, label, "traceback", _tail(ended.output, 12))
    if ended.left:
        return Outcome(kind, label, "left behind", "; ".join(ended.left))
    return None


def _tail(text: str, lines: int = 4) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])[-1500:]
