"""`ernie2 finetune`, `predict` and `export` from the command line: outputs, messages and errors."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ernie2
import tiny_finetuning as tiny
from ernie2 import cli
from ernie2.errors import ConfigError
from ernie2.finetuning import finetune as finetuning
from ernie2.finetuning import glue_submission as submission

Outcome = tuple[int, str, str]
QUICK = ("epochs=1", "batch_size=4", "precision=fp32", "max_length=32")


@pytest.fixture
def ernie(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs a command in this process, in a folder with a tiny checkpoint: (exit code, printed, complaints)."""
    monkeypatch.chdir(tmp_path)
    tiny.write_checkpoint(tmp_path / "encoder")

    def run(*arguments: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return int(stopped.value.code or 0), output.out, output.err

    return run


def table(file: str, rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> str:
    Path(file).write_text("".join("\t".join(cells) + "\n" for cells in [header, *rows]))
    return file


GOOD = [("w1 good", "yes"), ("w2 bad", "no")] * 4


def own(*more: str) -> tuple[str, ...]:
    return ("finetune", "encoder", "--train", "train.tsv", "--dev", "dev.tsv", *more, *QUICK)


@pytest.mark.parametrize("command", ["finetune", "predict", "export"])
def test_help_has_an_example_and_lists_inputs_and_outputs(command: str, ernie: Callable[..., Outcome]) -> None:
    code, output, _ = ernie(command, "--help")
    assert code == 0
    for word in ("Reads", "Writes", "Example"):
        assert word in output


def test_own_data_from_training_to_predictions(ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    table("train.tsv", GOOD)
    table("dev.tsv", GOOD)
    code, output, complaint = ernie(*own("--seeds", "2", "--out", "out"))
    assert (code, complaint) == (0, "")
    assert "detected classification (2 classes in 'label')" in output  # the guess and its reason
    assert "dev accuracy  mean" in output
    assert "ernie2 predict out/own/seed-0/model FILE" in output
    assert {row["metric"] for row in json.loads(Path("out/results.json").read_text())["datasets"][0]["rows"]} == {
        "accuracy",
        "f1",
        "macro_f1",
    }
    assert "| own | own | dev (dev.tsv) | accuracy |" in Path("out/results.md").read_text()
    code, output, _ = ernie("predict", "out/own/seed-1/model", table("new.tsv", [("w1 good", ""), ("", "")]))
    answers = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [one["id"] for one in answers] == ["0", "1"]
    assert set(answers[0]["probabilities"]) == {"no", "yes"}
    assert answers[0]["probabilities"][answers[0]["label"]] >= 0.5
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfw1 good\r\n" + b"w2 " * 34_000), "ascii")
    )
    code, output, complaint = ernie("predict", "out/own/seed-1/model", "-")
    assert complaint == "note: 1 of 2 texts were truncated to the 32 tokens that the model reads\n"
    again = [json.loads(line) for line in output.splitlines()]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("☃ w1\n".encode()), "ascii"))
    _, _, complaint = ernie("predict", "out/own/seed-1/model", "-")
    assert complaint == "note: 50.00 % of tokens are [UNK] (high: this vocabulary does not fit this text well)\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO('{"id": "中", "text": "w1"}'.encode()), "ascii"))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw := io.BytesIO(), "latin-1"))
    assert ernie("predict", "out/own/seed-1/model", "-")[0] == 0
    assert json.loads(raw.getvalue().decode())["id"] == "中"
    assert again[0]["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-5)
    assert len(again) == 2


def test_results_do_not_go_into_a_run_or_a_model(ernie: Callable[..., Outcome]) -> None:
    table("train.tsv", GOOD)
    table("dev.tsv", GOOD)
    code, _, complaint = ernie(*own("--out", "encoder"))
    assert (code, "encoder holds a model (config.json). Give another folder with --out" in complaint) == (2, True)
    Path("run").mkdir()
    Path("run/run.json").write_text("{}")
    code, _, complaint = ernie(*own("--out", "run"))
    assert (code, "run holds a pre-training run (run.json)" in complaint) == (2, True)
    assert [path.name for path in Path("run").iterdir()] == ["run.json"]


CUT_QUESTION = "own: max_query_length 64 → 16: half of the sequence is reserved for the context\n"


@pytest.mark.parametrize(
    ("head", "columns"),
    [("tagging", "text"), ("span", "text,pair"), ("regression", "text,pair"), ("multi_label", "text,pair")],
)
def test_every_kind_of_task_is_detected_trained_and_predicted(
    head: Any, columns: str, ernie: Callable[..., Outcome]
) -> None:
    for name, seed in (("train", 0), ("dev", 1)):
        tiny.write_jsonl(Path(f"{name}.jsonl"), tiny.examples(head, 8, seed))
    code, output, complaint = ernie(
        "finetune", "encoder", "--train", "train.jsonl", "--dev", "dev.jsonl", "--text", columns, "--out", "out", *QUICK
    )
    assert (code, complaint) == (0, CUT_QUESTION if head == "span" else "")
    assert f"own: {head}" in output
    code, output, _ = ernie("predict", "out/own/seed-0/model", "dev.jsonl", "--out", "predictions.jsonl")
    assert code == 0
    predictions = [json.loads(line) for line in Path("predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 8
    assert ernie("predict", "out/own/seed-0/model", "dev.jsonl", "--out", "predictions.jsonl")[0] == 0
    Path("notes.md").write_text("mine")
    code, _, complaint = ernie("predict", "out/own/seed-0/model", "dev.jsonl", "--out", "notes.md")
    assert (code, Path("notes.md").read_text()) == (2, "mine")
    assert "notes.md exists and holds no predictions" in complaint
    assert ernie("predict", "out/own/seed-0/model", "dev.jsonl", "--out", "notes.md", "--replace")[0] == 0
    assert Path("notes.md").read_text() == Path("predictions.jsonl").read_text()
    if head == "tagging":
        assert len(predictions[0]["label"]) == len(predictions[0]["tokens"]) == len(predictions[0]["probabilities"])
    if head == "span":
        context = json.loads(Path("dev.jsonl").read_text().splitlines()[0])["pair"]
        assert context[predictions[0]["start"] : predictions[0]["end"]].strip() == predictions[0]["label"]


def test_the_tag_scheme_is_printed_and_saved_and_can_be_given(ernie: Callable[..., Outcome]) -> None:
    Path("train.conll").write_text("w1 B-X\nw2 E-X\nw3 O\n\nw4 S-X\n")
    command = ("finetune", "encoder", "--train", "train.conll", "--dev", "train.conll", *QUICK)
    code, output, _ = ernie(*command, "--out", "out")
    assert code == 0
    assert "tag scheme: BIOES (the prefixes are B-, E-, S-" in output
    assert json.loads(Path("out/own/seed-0/model/config.json").read_text())["ernie2_finetuned"]["scheme"] == "BIOES"
    code, output, _ = ernie("predict", "out/own/seed-0/model", "train.conll")
    assert [json.loads(line)["tokens"] for line in output.splitlines()] == [["w1", "w2", "w3"], ["w4"]]
    assert "tag scheme: none, as named" in ernie(*command, "--out", "plain", "--scheme", "none")[1]
    code, _, complaint = ernie(*command, "--out", "other", "--scheme", "IOB2")
    assert (code, "train.conll, lines 1 to 3: the tag 'E-X' is none of IOB2" in complaint) == (2, True)
    code, _, complaint = ernie("finetune", "encoder", "--dataset", "msra_ner", "--data", ".", "--scheme", "IOB2")
    assert (code, "--scheme is only for your own data" in complaint) == (2, True)


def test_a_development_question_without_an_answer_is_refused_before_training(
    ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def squad(*questions: dict[str, Any]) -> str:
        return json.dumps({"data": [{"paragraphs": [{"context": "w1 w2 w3", "qas": list(questions)}]}]})

    answered = {"id": "p", "question": "w1 ?", "answers": [{"text": "w2", "answer_start": 3}]}
    Path("train.json").write_text(squad(answered, answered))
    Path("dev.json").write_text(squad(answered, {"id": "q", "question": "w9 ?", "answers": []}))
    monkeypatch.setattr(finetuning, "run_seeds", lambda *_, **__: pytest.fail("trained"))
    files = ("--train", "train.json", "--dev", "dev.json")
    code, _, complaint = ernie("finetune", "encoder", "--dataset", "cmrc2018", *files, *QUICK)
    assert code == 2
    assert "dev.json, question q: it has no answer (1 of 2 have none)" in complaint


BAD = [
    (GOOD, [*GOOD, ("w1", "maybe")], (), ["dev.tsv, line 10", "'maybe' does not occur in training"]),
    ([*GOOD, ("", "yes")], GOOD, (), ["train.tsv, line 10", "the text in 'text' is empty"]),
    ([("w1 good", "yes")], GOOD[:1], (), ["train.tsv: only one row"]),
    ([("w1", "yes"), ("w2", "yes")], GOOD, (), ["train.tsv: every label is 'yes'"]),
    (GOOD, GOOD, ("--text", "sentence"), ["train.tsv, line 1: there is no column 'sentence'", "Columns: text, label"]),
    (GOOD, GOOD, ("--text", "a,b,c"), ["--text 'a,b,c' names 3 columns"]),
    (GOOD, GOOD, ("--head", "regression"), ["'yes' is not a number"]),
    (GOOD, GOOD, ("--task-id", "sentence_distance"), ["has no task 'sentence_distance'"]),
    (GOOD, GOOD, ("epoch=3",), ["epoch: there is no such key. Did you mean 'epochs'?"]),
    (GOOD, GOOD, ("--submission", "x.zip"), ["--dataset glue"]),
]


@pytest.mark.parametrize(("train", "dev", "more", "messages"), BAD)
def test_unusable_data_and_options_are_refused_before_training(
    train: Any, dev: Any, more: tuple[str, ...], messages: list[str], ernie: Callable[..., Outcome]
) -> None:
    table("train.tsv", train)
    table("dev.tsv", dev)
    code, _, complaint = ernie(*own("--out", "out", *more))
    assert code == 2
    for words in messages:
        assert words in complaint
    assert not Path("out").exists()


def test_a_text_of_100000_characters_is_truncated_with_a_note(ernie: Callable[..., Outcome]) -> None:
    table("train.tsv", [*GOOD, ("w1 " * 34_000, "yes ")])
    table("dev.tsv", [*GOOD, *[("w1 " * 40, "yes")] * 2])
    code, output, warned = ernie(*own("--out", "out"))
    assert code == 0
    assert "train: 1 of 9 texts are truncated to 32 tokens" in output
    assert "dev: 2 of 10 texts are truncated to 32 tokens" in output
    assert warned.count("own: train.tsv: normalised white space in 1 label") == 1
    assert "normalised white space" not in output


def test_answers_outside_the_context_are_counted_and_a_file_without_any_inside_is_refused(
    ernie: Callable[..., Outcome],
) -> None:
    def rows(*answers: str) -> str:
        answered = [{"text": "w1 ?", "pair": "w2 w3 w4", "label": {"text": [answer]}} for answer in answers]
        return "".join(json.dumps(row) + "\n" for row in answered)

    Path("train.jsonl").write_text(rows("w3", "w9", "w4"))
    Path("dev.jsonl").write_text(rows("w3", "w2"))
    command = ("finetune", "encoder", "--train", "train.jsonl", "--dev", "dev.jsonl", "--text", "text,pair", *QUICK)
    code, output, _ = ernie(*command, "--out", "out")
    assert code == 0
    assert "1 of 3 questions are skipped: no answer occurs in the context" in output
    Path("train.jsonl").write_text(rows("w8", "w9"))
    code, _, complaint = ernie(*command, "--out", "other")
    assert code == 2
    assert "no answer occurs in its context" in complaint


def test_an_untrained_task_id_is_refused_by_name(ernie: Callable[..., Outcome], tmp_path: Path) -> None:
    table("train.tsv", GOOD)
    table("dev.tsv", GOOD)
    ids, counts = {"knowledge_masking": 0, "ir_relevance": 1}, {"knowledge_masking": 9, "ir_relevance": 0}
    checkpoint = tiny.write_checkpoint(tmp_path / "run", with_ids=ids, instances=counts)
    code, _, complaint = ernie("finetune", checkpoint, *own("--task-id", "ir_relevance")[2:])
    assert code == 2
    assert "ir_relevance (task id 1) was not trained" in complaint
    assert "knowledge_masking (9)" in complaint


def test_refused_and_stopped_runs_leave_no_empty_folder(
    ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    table("train.tsv", GOOD)
    table("dev.tsv", GOOD)
    Path("stops.py").write_text(
        "from ernie2.training.hooks.base import Hook\n"
        "class Stops(Hook):\n"
        "    def stop_reason(self):\n"
        "        return 'enough'\n"
    )
    assert ernie(*own("--hook", "stops:Stops"))[0] == 75
    assert not Path("finetuned").exists()
    Path("out/mine").mkdir(parents=True)
    assert ernie(*own("--hook", "stops:Stops", "--out", "out"))[0] == 75
    assert [path.name for path in Path("out").iterdir()] == ["mine"]


def test_errors_from_python_name_python_arguments(tmp_path: Path) -> None:
    checkpoint = tiny.write_checkpoint(tmp_path / "encoder")
    with pytest.raises(ConfigError, match=r"no train file given.*from Python: files=\{'train': F, 'dev': F\}"):
        ernie2.finetune(checkpoint, out=tmp_path / "out")
    files = {split: table(str(tmp_path / f"{split}.tsv"), GOOD) for split in ("train", "dev")}
    with pytest.raises(ConfigError, match=r"pass a list of strings, \['epochs=1'\], not a string"):
        ernie2.finetune(checkpoint, files=files, settings="epochs=1", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_a_development_file_gets_a_note(ernie: Callable[..., Outcome]) -> None:
    write_glue(Path("data"))
    Path("data/RTE/dev.tsv").unlink()
    code, _, warned = ernie("finetune", "encoder", "--dataset", "rte", "--data", "data", "--seeds", "1", *QUICK)
    assert (code, "rte has no dev split here, so its models get no dev scores" in warned) == (0, True)


def test_missing_datasets_and_files_are_refused(ernie: Callable[..., Outcome]) -> None:
    Path("data").mkdir()
    for arguments, words in (
        (("--dataset", "mprc", "--data", "data"), "Did you mean 'mrpc'?"),
        (("--dataset", "mrpc", "--data", "data"), "data holds no file of MRPC"),
        (("--dataset", "glue", "--data", "data"), "has no subfolder with the files of any of cola"),
        (("--dataset", "mrpc"), "needs --data"),
        ((), "no train file given. Use --dataset NAME --data DIR, or for your own data --train F --dev F"),
    ):
        code, _, complaint = ernie("finetune", "encoder", *arguments)
        assert (code, words in complaint) == (2, True), complaint
    assert ernie("predict", "encoder", "x.tsv")[0] == 2


GLUE = {  # the official columns, two training rows of each class or so
    "CoLA": (None, ["s", "{label}", "", "{text}"], ("0", "1")),
    "SST-2": (["sentence", "label"], ["{text}", "{label}"], ("0", "1")),
    "MRPC": (["Quality", "a", "b", "#1 String", "#2 String"], ["{label}", "1", "2", "{text}", "w3"], ("0", "1")),
    "STS-B": (["index", "sentence1", "sentence2", "score"], ["{n}", "{text}", "w3", "{label}"], ("1.5", "4.0")),
    "QQP": (["id", "question1", "question2", "is_duplicate"], ["{n}", "{text}", "w3", "{label}"], ("0", "1")),
    "MNLI": (["index", "sentence1", "sentence2", "gold_label"], ["{n}", "{text}", "w3", "{label}"],
             ("entailment", "neutral", "contradiction")),
    "QNLI": (["index", "question", "sentence", "label"], ["{n}", "{text}", "w3", "{label}"],
             ("entailment", "not_entailment")),
    "RTE": (["index", "sentence1", "sentence2", "label"], ["{n}", "{text}", "w3", "{label}"],
            ("entailment", "not_entailment")),
    "WNLI": (["index", "sentence1", "sentence2", "label"], ["{n}", "{text}", "w3", "{label}"], ("0", "1")),
}  # fmt: skip
TESTS = 7


def write_glue(folder: Path) -> None:
    """The official folder with made-up texts; test files of seven rows, without labels."""
    rng = np.random.default_rng(0)
    for name, (header, cells, labels) in GLUE.items():
        place = folder / name
        place.mkdir(parents=True)
        halves = ("_matched", "_mismatched") if name == "MNLI" else ("",)
        for file, rows in [("train", 6), *((f"dev{h}", 4) for h in halves), *((f"test{h}", TESTS) for h in halves)]:
            test = file.startswith("test")
            kept = [i for i, cell in enumerate(cells) if not (test and cell == "{label}")]
            lines = [] if header is None else ["\t".join(header[i] for i in kept)]
            if header is None and test:
                lines, kept = ["index\tsentence"], []
            for n in range(rows):
                text = " ".join(rng.choice(tiny.WORDS, 4))
                filled = [cell.format(n=n, text=text, label=labels[n % len(labels)]) for cell in cells]
                lines.append("\t".join(filled[i] for i in kept) if kept else f"{n}\t{text}")
            (place / f"{file}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "AX").mkdir()
    rows = [f"{n}\tw1\tw{n}" for n in range(TESTS)]
    (folder / "AX/diagnostic.tsv").write_text("\n".join(["index\tsentence1\tsentence2", *rows]) + "\n")


def test_a_glue_submission_end_to_end(ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    write_glue(Path("glue_data"))
    monkeypatch.setattr(submission, "official_rows", lambda *_: TESTS)
    code, output, complaint = ernie(
        "finetune", "encoder", "--dataset", "glue", "--data", "glue_data", "--seeds", "1", "--out", "out",
        "--submission", "glue.zip", *QUICK,
    )  # fmt: skip
    assert code == 0
    assert all(line.endswith("is not measured") for line in complaint.splitlines())
    assert "GLUE score on development data" in output or "diverged" in output
    with zipfile.ZipFile("glue.zip") as archive:
        lines = archive.read("AX.tsv").decode().splitlines()
        assert lines[0] == "index\tprediction"
        assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "neutral", "contradiction"}
        scores = [float(line.split("\t")[1]) for line in archive.read("STS-B.tsv").decode().splitlines()[1:]]
        assert all(0 <= score <= 5 for score in scores)
    record = json.loads(Path("out/results.json").read_text())
    assert [one["dataset"] for one in record["datasets"]] == [
        "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli",
    ]  # fmt: skip
    assert any("mnli by seed 0" in note for note in record["notes"])


def test_labelled_diagnostics_are_scored_by_the_models_of_mnli(ernie: Callable[..., Outcome]) -> None:
    write_glue(Path("glue_data"))
    rows = [f"Logic\tw1\tw{n}\t{('entailment', 'neutral', 'contradiction')[n % 3]}" for n in range(TESTS)]
    full = Path("glue_data/AX/diagnostic-full.tsv")
    full.write_text("\n".join(["Lexical Semantics\tPremise\tHypothesis\tLabel", *rows]) + "\n")
    code, output, complaint = ernie(
        "finetune", "encoder", "--dataset", "mnli", "--data", "glue_data", "--seeds", "2", "--out", "out", *QUICK
    )
    assert code == 0
    assert all(line.endswith("is not measured") for line in complaint.splitlines())
    mnli, ax = json.loads(Path("out/results.json").read_text())["datasets"]
    assert (mnli["dataset"], ax["dataset"]) == ("mnli", "ax")
    (row,) = ax["rows"]
    assert (row["split"], row["metric"], len(row["values"])) == ("test", "matthews", 2)
    assert "test matthews" in output


def test_a_submission_with_short_test_files_is_refused_before_training(
    ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_glue(Path("glue_data"))
    monkeypatch.setattr(finetuning, "run_seeds", lambda *_, **__: pytest.fail("trained"))
    code, _, complaint = ernie(
        "finetune", "encoder", "--dataset", "glue", "--data", "glue_data", "--submission", "glue.zip"
    )
    assert code == 2
    assert re.search(r"QQP: 7 rows in .*QQP/test.tsv, the official file has 390,965", complaint)


def test_a_submission_without_a_training_file_is_refused_by_name(ernie: Callable[..., Outcome]) -> None:
    write_glue(Path("glue_data"))
    Path("glue_data/WNLI/train.tsv").unlink()
    code, _, complaint = ernie(
        "finetune", "encoder", "--dataset", "glue", "--data", "glue_data", "--submission", "glue.zip"
    )
    assert code == 2
    assert "missing: wnli (no training file)" in complaint


def test_datasets_of_a_group_without_training_file_are_skipped_with_a_note(ernie: Callable[..., Outcome]) -> None:
    write_glue(Path("glue_data"))
    Path("glue_data/WNLI/train.tsv").unlink()
    for name in ("QQP", "MNLI", "SST-2", "QNLI", "CoLA", "STS-B", "MRPC"):
        Path(f"glue_data/{name}").rename(f"{name}-elsewhere")
    code, output, warned = ernie(
        "finetune", "encoder", "--dataset", "glue", "--data", "glue_data", "--seeds", "1", *QUICK
    )
    assert code == 0
    assert "wnli (no training file)" in warned
    assert "ax has no labels here: the mnli model predicts it with --submission" in warned
    assert "rte (subset" in output
