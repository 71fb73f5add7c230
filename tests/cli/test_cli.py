"""The command line: fast help, exit codes, paths of results, and a message for every user error."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import ernie2
import tiny_run
from ernie2 import cli, console
from ernie2.errors import DataError, RunFailed
from ernie2.runs.recipes import load_recipe

COMMANDS = (
    "demo",
    "recipes",
    "tasks",
    "prepare",
    "inspect",
    "pretrain",
    "resume",
    "extend",
    "evaluate",
    "report",
    "study",
    "convert",
)
HEAVY = ("torch", "numpy", "sklearn", "transformers", "pydantic")
DOCUMENTS = [
    {
        "id": f"d{i}",
        "title": f"T{i}",
        "text": f"The fox {i} ran over Rome. Anna saw it.\n\nIt hid, and then it ran on. All was well.",
    }
    for i in range(40)
]

Outcome = tuple[int, str, str]


@pytest.fixture
def ernie(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line in this process: (exit code, what it printed, what it complained of)."""

    def run(*arguments: str | Path) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    import json

    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe for `DOCUMENTS` that trains in a second; `changes` replace whole top-level keys."""
    write_jsonl(folder / "corpus.jsonl", DOCUMENTS)
    recipe = {
        "name": "tiny",
        "run": str(folder / "run"),
        "corpora": {"foxes": {"path": str(folder / "corpus.jsonl")}},
        "tokenizer": {"train": 256},
        "shards": {"folder": str(folder / "shards"), "heldout": 0.2, "min_heldout": 5, "sentence_tokens": 26},
        "tasks": {"knowledge_masking": {}, "capitalization_prediction": {}, "sentence_reordering": {}},
        "stages": {"steps": 4},
        "batch": {"batch_tokens": 128, "pack_tokens": 128, "sequence_tokens": 32},
        "encoder": {"layers": 1, "hidden": 8, "heads": 1, "position_rows": 32},
        "train": {"heldout_instances": 4},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, **changes}), encoding="utf-8")
    return path


def half_written(folder: Path) -> list[str]:
    """Files and folders that were begun and not finished."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(".tmp")]


# --- help and version ---------------------------------------------------------------------------------------------


