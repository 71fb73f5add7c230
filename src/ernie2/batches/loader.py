"""The loader: packs made ahead of time in other processes, the same packs in the same order as without them.

What a lane yields depends on its number, its cursors and the step alone, so worker w of W owns lanes w, w + W, … and
walks ahead on its own. A loader holds no state that matters: `take` is told where the run stands, and where that is not
what was expected (a stage ended early, a run was resumed), the workers begin again from there.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, NoReturn

from ernie2.batches.batch import PackedBatch
from ernie2.batches.stages import Plan
from ernie2.batches.stream import Lane, Stream
from ernie2.errors import ConfigError, Ernie2Error, RunFailed
from ernie2.processes import without_main

AHEAD = 3
"""Steps a worker is asked for beyond the one that is trained."""
LOOK_SECONDS = 1.0
"""How often a loader that waits looks whether its workers live."""
GRACE_SECONDS = 30
"""How long a worker goes on after SIGTERM, which schedulers send to every process of a job."""

Filled = tuple[list[PackedBatch], list[Lane]]
Place = tuple[int, int]
"""A stage and a step in it."""


class Loader:
    """Hands out the packs of step after step through `plans`, made by `workers` processes, or here where it is 0.

    `numbers`: the lanes it serves, default all of the stream's. `waited` sums the seconds `take` took: the time in
    which nothing was trained. A context manager: leaving it ends the workers. Raises `ConfigError` for a task that
    other processes cannot import.
    """

    def __init__(
        self, stream: Stream, plans: Sequence[Plan], workers: int = 0, numbers: Sequence[int] | None = None
    ) -> None:
        self.numbers = list(range(stream.lanes)) if numbers is None else list(numbers)
        self.waited = 0.0
        self._stream, self._plans = stream, plans
        for task in stream.tasks.values() if workers else ():
            if type(task).__module__ == "__main__":
                raise ConfigError(
                    f"task {task.name!r} is defined in the script that runs, which processes that make batches cannot "
                    "import: put it into a module of its own, or set train.workers=0."
                )
        self._shares = [self.numbers[w::workers] for w in range(min(workers, len(self.numbers)))]
        self._workers: list[_Worker] = []
        self._asked: list[Place] = []
        self._next: Place | None = None
        self._expected: tuple[Place | None, Sequence[Lane]] | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; a later `take` starts new ones."""
        for worker in self._workers:
            worker.end()
        self._workers, self._asked, self._expected = [], [], None

    def take(self, stage: int, step: int, lanes: Sequence[Lane]) -> Filled:
        """The packs of step `step` of stage `stage` from `lanes` on, one a lane served, and the lanes after it.

        Raises the `TaskError` or `ShardError` a worker met, and `RunFailed` where one was killed.
        """
        began = time.monotonic()
        try:
            return self._take((stage, step), lanes)
        finally:
            self.waited += time.monotonic() - began

    def _take(self, place: Place, lanes: Sequence[Lane]) -> Filled:
        if not self._shares:
            active, host = _task_set(self._plans, place)
            made = [self._stream.pack(n, lane, host, active) for n, lane in zip(self.numbers, lanes, strict=True)]
            return [pack for pack, _ in made], [lane for _, lane in made]
        if self._expected is None or self._expected[0] != place or self._expected[1] is not lanes:
            self._begin(place, lanes)
        self._ask()
        self._asked.pop(0)
        found: dict[int, tuple[PackedBatch, Lane]] = {}
        for worker in self._workers:
            found.update(worker.receive())
        after = [found[number][1] for number in self.numbers]
        self._expected = (_following(self._plans, place), after)
        return [found[number][0] for number in self.numbers], after

    def _begin(self, place: Place, lanes: Sequence[Lane]) -> None:
        """Sets all workers to `place`; what they made of another future is thrown away."""
        if not self._workers:
            self._workers = [_Worker(self._stream, self._plans, share) for share in self._shares]
        for worker in self._workers:
            for _ in self._asked:
                worker.receive()
        by_number = dict(zip(self.numbers, lanes, strict=True))
        for worker in self._workers:
            worker.send({number: by_number[number].state() for number in worker.numbers})
        self._asked = []
        self._next = place

    def _ask(self) -> None:
        """Keeps `AHEAD` steps asked for beyond the one that is due."""
        while len(self._asked) <= AHEAD and self._next is not None:
            for worker in self._workers:
                worker.send(self._next)
            self._asked.append(self._next)
            self._next = _following(self._plans, self._next)


