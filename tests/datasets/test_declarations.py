"""A package of one's own declares data sets in a file and an entry point; mistakes name the package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ernie2.datasets import declarations
from ernie2.datasets.declarations import declared_groups
from ernie2.errors import DataError

MINE = """
files: {train: {official: [train.tsv], hub: train}}
settings: {max_length: 64, schedule: linear, warmup_share: 0.1, weight_decay: 0.0, summary: mean}
sets:
  reviews:
    title: Reviews
    folders: [reviews]
    head: classification
    metrics: [accuracy]
    labels: [bad, good]
    columns: {text: [review]}
    splits: {train: 200, dev: {rows: [20, 21], official: [dev.csv], hub: validation}}
    settings: {base: {epochs: 2, peak_lr: 3.0e-5, batch: 16}}
"""


def announce(monkeypatch: pytest.MonkeyPatch, site: Path, package: str, text: str, name: str = "mine") -> None:
    folder = site / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    entry = EntryPoint(name, package, "ernie2.datasets")
    monkeypatch.setattr(declarations, "entry_points", lambda **_: [entry])


def test_a_package_brings_sets_by_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    announce(monkeypatch, tmp_path, "brings_sets", MINE)
    groups = declared_groups()
    assert list(groups) == ["glue", "chinese", "mine"]
    reviews = groups["mine"]["reviews"]
    assert (reviews.name, reviews.labels) == ("reviews", ("bad", "good"))
    assert (reviews.splits["train"].rows, reviews.splits["train"].official) == ((200,), ("train.tsv",))
    assert (reviews.splits["dev"].rows, reviews.splits["dev"].hub) == ((20, 21), "validation")
    assert (reviews.settings["base"].epochs, reviews.settings["base"].max_length) == (2, 64)


@pytest.mark.parametrize(
    ("package", "text", "message"),
    [
        (
            "misspells",
            MINE.replace("folders", "folder"),
            "(?s)of package 'misspells' cannot be read: reviews:.*folder: there is no such key. Did you mean 'folders'",
        ),
        ("says_nothing", "sets:", "of package 'says_nothing' cannot be read"),
        ("is_no_yaml", "sets: [", "of package 'is_no_yaml' cannot be read: mine.yaml is not valid YAML"),
        ("takes_mrpc", MINE.replace("reviews:", "mrpc:"), "'takes_mrpc' declares mrpc, which is there already"),
    ],
)
def test_what_cannot_be_used_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, text: str, message: str
) -> None:
    announce(monkeypatch, tmp_path, package, text)
    with pytest.raises(DataError, match=message):
        declared_groups()


def test_a_group_that_is_there_already_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    announce(monkeypatch, tmp_path, "takes_glue", MINE, name="glue")
    with pytest.raises(DataError, match="'takes_glue' declares glue, which is there already"):
        declared_groups()
