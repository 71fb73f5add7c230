"""What to say of a run whose figures or parameters are used before it is finished."""

from __future__ import annotations

from pathlib import Path

from ernie2.storage.locks import owner_of
from ernie2.training.records import read_run


def unfinished_note(source: Path, checkpoint: str | Path) -> str | None:
    """Return the note on a run that is not finished; None for a finished run and for whatever is no run.

    `checkpoint` is the folder in RUN/checkpoints that was read.
    """
    if not (source / "run.json").exists():
        return None
    facts = read_run(source)
    if facts["status"] == "done":
        return None
    step, planned = int(Path(checkpoint).name.removeprefix("step_")), sum(stage["steps"] for stage in facts["stages"])
    if (owner := owner_of(source)) is not None:
        state, then = f"in use by {owner}, saved at step {step:,} of {planned:,}", "wait for it"
    else:
        state, then = f"stopped at step {step:,} of {planned:,}", f"`ernie2 resume {source}` finishes it"
    return f"Note: {source} is not finished ({state}): what follows is of its last checkpoint; {then}."
