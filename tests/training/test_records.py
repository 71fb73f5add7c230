import errno

import pytest

import tiny_run
from ernie2.errors import CheckpointError, StorageError
from ernie2.training.records import Records
from ernie2.training.run_record import read_run


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
    extent = records.extent()
    records.write("step", step=2)
    records.cut(extent)
    records.write("step", step=2, again=True)
    assert [line["step"] for line in records.read()] == [1, 2]
    assert records.read()[1]["again"]


def written(run, lines=3):
    records = Records(run)
    for step in range(1, lines + 1):
        records.write("step", step=step, loss=0.5)
    return records, records.extent()


def test_metrics_that_are_missing_or_shorter_than_a_checkpoint_notes_are_refused(tmp_path):
    records, extent = written(tmp_path)
    content = records.metrics.read_bytes()
    records.metrics.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: it ends after line 1 of 3\. Put back"):
        records.cut(extent)
    assert records.metrics.read_bytes() == content[: len(content) // 2]
    records.metrics.unlink()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: it is missing; it had 3 lines"):
        records.cut(extent)
    assert not records.metrics.exists()


def test_no_flipped_bit_of_metrics_that_a_checkpoint_notes_is_accepted(tmp_path):
    records, extent = written(tmp_path)
    content = records.metrics.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        records.metrics.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: (line|lines 1 to 3)"):
            records.cut(extent)
    records.metrics.write_bytes(content + b"what a kill \xff left")
    records.cut(extent)
    assert records.metrics.read_bytes() == content


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"kind": "step", ', "line 2 is not JSON \\("),
        (b"\xff", "line 2 is not JSON \\('utf-8'"),
        (b"[1]", "line 2 is not a JSON object"),
        (b"[" * 100_000, "line 2 is not JSON .*too deeply"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, said):
    records, _ = written(tmp_path, lines=1)
    with records.metrics.open("ab") as file:
        file.write(line + b"\n{}\n")
    with pytest.raises(CheckpointError, match=f"metrics.jsonl is damaged: {said}"):
        records.read()


def test_the_records_of_a_finished_run_are_read_as_they_were_when_it_ended(tmp_path):
    records, extent = written(tmp_path)
    tiny_run.write_run_json(tmp_path)
    records.describe(read_run(tmp_path).updated(status="done"))
    assert read_run(tmp_path).metrics == extent
    records.write("score", name="later")
    assert len(records.read()) == 4
    records.metrics.write_bytes(records.metrics.read_bytes().replace(b'"loss": 0.5', b'"loss": 0.4'))
    with pytest.raises(CheckpointError, match="lines 1 to 3 changed"):
        records.read()


def test_a_full_disk_leaves_the_lines_complete_and_says_how_to_continue(tmp_path, monkeypatch):
    records = Records(tmp_path)
    records.write("step", step=1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr("ernie2.storage.line_files._write_all", full)
        with pytest.raises(StorageError, match=r"No space left.*lines so far are complete.*run the same command again"):
            records.write("step", step=2)
    records.write("step", step=2)
    assert [line["step"] for line in records.read()] == [1, 2]
