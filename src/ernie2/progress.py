"""Progress of long work: a bar with rate and time left on a terminal, plain lines a few seconds apart elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ernie2.escaping import printable

PLAIN_SECONDS = 5.0
"""Without a terminal, a line is printed at most this often."""

SHORT_SECONDS = 0.5
"""No rate is told from a time shorter than this."""


_quiet = False


def say(text: str = "") -> None:
    """Print a line at once, also into a pipe; nothing inside `quietly`. Escape sequences in it are spelled out."""
    if not _quiet:
        print(printable(text), flush=True)


def complain(text: str) -> None:
    """Print a line on standard error, as `say` does, also inside `quietly`."""
    print(printable(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a line to standard error, apart from output that is data; nothing inside `quietly`."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Inside, where `quiet`, neither lines nor bars are shown: what all processes but one of a run want."""
    global _quiet
    before, _quiet = _quiet, _quiet or quiet
    try:
        yield
    finally:
        _quiet = before


class Bar:
    """Counts `total` units, or units without a known end (None); subclasses show it."""

    def __init__(self, title: str, total: int | None, unit: str, done: int = 0) -> None:
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

    def show(self, note: str) -> None:
        """Shows the state; does nothing here."""

    @property
    def rate(self) -> float:
        """Units a second since the bar began; 0 while that was too short ago to tell."""
        seconds = time.monotonic() - self._began
        return (self.done - self._from) / seconds if seconds >= SHORT_SECONDS else 0.0

    @property
    def left(self) -> str:
        """Time left at this rate, as m:ss or h:mm:ss; "?" before the first unit or without an end."""
        return _clock((self.total - self.done) / self.rate) if self.total is not None and self.rate > 0 else "?"


class _PlainBar(Bar):
    _said = 0.0

    def show(self, note: str) -> None:
        now = time.monotonic()
        if self.total is None:
            self._show_endless(now, note)
            return
        if now - self._said < PLAIN_SECONDS and self.done < self.total:
            return
        self._said = now
        share = 100 * self.done / max(self.total, 1)
        line = f"{self.title}: {self.done:,} of {self.total:,} {self.unit} ({share:.0f} %)"
        if self.rate:
            line += f", {_rate(self.rate)} {self.unit}/s" + (f", {self.left} left" if self.done < self.total else "")
        say(line + (f" · {note}" if note else ""))

    def _show_endless(self, now: float, note: str) -> None:
        """Short work of unknown length says nothing."""
        if now - max(self._said, self._began) >= PLAIN_SECONDS:
            self._said = now
            line = f"{self.title}: {self.done:,} {self.unit}, {_rate(self.rate)} {self.unit}/s"
            say(line + (f" · {note}" if note else ""))


@contextmanager
def progress(title: str, total: int | None, unit: str, done: int = 0) -> Iterator[Bar]:
    """Yields a `Bar` for `total` units (None: nobody knows how many) of which `done` are done already (a resumed
    run)."""
    if _quiet or not sys.stdout.isatty():
        yield _PlainBar(title, total, unit, done)
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
                speed = f"{_rate(self.rate)}/s" if self.rate else ""
                if speed and self.total is not None:
                    speed += f", {self.left} left"
                self.note = printable(note) or self.note
                shown.update(task, completed=self.done, speed=speed, note=self.note)

        yield _RichBar(title, total, unit, done)


def bar_or_none(title: str | None, total: int, unit: str) -> AbstractContextManager[Bar]:
    """`progress`, or for no title a bar that shows nothing."""
    return nullcontext(Bar("", total, unit)) if title is None else progress(title, total, unit)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