def test_help_is_fast_and_imports_no_heavy_library() -> None:
    code = (
        "import sys, time\nfrom ernie2.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        f"print(time.process_time(), *[m for m in {HEAVY} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(command in shown for command in COMMANDS)
    seconds, *loaded = shown.splitlines()[-1].split()
    assert loaded == []
    assert float(seconds) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_what_it_takes_and_leaves_and_gives_an_example(
    command: str, ernie: Callable[..., Outcome]
) -> None:
    code, shown, _ = ernie(command, "--help")
    assert code == 0
    assert f"Example  ernie2 {command}" in shown
    assert "Reads" in shown or "Writes" in shown


def test_the_version_is_printed(ernie: Callable[..., Outcome]) -> None:
    assert ernie("--version") == (0, f"ernie2 {ernie2.__version__}\n", "")


def test_quiet_keeps_results_and_drops_messages(
    here: Path, monkeypatch: pytest.MonkeyPatch, ernie: Callable[..., Outcome]
) -> None:
    def report(*_: object) -> Path:
        console.log_info("working")
        console.log_warning("warning: careful")
        console.log_debug("detail")
        return here / "report.html"

    monkeypatch.setattr("ernie2.report", report, raising=False)
    for arguments in (("--quiet", "report", "run"), ("report", "run", "--quiet")):
        _, out, complaint = ernie(*arguments)
        assert "working" not in out
        assert "next:" not in out
        assert "report.html" in out
        assert complaint == "warning: careful\n"
    for arguments in (("--verbose", "report", "run"), ("report", "--verbose", "run")):
        _, out, complaint = ernie(*arguments)
        assert "working" in out
        assert complaint == "warning: careful\ndetail\n"


def test_messages_and_errors_are_appended_to_a_log_file(here: Path, ernie: Callable[..., Outcome]) -> None:
    assert ernie("--log-file", "log.txt", "recipes", "demo-eng")[0] == 2
    assert ernie("recipes", "demo-eng", "--log-file", "log.txt")[0] == 2
    lines = (here / "log.txt").read_text().splitlines()
    assert len(lines) == 2
    assert all(" ERROR error: " in line for line in lines)


def test_a_log_file_that_cannot_be_written_and_quiet_with_verbose_are_refused(
    here: Path, ernie: Callable[..., Outcome]
) -> None:
    assert_refused(ernie("--log-file", "nowhere/log.txt", "tasks"), "cannot write --log-file nowhere/log.txt")
    assert_refused(ernie("--quiet", "--verbose", "tasks"), "--quiet and --verbose")
    assert_refused(ernie("--quiet", "tasks", "--verbose"), "--quiet and --verbose")
    assert ernie("--log-file", "a", "tasks", "--log-file", "b")[0] == 2


def test_of_many_ranks_the_first_alone_writes_the_log_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, ernie: Callable[..., Outcome]
) -> None:
    monkeypatch.setenv("RANK", "1")
    ernie("recipes", "demo-eng", "--log-file", "log.txt")
    assert not (here / "log.txt").exists()
    monkeypatch.setenv("RANK", "0")
    ernie("recipes", "demo-eng", "--log-file", "log.txt")
    assert (here / "log.txt").exists()


def test_verbose_shows_where_an_error_was_raised(here: Path, ernie: Callable[..., Outcome]) -> None:
    assert "Traceback" in ernie("--verbose", "recipes", "demo-eng")[2]
    assert "Traceback" not in ernie("recipes", "demo-eng")[2]


def test_the_package_runs_as_a_module_too() -> None:
    shown = subprocess.run([sys.executable, "-m", "ernie2", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"ernie2 {ernie2.__version__}\n"


def test_a_reader_that_goes_away_is_met_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ernie2", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    "arguments", [["prepair", "demo-en"], ["prepare"], ["inspect", "x", "-n", "many"], ["demo", "--loud"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], ernie: Callable[..., Outcome]) -> None:
    code, _, complaint = ernie(*arguments)
    assert code == 2
    assert "Usage: ernie2" in complaint


# --- how a command ends -------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[..., Any]:
    def verb(*_: object, **__: object) -> None:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("corpus.txt is empty; give it text."), 2, "error: corpus.txt is empty; give it text.\n"),
        (RunFailed("the loss is not finite."), 1, "error: the loss is not finite.\n"),
    ],
)
def test_an_error_of_ours_is_one_line_and_its_exit_code(
    error: Exception, code: int, said: str, ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ernie2, "prepare", raising(error), raising=False)
    assert ernie("prepare", "demo-en") == (code, "", said)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOENT, errno.EMFILE])
def test_a_file_system_that_fails_is_named_with_the_place_and_is_no_fault_of_ours(
    number: int, ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ernie2, "report", raising(OSError(number, "full", "runs/a/report.html")), raising=False)
    code, _, complaint = ernie("report", "runs/a")
    assert code == 2
    assert complaint.startswith("error: file system error at runs/a/report.html: ")
    assert "Traceback" not in complaint


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), ConnectionResetError(errno.ECONNRESET, "oh")])
def test_a_fault_of_ours_shows_where_it_is_and_asks_for_a_report(
    error: Exception, ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ernie2, "report", raising(error), raising=False)
    code, _, complaint = ernie("report", "runs/a")
    assert code == 1
    assert "Traceback" in complaint
    assert "Please report it" in complaint


def test_an_interrupted_run_says_how_to_go_on(
    here: Path, ernie: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ernie2, "pretrain", raising(KeyboardInterrupt()), raising=False)
    code, _, complaint = ernie("pretrain", write_recipe(here))
    assert code == 130
    assert complaint == "\ninterrupted: no checkpoint was written yet; run the same command to start again.\n"
    (here / "run" / "checkpoints" / "step_0000004").mkdir(parents=True)
    code, _, complaint = ernie("pretrain", here / "recipe.yaml")
    assert code == 130
    assert complaint.endswith(f"ernie2 resume {here / 'run'}\n")


