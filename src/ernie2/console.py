"""Messages and progress: records of the logger "ernie2", shown on the terminal only by the command line.

A program that imports ernie2 sees nothing by default; `logging.getLogger("ernie2")` takes its own handlers
and level. `terminal_output` shows messages as the command line does: a bar with rate and time left on a terminal, plain
lines a few seconds apart elsewhere.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ernie2.errors import ConfigError
from ernie2.escaping import printable
from ernie2.formatting import clock

LINE_SECONDS = 5.0
"""Without a terminal, a line is printed at most this often."""

MIN_RATE_SECONDS = 0.5
"""A rate over a shorter time is not shown."""

RESULT = 25
"""The level of lines that answer a command: above INFO, so that --quiet keeps them."""

logging.addLevelName(RESULT, "RESULT")
logger = logging.getLogger("ernie2")
logger.addHandler(logging.NullHandler())


def log_debug(text: str) -> None:
    """Log a detail, which --verbose shows."""
    logger.debug("%s", text)


def log_info(text: str = "") -> None:
    """Log what is being done, at level INFO."""
    logger.info("%s", text)


def log_result(text: str = "") -> None:
    """Log a line of a command's result, at level RESULT."""
    logger.log(RESULT, "%s", text)


def log_warning(text: str, *, every_rank: bool = False) -> None:
    """Log a warning: what is damaged, left out, replaced, not used or weaker than asked. --quiet keeps it.

    On the terminal it goes to standard error. `every_rank`: also where `quietly` leaves the others to the first rank.
    """
    logger.warning("%s", text, extra={"every_rank": every_rank})


def print_line(text: str = "") -> None:
    """Print a line of data, such as JSON, on standard output: on the terminal only, whatever the level of messages."""
    print(printable(text), flush=True)


@contextmanager
def muted(quiet: bool = True) -> Iterator[None]:
    """Where `quiet`, drop messages, bars, and warnings that are not of every rank: all ranks but the first do."""
    before = logger.level
    if quiet:
        logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
        logger.addFilter(_is_of_every_rank)
    try:
        yield
    finally:
        logger.removeFilter(_is_of_every_rank)
        logger.setLevel(before)


