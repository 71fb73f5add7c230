from ernie2 import progress


def test_without_a_terminal_there_are_plain_lines_with_rate_and_the_last_one_is_whole(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHORT_SECONDS", 0.0)
    with progress.progress("Working", 4, "steps") as bar:
        bar.advance(0)
        bar.advance(1)
        bar.advance(3, note="nearly")
    _, first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("Working: 1 of 4 steps (25 %)")
    assert "left" in first
    assert last.startswith("Working: 4 of 4 steps (100 %)")
    assert last.endswith("· nearly")
    assert "\x1b" not in first + last


def test_lines_are_seconds_apart_but_the_end_is_always_told(capsys):
    with progress.progress("Working", 1000, "steps") as bar:
        for _ in range(1000):
            bar.advance()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 2
    assert "1,000 of 1,000" in lines[-1]


def test_a_resumed_bar_counts_from_where_it_was_and_its_rate_from_now():
    with progress.progress("Working", 100, "steps", done=60) as bar:
        assert bar.done == 60
        assert bar.rate == 0
        assert bar.left == "?"


def test_what_comes_before_the_first_unit_is_not_counted_into_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress("Working", 11, "steps") as bar:
        now[0] = 600.0  # the first evaluation, and compiling, take ten minutes
        bar.advance()
        assert bar.left == "?"
        now[0] = 602.0
        bar.advance()
        assert bar.rate == 0.5
        assert bar.left == "0:18"


def test_times_read_as_clocks():
    assert [progress._clock(seconds) for seconds in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]


def test_work_without_a_known_end_tells_its_count_and_rate_and_short_work_nothing(capsys, monkeypatch):
    with progress.progress("Reading", None, "rows") as bar:
        bar.advance(3)
        assert bar.left == "?"
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    with progress.progress("Reading", None, "rows") as bar:
        bar.advance(3000, note="2 files")
    assert capsys.readouterr().out == "Reading: 3,000 rows, 0 rows/s · 2 files\n"


def test_escape_sequences_are_spelled_out_in_lines_and_bars(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    progress.say("label \x1b[31mred")
    progress.complain("error: tensor \x9b31m")
    with progress.progress("set \x1b]0;x", 1, "steps") as bar:
        bar.advance(note="\x1b[2J")
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert r"label \x1b[31mred" in shown.out
    assert r"tensor \x9b31m" in shown.err
    assert r"set \x1b]0;x" in shown.out