class _Worker:
    """A process that owns some lanes, seen from the one that trains."""

    def __init__(self, stream: Stream, plans: Sequence[Plan], numbers: Sequence[int]) -> None:
        self.numbers = numbers
        context = multiprocessing.get_context("forkserver")
        self._requests, theirs = context.Pipe(duplex=False)[::-1]
        self._results, sends = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(
            target=_work, args=(stream, plans, numbers, theirs, sends), name="ernie2-loader", daemon=True
        )
        with without_main():
            self._process.start()
        theirs.close()
        sends.close()

    def send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # `receive` says that it is gone
            self._requests.send(message)

    def receive(self) -> dict[int, tuple[PackedBatch, Lane]]:
        """What the worker made of its oldest request that is not answered."""
        while not self._results.poll(LOOK_SECONDS):
            if not self._process.is_alive() and not self._results.poll():
                self._say_gone()
        try:
            answer = self._results.recv()
        except (EOFError, OSError):
            self._process.join(LOOK_SECONDS)
            self._say_gone()
        if isinstance(answer, BaseException):
            raise answer
        return {number: (pack, Lane.of(state)) for number, (pack, state) in answer.items()}

    def _say_gone(self) -> NoReturn:
        code = self._process.exitcode
        if code == -signal.SIGBUS:
            raise RunFailed(
                "a process that makes batches could not read on in a file of the shards: it was cut short, or its disk "
                "failed. Run `ernie2 prepare` again into the same folder, then `ernie2 resume`."
            )
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        raise RunFailed(
            f"a process that makes batches ended {how}, from outside and most likely for want of memory. The last "
            "checkpoint is whole: `ernie2 resume` goes on from it; train.workers=0 does without such processes."
        )

    def end(self) -> None:
        self._process.kill()  # it would not heed SIGTERM, and has nothing to save
        self._process.join()
        self._requests.close()
        self._results.close()


def _work(
    stream: Stream, plans: Sequence[Plan], numbers: Sequence[int], requests: Connection, results: Connection
) -> None:
    """A worker's life: lanes to begin from, then steps to make packs of, until the other side is gone.

    Answers are sent by a thread, so that the next pack is made while the one before is on its way.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that trains ends its workers
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))  # it may need them to end its step
    lanes: Mapping[int, Lane] = {}
    sender: Thread | None = None
    while True:
        try:
            message = requests.recv()
        except (EOFError, OSError):
            return
        if isinstance(message, dict):
            lanes = {number: Lane.of(state) for number, state in message.items()}
            continue
        answer: Any
        try:
            active, host = _task_set(plans, message)
            made = {number: stream.pack(number, lanes[number], host, active) for number in numbers}
            lanes = {number: lane for number, (_, lane) in made.items()}
            answer = {number: (pack, lane.state()) for number, (pack, lane) in made.items()}
        except Ernie2Error as error:
            answer = error
        except Exception:
            answer = RunFailed(f"making a batch failed, which is a fault of ernie2:\n{traceback.format_exc()}")
        if sender is not None:
            sender.join()
        sender = Thread(target=_send, args=(results, answer), daemon=True)
        sender.start()


def _send(results: Connection, answer: Any) -> None:
    with suppress(BrokenPipeError, OSError):
        results.send(answer)


def _task_set(plans: Sequence[Plan], place: Place) -> tuple[tuple[str, ...], str]:
    plan = plans[place[0]]
    return plan.at(place[1]), plan.host_at(place[1])


def _following(plans: Sequence[Plan], place: Place) -> Place | None:
    """The step after `place`, over the end of its stage; None after the last."""
    stage, step = place[0], place[1] + 1
    while stage < len(plans) and step >= len(plans[stage]):
        stage, step = stage + 1, 0
    return (stage, step) if stage < len(plans) else None
