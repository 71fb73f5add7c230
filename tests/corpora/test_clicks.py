"""Click logs: three classes worked out by hand, and properties of any log."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.corpora import clicks
from ernie2.corpora.clicks import mine_clicks
from ernie2.errors import ConfigError, DataError, StorageError

HEAD = "user\tquery\ttitle\tclicked\n"
LOG = [
    ("fox", "Foxes", "1"),
    ("fox", "Fox hunting", "0"),
    ("fox", "Foxes", "0"),  # clicked before: clicked
    ("fox", "Fox News", "0"),
    ("fox", "Fox  News", "0"),  # the same title with other white space
    ("owl", "Owls", "0"),
    ("owl", "Owl Labs", "0"),
    ("owl", "Owls", "1"),  # skipped before: clicked
    ("owl", "Fox News", "0"),
    ("owl", "", "1"),  # no title
    ("owl", "Snowy owl", "1"),
    ("my secret", "Secrets", "1"),  # rare
    ("my secret", "Owls", "0"),
]


def write(path: Path, log: list[tuple[str, str, str]]) -> Path:
    path.write_text(HEAD + "".join(f"u{i}\t" + "\t".join(row) + "\n" for i, row in enumerate(log)), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_log_gives_the_three_classes_worked_out_by_hand(tmp_path: Path) -> None:
    mined = mine_clicks(str(write(tmp_path / "log.tsv", LOG)), tmp_path / "out.tsv", 5)
    head, *rows = rows_of(tmp_path / "out.tsv")
    assert head == ["query", "title", "label", "group"]
    assert [row for row in rows if row[2] != "2"] == [
        ["fox", "Foxes", "0", "fox"],
        ["fox", "Fox News", "1", "fox"],
        ["fox", "Fox hunting", "1", "fox"],
        ["owl", "Owls", "0", "owl"],
        ["owl", "Snowy owl", "0", "owl"],
        ["owl", "Fox News", "1", "owl"],
        ["owl", "Owl Labs", "1", "owl"],
    ]
    irrelevant = {query: {row[1] for row in rows if row[0] == query and row[2] == "2"} for query in ("fox", "owl")}
    assert irrelevant["fox"] < {"Owls", "Owl Labs", "Snowy owl"}
    assert len(irrelevant["fox"]) == 2  # as many as it skipped
    assert irrelevant["owl"] == {"Foxes", "Fox hunting"}  # all titles of other queries
    assert mined.labels == {"0": 3, "1": 4, "2": 4}
    assert mined.drops.as_dict() == {"query of fewer than 5 rows": 1, "row without query or title": 1}


def test_nothing_of_a_rare_query_or_of_a_user_is_left(tmp_path: Path) -> None:
    mine_clicks(str(write(tmp_path / "log.tsv", LOG)), tmp_path / "out.tsv", 5)
    text = (tmp_path / "out.tsv").read_text(encoding="utf-8")
    assert "ecret" not in text
    assert "u0" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.tsv", "out.tsv"]
    mine_clicks(str(tmp_path / "log.tsv"), tmp_path / "out.tsv", 2)
    assert "my secret\tSecrets\t0\tmy secret" in (tmp_path / "out.tsv").read_text(encoding="utf-8")


def test_no_title_is_sampled_if_all_were_shown_and_that_is_counted(tmp_path: Path) -> None:
    log = [("fox", "Foxes", "1"), ("fox", "Fox News", "0")]
    mined = mine_clicks(str(write(tmp_path / "log.tsv", log)), tmp_path / "out.tsv", 1)
    assert mined.labels == {"0": 1, "1": 1, "2": 0}
    assert mined.drops.as_dict() == {"title never shown for a query, of which there were too few": 1}


rows = st.tuples(st.sampled_from("pqrs"), st.sampled_from("abcdefgh"), st.sampled_from("01"))


@given(st.lists(rows, min_size=1, max_size=60), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_classes_hold_for_any_log_and_do_not_depend_on_its_order(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[str, str, str]], least: int, shuffler: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("log")
    frequent = {query for query in "pqrs" if sum(row[0] == query for row in log) >= least}
    if not frequent:
        with pytest.raises(DataError, match="no query"):
            mine_clicks(str(write(folder / "log.tsv", log)), folder / "out.tsv", least)
        return
    mine_clicks(str(write(folder / "log.tsv", log)), folder / "out.tsv", least)
    found = {(query, title): label for query, title, label, _ in rows_of(folder / "out.tsv")[1:]}
    assert {query for query, _ in found} == frequent
    expected = {
        (query, title): "0" if (query, title, "1") in log else "1" for query, title, _ in log if query in frequent
    }
    assert {pair: label for pair, label in found.items() if label != "2"} == expected
    drawn = {pair for pair, label in found.items() if label == "2"}
    titles = {title for _, title in expected}
    for query in frequent:
        classes = [sum(q == query and label == kind for (q, _), label in found.items()) for kind in "012"]
        unseen = len(titles) - classes[0] - classes[1]
        assert classes[2] == min(max(classes[:2]), unseen)
    assert not drawn & set(expected)
    assert {title for _, title in drawn} <= titles
    before = (folder / "out.tsv").read_bytes()
    shuffler.shuffle(log)
    mine_clicks(str(write(folder / "log.tsv", log)), folder / "out.tsv", least)
    assert (folder / "out.tsv").read_bytes() == before


def test_the_same_log_as_jsonl_with_other_column_names_gives_the_same_pairs(tmp_path: Path) -> None:
    mine_clicks(str(write(tmp_path / "log.tsv", LOG)), tmp_path / "a.tsv", 5)
    lines = "".join(json.dumps({"q": q, "t": t or None, "c": c == "1"}) + "\n" for q, t, c in LOG)
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    mine_clicks(str(tmp_path / "log.jsonl.gz"), tmp_path / "b.jsonl.gz", 5, ("q", "t", "c"))
    objects = [json.loads(line) for line in gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()).splitlines()]
    assert [list(each.values()) for each in objects] == rows_of(tmp_path / "a.tsv")[1:]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("u\tfox\tFoxes\tmaybe\n", "line 2: the column 'clicked' has the value 'maybe'"),
        ("u\tfox\tFoxes\n", "line 2: 3 cells, but there are 4 columns"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_left(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_text(HEAD + line, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        mine_clicks(str(tmp_path / "log.tsv"), tmp_path / "out.tsv", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["log.tsv"]


def test_a_minimum_count_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="min_query_count is 0"):
        mine_clicks(str(write(tmp_path / "log.tsv", LOG)), tmp_path / "out.tsv", 0)


def test_a_full_disk_while_loading_the_log_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(clicks, "_load_log", full)
    with pytest.raises(StorageError, match="disk is full"):
        mine_clicks(str(write(tmp_path / "log.tsv", LOG)), tmp_path / "out.tsv", 5)
    assert [path.name for path in tmp_path.iterdir()] == ["log.tsv"]


def test_a_query_of_nan_is_dropped_and_counted(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"query": NaN, "title": "a", "clicked": 1}\n'
        + "".join(f'{{"query": "q{i}", "title": "t{i}", "clicked": 1}}\n' for i in range(3))
    )
    mined = mine_clicks(str(log), tmp_path / "out.tsv", 1)
    assert mined.drops.as_dict()["row without query or title"] == 1
    assert "nan" not in (tmp_path / "out.tsv").read_text().lower()
