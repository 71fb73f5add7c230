"""`prepare` on small corpora: its output, determinism, restarts, errors and messages."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import uuid
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from child_processes import wait_until
from ernie2 import processes
from ernie2.errors import (
    ConfigError,
    DataError,
    Ernie2Error,
    FolderInUse,
    RunFailed,
    ShardError,
    StorageError,
    TokenizerError,
)
from ernie2.runs.recipes import load_recipe
from ernie2.shards import input_files, pipeline
from ernie2.shards.prepare import prepare
from ernie2.shards.provenance import check_settings
from ernie2.shards.shard_folders import locked_shards
from ernie2.shards.staging import StagingDirectory
from ernie2.shards.store import CAPITALISED, CASED, WORD_START, Shards
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.storage.locks import FolderLock

GERMAN = """Der alte Kapitän sah über das Meer. Die Straße nach Köln war lang; „Ärgerlich!“, rief er.
Am nächsten Morgen begann die Reise. Niemand wusste, wohin sie führte.

Im Winter liest Änne viele Bücher. Das Haus am Fluss gehört ihrer Großmutter.
"""
HINDI = """नमस्ते दुनिया। यह एक छोटा पाठ है। हम आज बाज़ार जाते हैं।
पुस्तक मेज़ पर है।

मौसम अच्छा है। बच्चे बाहर खेलते हैं।
"""
SENTENCES = [
    "The old captain of a long grey vessel looked over the sea.",
    "Nobody in Port Royal had seen the ship before!",
    "It rained; the crew slept.",
    "Why did Mary Anning leave for Lyme Regis?",
    "A storm came up, and with all hands but two she was lost.",
    "His letters speak of little else: tar, rum, weather, wind and work.",
    "They sold fish, rope and salt in the harbour.",
]


def english(folder, documents=60):
    """A jsonl.gz of documents of one to four paragraphs, one of them twice."""
    file = folder / "in.jsonl.gz"
    with gzip.GzipFile(file, "wb", mtime=0) as packed, io.TextIOWrapper(packed, encoding="utf-8") as lines:
        for number in [*range(documents), 0]:
            rng = np.random.default_rng(number)
            paragraphs = [
                f"{number}. " + " ".join(rng.choice(SENTENCES, rng.integers(1, 6))) for _ in range(rng.integers(1, 5))
            ]
            if number % 3 == 0:
                paragraphs[0] += " They called her Grand Duchess Anna."
            row = {"id": f"doc{number}", "text": "\n\n".join(paragraphs), "spans": [[0, len(str(number)), "user"]]}
            lines.write(json.dumps(row) + "\n")
    return file


def recipe(folder, path, language="en", name="text", **parts):
    described = {
        "name": "test",
        "run": str(folder / "run"),
        "corpora": {name: {"path": str(path), "language": language, "licence": "CC0"}},
        "tokenizer": {"train": 200, "max_unknown": 1},
        "knowledge": {"phrases": {"min_count": 4, "min_npmi": 0.3}},
        "shards": {"folder": str(folder / "shards"), "shard_tokens": 1000, "min_heldout": 5},
        "tasks": {"knowledge_masking": {}},
    }
    return load_recipe({**described, **parts})


def contents(folder: Path):
    """Every file below `folder` by its checksum."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards of the English text, built by one worker."""
    folder = tmp_path_factory.mktemp("made")
    return prepare(recipe(folder, english(folder)), workers=1), folder


def test_the_manifest_describes_the_dataset(made):
    shards, _ = made
    facts = shards.facts["corpora"]["text"]
    corpus = shards.corpora["text"]
    assert (facts["documents"], facts["heldout_documents"], facts["dropped"]) == (60, 5, {"duplicate": 1})
    assert (corpus.num_documents("train"), corpus.num_documents("heldout")) == (55, 5)
    assert facts["tokens"] == corpus.num_tokens("train") + corpus.num_tokens("heldout")
    assert len(facts["shards"]) > 3
    assert facts["spans"]["user"] == 60
    assert shards.facts["phrases"] > 0
    assert (corpus.language, corpus.licence) == ("en", "CC0")
    for shard in corpus.shards:
        shard.verify()


