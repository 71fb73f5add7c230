import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ernie2 import console
from ernie2.errors import ConfigError


def test_without_a_terminal_there_are_plain_lines_with_rate_and_a_complete_last_line(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(console, "MIN_RATE_SECONDS", 0.0)
    with console.progress("Working", 4, "steps") as bar:
        bar.advance(0)
        bar.advance(1)
        bar.advance(3, note="nearly")
    _, first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("Working: 1 of 4 steps (25 %)")
    assert "left" in first
    assert last.startswith("Working: 4 of 4 steps (100 %)")
    assert last.endswith("· nearly")
    assert "\x1b" not in first + last


def test_lines_are_seconds_apart_but_the_end_is_always_shown(capsys):
    with console.progress("Working", 1000, "steps") as bar:
        for _ in range(1000):
            bar.advance()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 2
    assert "1,000 of 1,000" in lines[-1]


def test_a_resumed_bar_counts_from_where_it_was_and_its_rate_from_now():
    with console.progress("Working", 100, "steps", done=60) as bar:
        assert bar.done == 60
        assert bar.rate == 0
        assert bar.left == "?"


def test_what_comes_before_the_first_unit_is_not_counted_into_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("Working", 11, "steps") as bar:
        now[0] = 600.0  # the first evaluation, and compiling, take ten minutes
        bar.advance()
        assert bar.left == "?"
        now[0] = 602.0
        bar.advance()
        assert bar.rate == 0.5
        assert bar.left == "0:18"


def test_work_of_unknown_length_shows_count_and_rate_and_short_work_no_line(capsys, monkeypatch):
    with console.progress("Reading", None, "rows") as bar:
        bar.advance(3)
        assert bar.left == "?"
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    with console.progress("Reading", None, "rows") as bar:
        bar.advance(3000, note="2 files")
    assert capsys.readouterr().out == "Reading: 3,000 rows, 0 rows/s · 2 files\n"


def test_escape_sequences_are_spelled_out_in_lines_and_bars(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    console.log_info("label \x1b[31mred")
    console.log_warning("error: tensor \x9b31m")
    with console.progress("set \x1b]0;x", 1, "steps") as bar:
        bar.advance(note="\x1b[2J")
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"label \x1b[31mred" in shown.out
    assert r"tensor \x9b31m" in shown.err
    assert r"set \x1b]0;x" in shown.out


def test_a_program_sees_no_messages_until_it_attaches_a_handler():
    code = (
        "import logging, sys\nfrom ernie2 import console\n"
        "def work():\n"
        "    console.log_info('said'); console.log_result('answered'); console.log_warning('warned')\n"
        "    with console.progress('Working', 1, 'steps') as bar: bar.advance()\n"
        "work()\n"
        "print('--', flush=True)\n"
        "logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(name)s %(levelname)s %(message)s')\n"
        "work()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    before, _, after = done.stdout.partition("--\n")
    assert before == ""
    assert after.splitlines()[:3] == ["ernie2 INFO said", "ernie2 RESULT answered", "ernie2 WARNING warned"]
    assert after.splitlines()[3].startswith("ernie2 INFO Working: 1 of 1 steps")


def test_warnings_and_details_go_to_standard_error_and_other_messages_to_standard_output(capsys):
    console.log_debug("detail")
    console.log_info("said")
    console.log_warning("warned")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("said\n", "warned\n")


def test_inside_quietly_only_warnings_of_every_rank_are_logged_and_the_level_comes_back(capsys):
    with console.muted():
        console.log_info("said")
        console.log_result("answered")
        console.log_warning("warned as the first rank does")
        console.log_warning("warned", every_rank=True)
        with console.progress("Working", 1, "steps") as bar:
            bar.advance()
    console.log_info("again")
    console.log_warning("of all")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("again\n", "warned\nof all\n")


def test_a_log_file_gets_time_stamps_and_no_control_sequences_and_is_appended_to(tmp_path):
    file = tmp_path / "log.txt"
    for text in ("first \x1b[31mred", "\nsecond", ""):
        with console.terminal_output(console.Output(console.RESULT, file)):
            console.log_info(text)
            console.log_debug("detail")
    first, second = file.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO first \\x1b\[31mred", first)
    assert second.endswith(" INFO second")


def test_a_log_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--log-file"), console.terminal_output(console.Output(log_file=tmp_path)):
        pass
    with console.terminal_output():
        assert console.current_output() == console.Output(logging.INFO, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_file_on_a_full_disk_is_reported_once_and_the_run_continues(capsys):
    with console.terminal_output(console.Output(log_file=Path("/dev/full"))):
        console.log_info("one")
        console.log_info("two")
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\n"
    assert shown.err.count("closed the log file /dev/full") == 1
    assert "Traceback" not in shown.err


def test_handlers_of_a_user_stay_when_the_command_line_configures_its_own():
    mine = logging.NullHandler()
    console.logger.addHandler(mine)
    try:
        with console.terminal_output(console.Output(logging.DEBUG)):
            assert mine in console.logger.handlers
        assert mine in console.logger.handlers
    finally:
        console.logger.removeHandler(mine)


def test_a_child_process_is_configured_like_its_parent(tmp_path):
    for output in (console.Output(), console.Output(console.RESULT), console.Output(logging.DEBUG, tmp_path / "log")):
        with console.terminal_output(output):
            assert console.current_output() == output


def test_what_is_called_a_note_or_warning_or_is_passed_over_is_logged_as_a_warning():
    source = {file: file.read_text(encoding="utf-8") for file in Path(console.__file__).parent.rglob("*.py")}
    pattern = re.compile(r"\b(say|answer|info)\(\s*f?\"(note\b|warning\b|passing over\b|taking over\b)", re.IGNORECASE)
    assert [str(file) for file, text in source.items() if pattern.search(text)] == []
