import sys
import types
from contextlib import contextmanager
from typing import ClassVar

import pytest

import tiny_run
from ernie2.errors import ConfigError
from ernie2.training.hooks.base import Hooks, OpenRun
from ernie2.training.hooks.trackers import check_trackers, scalars, trackers
from ernie2.training.records import Records
from ernie2.training.run_record import RunRecord, write_run

RECORD = RunRecord.model_validate(tiny_run.run_values(created="2026-01-02T03:04:05+00:00", recipe={"name": "tiny"}))


class FakeWriter:
    made: ClassVar[list] = []

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        FakeWriter.made.append(self)

    def add_text(self, *_):
        pass

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


class FakeRun:
    def __init__(self, **given):
        self.given, self.logged, self.finished = given, [], False

    def log(self, values, step):
        self.logged.append((values, step))

    def finish(self):
        self.finished = True


@contextmanager
def recording(folder, names, step=0):
    """The hooks of a run with these trackers, opened after `step` steps; metrics.jsonl is written beside them."""
    write_run(folder, RECORD)
    hooks = Hooks([Records(folder), *trackers(names)])
    with hooks.opened(OpenRun(folder, step)):
        yield hooks


@pytest.fixture
def tensorboard(monkeypatch):
    """A stand-in for the library, which tests do without."""
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    FakeWriter.made = []
    return FakeWriter


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for W&B; the list of runs it began."""
    runs = []
    module = types.ModuleType("wandb")
    module.init = lambda **given: runs.append(FakeRun(**given)) or runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_the_numbers_of_a_line_are_named_by_their_path():
    line = {"kind": "step", "step": 10, "lr": 0.5, "loss": {"a": 2.0}, "tasks": {"b": {"rule": "no number", "n": 3}}}
    assert scalars(line) == {"step/lr": 0.5, "step/loss/a": 2.0, "step/tasks/b/n": 3.0}


def test_tensorboard_gets_the_lines_of_metrics(tmp_path, tensorboard):
    with recording(tmp_path, ["tensorboard"]) as hooks:
        hooks.line("step", step=1, loss={"a": 2.0})
        hooks.line("step", step=2, loss={"a": 1.5})
    (writer,) = tensorboard.made
    assert writer.folder == str(tmp_path / "tensorboard")
    assert writer.purge_step is None
    assert writer.scalars == [("step/loss/a", 2.0, 1), ("step/loss/a", 1.5, 2)]
    assert writer.closed
    assert [line["step"] for line in Records(tmp_path).read()] == [1, 2]


def test_a_resumed_run_hides_what_tensorboard_holds_beyond_its_checkpoint(tmp_path, tensorboard):
    with recording(tmp_path, ["tensorboard"], step=7):
        pass
    assert tensorboard.made[0].purge_step == 8


def test_wandb_gets_the_lines_and_a_resumed_run_is_the_same_run(tmp_path, wandb):
    for step in (0, 7):
        with recording(tmp_path, ["wandb"], step) as hooks:
            hooks.line("heldout", step=step + 1, tasks={"a": {"accuracy": 0.25}})
    assert [run.logged for run in wandb] == [[({"heldout/tasks/a/accuracy": 0.25}, step)] for step in (1, 8)]
    assert wandb[0].given["id"] == wandb[1].given["id"] == "tiny-2026-01-02T03-04-05-00-00"
    assert wandb[0].given["resume"] == "allow"
    assert all(run.finished for run in wandb)


def test_a_tracker_without_its_package_is_refused_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("ernie2.training.hooks.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -c constraints.txt -e '\.\[wandb\]'"):
        check_trackers(["wandb"])


def test_a_failing_tracker_is_reported_once_and_the_run_continues(tmp_path, wandb, capsys):
    def fail(*_, **__):
        raise ConnectionError("no network")

    with recording(tmp_path, ["wandb"]) as hooks:
        wandb[0].log = fail
        for step in (1, 2):
            hooks.line("step", step=step)
    assert capsys.readouterr().err.count("The tracker wandb failed and is removed (ConnectionError: no") == 1
    assert [line["step"] for line in Records(tmp_path).read()] == [1, 2]
    assert not wandb[0].finished


def test_no_library_is_imported_without_trackers(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert trackers([]) == []