def test_only_the_dataset_itself_remains(made):
    shards, _ = made
    names = [
        "phrases.tsv",
        "readers.lock",
        "shards.json",
        "text",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert sorted(entry.name for entry in shards.folder.iterdir()) == ["input-files.json", *names]
    assert load_tokenizer(shards.folder / "tokenizer.json").fingerprint == shards.tokenizer_fingerprint


def test_phrases_are_readable_and_marked(made):
    shards, _ = made
    lines = (shards.folder / "phrases.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["phrase", "count", "npmi"]
    assert "grand duchess anna" in [line.split("\t")[0] for line in lines]
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    corpus = shards.corpora["text"]
    marked = {
        tokenizer.decode(document.tokens[first:end])
        for number in range(corpus.num_documents("train"))
        for document in [corpus.document("train", number)]
        for first, end in document.spans.get("phrase", np.zeros((0, 2), dtype=int)).tolist()
    }
    assert any("grand duchess" in phrase for phrase in marked)


def test_a_changed_phrases_file_is_noticed_when_shards_are_opened(made, tmp_path):
    shards, _ = made
    folder = shutil.copytree(shards.folder, tmp_path / "shards")
    Shards(folder)
    with (folder / "phrases.tsv").open("a", encoding="utf-8") as file:
        file.write("of the\t9\t0.5\n")
    with pytest.raises(ShardError, match=r"phrases\.tsv does not match its checksum: the shards are damaged"):
        Shards(folder)


def test_tokens_and_flags_are_those_of_the_text(made):
    shards, folder = made
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    texts = {}
    with gzip.open(folder / "in.jsonl.gz", "rt") as lines:
        for line in lines:
            texts[json.loads(line)["id"]] = json.loads(line)["text"]
    corpus = shards.corpora["text"]
    for number in range(10):
        document = corpus.document("train", number)
        text = texts[document.name]
        (encoding,) = tokenizer.encode_batch([text])
        assert document.tokens.tolist() == encoding.ids
        words = [text[start:end] for start, end in encoding.offsets]
        begins = document.flags & WORD_START > 0
        capital = [word[0].isupper() for word, begin in zip(words, begins, strict=True) if begin]
        assert [bool(flags & CAPITALISED) for flags in document.flags[begins]] == capital
        assert len(document.paragraphs) - 1 == text.count("\n\n") + 1
        assert document.spans["user"].tolist()[0][0] == 0


def test_two_workers_write_the_same_bytes(made, tmp_path):
    shards, folder = made
    again = prepare(recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path)), workers=2)
    assert contents(again.folder) == contents(shards.folder)


def _shards(folder):
    return {"folder": str(folder / "shards"), "shard_tokens": 1000, "min_heldout": 5}


SCRIPT = """
import sys
from test_prepare import recipe, _shards
from pathlib import Path
from ernie2.shards.prepare import prepare
made, folder, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
prepare(recipe(made, made / "in.jsonl.gz", shards=_shards(folder)), workers=workers)
"""


def start(made, folder, workers, script=SCRIPT):
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", script, str(made), str(folder), str(workers)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def finished_units(folder):
    """The markers of the units that `prepare` has tokenised."""
    return list((folder / "shards").glob(".prepare-*/completed/tokenise/completions/*"))


