"""Versions of the rules a run follows: a run is continued only under the rules it began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError

# Raise SAMPLING when the same recipe, shards, seed and position would give other batches: a change to batches/, to how
# a task arranges or labels, or to what is drawn at random. 1 was 0.1.0, which recorded none and drew corpora by
# instances; 2 draws them by tokens.
SAMPLING = 2
# Raise NUMERICS when the same batches would give other parameters: a change to initialisation, forward pass, losses,
# dropout, optimiser or learning rate schedule. 1 was 0.1.0.
NUMERICS = 3


def rules() -> dict[str, int]:
    """Return what run.json records under `rules`."""
    return {"sampling": SAMPLING, "numerics": NUMERICS}


def same_sampling(facts: Mapping[str, Any]) -> bool:
    """Return whether the run that `facts` describe drew its instances as this version does."""
    return (facts.get("rules") or {}).get("sampling") == SAMPLING


def check_rules(facts: Mapping[str, Any], where: str | Path) -> None:
    """Raise `CheckpointError` where the run that `facts` describe began under other rules than this version's."""
    if (theirs := facts.get("rules")) != rules():
        raise CheckpointError(
            f"{where} began under other rules ({_written(theirs)}; this version has {_written(rules())}), so it cannot "
            "be continued. Start a new run in another folder; --init-from RUN/hf takes a finished run's parameters."
        )


def _written(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return "it records none, as 0.1.0 did"
    return ", ".join(f"{name} {versions.get(name)}" for name in rules())
