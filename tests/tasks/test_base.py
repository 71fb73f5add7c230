"""The task registry, and the attributes of every built-in task."""

from __future__ import annotations

import numpy as np
import pytest

from ernie2.errors import TaskError, UnknownTask
from ernie2.tasks import base
from ernie2.tasks.base import Source, TokenTask, find_task, known_tasks, register
from tiny import FOUR, MASK, VOCABULARY, document, task


def test_the_four_tasks_of_table_7_are_known_by_name_and_come_with_the_package():
    origins = known_tasks()
    assert [origins[name] for name in FOUR] == ["ernie2"] * 4
    assert [find_task(name).name for name in known_tasks() if name in FOUR] == list(FOUR)


def test_a_misspelt_task_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownTask, match="Did you mean 'sentence_reordering'"):
        find_task("sentence_reordring")


@pytest.mark.parametrize("name", FOUR)
def test_every_task_describes_itself(name):
    tested_task = task(name)
    assert tested_task.level in ("token", "sentence")
    assert all((tested_task.title, tested_task.about, tested_task.needs, tested_task.baseline_name))
    assert tested_task.options.loss_weight == 1.0


def test_two_tasks_of_one_name_are_an_error(monkeypatch):
    monkeypatch.setattr(base, "_TASKS", dict(base._TASKS))

    class First(TokenTask):
        name = "twice"

    class Second(TokenTask):
        name = "twice"

    assert register(First) is First
    assert register(First) is First
    assert find_task("twice") is First
    with pytest.raises(ValueError, match="two tasks are called 'twice'"):
        register(Second)


class _Entry:
    """An entry point of a package that declares a task and does not register it."""

    name, module, dist = "absent", "absent_package.tasks", None

    def __init__(self, error=None):
        self.error = error

    def load(self):
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "words"), [(ImportError("no module"), "cannot be imported"), (None, "registers no such task")]
)
def test_a_package_that_declares_a_task_but_does_not_register_it_is_named(monkeypatch, error, words):
    monkeypatch.setattr(base, "entry_points", lambda **_: [_Entry(error)])
    with pytest.raises(TaskError, match=f"absent.*{words}"):
        find_task("absent")


def test_text_is_everything_but_the_five_ids_nobody_scores():
    assert np.flatnonzero(~VOCABULARY.is_text).tolist() == [0, 1, 2, 3, MASK]


def test_a_source_draws_another_document_only_where_it_was_given_one():
    here, there = document([[[5]]]), document([[[6]]])
    assert Source(here, 0, lambda: there).other_document is there
    with pytest.raises(LookupError):
        _ = Source(here, 0).other_document


def test_a_task_with_attributes_of_former_names_is_refused_when_it_is_registered(monkeypatch):
    monkeypatch.setattr(base, "_TASKS", dict(base._TASKS))

    class Older(TokenTask):
        name = "older"
        cheap_rule = "token"

        def usable(self, document):
            return False

    former = r"cheap_rule \(now baseline_name\), usable \(now can_use\)"
    with pytest.raises(TaskError, match=rf"'older' .*: {former}\. Rename them"):
        register(Older)


def test_options_without_a_default_are_refused_when_the_task_is_registered(monkeypatch):
    monkeypatch.setattr(base, "_TASKS", dict(base._TASKS))

    class Faulty(TokenTask):
        name = "faulty"

        class Options(base.Options):
            window: int
            depth: int = 1
            side: str

    with pytest.raises(TaskError, match=r"task 'faulty' has options without a default: window, side. Give each one"):
        register(Faulty)

    class Package(_Entry):
        name = "faulty"

        def load(self):
            register(Faulty)

    monkeypatch.setattr(base, "entry_points", lambda **_: [Package()])
    with pytest.raises(
        TaskError, match=r"^package 'absent_package.tasks': task 'faulty' has options without a default"
    ):
        find_task("faulty")
