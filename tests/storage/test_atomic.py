"""A file or folder appears whole or not at all, whoever is killed when."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import pytest

from ernie2.errors import StorageError
from ernie2.storage import atomic


def test_a_file_is_written_completely_and_leaves_no_other_file(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "new" / "a.txt", "line\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"line\n"
    assert os.listdir(tmp_path / "new") == ["a.txt"]


def test_a_file_that_is_there_stays_when_the_body_raises(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic.staged_file(file) as new:
        new.write_text(str(1 / (new.write_text("half") - 4)))
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_refuses_says_what_where_and_what_now(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"a\.txt cannot be written: No space left on device; .* Buy a disk\."):  # noqa: SIM117
        with atomic.staged_file(tmp_path / "a.txt", advice="Buy a disk."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_json_round_trips_and_keeps_letters_readable(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"é": [1, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"é": [1, None]}
    assert "é" in text
    assert text.endswith("}\n")


def test_values_that_json_cannot_represent_leave_the_old_file(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        atomic.write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_files_of_a_folder_are_renamed_in_order_once_all_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda new, old: (renamed.append(Path(old).name), replace(new, old)))
    with atomic.staged_files(tmp_path, ("b", "absent", "a")) as staging:
        (staging / "a").write_text("1")
        (staging / "b").write_text("2")
        assert not renamed
    assert renamed == ["b", "a"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    with pytest.raises(ZeroDivisionError), atomic.staged_files(tmp_path, ("b", "a")) as staging:
        (staging / "b").write_text(str(1 / 0))
    assert (tmp_path / "b").read_text() == "2"


def test_temporary_files_go_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic.temporary_folder(tmp_path / "out") as scratch:
        (scratch / "candidates").write_text(str(1 / (len(os.listdir(tmp_path)) - 1)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["mode", "probe", "replaced"])
def test_any_name_can_be_written(tmp_path: Path, name: str) -> None:
    atomic.write_text(tmp_path / "file" / name, "x")
    assert (tmp_path / "file" / name).read_text() == "x"
    for content in "ab":
        with atomic.staged_folder(tmp_path / name, replace=True) as new:
            (new / content).touch()
    assert os.listdir(tmp_path / name) == ["b"]


def test_an_error_elsewhere_names_the_file_it_is_about(tmp_path: Path) -> None:
    message = r"out cannot be written: No such file or directory at .*/absent; "
    with pytest.raises(StorageError, match=message), atomic.staged_file(tmp_path / "out") as new:
        new.write_bytes((tmp_path / "absent").read_bytes())


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    with atomic.staged_folder(tmp_path / "out") as new:
        (new / "inner").mkdir()
        (new / "inner" / "a").write_text("a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "inner" / "a").read_text() == "a"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_inside_a_folder_that_is_being_staged_is_written_in_place(tmp_path: Path) -> None:
    with atomic.staged_folder(tmp_path / "out") as new:
        with atomic.staged_file(new / "a.json") as file:
            assert file == new / "a.json"
            atomic.write_json(file, {})
        assert os.listdir(new) == ["a.json"]
    with atomic.staged_file(tmp_path / "out" / "b") as file:
        assert file != tmp_path / "out" / "b"
        file.touch()


def test_a_link_is_followed_and_a_pipe_is_written_to_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    atomic.write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_with_content_is_replaced_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(StorageError, match="already exists"), atomic.staged_folder(tmp_path / "out"):
        pytest.fail("the body ran")
    with atomic.staged_folder(tmp_path / "out", replace=True) as new:
        (new / "new").touch()
    assert os.listdir(tmp_path / "out") == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_is_replaced_where_the_system_cannot_exchange_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: object())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with atomic.staged_folder(tmp_path / "out", replace=True) as new:
        (new / "new").touch()
    assert os.listdir(tmp_path / "out") == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_files_that_a_library_wrote_for_their_owner_alone_get_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic.staged_folder(tmp_path / "out") as new:
        os.close(os.open(new / "weights", os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "out" / "weights").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "dir").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "dir").stat().st_mode


def test_what_a_killed_process_left_goes_with_the_next_write_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ernie2.storage import atomic\n"
        "with atomic.staged_file(Path(sys.argv[1])) as new:\n"
        "    new.write_text('half'); print('written', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
            atomic.write_text(tmp_path / "a", "mine")
            assert len(os.listdir(tmp_path)) == 2  # the other process still writes
            assert atomic.remove_leftovers(tmp_path) == []
        finally:
            process.kill()
            process.wait()
    atomic.write_text(tmp_path / "b", "another target")
    assert len(os.listdir(tmp_path)) == 3
    atomic.write_text(tmp_path / "a", "mine again")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_leftovers_of_every_target_are_removed_by_folder(tmp_path: Path) -> None:
    (tmp_path / ".run.json.abcdefgh.tmp" / "inner").mkdir(parents=True)
    (tmp_path / "kept.tmp" / ".a.abcdefgh.tmp").mkdir(parents=True)
    removed = [str(path.relative_to(tmp_path)) for path in atomic.remove_leftovers(tmp_path)]
    assert removed == [".run.json.abcdefgh.tmp", "kept.tmp/.a.abcdefgh.tmp"]
    assert os.listdir(tmp_path) == ["kept.tmp"]
    assert atomic.remove_leftovers(tmp_path / "absent") == []


def test_writers_of_one_target_at_once_never_mix_their_content(tmp_path: Path) -> None:
    def write(letter: str) -> None:
        for _ in range(20):
            atomic.write_text(tmp_path / "a", letter * 50_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "a").read_text())) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_a_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert atomic.checksum(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_content_and_folder_are_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    flush, replace = atomic.flush, os.replace
    monkeypatch.setattr(atomic, "flush", lambda path: (done.append(f"flush {path.name}"), flush(path)))
    monkeypatch.setattr(atomic.os, "replace", lambda a, b: (done.append(f"rename {b.name}"), replace(a, b)))
    atomic.write_text(tmp_path / "a", "")
    assert done == ["flush a", "rename a", f"flush {tmp_path.name}"]


def test_a_file_or_folder_is_moved_in_place_of_another_and_aside_under_a_free_name(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    atomic.move(tmp_path / "new", tmp_path / "old")
    assert [file.name for file in (tmp_path / "old").iterdir()] == ["new"]
    assert atomic.move_aside(tmp_path / "old", ".damaged") == tmp_path / "old.damaged"
    (tmp_path / "old").touch()
    assert atomic.move_aside(tmp_path / "old", ".damaged") == tmp_path / "old.damaged1"
    with pytest.raises(StorageError, match="nothing was changed"):
        atomic.move(tmp_path / "absent", tmp_path / "here")


def test_a_remote_file_is_copied_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/file", b"content")
    atomic.download(files, "/bucket/file", tmp_path / "new" / "file")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    with pytest.raises(FileNotFoundError, match="there is no /bucket/other"):
        atomic.download(files, "/bucket/other", tmp_path / "other")

    def broken(source: str, target: str) -> None:
        Path(target).write_bytes(b"con")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "get_file", broken)
    with pytest.raises(StorageError, match=r"Input/output error.*Check the bucket"):
        atomic.download(files, "/bucket/file", tmp_path / "other", advice="Check the bucket.")
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]
