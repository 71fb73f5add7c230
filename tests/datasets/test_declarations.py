"""Datasets declared by another package in a file and an entry point; errors name the package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import pytest

from ernie2.datasets import declarations
from ernie2.datasets.declarations import FORMS, Columns, Dataset, Files, declared_groups
from ernie2.datasets.examples import METRICS, Head
from ernie2.errors import DataError
from ernie2.finetuning.scoring.answers import RULES
from ernie2.finetuning.scoring.metrics import SIMPLE_METRICS

MINE = """
files: {train: {official: [train.tsv], hub: train}}
settings: {max_length: 64, schedule: linear, warmup_ratio: 0.1, weight_decay: 0.0, summary: mean}
sets:
  reviews:
    title: Reviews
    folders: [reviews]
    head: classification
    metrics: [accuracy]
    labels: [bad, good]
    columns: {text: [review]}
    splits: {train: 200, dev: {rows: [20, 21], official: [dev.csv], hub: validation}}
    settings: {base: {epochs: 2, peak_lr: 3.0e-5, batch_size: 16}}
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
        ("says_nothing", "", "of package 'says_nothing' cannot be read"),
        ("is_no_yaml", "sets: [", "of package 'is_no_yaml' cannot be read: mine.yaml is not valid YAML"),
        ("is_a_list", "[1]", r"of package 'is_a_list' cannot be read: mine\.yaml:\n  - must be a mapping"),
        ("takes_mrpc", MINE.replace("reviews:", "mrpc:"), "'takes_mrpc' declares mrpc, which exists already"),
    ],
)
def test_what_cannot_be_used_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, text: str, message: str
) -> None:
    announce(monkeypatch, tmp_path, package, text)
    with pytest.raises(DataError, match=message):
        declared_groups()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "[accuracy]",
            "[acc]",
            r"metrics: head classification has no 'acc'\. Known here: accuracy, f1",
        ),
        ("[accuracy]", "[entity_f1]", "metrics: head classification has no 'entity_f1'.*scheme: entity_f1 needs it"),
        ("[accuracy]", "[]", "metrics: .*at least 1"),
        ("[accuracy]", "[accuracy, f1]", r"positive: f1 needs it. Set it to one of bad, good\."),
        ("[accuracy]", "[mrr]", r"positive: mrr needs it.*columns\.group: mrr needs the column"),
        ("[accuracy]", "[f1]\n    positive: godo", r"positive: 'godo' is none of the labels \(bad, good\)\. .*'good'"),
        ("labels: [bad, good]", "", "labels: head classification needs two different labels or more"),
        ("labels: [bad, good]", "labels: [bad, bad]", "labels: head classification needs two different labels or more"),
        ("labels: [bad, good]", "labels: [bad, good]\n    aliases: {b: baad}", r"aliases: baad is none of the labels"),
        ("head: classification", "head: tagging", r"form: must be tags for head tagging \(got rows\)"),
        ("head: classification", "head: multi_label", "head: multi_label cannot be declared, only classification"),
        (
            "head: classification",
            "head: regression",
            "metrics: head regression has no 'accuracy'.*labels: head regress",
        ),
        ("columns: {text: [review]}", "form: squad", r"form: must be rows for head classification \(got squad\)"),
        ("columns: {text: [review]}", "", "columns: this key is required in the form rows"),
        ("columns: {", "scheme: IOB2\n    columns: {", "scheme: is only for head tagging"),
        ("columns: {", "answer_rules: squad\n    columns: {", "answer_rules: is only for head span"),
        ("columns: {", "answer_rules: sqad\n    columns: {", r"answer_rules: must be .*Did you mean 'squad'\?"),
        (
            "columns: {",
            "stands_for: mrcp\n    columns: {",
            r"stands_for: no dataset is called 'mrcp'\. Did you mean 'mrpc'",
        ),
        ("train: 200", "trian: {rows: 2, official: [a.tsv], hub: train}", r"splits\.trian: must be train, dev, test,"),
        (
            "train: 200, dev:",
            "train: {official: [a.tsv], hub: train}, dev:",
            r"splits\.train\.rows: this key is required",
        ),
        (
            "splits:",
            "spilts:",
            r"spilts: there is no such key",
        ),
        ("  reviews:", "  My-Reviews:", "the name must consist of lower-case letters, digits and _"),
        (
            "sets:",
            "set:",
            r"set: there is no such key\. Did you mean 'sets'",
        ),
        ("settings: {base: {", "settings: {base: {epoch: 1, ", r"settings\.base\.epoch: .*'epochs'"),
        (
            "splits:",
            "reported: {parts: [accuracy], figures: 90.0}\n    splits:",
            r"reported\.figures: 1 figures or dashes, but the key reported at the top of the file has 0 columns",
        ),
    ],
)
def test_inconsistent_declarations_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in MINE
    announce(monkeypatch, tmp_path, f"mistakes_{hash((old, new)) % 10**12}", MINE.replace(old, new, 1))
    with pytest.raises(DataError, match=f"(?s)datasets 'mine' of package 'mistakes_.*{problem}"):
        declared_groups()


def test_every_key_and_metric_is_described_where_a_package_author_looks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.split("## Datasets in your own package")[1].split("\n## ")[0]
    for model in (Dataset, Files, Columns):
        for key, field in model.model_fields.items():
            assert f"`{key}`" in section or (model, key) == (Dataset, "name"), key
            assert field.description or model is Columns, key
    for name in (*FORMS, *(metric for head in FORMS for metric in METRICS[head]), *RULES):
        assert f"`{name}`" in section, name


def test_heads_name_metrics_that_are_measured_and_rules_that_are_there() -> None:
    assert {name for names in METRICS.values() for name in names} == {
        *SIMPLE_METRICS, "f1", "mrr", "entity_f1", "exact_match", "answer_f1"
    }  # fmt: skip
    assert set(METRICS) == set(get_args(Head))
    (rules, _) = get_args(Dataset.model_fields["answer_rules"].annotation)
    assert set(get_args(rules)) == set(RULES)


def test_a_group_that_is_there_already_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    announce(monkeypatch, tmp_path, "takes_glue", MINE, name="glue")
    with pytest.raises(DataError, match="'takes_glue' declares glue, which exists already"):
        declared_groups()
