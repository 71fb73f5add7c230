from pathlib import Path

import pytest

from ernie2.errors import CheckpointError, StorageError
from ernie2.train.records import Records, read_run


def test_lines_come_back_as_written(tmp_path):
    records = Records(tmp_path)
    records.write("step", step=1, loss={"a": 0.5})
    records.write("stage", event="end")
    assert records.read() == [{"kind": "step", "step": 1, "loss": {"a": 0.5}}, {"kind": "stage", "event": "end"}]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    records = Records(tmp_path)
    records.write("step", step=1)
    with records.metrics.open("a") as file:
        file.write('{"kind": "st')
    assert records.read() == [{"kind": "step", "step": 1}]


def test_cutting_forgets_what_came_after_a_checkpoint(tmp_path):
    records = Records(tmp_path)
    records.write("step", step=1)
    length = records.length()
    records.write("step", step=2)
    records.cut(length)
    records.write("step", step=2, again=True)
    assert [line["step"] for line in records.read()] == [1, 2]
    assert records.read()[1]["again"]


def test_a_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        read_run(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_run(tmp_path / "nowhere")


def test_cutting_never_lengthens_a_file_that_lost_its_end(tmp_path):
    records = Records(tmp_path)
    records.write("step", step=1)
    records.cut(records.length() + 100)
    assert records.read() == [{"kind": "step", "step": 1}]


def test_what_a_full_disk_took_of_a_line_is_taken_back(tmp_path, monkeypatch):
    records = Records(tmp_path)
    records.write("step", step=1)
    opened = Path.open

    class Full:
        """A file on a disk with room for five bytes."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, text):
            self.file.write(text[:5])
            self.file.flush()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, *given, **named: Full(opened(path, *given, **named)))
    with pytest.raises(StorageError, match=r"No space left.*lines so far are whole.*ernie2 resume"):
        records.write("step", step=2)
    monkeypatch.undo()
    records.write("step", step=2)
    assert [line["step"] for line in records.read()] == [1, 2]
