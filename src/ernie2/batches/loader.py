"""The loader: packs made ahead of time in other processes, the same packs in the same order as without them.

What a lane yields for a host task depends on its number, the host's cursor and the step alone. So a worker owns the
steps of one host in one lane, or several such walks, and goes ahead on its own; several workers can share a lane. A
loader holds no state that matters: `take` is given the place of the run, and where that is not what was expected (a
stage ended early, a run was resumed), the workers begin again from there.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ernie2.batches.batch import Layout, PackedBatch
from ernie2.batches.stages import Plan
from ernie2.batches.stream import Cursor, Lane, Stream
from ernie2.errors import ConfigError, Ernie2Error, RunFailed
from ernie2.processes import hidden_main_module

AHEAD = 6
"""Steps the workers are asked for beyond the one that is trained: while one makes packs of a slow task set, others make
those of the steps around it."""
MOST_WORKERS = 8
"""Workers of a rank by default, at most."""
FEW_WORKERS = 4
"""Workers that may share the lanes where there are fewer lanes than this."""
LOOK_SECONDS = 1.0
"""How often a loader that waits looks whether its workers live."""
GRACE_SECONDS = 30
"""How long a worker goes on after SIGTERM, which schedulers send to every process of a job."""

Filled = tuple[list[PackedBatch], list[Lane]]
Place = tuple[int, int]
"""A stage and a step in it."""
Walk = tuple[int, str]
"""A lane and a host task, whose cursor in that lane one worker moves."""
Handed = tuple[Layout, Cursor]
"""Of a pack in the shared buffer: its layout, and the host's cursor after it."""