# --- the way that works -------------------------------------------------------------------------------------------


def test_recipes_are_listed_and_written_once(here: Path, ernie: Callable[..., Outcome]) -> None:
    code, shown, _ = ernie("recipes")
    assert code == 0
    assert "demo-en" in shown
    code, shown, _ = ernie("recipes", "demo-en", "mine.yaml")
    assert code == 0
    assert "ernie2 prepare mine.yaml" in shown
    written = (here / "mine.yaml").read_text(encoding="utf-8")
    code, _, complaint = ernie("recipes", "demo-zh", "mine.yaml")
    assert code == 2
    assert "mine.yaml" in complaint
    assert (here / "mine.yaml").read_text(encoding="utf-8") == written


def test_tasks_are_listed_with_level_labels_and_origin(ernie: Callable[..., Outcome]) -> None:
    code, shown, _ = ernie("tasks")
    assert code == 0
    assert "sentence_reordering  (sentence-level, 33 labels, from ernie2)" in shown
    assert "sentence_distance  (sentence-level, 3 labels, from ernie2)" in shown
    assert "discourse_relation  (sentence-level, labels: from the data, from ernie2)" in shown
    assert "knowledge_masking  (token-level, labels: the vocabulary, from ernie2)" in shown


# --- what a user can do wrong -------------------------------------------------------------------------------------


def assert_refused(outcome: Outcome, *said: str) -> None:
    """Exit code 2, a message holding each of `said` after any warnings, no traceback."""
    code, _, complaint = outcome
    assert code == 2, complaint
    warned, error, complaint = complaint.partition("error: ")
    assert error
    assert warned == "" or warned.endswith("\n")
    assert "Traceback" not in complaint
    for words in said:
        assert words in complaint


def break_nothing(folder: Path) -> Path:
    return folder / "absent.jsonl"


def break_by_directory(folder: Path) -> Path:
    (folder / "texts.jsonl").mkdir()
    return folder / "texts.jsonl"


def break_encoding(folder: Path) -> Path:
    (folder / "latin1.txt").write_bytes("Ein Gr\xfc\xdf\nNoch einer\n".encode("latin-1"))
    return folder / "latin1.txt"


def break_by_emptiness(folder: Path) -> Path:
    (folder / "empty.txt").write_text("", encoding="utf-8")
    return folder / "empty.txt"


def break_a_line(folder: Path) -> Path:
    path = write_jsonl(folder / "cut.jsonl", DOCUMENTS)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def break_a_field(folder: Path) -> Path:
    return write_jsonl(folder / "body.jsonl", [*DOCUMENTS[:2], {"id": "x", "body": "The field is called body."}])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (break_nothing, ["absent.jsonl", "no such file"]),
        (break_by_directory, ["texts.jsonl", "is a directory"]),
        (break_encoding, ["latin1.txt", "UTF-8"]),
        (break_by_emptiness, ["empty.txt", "no document"]),
        (break_a_line, ["cut.jsonl", "line 40"]),
        (break_a_field, ["body.jsonl", "line 3", "'text'"]),
    ],
)
def test_a_corpus_that_cannot_be_read_is_refused_and_leaves_nothing(
    broken: Callable[[Path], Path], said: list[str], here: Path, ernie: Callable[..., Outcome]
) -> None:
    recipe = write_recipe(here, corpora={"foxes": {"path": str(broken(here))}})
    assert_refused(ernie("prepare", recipe, "--workers", "1"), *said)
    assert not (here / "shards" / "shards.json").exists()
    assert half_written(here) == []