@pytest.mark.parametrize(("workers", "after"), [(1, 2), (2, 3)])
def test_a_run_killed_half_way_and_restarted_writes_the_same_bytes(made, tmp_path, workers, after):
    """Kill only the main process; its workers must stop by themselves."""
    shards, folder = made
    process = start(folder, tmp_path, workers)
    try:
        wait_until(lambda: process.poll() is not None or len(finished_units(tmp_path)) >= after)
        process.kill()
        process.wait()
        assert not (tmp_path / "shards" / "shards.json").exists(), (tmp_path / "log").read_text()
        markers = finished_units(tmp_path)
        assert len(markers) >= after
        before = {marker.name: marker.stat().st_mtime_ns for marker in markers}
        markers_after = {}

        def watch(progress):
            if progress.stage in ("phrases", "mark"):
                markers_after.update({m.name: m.stat().st_mtime_ns for m in markers if m.exists()})

        again = prepare(recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path)), 2, watch)
        assert markers_after == before  # finished units were not repeated
        assert contents(again.folder) == contents(shards.folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def of_session(session):
    """Living processes of `session`, including its first one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(number) == session and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_leaves_neither_processes_nor_semaphores(made, tmp_path, workers):
    prefix = f"/mp-{uuid.uuid4().hex[:12]}"
    named = f"import multiprocessing; multiprocessing.process.current_process()._config['semprefix'] = {prefix!r}\n"
    process = start(made[1], tmp_path, workers, named + SCRIPT)
    try:
        wait_until(lambda: process.poll() is not None or finished_units(tmp_path))
        assert len(of_session(process.pid)) >= workers
        process.kill()
        process.wait()
        wait_until(lambda: of_session(process.pid) == [])
        assert list(Path("/dev/shm").glob(f"sem.{prefix[1:]}*")) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("at", ["vocab.txt", "tokenizer_config.json", "tokenizer.json"])
def test_a_run_killed_while_saving_the_tokeniser_can_be_finished(made, tmp_path, monkeypatch, at):
    shards, folder = made
    new_recipe = recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path))
    replace = os.replace

    def dying(source, target):
        if Path(target).name == at:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("ernie2.storage.atomic.os.replace", dying)
        with pytest.raises(KeyboardInterrupt):
            prepare(new_recipe, workers=1)
    (work,) = (tmp_path / "shards").glob(".prepare-*")
    for place in (work / "set", work / "set" / "text", work.parent):  # a kill leaves more files than an exception
        (place / ".names.json.abcdefgh.tmp" / "half").mkdir(parents=True)
        (place / ".names.json.abcdefgh.tmp" / "names.json").touch()
    assert contents(prepare(new_recipe, workers=1).folder) == contents(shards.folder)


def test_a_run_killed_while_moving_into_place_can_be_finished(made, tmp_path, monkeypatch):
    shards, folder = made
    new_recipe = recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path))
    moved = []
    replace = os.replace

    def dying(source, target):
        if Path(source).parent.name == "set" and Path(target).parent.name == "shards":
            moved.append(target)
            if len(moved) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("ernie2.storage.atomic.os.replace", dying)
        with pytest.raises(KeyboardInterrupt):
            prepare(new_recipe, workers=1)
    assert not (tmp_path / "shards" / "shards.json").exists()
    assert contents(prepare(new_recipe, workers=1).folder) == contents(shards.folder)


def test_nothing_is_repeated_if_nothing_changed(made):
    shards, folder = made
    before = contents(shards.folder)
    stages = []
    again = prepare(recipe(folder, folder / "in.jsonl.gz"), 2, lambda progress: stages.append(progress.stage))
    assert stages == ["unchanged"]
    assert again.fingerprint == shards.fingerprint
    assert contents(shards.folder) == before


def test_shards_are_complete_even_if_the_staging_directory_cannot_be_removed(tmp_path, monkeypatch, capsys):
    """EIO while removing: the staging directory remains, with a warning of one line."""

    def refuse(path, *_, **__):
        if Path(path).name.startswith(".prepare-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path)

    real = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", refuse)
    new_recipe = recipe(tmp_path, english(tmp_path, 20))
    shards = prepare(new_recipe, workers=1)
    assert Shards(shards.folder).fingerprint == shards.fingerprint
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {shards.folder}/.prepare-")
    assert "cannot be removed: Input/output error. It is no longer needed" in warning
    assert warning.count("\n") == 1
    monkeypatch.undo()
    prepare(new_recipe, workers=1)
    assert not list(shards.folder.glob(".prepare*"))


def test_other_shards_are_only_replaced_on_request(made, tmp_path):
    _, folder = made
    names = tmp_path / "names.txt"
    names.write_text("Port Royal\n")
    first = prepare(recipe(tmp_path, english(tmp_path, 20)), workers=1)
    before = contents(first.folder)
    text = tmp_path / "in.jsonl.gz"
    for documents, changes, different in (
        (25, {}, "in.jsonl.gz changed"),
        (20, {"shards": {**_shards(tmp_path), "share": 0.9}}, "different settings (shards)"),
        (20, {"tokenizer": _saved(folder)}, "different settings (tokenizer)"),
        (20, {"name": "other"}, "different settings (corpora)"),
        (20, {"knowledge": {"gazetteer": str(names), "phrases": None}}, "is new, different settings (knowledge)"),
    ):
        english(tmp_path, documents)
        new_recipe = recipe(tmp_path, text, **changes)
        message = r"contains shards built .*\. Use another shards\.folder, .*--replace"
        with pytest.raises(ShardError, match=message) as refused:
            prepare(new_recipe, workers=1)
        assert all(part in str(refused.value) for part in different.split(", "))
        assert contents(first.folder) == before
    (first.folder / "shards.json").write_text("[]")
    with pytest.raises(ShardError, match=r"built by another version, or damaged ones.*--replace"):
        prepare(new_recipe, workers=1)
    assert prepare(new_recipe, workers=1, replace=True).facts["phrases"] == 0


def plain_recipe(folder, **parts):
    """A recipe of a corpus of two text files."""
    text = "\n\n".join(f"{number}. {' '.join(SENTENCES)}" for number in range(30))
    for name in ("words.txt", "more.txt"):
        (folder / name).write_text(f"{name}. {text}")
    paths = [str(folder / "words.txt"), str(folder / "more.txt")]
    return recipe(folder, "unused", corpora={"text": {"path": paths, "language": "en"}}, **parts)


def test_touched_files_are_unchanged_and_hashed_once(tmp_path, monkeypatch):
    new_recipe, hashed = plain_recipe(tmp_path), []
    first = prepare(new_recipe, workers=1)
    real = input_files.checksum
    monkeypatch.setattr(input_files, "checksum", lambda path: hashed.append(path.name) or real(path))
    prepare(new_recipe, workers=1)
    assert hashed == []
    os.utime(tmp_path / "words.txt", (1, 1))
    assert prepare(new_recipe, workers=1).fingerprint == first.fingerprint
    prepare(new_recipe, workers=1)
    assert hashed == ["words.txt"]


def test_a_file_of_the_same_size_and_other_content_is_named(tmp_path):
    new_recipe = plain_recipe(tmp_path)
    prepare(new_recipe, workers=1)
    content = (tmp_path / "words.txt").read_text()
    (tmp_path / "words.txt").write_text(content.replace("rained", "snowed"))
    os.utime(tmp_path / "more.txt", (1, 1))
    with pytest.raises(ShardError) as refused:
        prepare(new_recipe, workers=1)
    assert str(refused.value) == (
        f"{tmp_path}/shards contains shards built from different input (words.txt changed). Use another "
        "shards.folder, or replace them with `ernie2 prepare RECIPE --replace`; runs trained on the old shards can "
        "then no longer be resumed or evaluated."
    )
    (tmp_path / "words.txt").write_text(content)
    prepare(new_recipe, workers=1)


def test_added_files_removed_files_another_order_and_other_settings_are_named(tmp_path):
    new_recipe = plain_recipe(tmp_path)
    prepare(new_recipe, workers=1)
    words, more = new_recipe.corpora["text"].paths
    (tmp_path / "third.txt").write_text("A third file. It is short.\n")
    for paths, shards, why in (
        ([words, more, str(tmp_path / "third.txt")], {}, "from different input (third.txt is new)."),
        ([words], {}, "from different input (more.txt is no longer read)."),
        ([more, words], {}, "from different input (the order of the files, or which corpus reads them)."),
        ([words, more], {"share": 0.9}, "with different settings (shards)."),
        ([words], {"share": 0.9}, "from different input (more.txt is no longer read) and with different settings (sh"),
    ):
        corpora = {"text": {"path": paths, "language": "en"}}
        with pytest.raises(ShardError) as refused:
            prepare(recipe(tmp_path, "unused", corpora=corpora, shards={**_shards(tmp_path), **shards}), workers=1)
        assert f"contains shards built {why}" in str(refused.value)


def test_existing_shards_do_not_match_a_recipe_with_other_settings(made, tmp_path):
    shards, folder = made
    new_recipe = recipe(folder, tmp_path / "gone.txt")
    check_settings(shards, new_recipe)
    (tmp_path / "names.txt").write_text("Port Royal\n")
    for changes, different in (
        ({"shards": {**new_recipe.shards.model_dump(), "share": 0.9}}, "shards"),
        ({"tokenizer": {"train": 300}}, "tokenizer"),
        ({"knowledge": {"gazetteer": str(tmp_path / "names.txt")}}, "knowledge"),
    ):
        with pytest.raises(ShardError, match=rf"other settings than the recipe has \({different}\)"):
            check_settings(shards, recipe(folder, tmp_path / "gone.txt", **changes))


def test_a_dataset_is_replaced_completely(tmp_path):
    first = prepare(recipe(tmp_path, english(tmp_path, 20), name="old"), workers=1)
    (tmp_path / "names.txt").write_text("Port Royal\nMary Anning\n")
    knowledge = {"gazetteer": str(tmp_path / "names.txt"), "phrases": None}
    stages = []
    second = prepare(
        recipe(tmp_path, english(tmp_path, 25), name="new", knowledge=knowledge),
        workers=1,
        progress=lambda progress: stages.append(progress.stage),
        replace=True,
    )
    assert list(dict.fromkeys(stages)) == ["read", "vocabulary", "tokenise"]
    assert second.fingerprint != first.fingerprint
    assert list(second.corpora) == ["new"]
    assert second.facts["corpora"]["new"]["spans"]["entity"] > 0
    names = [
        "input-files.json",
        "new",
        "readers.lock",
        "shards.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert sorted(entry.name for entry in second.folder.iterdir()) == names


def test_a_dataset_that_a_process_reads_is_not_replaced(tmp_path):
    first = prepare(plain_recipe(tmp_path), workers=1)
    before, new_recipe = contents(first.folder), plain_recipe(tmp_path, shards={**_shards(tmp_path), "share": 0.5})
    stages = []
    with locked_shards(first):
        before |= {"readers.lock": contents(first.folder)["readers.lock"]}
        message = r"shards is being read by process \d+ on .*\. Wait for it or stop it; choose another shards\.folder\."
        with pytest.raises(FolderInUse, match=message):
            prepare(new_recipe, 1, lambda progress: stages.append(progress.stage), replace=True)
        assert stages == []
        assert contents(first.folder) == before
    assert prepare(new_recipe, workers=1, replace=True).fingerprint != first.fingerprint
    with pytest.raises(ShardError, match="was replaced while this command started"), locked_shards(first):
        pass


def test_a_reader_that_starts_during_the_build_keeps_the_old_dataset_and_the_finished_work(tmp_path, monkeypatch):
    first = prepare(plain_recipe(tmp_path), workers=1)
    new_recipe = plain_recipe(tmp_path, shards={**_shards(tmp_path), "share": 0.5})
    with contextlib.ExitStack() as held:

        def report(progress):
            if progress.stage == "mark" and progress.done == progress.total:
                held.enter_context(locked_shards(first))

        with pytest.raises(FolderInUse):
            prepare(new_recipe, 1, report, replace=True)
        assert Shards(first.folder).fingerprint == first.fingerprint
    stages = []
    assert prepare(new_recipe, 1, lambda p: stages.append(p.stage), replace=True).fingerprint != first.fingerprint
    assert stages == []


def test_progress_counts_up_to_all_characters(tmp_path):
    seen = {}
    prepare(
        recipe(tmp_path, english(tmp_path, 30)), workers=1, progress=lambda p: seen.setdefault(p.stage, []).append(p)
    )
    assert list(seen) == ["read", "vocabulary", "tokenise", "phrases", "mark"]
    for stage in ("tokenise", "mark"):
        assert seen[stage][-1].done == seen[stage][-1].total > 0
        done = [progress.done for progress in seen[stage]]
        assert done == sorted(done)


def test_german_keeps_its_capitals_and_a_script_without_case_has_no_flags_for_it(tmp_path):
    for name, text in (("de", GERMAN), ("hi", HINDI)):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    corpora = {name: {"path": str(tmp_path / f"{name}.txt"), "language": name} for name in ("de", "hi")}
    shards = prepare(recipe(tmp_path, "unused", corpora=corpora), workers=1)
    flags = {name: np.concatenate([shard.flags for shard in corpus.shards]) for name, corpus in shards.corpora.items()}
    assert not (flags["hi"] & (CASED | CAPITALISED)).any()
    german = flags["de"][flags["de"] & WORD_START > 0]
    words = GERMAN.replace("„", " ").replace("!“,", " ").replace(";", " ").replace(".", " ").replace(",", " ").split()
    cased = german[german & CASED > 0]
    assert [bool(flag & CAPITALISED) for flag in cased] == [word[0].isupper() for word in words]
    assert shards.facts["corpora"]["hi"]["heldout_documents"] == 1  # at most half of two


def test_chinese_words_and_names_are_marked(tmp_path):
    text = "小明在北京大学读书。他喜欢数学。\n\n上海是一座城市。\n"
    (tmp_path / "zh.txt").write_text(text, encoding="utf-8")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(text) - {"\n"})]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    tokenizer = {"file": str(tmp_path / "vocab.txt")}
    shards = prepare(recipe(tmp_path, tmp_path / "zh.txt", "zh", tokenizer=tokenizer), workers=1)
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    shard = shards.corpora["text"].shards[0]
    marked = {
        kind: {tokenizer.decode(shard.tokens[first:end]).replace(" ", "") for first, end in runs.tolist()}
        for kind, (runs, _) in shard.spans.items()
    }
    assert {"北京大学", "数学", "城市"} <= marked["word"]
    assert {"小明", "北京大学", "上海"} <= marked["entity"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_worker_names_the_file(made, tmp_path, monkeypatch, workers, capfd):
    """A worker reads a unit of work that was damaged between two stages."""
    _, folder = made
    real = pipeline.read_input

    def damaging(recipe, staging, *rank):
        real(recipe, staging, *rank)
        for file in (staging.folder / "units").iterdir():
            file.unlink()
            file.mkdir()

    monkeypatch.setattr("ernie2.shards.prepare.read_input", damaging)
    with pytest.raises(StorageError, match=r"Is a directory at .*\.jsonl\.zst"):
        prepare(
            recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path), tokenizer=_saved(folder)), workers=workers
        )
    assert not (tmp_path / "shards" / "shards.json").exists()
    assert capfd.readouterr().err == ""


def _saved(folder):
    return {"file": str(folder / "shards" / "tokenizer.json")}


@pytest.mark.parametrize("target", ["ernie2.shards.store.np.save", "ernie2.shards.units.zstandard.open"])
def test_a_full_disk_is_named_and_leaves_no_manifest(made, tmp_path, monkeypatch, target, capfd):
    _, folder = made

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(target, full)
    with pytest.raises(StorageError, match=r"No space left on device.*run the same command again"):
        prepare(recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path)), workers=1)
    assert not (tmp_path / "shards" / "shards.json").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("when", ["at once", "during the work"])
def test_a_worker_killed_from_outside_ends_the_run_instead_of_hanging_it(made, tmp_path, monkeypatch, when):
    _, folder = made
    killed = []

    def kill(progress=None):
        workers = [p for p in multiprocessing.active_children() if "ForkServerProcess" in p.name]
        if workers and not killed and (progress is None or progress.stage == "tokenise"):
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    if when == "at once":  # before its first unit
        send = processes._send
        monkeypatch.setattr(processes, "_send", lambda *args: (kill(), send(*args)))
    long = recipe(folder, english(tmp_path, 400), shards=_shards(tmp_path))
    with pytest.raises(RunFailed, match="memory ran out"):
        prepare(long, 2, kill)
    assert killed
    assert not (tmp_path / "shards" / "shards.json").exists()


def test_leftovers_of_a_kill_in_finished_shards_are_removed_by_the_next_prepare(made, tmp_path):
    _, folder = made
    mine = recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path))
    prepare(mine, 1)
    (tmp_path / "shards" / ".input-files.json.abcdefgh.tmp").mkdir()
    prepare(mine, 1)
    assert not list((tmp_path / "shards").glob(".*.tmp"))


def test_shards_that_another_run_built_meanwhile_are_used(made, tmp_path, monkeypatch):
    shards, folder = made
    mine = recipe(folder, folder / "in.jsonl.gz", shards=_shards(tmp_path))
    take = FolderLock.__enter__

    def wait_for_the_other(lock):
        monkeypatch.setattr(FolderLock, "__enter__", take)
        prepare(mine, 1)
        return take(lock)

    monkeypatch.setattr(FolderLock, "__enter__", wait_for_the_other)
    stages = []
    again = prepare(mine, 1, lambda progress: stages.append(progress.stage))
    assert stages[-1] == "unchanged"
    assert contents(again.folder) == contents(shards.folder)
    assert not list((tmp_path / "shards").glob(".prepare*"))


def test_two_runs_in_one_folder_are_refused(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from ernie2.shards.staging import StagingDirectory\n"
        "with StagingDirectory(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(600)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".prepare-a")], stdout=subprocess.PIPE, env=env
    )
    try:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(StorageError, match=r"is in use by process .* choose another shards\.folder"),
            StagingDirectory(tmp_path / "b").locked(),
        ):
            pass
    finally:
        other.kill()
        other.wait()
    with StagingDirectory(tmp_path / "b").locked():  # the lock ended with its process
        pass


def test_a_folder_with_other_content_is_not_touched(tmp_path):
    precious = tmp_path / "shards" / "text" / "thesis"
    precious.mkdir(parents=True)
    with pytest.raises(StorageError, match="thesis is not a shard"):
        prepare(recipe(tmp_path, english(tmp_path, 5)), workers=1)
    assert precious.is_dir()


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"corpora": {"c": {"path": "none.jsonl"}}}, DataError, "none.jsonl"),
        ({"tokenizer": {"file": "none.txt"}}, TokenizerError, "none.txt"),
        ({"knowledge": {"gazetteer": "none.txt"}}, DataError, "none.txt"),
        ({"knowledge": {"spacy": "none"}}, ConfigError, "spa[cC]y"),
    ],
)
def test_missing_requirements_are_reported_before_any_work(tmp_path, parts, error, message):
    with pytest.raises(error, match=message):
        prepare(recipe(tmp_path, english(tmp_path, 5), **parts), workers=2)
    assert not (tmp_path / "shards").exists()


def test_a_bad_line_is_reported_with_its_number_and_no_manifest(tmp_path, capfd):
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "a"}\n{"text": "b"\n')
    with pytest.raises(Ernie2Error, match=r"in\.jsonl, line 2"):
        prepare(recipe(tmp_path, file), workers=2)
    assert not (tmp_path / "shards" / "shards.json").exists()
    assert capfd.readouterr().err == ""


def test_a_script_without_a_main_guard_runs_once(made, tmp_path):
    _, folder = made
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nprint('ran', flush=True)\n"
        "from test_prepare import recipe, _shards\nfrom ernie2.shards.prepare import prepare\n"
        f"made, folder = Path({str(folder)!r}), Path({str(tmp_path)!r})\n"
        "prepare(recipe(made, made / 'in.jsonl.gz', shards=_shards(folder)), workers=2)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    assert Shards(tmp_path / "shards").corpora["text"].num_documents("train") == 55


def test_wrong_input_neither_leaves_nor_removes_files(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl").write_text('{"text": "One sentence. Another."}\n{"text": "cut', encoding="utf-8")
    with pytest.raises(DataError, match="is truncated"):
        prepare(recipe(tmp_path, tmp_path / "cut.jsonl", shards=_shards(tmp_path)), workers=1)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cut.jsonl"]
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="is truncated"):
        prepare(recipe(tmp_path, tmp_path / "cut.jsonl", shards=_shards(tmp_path)), workers=1)
    assert sorted(entry.name for entry in (tmp_path / "shards").iterdir()) == ["mine.txt"]


def test_a_corpus_of_unknown_words_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    (tmp_path / "in.txt").write_text("rain\n\nsnow\n", encoding="utf-8")
    tokenizer = {"file": str(tmp_path / "vocab.txt"), "max_unknown": 1}
    parts = recipe(tmp_path, tmp_path / "in.txt", tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"corpora\.text: no document of .*in.txt is left \(only unknown tokens: 2\)"):
        prepare(parts, workers=1)


def test_the_share_of_unknown_tokens_includes_dropped_documents_and_is_limited(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rain", "."]))
    (tmp_path / "in.txt").write_text("rain rain rain.\n\nrain snow snow.\n\nsnow snow\n", encoding="utf-8")

    def at_most(share):
        tokenizer = {"file": str(tmp_path / "vocab.txt"), "max_unknown": share}
        return recipe(tmp_path, tmp_path / "in.txt", tokenizer=tokenizer)

    with pytest.raises(
        TokenizerError, match=r"corpora.text: 40.0% of its first 10 tokens are \[UNK\], more than token"
    ):
        prepare(at_most(0.3), workers=1)
    assert not (tmp_path / "shards").exists()
    shards = prepare(at_most(0.5), workers=1)
    assert shards.facts["corpora"]["text"]["unknown_share"] == 0.4
    with pytest.raises(TokenizerError, match=r"40.0% of its tokens are \[UNK\]"):
        prepare(at_most(0.3), workers=1)  # the same shards, which exist already


def test_a_cased_vocabulary_is_not_lower_cased_if_its_config_file_says_so(tmp_path, capsys):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rain", "Rain", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 64}')
    (tmp_path / "in.txt").write_text("Rain rain.\n\nrain Rain rain.\n", encoding="utf-8")
    file = str(tmp_path / "vocab.txt")
    shards = prepare(recipe(tmp_path, tmp_path / "in.txt", tokenizer={"file": file}), workers=1)
    assert sorted({word for corpus in shards.corpora.values() for word in corpus.shards[0].tokens.tolist()}) == [
        5,
        6,
        7,
    ]
    config = json.loads((shards.folder / "tokenizer_config.json").read_text())
    assert (config["do_lower_case"], config["model_max_length"]) == (False, 64)
    assert "do_lower_case" not in capsys.readouterr().err
    prepare(recipe(tmp_path, tmp_path / "in.txt", tokenizer={"file": file, "lowercase": True}), workers=1, replace=True)
    assert "do_lower_case is false in the tokenizer_config.json beside it, but" in capsys.readouterr().err
