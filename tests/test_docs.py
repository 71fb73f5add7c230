"""The pages refer only to things that exist: names in the code, options, recipe keys, files, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import typer

from ernie2.cli import app
from ernie2.training.step import StepResult
from ernie2.training.step_inputs import StepInputs

ROOT = Path(__file__).parents[1]
KEYS = ROOT / "docs" / "recipe-keys.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/NOTES.md")),
    ROOT / "examples" / "custom_task" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
NOT_NAMES = (
    ".json",
    ".safetensors",
    ".tasks",
    ".datasets",
    ".hooks",
)  # files and entry points that begin with "ernie2."
NOT_KEYS = ("json", "jsonl", "md", "npz", "py", "yaml")  # files that begin like a section of a recipe
PYTHON_ARGUMENTS = {"hmm", "truncation", "hooks"}
OTHER_NAMES = {"_linear_pointwise"}  # of torch
OTHER_OPTIONS = {
    *("--all", "--torch-backend", "--help"),  # pip, uv, every program
    *("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--max-restarts"),  # torchrun
    "--long",  # zstd
}


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_spans(page: Path) -> Iterator[str]:
    """Texts in back ticks, without code blocks."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", prose)


def resolve(name: str) -> object:
    """Return the module, class, function or attribute with a dotted name."""
    parts = name.split(".")
    value: object = import_module(parts[0])
    for i, part in enumerate(parts[1:], start=2):
        value = getattr(value, part) if hasattr(value, part) else import_module(".".join(parts[:i]))
    return value


@cache
def options() -> frozenset[str]:
    """Options of all commands of ernie2 and of the scripts in benchmarks/ and tests/faults/."""
    commands, names = [typer.main.get_command(app)], set(OTHER_OPTIONS)
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        names |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    scripts = [path for folder in ("benchmarks", "tests/faults") for path in (ROOT / folder).rglob("*.[ps][yh]")]
    for script in [*scripts, ROOT / "src/ernie2/training/replay.py"]:
        names |= set(re.findall(r"--[a-z][a-z0-9-]+", script.read_text(encoding="utf-8")))
    return frozenset(names)


@cache
def words_of_code() -> frozenset[str]:
    folders = [ROOT / name for name in ("src", "tests", "benchmarks", "examples")]
    files = [path for folder in folders for path in folder.rglob("*.*")]
    files = [path for path in files if path.suffix in (".py", ".yaml", ".jinja", ".sh", ".sbatch", ".toml")]
    return frozenset(word for file in files for word in re.findall(r"\w+", file.read_text(encoding="utf-8")))


@cache
def recipe_keys() -> dict[str, set[str]]:
    """Map each section of a recipe to its keys, read from the generated page."""
    sections = re.split(r"^##+ `([\w.]+)`$", text_of(KEYS), flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return {name: set(re.findall(r"^\| `(\w+)` \|", rows.split("\n## ")[0], re.MULTILINE)) for name, rows in pairs}


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_dotted_name_of_ernie2_exists(page: Path) -> None:
    text = text_of(page)
    names = {name for span in code_spans(page) for name in re.findall(r"^ernie2(?:\.\w+)+", span)}
    names |= set(re.findall(r"^import (ernie2\S*)$", text, re.MULTILINE))
    for module, imported in re.findall(r"^from (ernie2\S*) import (.+)$", text, re.MULTILINE):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    for name in names:
        if not name.endswith(NOT_NAMES):
            resolve(name)


@each_page
def test_every_identifier_occurs_in_the_code(page: Path) -> None:
    pattern = r"(?:\w+\.)*(\w*(?:[a-z][A-Z]|[A-Za-z]_[A-Za-z])\w*)(?:\(.*\))?"
    identifiers = {match[1] for span in code_spans(page) if (match := re.fullmatch(pattern, span))}
    assert sorted(identifiers - words_of_code() - OTHER_NAMES) == []


@each_page
def test_every_option_exists(page: Path) -> None:
    programs = r"(?:ernie2|python3?|bash|torchrun|benchmarks/\S+)"
    commands = re.findall(rf"^ {{4}}{programs} .*$", text_of(page), re.MULTILINE)
    lines = (*code_spans(page), *commands)
    names = {name for line in lines for name in re.findall(r"(?<!\S)--[a-z][a-z0-9-]+", line)}
    assert sorted(names - options()) == []


@each_page
def test_every_recipe_key_exists(page: Path) -> None:
    keys, wrong = recipe_keys(), []
    for span in code_spans(page):
        match = re.match(r"(?:recipe\.)?(\w+)\.(\w+)(?![\w(/])", span)
        if match and match[1] in keys and match[2] not in (*keys[match[1]], *NOT_KEYS):
            wrong.append(span)
    assert wrong == []


@each_page
def test_every_override_sets_a_key_that_exists(page: Path) -> None:
    keys = set(re.findall(r"^\| `(\w+)` \|", text_of(KEYS), re.MULTILINE))
    commands = re.findall(r"^ {4}(?:ernie2|torchrun|python3? benchmarks/\w+\.py) .*$", text_of(page), re.MULTILINE)
    lines = [*(span for span in code_spans(page) if "(" not in span), *commands]
    overrides = [name for line in lines for name in re.findall(r"(?<![^\s'])([a-z][\w.]*)=", line)]
    assert sorted(name for name in overrides if name.split(".")[-1] not in keys | PYTHON_ARGUMENTS) == []


@each_page
def test_every_file_of_this_repository_exists(page: Path) -> None:
    pattern = r"^(?:src|tests|benchmarks|docs|examples)/[\w./-]+"
    names = {name for span in code_spans(page) for name in re.findall(pattern, span)}
    assert sorted(name for name in names if not (ROOT / name).exists()) == []


@each_page
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not target.startswith(("http:", "https:")):
            path, _, anchor = target.partition("#")
            other = page.parent / path if path else page
            assert other.exists(), target
            assert not anchor or anchor in anchors(other), target


def test_the_readme_links_every_page_of_docs() -> None:
    readme = text_of(ROOT / "README.md")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in readme] == []


def test_the_code_layout_lists_every_package_and_only_files_that_exist() -> None:
    layout = text_of(ROOT / "CONTRIBUTING.md").partition("## Code layout")[2].partition("\n* ")[0]
    listed = set(re.findall(r"(?<![\w/.])(\w+/|\w+\.py)", layout))
    packages = {f"{path.parent.name}/" for path in (ROOT / "src" / "ernie2").glob("*/__init__.py")}
    assert sorted(packages - listed) == []
    folders = ("src", "tests", "benchmarks")
    present = {path.name for folder in folders for path in (ROOT / folder, *(ROOT / folder).rglob("*"))}
    present |= {path.name for path in ROOT.iterdir()}
    assert sorted(name for name in listed if name.rstrip("/") not in present) == []


def test_the_page_on_hooks_names_fields_of_steps_and_positions_that_exist() -> None:
    page = ROOT / "docs" / "hooks.md"
    attributes: dict[type, set[str]] = {StepInputs: set(), StepResult: set()}
    for span in code_spans(page):
        if match := re.match(r"(inputs|result)\.(\w+)", span):
            attributes[StepInputs if match[1] == "inputs" else StepResult].add(match[2])
    for owner, names in attributes.items():
        assert names, owner
        assert sorted(name for name in names if not hasattr(owner, name)) == []
