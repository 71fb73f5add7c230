"""Trackers: send the lines of metrics.jsonl to TensorBoard or Weights & Biases as they are written.

metrics.jsonl is the authoritative record. The libraries are imported only if a recipe names them. A tracker that fails
is reported once and removed; it never ends a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ernie2.errors import ConfigError, install_advice
from ernie2.training.hooks.base import Hook, OpenRun
from ernie2.training.run_record import read_run

FOLDER = "tensorboard"
"""Folder of TensorBoard's files in a run folder: `tensorboard --logdir RUN`."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise `ConfigError` if the package of a tracker is not installed, before any work is done."""
    for name in names:  # of the tracker, its package, and the extra that installs it
        try:
            installed = find_spec(name) is not None
        except ValueError:  # a module added to sys.modules by hand has no spec
            installed = True
        if not installed:
            raise ConfigError(
                f"train.trackers names {name}, whose package is not installed: {install_advice(name)}, or "
                "remove it from train.trackers."
            )


def trackers(names: Sequence[str]) -> list[Hook]:
    """Return the trackers of a run by name; raises `ConfigError` like `check_trackers`."""
    check_trackers(names)
    classes: dict[str, type[Hook]] = {"tensorboard": TensorBoard, "wandb": WandB}
    return [classes[name]() for name in names]


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line by path: {"kind": "step", "loss": {"a": 2.0}} → {"step/loss/a": 2.0}."""
    rest = {key: value for key, value in line.items() if key not in ("kind", "step")}
    return dict(_numbers(str(line.get("kind", "line")), rest))


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{path}/{key}", inner)
    elif isinstance(value, int | float):
        yield path, float(value)


class TensorBoard(Hook):
    """Writes event files in RUN/tensorboard; events after the checkpoint of a resumed run are hidden."""

    name = "tracker tensorboard"

    def open(self, run: OpenRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / FOLDER), purge_step=run.step + 1 if run.step else None)
        if not run.step:
            self._writer.add_text("recipe", f"```\n{read_run(run.folder).recipe}\n```")

    def on_line(self, line: Mapping[str, Any]) -> None:
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, int(line.get("step", 0)))

    def close(self) -> None:
        self._writer.close()


class WandB(Hook):
    """One W&B run per run folder, resumed with it; project and entity come from W&B's environment variables."""

    name = "tracker wandb"

    def open(self, run: OpenRun) -> None:
        import wandb

        record = read_run(run.folder)
        identity = f"{record.name}-{record.created}".translate(str.maketrans(":+", "--"))
        config = record.model_dump(include={"recipe", "versions", "git", "device", "precision", "parameters"})
        self._run = wandb.init(
            name=record.name, id=identity, resume="allow", dir=str(run.folder), config=config, notes=record.about
        )

    def on_line(self, line: Mapping[str, Any]) -> None:
        # after a resume, W&B ignores lines of steps it already has
        self._run.log(scalars(line), step=int(line.get("step", 0)))

    def close(self) -> None:
        self._run.finish()
