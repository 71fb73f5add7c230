"""Sinks: the lines of metrics.jsonl, sent on to TensorBoard or Weights & Biases as they are written.

metrics.jsonl stays the truth; a sink is a view of it for those who watch many runs. The libraries are imported only
where a recipe names them. A sink that fails is left out from there on and said so once: it never ends a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ernie2.errors import ConfigError, install_advice
from ernie2.training.hooks.base import Hook, OpenRun
from ernie2.training.run_record import read_run

FOLDER = "tensorboard"
"""Where in a run folder TensorBoard's files go: `tensorboard --logdir RUN`."""


def check_trackers(names: Sequence[str]) -> None:
    """Raises `ConfigError` where a package that a sink needs is not installed, before any work is done."""
    for name in names:  # that of the package, and of the extra that installs it
        try:
            found = find_spec(name) is not None
        except ValueError:  # a module put into sys.modules by hand has no spec
            found = True
        if not found:
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
    """The numbers of a line by path: {"kind": "step", "loss": {"a": 2.0}} → {"step/loss/a": 2.0}."""
    rest = {key: value for key, value in line.items() if key not in ("kind", "step")}
    return dict(_numbers(str(line.get("kind", "line")), rest))


def _numbers(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{path}/{key}", inner)
    elif isinstance(value, int | float):
        yield path, float(value)


class TensorBoard(Hook):
    """Event files in RUN/tensorboard; what an earlier part of the run wrote beyond its checkpoint is hidden."""

    name = "sink tensorboard"

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
    """One run of W&B a run folder, taken up again when the run is; project and entity are W&B's own environment."""

    name = "sink wandb"

    def open(self, run: OpenRun) -> None:
        import wandb

        record = read_run(run.folder)
        identity = f"{record.name}-{record.created}".translate(str.maketrans(":+", "--"))
        config = record.model_dump(include={"recipe", "versions", "git", "device", "precision", "parameters"})
        self._run = wandb.init(
            name=record.name, id=identity, resume="allow", dir=str(run.folder), config=config, notes=record.about
        )

    def on_line(self, line: Mapping[str, Any]) -> None:
        # W&B itself leaves out lines of steps it has already, after a resume
        self._run.log(scalars(line), step=int(line.get("step", 0)))

    def close(self) -> None:
        self._run.finish()
