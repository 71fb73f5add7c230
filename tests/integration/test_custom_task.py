"""examples/custom_task: a separate package with two tasks that `src/` does not name."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import ernie2
import tiny_run
from ernie2.tasks import base

PACKAGE = Path(__file__).parents[2] / "examples" / "custom_task"
SOURCE = Path(__file__).parents[2] / "src"
TASKS = ("seen_before", "sentence_order")
IN_A_FRESH_ENVIRONMENT = """
import json, sys
from pathlib import Path
import ernie2
from custom_task import seen_before

assert Path(seen_before.__file__).is_relative_to(sys.prefix), seen_before.__file__
recipe = json.loads(Path("recipe.json").read_text())
run = ernie2.pretrain(recipe)
figures = ernie2.evaluate(run, "shards")
page = ernie2.report(run).read_text(encoding="utf-8")
exported = ernie2.evaluate(run / "hf", "shards")
origins = {task["name"]: task["origin"] for task in ernie2.list_tasks()}
reported = "Sentence order" in page
result = {"figures": sorted(figures), "exported": sorted(exported), "reported": reported, "from": origins}
Path("result.json").write_text(json.dumps(result))
"""


def announce(site: Path, package: Path) -> None:
    """Leaves what an installer would: the name of the package in `package` and the entry points it declares."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as if installed, and gone again afterwards."""
    announce(tmp_path / "site", PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(PACKAGE / "src"))
    yield
    for name in TASKS:
        base._TASKS.pop(name, None)
    for module in [name for name in sys.modules if name.partition(".")[0] == "custom_task"]:
        del sys.modules[module]


def test_each_task_is_one_file_of_under_40_lines() -> None:
    for name in TASKS:
        assert len((PACKAGE / "src" / "custom_task" / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 40


def test_no_code_of_ernie2_names_the_tasks() -> None:
    texts = [file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py")]
    assert not [name for name in (*TASKS, "custom_task") if any(name in text for text in texts)]


@pytest.mark.usefixtures("installed")
def test_the_tasks_are_listed_with_the_package_they_come_from() -> None:
    before = ernie2.list_tasks()
    listed = {task["name"]: task for task in ernie2.list_tasks()}
    assert before == list(listed.values())  # the same after they were imported
    assert [listed[name]["origin"] for name in TASKS] == ["ernie2-custom-task"] * 2
    assert [(listed[name]["level"], listed[name]["labels"]) for name in TASKS] == [("token", 2), ("sentence", 2)]


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_they_are_inspected_trained_evaluated_reported_and_exported(tmp_path: Path) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    assert "label swapped" in ernie2.inspect(tmp_path / "shards", "sentence_order")
    recipe = tiny_run.recipe(tmp_path).model_dump(mode="json")
    recipe["tasks"] = {"knowledge_masking": {}, "seen_before": {}, "sentence_order": {"loss_weight": 0.5}}
    run = ernie2.pretrain(recipe)
    names = set(recipe["tasks"])
    assert set(ernie2.evaluate(run, tmp_path / "shards")) == names
    assert set(ernie2.evaluate(run / "hf", tmp_path / "shards")) == names
    page = ernie2.report(run).read_text(encoding="utf-8")
    assert "Seen before" in page
    assert "Sentence order" in page
    config = json.loads((run / "hf" / "config.json").read_text(encoding="utf-8"))
    assert config["ernie2_task_ids"] == {"knowledge_masking": 0, "seen_before": 1, "sentence_order": 2}
    assert all(count > 0 for count in config["ernie2_task_instances"].values())
    assert "| sentence_order | 2 | sentence |" in (run / "hf" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that sees what ours has, into which pip has installed a copy of the
    package, without a network."""
    if missing := [name for name in ("hatchling", "pip") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed, which building a package without a network needs")
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "fresh", with_pip=False)
    python = folder / "fresh" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "fresh")}))
    (site / "beside.pth").write_text(f"{SOURCE}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    shutil.copytree(PACKAGE, folder / "package", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    call([str(python), "-m", "pip", "install", "-q", *OFFLINE, str(folder / "package")], folder)
    return python


OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")


def call(command: list[str], folder: Path) -> None:
    """Runs `command` in `folder` as a user would, who has no PYTHONPATH."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_installed_by_pip_into_a_fresh_environment_its_tasks_train_and_are_evaluated_reported_and_exported(
    environment: Path, tmp_path: Path
) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    recipe = tiny_run.recipe(tmp_path).model_dump(mode="json")
    recipe["tasks"] = {"knowledge_masking": {}, "seen_before": {}, "sentence_order": {}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    call([str(environment), "-c", IN_A_FRESH_ENVIRONMENT], tmp_path)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["figures"] == result["exported"] == sorted(recipe["tasks"])
    assert result["reported"]
    assert [result["from"][name] for name in TASKS] == ["ernie2-custom-task"] * 2


@pytest.mark.slow
def test_the_package_passes_its_own_tests() -> None:
    paths = [str(PACKAGE / "src"), str(SOURCE)]
    code = (
        f"import sys, pytest; sys.path[:0] = {paths}; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