def _is_of_every_rank(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING or getattr(record, "every_rank", False)


@dataclass(frozen=True)
class Output:
    """Where messages go: `level` and above to the terminal (None: none), INFO and above to `log_file`."""

    level: int | None = logging.INFO
    log_file: Path | None = None


class _Terminal(logging.Handler):
    """Writes messages to standard output, details and warnings to standard error; control sequences are spelled out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` to the stream that `sys` holds now; errors of the stream are the caller's."""
        if getattr(record, "bar", False) and _shows_bars():
            return
        stream = sys.stdout if logging.INFO <= record.levelno < logging.WARNING else sys.stderr
        print(_text_of(record), file=stream, flush=True)


class _LogFile(logging.FileHandler):
    """Appends messages with time stamps; a write that fails is reported once and ends the log, not the run."""

    def format(self, record: logging.LogRecord) -> str:
        """Return "2026-01-31 12:00:00 INFO text" with control sequences spelled out."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{stamp} {record.levelname} {_text_of(record).strip()}"

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave empty lines out."""
        return bool(record.getMessage().strip())

    def handleError(self, record: logging.LogRecord) -> None:
        """Close the file and warn."""
        logger.removeHandler(self)
        log_warning(f"warning: nothing more is written to {self.baseFilename}: {sys.exc_info()[1]}")


@contextmanager
def terminal_output(output: Output | None = None) -> Iterator[None]:
    """Inside, messages go to the terminal, or where `output` says; `configure` can change that."""
    handlers, level = logger.handlers[:], logger.level
    try:
        configure(output or Output())
        yield
    finally:
        _replace_handlers(handlers)
        logger.setLevel(level)


def configure(output: Output) -> None:
    """Send messages where `output` says instead of where this module sent them before; a user's handlers stay.

    Raises `ConfigError` where the log file cannot be written.
    """
    ours: list[logging.Handler] = []
    if output.log_file is not None:
        try:
            ours.append(_LogFile(output.log_file, encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise ConfigError(
                f"--log-file {output.log_file} cannot be written ({error.strerror or error}). Name a file in a folder "
                "that exists and that you may write to."
            ) from error
        ours[-1].setLevel(min(logging.INFO, output.level or logging.INFO))
    if output.level is not None:
        ours.insert(0, _Terminal(output.level))
    _replace_handlers([one for one in logger.handlers if not isinstance(one, _Terminal | _LogFile)] + ours)
    if ours:
        logger.setLevel(min(one.level for one in ours))


def current_output() -> Output:
    """Return where messages go now, for a process of its own to `configure`."""
    level, file = None, None
    for one in logger.handlers:
        if isinstance(one, _Terminal):
            level = max(one.level, logger.level)
        if isinstance(one, _LogFile):
            file = Path(one.baseFilename)
    return Output(level, file)


def _replace_handlers(handlers: list[logging.Handler]) -> None:
    for one in logger.handlers[:]:
        if one not in handlers:
            logger.removeHandler(one)
            one.close()
    for one in handlers:
        logger.addHandler(one)


def _text_of(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return printable(text)


def _shows_bars() -> bool:
    """Return whether messages of level INFO go to a terminal, where a bar can be drawn."""
    shown = any(isinstance(one, _Terminal) and one.level <= logging.INFO for one in logger.handlers)
    return shown and logger.isEnabledFor(logging.INFO) and sys.stdout.isatty()


class Bar:
    """Counts `total` units, or units without a known end (None), and logs how far it is; without a title, nothing."""

    _shown = 0.0

    def __init__(self, title: str | None, total: int | None, unit: str, done: int = 0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._began, self._from, self._started = time.monotonic(), done, False

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` units; `note` is shown beside the bar.

        The rate is measured from the end of the first unit on: what comes before it (a first evaluation, compiling)
        is not a measure of the rest.
        """
        first = self.done == self._from and not self._started
        self.done += count
        if first:
            self._started, self._began, self._from = True, time.monotonic(), self.done
        self.show(note)

    @property
    def rate(self) -> float:
        """Units a second since the bar began; 0 while that was too short ago to tell."""
        seconds = time.monotonic() - self._began
        return (self.done - self._from) / seconds if seconds >= MIN_RATE_SECONDS else 0.0

    @property
    def left(self) -> str:
        """Time left at this rate, as m:ss or h:mm:ss; "?" before the first unit or without an end."""
        return clock((self.total - self.done) / self.rate) if self.total is not None and self.rate > 0 else "?"

    def show(self, note: str) -> None:
        """Log a line every few seconds, and one at the end; short work of unknown length logs nothing."""
        if self.title is None:
            return
        now = time.monotonic()
        since = max(self._shown, self._began) if self.total is None else self._shown
        if now - since < LINE_SECONDS and (self.total is None or self.done < self.total):
            return
        self._shown = now
        line = f"{self.title}: {self.done:,}"
        if self.total is not None:
            line += f" of {self.total:,} {self.unit} ({100 * self.done / max(self.total, 1):.0f} %)"
        else:
            line += f" {self.unit}"
        if self.rate or self.total is None:
            line += f", {_rate(self.rate)} {self.unit}/s"
        if self.rate and self.total is not None and self.done < self.total:
            line += f", {self.left} left"
        logger.info("%s", line + (f" · {note}" if note else ""), extra={"bar": True})


@contextmanager
def progress(title: str | None, total: int | None, unit: str, done: int = 0) -> Iterator[Bar]:
    """Yield a `Bar` for `total` units (None: not known) of which `done` are done already; no title: one not shown."""
    if title is None or not _shows_bars():
        yield Bar(title, total, unit, done)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(
            "{task.completed:,.0f}" + ("/{task.total:,.0f}" if total is not None else "") + " {task.fields[unit]}"
        ),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns) as shown:
        task = shown.add_task(printable(title), total=total, completed=done, unit=unit, speed="", note="")

        class _RichBar(Bar):
            note = ""

            def show(self, note: str) -> None:
                super().show(note)  # for the log file and handlers of the user
                speed = f"{_rate(self.rate)}/s" if self.rate else ""
                if speed and self.total is not None:
                    speed += f", {self.left} left"
                self.note = printable(note) or self.note
                shown.update(task, completed=self.done, speed=speed, note=self.note)

        yield _RichBar(title, total, unit, done)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