def test_a_recipe_that_is_not_there_is_refused_with_the_nearest_name(here: Path, ernie: Callable[..., Outcome]) -> None:
    assert_refused(ernie("prepare", "demo-eng"), "'demo-eng'", "Did you mean 'demo-en'?")
    assert_refused(ernie("prepare", here), str(here), "is a folder")


def test_all_wrong_keys_tasks_and_options_are_named_at_once(here: Path, ernie: Callable[..., Outcome]) -> None:
    recipe = write_recipe(
        here, trian={}, encoder={"layer": 2}, tasks={"sentence_distence": {}, "knowledge_masking": {"mask_shar": 0.1}}
    )
    outcome = ernie("pretrain", recipe)
    assert_refused(outcome, "4 problems", "trian", "'train'", "encoder.layer", "'layers'", "mask_shar", "'mask_share'")
    assert_refused(outcome, "no task is called 'sentence_distence'", "recipe.yaml")
    assert not (here / "run").exists()


@pytest.mark.parametrize("override", ["train.peak_lr", "train.peak_lr=fast", "name.first=x", "train.peak_lr=[1"])
def test_a_wrong_override_is_refused(override: str, here: Path, ernie: Callable[..., Outcome]) -> None:
    assert_refused(ernie("prepare", write_recipe(here), override), override.split("=")[0].split(".")[0])


def test_a_folder_that_holds_no_shards_is_refused(here: Path, ernie: Callable[..., Outcome]) -> None:
    (here / "photos").mkdir()
    assert_refused(ernie("inspect", here / "photos"), "photos")
    assert_refused(ernie("inspect", here / "absent"), "absent")


