"""Sinks: the lines of metrics.jsonl, sent on to TensorBoard or Weights & Biases as they are written.

metrics.jsonl stays the truth; a sink is a view of it for those who watch many runs. The libraries are imported only
where a recipe names them. A sink that fails is left out from there on and said so once: it never ends a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ernie2.console import say
from ernie2.errors import ConfigError
from ernie2.extras import install_advice
from ernie2.training.run_record import RunRecord

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""The package each sink needs; also the name of the extra that installs it."""
FOLDER = "tensorboard"
"""Where in a run folder TensorBoard's files go: `tensorboard --logdir RUN`."""


class Sink(Protocol):
    """Takes lines of metrics.jsonl, one after the other, and is closed at the end."""

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Takes the line written after `step` steps."""

    def close(self) -> None:
        """Sends what is still waiting."""


def check_sinks(names: Sequence[str]) -> None:
    """Raises `ConfigError` where a package that a sink needs is not installed, before any work is done."""
    for name in names:
        try:
            found = find_spec(PACKAGES[name]) is not None
        except ValueError:  # a module put into sys.modules by hand has no spec
            found = True
        if not found:
            raise ConfigError(
                f"train.sinks names {name}, whose package is not installed: {install_advice(name)}, or "
                "remove it from train.sinks."
            )


def open_sinks(names: Sequence[str], run: Path, record: RunRecord, step: int) -> list[Sink]:
    """The sinks of a run that goes on after `step` steps."""
    made: dict[str, Callable[[Path, RunRecord, int], Sink]] = {"tensorboard": TensorBoard, "wandb": WandB}
    check_sinks(names)
    return [Guarded(name, made[name](run, record, step)) for name in names]


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


class Guarded:
    """A sink whose failures are said once and then end it, and nothing else."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.name = name
        self._sink: Sink | None = sink

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Passes a line on."""
        if self._sink is not None:
            try:
                self._sink.write(step, line)
            except Exception as error:
                self._drop(error)

    def close(self) -> None:
        """Closes the sink."""
        if self._sink is not None:
            try:
                self._sink.close()
            except Exception as error:
                self._drop(error)

    def _drop(self, error: Exception) -> None:
        self._sink = None
        say(f"The sink {self.name} failed and gets no more lines ({type(error).__name__}: {error}); the run goes on.")


class TensorBoard:
    """Event files in RUN/tensorboard; what an earlier part of the run wrote beyond `step` is hidden from view."""

    def __init__(self, run: Path, record: RunRecord, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / FOLDER), purge_step=step + 1 if step else None)
        if not step:
            self._writer.add_text("recipe", f"```\n{record.recipe}\n```")

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """One scalar for every number of the line."""
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        self._writer.close()


class WandB:
    """One run of W&B a run folder, taken up again when the run is; project and entity are W&B's own environment."""

    def __init__(self, run: Path, record: RunRecord, step: int) -> None:
        import wandb

        identity = f"{record.name}-{record.created}".translate(str.maketrans(":+", "--"))
        config = record.model_dump(include={"recipe", "versions", "git", "device", "precision", "parameters"})
        self._run = wandb.init(
            name=record.name, id=identity, resume="allow", dir=str(run), config=config, notes=record.about
        )

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """One log call a line; lines of steps that W&B has already, after a resume, it leaves out itself."""
        self._run.log(scalars(line), step=step)

    def close(self) -> None:
        """Ends the run in W&B."""
        self._run.finish()
