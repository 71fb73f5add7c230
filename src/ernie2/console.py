"""Messages and progress: records of the logger "ernie2"; only the command line shows them on the terminal.

A program that imports ernie2 sees nothing by default. To change that, add handlers to `logging.getLogger("ernie2")`,
or use `terminal_output`, which shows messages as the command line does: progress bars on a terminal, otherwise a plain
line every few seconds.
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
"""Seconds between progress lines if there is no terminal."""

MIN_RATE_SECONDS = 0.5
"""Seconds over which a rate must be measured before it is shown."""

RESULT = 25
"""Log level of a command's results: above INFO, so that --quiet shows them."""

logging.addLevelName(RESULT, "RESULT")
logger = logging.getLogger("ernie2")
logger.addHandler(logging.NullHandler())


def log_debug(text: str) -> None:
    """Log a detail, which --verbose shows."""
    logger.debug("%s", text)


def log_info(text: str = "") -> None:
    """Log progress or an action, at level INFO."""
    logger.info("%s", text)


def log_result(text: str = "") -> None:
    """Log a line of a command's result, at level RESULT."""
    logger.log(RESULT, "%s", text)


def log_warning(text: str, *, every_rank: bool = False) -> None:
    """Log a warning, for example that data is damaged, skipped, replaced or unused. --quiet shows warnings.

    The terminal shows it on standard error. `every_rank`: log on every rank, even inside `muted`.
    """
    logger.warning("%s", text, extra={"every_rank": every_rank})


def print_line(text: str = "") -> None:
    """Print a line of data, such as JSON, on standard output, whatever the log level; it is not a log record."""
    print(printable(text), flush=True)


@contextmanager
def muted(quiet: bool = True) -> Iterator[None]:
    """If `quiet`, drop messages, progress, and warnings without `every_rank`. All ranks except the first use this."""
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
    """Where messages go: `level` and above to the terminal (None: nothing), INFO and above to `log_file`."""

    level: int | None = logging.INFO
    log_file: Path | None = None


class _Terminal(logging.Handler):
    """Write messages to standard output, DEBUG and WARNING to standard error. Control characters are escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` to the current `sys.stdout` or `sys.stderr`; errors of the stream are not caught."""
        if getattr(record, "bar", False) and _shows_bars():
            return
        stream = sys.stdout if logging.INFO <= record.levelno < logging.WARNING else sys.stderr
        print(_text_of(record), file=stream, flush=True)


class _LogFile(logging.FileHandler):
    """Append messages with time stamps. If a write fails, warn once and close the log file; the run continues."""

    def format(self, record: logging.LogRecord) -> str:
        """Return "2026-01-31 12:00:00 INFO text" with control characters escaped."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{stamp} {record.levelname} {_text_of(record).strip()}"

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop empty lines."""
        return bool(record.getMessage().strip())

    def handleError(self, record: logging.LogRecord) -> None:
        """Close the file and warn."""
        logger.removeHandler(self)
        log_warning(f"warning: closed the log file {self.baseFilename} after a failed write: {sys.exc_info()[1]}")


@contextmanager
def terminal_output(output: Output | None = None) -> Iterator[None]:
    """Send messages to the terminal, or to `output`, within this context. `configure` can change it inside."""
    handlers, level = logger.handlers[:], logger.level
    try:
        configure(output or Output())
        yield
    finally:
        _replace_handlers(handlers)
        logger.setLevel(level)


def configure(output: Output) -> None:
    """Replace this module's handlers by those of `output`; the user's own handlers stay.

    Raises `ConfigError` if the log file cannot be written.
    """
    new_handlers: list[logging.Handler] = []
    if output.log_file is not None:
        try:
            new_handlers.append(_LogFile(output.log_file, encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise ConfigError(
                f"cannot write --log-file {output.log_file} ({error.strerror or error}). Name a file in an existing, "
                "writable folder."
            ) from error
        new_handlers[-1].setLevel(min(logging.INFO, output.level or logging.INFO))
    if output.level is not None:
        new_handlers.insert(0, _Terminal(output.level))
    _replace_handlers([one for one in logger.handlers if not isinstance(one, _Terminal | _LogFile)] + new_handlers)
    if new_handlers:
        logger.setLevel(min(one.level for one in new_handlers))


def current_output() -> Output:
    """Return the current output, so that a child process can `configure` the same."""
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
    """Return whether INFO messages go to a terminal that can draw a progress bar."""
    shown = any(isinstance(one, _Terminal) and one.level <= logging.INFO for one in logger.handlers)
    return shown and logger.isEnabledFor(logging.INFO) and sys.stdout.isatty()


class Bar:
    """A progress counter that logs lines. `total`: units, None if unknown. `title`: None logs nothing."""

    _shown = 0.0

    def __init__(self, title: str | None, total: int | None, unit: str, done: int = 0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._began, self._from, self._started = time.monotonic(), done, False

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` units and show `note` after the bar.

        The rate is measured from the end of the first unit, because the first unit may include compilation or an
        evaluation.
        """
        first = self.done == self._from and not self._started
        self.done += count
        if first:
            self._started, self._began, self._from = True, time.monotonic(), self.done
        self.show(note)

    @property
    def rate(self) -> float:
        """Units per second since the first unit; 0 during the first `MIN_RATE_SECONDS`."""
        seconds = time.monotonic() - self._began
        return (self.done - self._from) / seconds if seconds >= MIN_RATE_SECONDS else 0.0

    @property
    def left(self) -> str:
        """Time left at this rate, as m:ss or h:mm:ss; "?" before the first unit or if the total is unknown."""
        return clock((self.total - self.done) / self.rate) if self.total is not None and self.rate > 0 else "?"

    def show(self, note: str) -> None:
        """Log a line every `LINE_SECONDS` and one at the end; short work with an unknown total logs nothing."""
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
    """Yield a `Bar` for `total` units (None: unknown), `done` of them completed. Without a title it is hidden."""
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
                super().show(note)  # for the log file and the user's handlers
                speed = f"{_rate(self.rate)}/s" if self.rate else ""
                if speed and self.total is not None:
                    speed += f", {self.left} left"
                self.note = printable(note) or self.note
                shown.update(task, completed=self.done, speed=speed, note=self.note)

        yield _RichBar(title, total, unit, done)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
