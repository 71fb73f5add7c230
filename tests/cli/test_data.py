"""`ernie2 mine` from the command line: output, messages and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import ernie2
from ernie2 import cli

Outcome = tuple[int, str, str]


@pytest.fixture
def mine(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `ernie2 mine` in this process: (exit code, what it printed, what it complained of)."""

    def run(*arguments: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["mine", *(str(argument) for argument in arguments)])
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return run


def log(folder: Path) -> Path:
    lines = [{"q": f"q{i % 3}", "t": f"t{i}", "c": i % 4 == 0, "user": "anna"} for i in range(18)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder / "log.jsonl"


@pytest.mark.parametrize("command", ["discourse", "clicks"])
def test_help_has_an_example_and_says_what_is_left(command: str, mine: Callable[..., Outcome]) -> None:
    code, shown, _ = mine(command, "--help")
    assert code == 0
    assert f"Example  ernie2 mine {command}" in shown
    assert "Writes" in shown


@pytest.mark.parametrize(("language", "label"), [("en", "indeed"), ("zh", "但是")])
def test_discourse_pairs_of_the_shipped_text(
    language: str, label: str, tmp_path: Path, mine: Callable[..., Outcome]
) -> None:
    out = tmp_path / "pairs.jsonl"
    code, shown, complaint = mine(
        "discourse", f"package:demo-{language}.jsonl", out, "--language", language, "--max-per-label", 50
    )
    assert (code, complaint) == (0, "")
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert all(list(row) == ["sentence1", "sentence2", "label", "group"] for row in rows)
    assert label in {row["label"] for row in rows}
    assert shown.startswith(f"{len(rows):,} pairs of ")
    assert "  [no-conn]                  50\n" in shown
    assert "pairs over the cap of 50 per label" in shown
    assert list(tmp_path.iterdir()) == [out]


def test_discourse_reads_the_given_field(tmp_path: Path, mine: Callable[..., Outcome]) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "It rained hard. But we went out."}\n', encoding="utf-8")
    assert mine("discourse", tmp_path / "a.jsonl", tmp_path / "out.tsv", "--text", "body")[0] == 0
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines() == [
        "sentence1\tsentence2\tlabel\tgroup",
        "It rained hard.\tWe went out.\tbut\ta#1",
    ]


def test_clicks_become_triples_without_users(tmp_path: Path, mine: Callable[..., Outcome]) -> None:
    out = tmp_path / "triples.tsv"
    code, shown, complaint = mine("clicks", log(tmp_path), out, "--query", "q", "--title", "t", "--clicked", "c")
    assert (code, complaint) == (0, "")
    assert "31 pairs of 3 labels" in shown  # 2, 2, 1 clicked; 4, 4, 5 skipped, and as many never shown
    text = out.read_text(encoding="utf-8")
    assert text.startswith("query\ttitle\tlabel\tgroup\nq0\tt0\t0\tq0\n")
    assert "anna" not in text


def test_the_functions_return_where_the_pairs_are(tmp_path: Path) -> None:
    assert ernie2.mine_discourse("package:demo-en.jsonl", tmp_path / "a.tsv") == tmp_path / "a.tsv"
    assert ernie2.mine_clicks(str(log(tmp_path)), tmp_path / "b.tsv", 5, "q", "t", "c") == tmp_path / "b.tsv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["discourse", "absent.txt", "out.tsv"], "no such file: 'absent.txt'"),
        (["discourse", "package:demo-en.jsonl", "out.csv"], "tables are written as .tsv"),
        (["discourse", "package:demo-en.jsonl", "out.tsv", "--language", "fr"], "Known: en, zh"),
        (["discourse", "package:demo-zh.jsonl", "out.tsv"], "Check the language"),
        (["discourse", "package:demo-en.jsonl", "out.tsv", "--text", "txt"], "Did you mean 'text'?"),
        (["clicks", "absent.tsv", "out.tsv"], "no such file: 'absent.tsv'"),
        (["clicks", "log.jsonl", "out.tsv"], "there is no column 'query'"),
        (["clicks", "log.jsonl", "log.jsonl"], "is also an input file"),
        (["clicks", "log.jsonl", "out.tsv", "--query=q", "--title=t", "--clicked=user"], "has the value 'anna'"),
        (["clicks", "log.jsonl", "out.tsv", "--query=q", "--title=t", "--clicked=c", "--min-query-count=9"], "Lower"),
    ],
)
def test_invalid_input_is_refused_and_leaves_no_files(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Callable[..., Outcome]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = log(tmp_path).read_bytes()
    code, _, complaint = mine(*arguments)
    assert code == 2
    assert complaint.startswith("error: ")
    assert message in complaint
    assert "Traceback" not in complaint
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("log.jsonl", before)]


def test_an_interrupted_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, mine: Callable[..., Outcome]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ernie2, "mine_clicks", stopped, raising=False)
    assert mine("clicks", "a.tsv", "b.tsv")[0] == 130
