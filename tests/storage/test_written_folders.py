import pytest

from ernie2.storage import written_folders
from ernie2.storage.written_folders import CHECKSUMS, is_complete, note_checksums, report_changes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(written_folders, "_reported", set())
    for name in ("model.safetensors", "config.json", "README.md"):
        (tmp_path / name).write_text(name)
    note_checksums(tmp_path)
    return tmp_path


def test_nothing_is_said_of_a_folder_as_it_was_written_or_written_by_others(folder, capsys):
    (folder / "notes.txt").write_text("added later")
    report_changes(folder)
    (folder / CHECKSUMS).unlink()
    (folder / "model.safetensors").write_text("other")
    written_folders._reported.clear()
    report_changes(folder)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("content", [None, b"", b"model.safetensorr"])
def test_changed_weights_are_warned_of_by_name_in_one_line_once(folder, content, capsys):
    file = folder / "model.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    for _ in range(2):
        report_changes(folder)
    out, said = capsys.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert said.startswith(f"warning: model.safetensors in {folder} changed after ernie2 wrote it")


def test_edited_files_of_other_kinds_are_named_in_a_note(folder, capsys):
    (folder / "config.json").write_text("edited")
    (folder / "README.md").write_text("edited")
    report_changes(folder)
    said = capsys.readouterr().err
    assert said == f"note: README.md, config.json in {folder} changed after ernie2 wrote it; used as it is now.\n"


def test_a_damaged_note_is_said_and_stops_nothing(folder, capsys):
    (folder / CHECKSUMS).write_text("[]")
    report_changes(folder)
    assert f"{CHECKSUMS} is damaged" in capsys.readouterr().err
    assert not is_complete(folder)


def test_a_folder_is_complete_while_every_file_is_there(folder):
    (folder / "config.json").write_text("edited")
    assert is_complete(folder)
    (folder / "model.safetensors").unlink()
    assert not is_complete(folder)
    assert not is_complete(folder / "nowhere")
