"""Hooks of a user's own: found by the name that was typed, and never by what a file says."""

import sys
from importlib.metadata import EntryPoint

import pytest

import ernie2
import tiny_run
from ernie2.errors import CheckpointError, ConfigError, RunFailed, RunStopped
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.training.hooks import loading
from ernie2.training.hooks.base import Hook
from ernie2.training.hooks.loading import create_hooks

SOURCE = """
import sys

from ernie2.training.hooks.base import Hook


class StepsToFile(Hook):
    def open(self, run):
        self.file = run.folder / "steps-seen.txt"

    def on_step(self, done, at):
        with self.file.open("a") as out:
            out.write(f"{done.step}\\n")


class StopsAtThree(Hook):
    seen = 0

    def on_step(self, done, at):
        self.seen = done.step

    def stop_reason(self):
        return "the third step came" if self.seen == 3 else None


class Breaks(Hook):
    def on_step(self, done, at):
        raise ValueError("a mistake of its author")


class MustNotFail(Breaks):
    required = True


class Exits(Hook):
    def on_step(self, done, at):
        raise SystemExit(0)


class StopsWithoutReason(Hook):
    def stop_reason(self):
        return ""


class ExitsWhenMade(Hook):
    def __init__(self):
        sys.exit("no licence")


class Unmakeable(Hook):
    def __init__(self):
        open("no such file")


class NeedsMore(Hook):
    def __init__(self, value):
        pass


class NoHook:
    pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_hooks_of_a_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield "own_hooks_of_a_test"
    sys.modules.pop("own_hooks_of_a_test", None)


@pytest.fixture
def recipe(tmp_path):
    tiny_run.write_shards(tmp_path / "shards")
    return tiny_run.recipe(tmp_path).model_dump(mode="json")


def test_a_class_in_the_working_directory_sees_every_step(recipe, module):
    before = list(sys.path)
    run = ernie2.pretrain(recipe, hooks=[f"{module}:StepsToFile"])
    steps = read_checked_json(run / "run.json")["stages"]
    total = sum(stage["steps"] for stage in steps)
    assert (run / "steps-seen.txt").read_text().split() == [str(step) for step in range(1, total + 1)]
    assert sys.path == before


def test_a_class_given_in_python_needs_no_name(recipe):
    seen = []

    class Counts(Hook):
        def on_step(self, done, at):
            seen.append(at.step)

    ernie2.pretrain(recipe, hooks=[Counts])
    assert seen == sorted(set(seen))
    assert seen[0] == 1


def test_a_hook_that_asks_for_the_end_leaves_a_run_that_resumes_with_hooks_given_again(recipe, tmp_path, module):
    stopped = _stopped(lambda: ernie2.pretrain(recipe, hooks=[f"{module}:StopsAtThree"]))
    assert "the third step came; step 3 is saved" in str(stopped)
    run = ernie2.resume(tmp_path / "run", hooks=[f"{module}:StepsToFile"])
    assert (run / "steps-seen.txt").read_text().split()[0] == "4"


def _stopped(call):
    with pytest.raises(RunStopped) as stopped:
        call()
    return stopped.value


def test_a_hook_that_fails_is_left_out_with_its_file_and_line_and_the_run_ends_as_without_it(recipe, module, caplog):
    with caplog.at_level("WARNING", "ernie2"):
        run = ernie2.pretrain(recipe, hooks=[f"{module}:Breaks"])
    assert read_checked_json(run / "run.json")["status"] == "done"
    (told,) = [line for line in caplog.messages if "Breaks" in line]
    assert f"(ValueError: a mistake of its author, {_place(module, 'a mistake of')})" in told


def test_a_required_hook_that_fails_ends_the_run_with_its_name_file_and_line(recipe, tmp_path, module):
    with pytest.raises(RunFailed) as failed:
        ernie2.pretrain(recipe, hooks=[f"{module}:MustNotFail"])
    place = _place(module, "a mistake of")
    assert str(failed.value).startswith(f"the hook MustNotFail failed (ValueError: a mistake of its author, {place})")
    assert isinstance(failed.value.__cause__, ValueError)


def test_a_hook_that_exits_fails_the_run_with_its_name_and_line(recipe, module):
    with pytest.raises(RunFailed) as failed:
        ernie2.pretrain(recipe, hooks=[f"{module}:Exits"])
    place = _place(module, "raise SystemExit(0)")
    assert str(failed.value).startswith(f"the hook Exits called sys.exit (SystemExit: 0, {place})")
    with pytest.raises(ConfigError, match=r"ExitsWhenMade cannot be created.*SystemExit\('no licence'\)"):
        create_hooks([f"{module}:ExitsWhenMade"])


def test_a_module_that_exits_is_refused(tmp_path, monkeypatch):
    (tmp_path / "exiting_module_of_a_test.py").write_text("import sys\nsys.exit()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"hook exiting_module_of_a_test:Any cannot be imported \(SystemExit\(\)"):
        create_hooks(["exiting_module_of_a_test:Any"])


def test_a_stop_without_a_reason_is_no_signal_to_another_rank(recipe, module):
    stopped = _stopped(lambda: ernie2.pretrain(recipe, hooks=[f"{module}:StopsWithoutReason"]))
    assert str(stopped).startswith("a hook stopped the run; step ")


def test_the_error_of_a_hook_that_cannot_be_created_has_its_place(module):
    with pytest.raises(ConfigError, match="FileNotFoundError") as refused:
        create_hooks([f"{module}:Unmakeable"])
    assert _place(module, "no such file") in str(refused.value)


def _place(module, words):
    file = sys.modules[module].__file__
    with open(file) as lines:
        (number,) = [number for number, line in enumerate(lines, 1) if words in line]
    return f"{file}, line {number}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{module}:StepToFile", "cannot be imported"),
        ("no_such_module_of_a_test:Hook", "cannot be imported"),
        ("{module}:NoHook", "is not a subclass of"),
        ("{module}:NeedsMore", "cannot be created without arguments"),
        ("stepz", "there is no hook 'stepz'"),
    ],
)
def test_what_is_no_hook_is_refused_before_anything_is_written(recipe, tmp_path, module, name, message):
    with pytest.raises(ConfigError, match=message):
        ernie2.pretrain(recipe, hooks=[name.format(module=module)])
    assert not (tmp_path / "run").exists()


def test_an_installed_hook_is_used_only_if_it_is_named(monkeypatch, module):
    entry = EntryPoint("steps", f"{module}:StepsToFile", loading.GROUP)
    monkeypatch.setattr(loading, "entry_points", lambda group: [entry] if group == "ernie2.hooks" else [])
    assert [type(hook).__name__ for hook in create_hooks(["steps"])] == ["StepsToFile"]
    assert create_hooks([]) == []
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        create_hooks(["step"])


def test_ranks_but_the_first_have_no_hook_unless_its_class_says_so(module):
    class Everywhere(Hook):
        every_rank = True

    assert create_hooks([f"{module}:StepsToFile"], first=False) == []
    assert len(create_hooks([Everywhere], first=False)) == 1


@pytest.mark.parametrize("key", ["hooks", "train.hooks", "train.hook"])
def test_no_recipe_names_a_hook(recipe, key, module):
    with pytest.raises(ConfigError, match="hook"):
        ernie2.pretrain(recipe, [f"{key}={module}:StepsToFile"])
    assert module not in sys.modules


def test_a_tracker_of_a_recipe_is_one_of_ours(recipe, module):
    recipe["train"]["trackers"] = [f"{module}:StepsToFile"]
    with pytest.raises(ConfigError, match="trackers"):
        ernie2.pretrain(recipe)
    assert module not in sys.modules


def test_no_run_json_and_no_checkpoint_names_a_hook(recipe, tmp_path, module):
    _stopped(lambda: ernie2.pretrain(recipe, hooks=[f"{module}:StopsAtThree"]))
    run = tmp_path / "run"
    for file in [run / "run.json", *run.glob("checkpoints/*/*.json")]:
        assert module not in file.read_text()
    write_checked_json(run / "run.json", {**read_checked_json(run / "run.json"), "hooks": [f"{module}:StepsToFile"]})
    sys.modules.pop(module)
    with pytest.raises(CheckpointError, match="hooks"):
        ernie2.resume(run)
    assert module not in sys.modules


def test_what_a_hook_is_given_is_short_to_print(recipe):
    shown = []

    class Prints(Hook):
        def on_step(self, done, at):
            shown.append(f"{done} {at}")

    ernie2.pretrain(recipe, hooks=[Prints])
    assert max(map(len, shown)) < 2_000
    assert "main_task='" in shown[0]