def default_workers(lanes: int, hosts: int, spare_cores: int) -> int:
    """Workers a rank of `lanes` lanes and `hosts` different host tasks gets beside a GPU.

    As many as spare cores allow, up to 8 and one a lane; no more than are needed to finish a step's packs in the same
    number of turns, so that 6 lanes get 3 of 4. Fewer than 4 lanes are shared by up to 4 workers, by host.
    """
    most = max(1, min(MOST_WORKERS, spare_cores))
    if most < lanes:
        turns = -(-lanes // most)
        return -(-lanes // turns)
    return lanes * max(1, min(hosts, min(FEW_WORKERS, most) // lanes))


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
        walks = [(number, host) for host in hosts_of(plans) for number in self.numbers]
        self._shares = [walks[w::workers] for w in range(min(workers, len(walks)))]
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
        host = self._host(self._asked.pop(0))
        found: dict[int, tuple[PackedBatch, Lane]] = {}
        for worker in self._workers:
            found.update(worker.receive(host))
        after = [{**lane, **found[number][1]} for number, lane in zip(self.numbers, lanes, strict=True)]
        self._expected = (_following(self._plans, place), after)
        return [found[number][0] for number in self.numbers], after

    def _begin(self, place: Place, lanes: Sequence[Lane]) -> None:
        """Sets all workers to `place`; what they made of another future is thrown away."""
        if not self._workers:
            self._workers = [_Worker(self._stream, self._plans, share) for share in self._shares]
        for place_asked in self._asked:
            for worker in self._workers:
                worker.receive(self._host(place_asked))
        by_number = dict(zip(self.numbers, lanes, strict=True))
        for worker in self._workers:
            worker.send({number: by_number[number] for number, _ in worker.walks})
        self._asked = []
        self._next = place

    def _ask(self) -> None:
        while len(self._asked) <= AHEAD and self._next is not None:
            for worker in self._workers:
                worker.ask(self._next, self._host(self._next))
            self._asked.append(self._next)
            self._next = _following(self._plans, self._next)

    def _host(self, place: Place) -> str:
        return self._plans[place[0]].host_at(place[1])


class _Worker:
    """A process that owns some walks, seen from the one that trains.

    It writes packs into a buffer both see, answer after answer, round and round. The buffer holds as many answers as
    are ever asked for and not received, so none is overwritten before `receive` has copied it.
    """

    def __init__(self, stream: Stream, plans: Sequence[Plan], walks: Sequence[Walk]) -> None:
        self.walks = walks
        self._packs = Counter(host for _, host in walks)
        self._slots = max(self._packs.values())
        self._buffer = SharedBuffer((AHEAD + 1) * self._slots, stream.caps.buffer_size)
        self._received = 0
        context = multiprocessing.get_context("forkserver")
        self._requests, theirs = context.Pipe(duplex=False)[::-1]
        self._results, sends = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(
            target=_work, args=(stream, plans, walks, self._buffer, theirs, sends), name="ernie2-loader", daemon=True
        )
        with hidden_main_module():
            self._process.start()
        theirs.close()
        sends.close()

    def send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # `receive` says that it is gone
            self._requests.send(message)

    def ask(self, place: Place, host: str) -> None:
        if host in self._packs:
            self.send(place)

    def receive(self, host: str) -> dict[int, tuple[PackedBatch, Lane]]:
        """What the worker made of its oldest request that is not answered, of a step of `host`; nothing for others."""
        if host not in self._packs:
            return {}
        while not self._results.poll(LOOK_SECONDS):
            if not self._process.is_alive() and not self._results.poll():
                self._say_gone()
        try:
            answer: dict[int, Handed] | BaseException = self._results.recv()
        except (EOFError, OSError):
            self._process.join(LOOK_SECONDS)
            self._say_gone()
        if isinstance(answer, BaseException):
            raise answer
        first = self._received % (AHEAD + 1) * self._slots
        self._received += 1
        return {
            number: (layout.pack(self._buffer.rows[slot, : layout.size].copy()), {host: cursor})
            for slot, (number, (layout, cursor)) in enumerate(answer.items(), first)
        }

    def _say_gone(self) -> NoReturn:
        code = self._process.exitcode
        if code == -signal.SIGBUS:
            raise RunFailed(
                "a process that makes batches could not read on in a file of the shards: it was cut short, or its disk "
                "failed. Run `ernie2 prepare` again into the same folder, then `ernie2 resume`."
            )
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        raise RunFailed(
            f"a process that makes batches ended {how}, from outside and most likely because memory ran out. The last "
            "checkpoint is whole: `ernie2 resume` goes on from it; train.workers=0 does without such processes."
        )

    def end(self) -> None:
        self._process.kill()  # it would not heed SIGTERM, and has nothing to save
        self._process.join()
        self._requests.close()
        self._results.close()
        self._buffer.close()


def _work(
    stream: Stream,
    plans: Sequence[Plan],
    walks: Sequence[Walk],
    buffer: SharedBuffer,
    requests: Connection,
    results: Connection,
) -> None:
    """A worker's life: lanes to begin from, then steps to make packs of, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that trains ends its workers
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))  # it may need them to end its step
    lanes: dict[int, Lane] = {}
    slots = len(buffer.rows) // (AHEAD + 1)
    answered = 0
    while True:
        try:
            message = requests.recv()
        except (EOFError, OSError):
            return
        if isinstance(message, dict):
            lanes = message
            continue
        answer: dict[int, Handed] | Exception = {}
        try:
            active, host = _task_set(plans, message)
            made = {}
            for slot, number in enumerate([n for n, walked in walks if walked == host], answered * slots):
                pack, lanes[number] = stream.pack(number, lanes[number], host, active)
                flat = pack.flattened().flat
                assert flat is not None
                buffer.rows[slot, : len(flat)] = flat
                made[number] = pack.layout(), lanes[number][host]
            answer = made
        except Ernie2Error as error:
            answer = error
        except Exception:
            answer = RunFailed(f"making a batch failed, which is a fault of ernie2:\n{traceback.format_exc()}")
        answered = (answered + 1) % (AHEAD + 1)
        with suppress(BrokenPipeError, OSError):
            results.send(answer)


def hosts_of(plans: Sequence[Plan]) -> list[str]:
    """The tasks that host a step of `plans`, in their order."""
    return list(dict.fromkeys(plan.tasks[host] for plan in plans for host in dict.fromkeys(plan.host.tolist())))


def _task_set(plans: Sequence[Plan], place: Place) -> tuple[tuple[str, ...], str]:
    plan = plans[place[0]]
    return plan.at(place[1]), plan.host_at(place[1])


def _following(plans: Sequence[Plan], place: Place) -> Place | None:
    """The step after `place`, over the end of its stage; None after the last."""
    stage, step = place[0], place[1] + 1
    while stage < len(plans) and step >= len(plans[stage]):
        stage, step = stage + 1, 0
    return (stage, step) if stage < len(plans) else None


class SharedBuffer:
    """`slots` rows of `size` int32 in memory that processes share; `rows` (slots, size) is a view of it.

    To be given to a process as an argument when it is started. Memory is taken as rows are written, and freed when no
    process has the buffer any more, however they ended: it has no name that could be left behind.
    """

    def __init__(self, slots: int, size: int, descriptor: int | None = None) -> None:
        self._shape = slots, size
        if descriptor is None:
            descriptor = _anonymous_file()
            os.ftruncate(descriptor, 4 * slots * size)
        self._descriptor = descriptor
        self.rows: NDArray[Any] = np.frombuffer(mmap.mmap(descriptor, 4 * slots * size), np.int32).reshape(slots, size)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _attach, (*self._shape, reduction.DupFd(self._descriptor))

    def close(self) -> None:
        """Give the memory up; a view that is still in use keeps it."""
        self.rows = np.zeros((0, 0), np.int32)
        os.close(self._descriptor)


def _attach(slots: int, size: int, handle: Any) -> SharedBuffer:
    return SharedBuffer(slots, size, handle.detach())


def _anonymous_file() -> int:
    """A file without a name, in memory where the system offers that; /dev/shm is small in many containers."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ernie2-packs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
