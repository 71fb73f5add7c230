"""Lines of results.jsonl, each with the id of its `gpu_run.py` call."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie2.storage.line_files import append_line

NAME = "results.jsonl"


@dataclass(frozen=True)
class Results:
    """Writer of results.jsonl in folder `out` for the call `call`."""

    out: Path
    call: str

    def note(self, part: str, what: str, **facts: Any) -> None:
        """Append one line with `facts`, synced to disk, and print it shortened."""
        about = {"call": self.call, "part": part, "what": what, "at": round(time.time(), 1)}
        line = json.loads(json.dumps({**about, **facts}, default=str))
        append_line(self.out / NAME, line)
        print(json.dumps(line)[:300], flush=True)