def test_inspect_refuses_what_a_recipe_has_not_prepared_and_values_for_a_folder(
    here: Path, ernie: Callable[..., Outcome]
) -> None:
    recipe = write_recipe(here)
    assert_refused(ernie("inspect", recipe), "ernie2 prepare")
    (here / "photos").mkdir()
    assert_refused(ernie("inspect", here / "photos", "batch.sequence_tokens=64"), "need a recipe")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny recipe was run."""
    folder = tmp_path_factory.mktemp("trained")
    ernie2.pretrain(write_recipe(folder))
    return folder


def test_quiet_shows_warnings_about_damage(here: Path, ernie: Callable[..., Outcome]) -> None:
    recipe = write_recipe(here, train={"heldout_instances": 4, "checkpoint_every": 1})
    assert ernie("--quiet", "pretrain", recipe)[0] == 0
    newest = max((here / "run" / "checkpoints").iterdir())
    (newest / "model.safetensors").write_bytes(b"damaged")
    code, _, complaint = ernie("--quiet", "evaluate", here / "run")
    assert code == 0
    assert f"Skipping a damaged checkpoint: {newest}" in complaint


def test_prepare_dry_run_and_pretrain_note_levels_without_spans(here: Path, ernie: Callable[..., Outcome]) -> None:
    recipe = write_recipe(here, tasks={"knowledge_masking": {"mix": {"entity": 1.0}}})
    said = "Note: knowledge_masking, corpus foxes: no entities found (0.0 % of units), so level 'entity' does nothing"
    for arguments in (["prepare"], ["pretrain", "--dry-run"], ["pretrain"]):
        assert said in ernie(*arguments, recipe)[2], arguments


def test_inspect_takes_tasks_and_length_from_a_recipe_and_defaults_for_a_folder(
    trained: Path, ernie: Callable[..., Outcome]
) -> None:
    by_recipe = ernie("inspect", trained / "recipe.yaml", "-n", "0")
    tokens = load_recipe(trained / "recipe.yaml").batch.sequence_tokens
    assert by_recipe[0] == 0
    assert f"instances of up to {tokens} tokens" in by_recipe[1]
    assert "task sentence_distance" not in by_recipe[1]
    by_folder = ernie("inspect", trained / "shards", "-n", "0")
    assert "instances of up to 512 tokens" in by_folder[1]
    assert "task sentence_distance" in by_folder[1]


@pytest.mark.parametrize("command", ["resume", "report", "evaluate"])
def test_a_folder_that_is_no_run_is_refused(
    command: str, trained: Path, here: Path, ernie: Callable[..., Outcome]
) -> None:
    (here / "photos").mkdir()
    data = ["--data", trained / "shards"] if command == "evaluate" else []
    for folder in ("photos", "absent"):
        assert_refused(ernie(command, here / folder, *data), folder)
    assert list((here / "photos").iterdir()) == []


def test_a_run_says_what_it_left_and_what_to_do_next(here: Path, ernie: Callable[..., Outcome]) -> None:
    code, shown, complaint = ernie("pretrain", write_recipe(here))
    assert code == 0
    assert all(line.startswith("Note: knowledge_masking, corpus foxes: no ") for line in complaint.splitlines())
    for part in ("report.html", "hf"):
        assert (here / "run" / part).exists()
        assert str(here / "run" / part) in shown
    assert "next:" in shown
    assert half_written(here) == []


def test_a_run_folder_is_not_trained_over(trained: Path, ernie: Callable[..., Outcome]) -> None:
    before = (trained / "run" / "metrics.jsonl").read_bytes()
    assert_refused(ernie("pretrain", trained / "recipe.yaml"), str(trained / "run"), "ernie2 extend")
    assert (trained / "run" / "metrics.jsonl").read_bytes() == before


def test_init_from_a_folder_that_is_no_checkpoint_is_refused(
    trained: Path, here: Path, ernie: Callable[..., Outcome]
) -> None:
    (here / "photos").mkdir()
    for folder in ("photos", "absent"):
        outcome = ernie("pretrain", trained / "recipe.yaml", f"run={here}/run", "--init-from", here / folder)
        assert_refused(outcome, folder)
    assert not (here / "run").exists()


def test_shards_of_another_tokeniser_are_refused(trained: Path, here: Path, ernie: Callable[..., Outcome]) -> None:
    other = ernie2.prepare(write_recipe(here), ["tokenizer.train=80"])
    assert_refused(ernie("evaluate", trained / "run", "--data", other), str(other), "another tokeniser")
    first = next((trained / "shards" / "foxes").iterdir())
    shutil.rmtree(other / "foxes" / first.name)
    shutil.copytree(first, other / "foxes" / first.name)
    assert_refused(ernie("inspect", other), first.name, "another tokeniser")


def test_a_damaged_checkpoint_is_refused(trained: Path, here: Path, ernie: Callable[..., Outcome]) -> None:
    run = shutil.copytree(trained / "run", here / "run")
    tiny_run.write_run_json(run, status="running")
    for weights in run.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    assert_refused(ernie("resume", run), "run", "checksum")


def can_mount() -> bool:
    """Whether a test may mount a small file system that nobody else sees."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs a private mount namespace")
@pytest.mark.parametrize("kilobytes", [60, 160])
def test_a_full_disk_ends_in_a_message_and_no_partial_files(kilobytes: int, here: Path) -> None:
    recipe, small = write_recipe(here), here / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size={kilobytes}k none {small} && {{ {sys.executable} -m ernie2 pretrain {recipe}"
        f" run={small}/run shards.folder={small}/shards; code=$?; find {small} -name '*.tmp' >&2; exit $code; }}"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert str(small) in done.stderr
    assert ".tmp" not in done.stderr


def test_an_option_given_twice_is_refused_where_it_takes_one_value(ernie) -> None:
    for command in (
        ("finetune", "x", "--text", "a", "--text", "b"),
        ("mine", "discourse", "a", "b", "--text=a", "--text=b"),
    ):
        code, _, complained = ernie(*command)
        assert code == 2
        assert "--text is given more than once" in complained
        assert ("Use --text a,b." in complained) == (command[0] == "finetune")
    assert "more than once" not in ernie("finetune", "x", "--file", "train=a", "--file", "dev=b")[2]


def test_help_shows_text_in_brackets(ernie) -> None:
    assert ".[onnx]" in ernie("export", "--help")[1]
