"""The loader: builds packs ahead of time in other processes, the same packs in the same order as without them.

The packs of a data stream for a main task depend only on the stream's number, the cursor of that task and the step. So
a worker owns the steps of one main task in one data stream, or several such pairs, and works ahead independently;
several workers can share a data stream. A loader has no state to save: `load` gets the position of the run. If that is
not the expected one (a stage ended early, a run was resumed), the workers restart from it.
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
from ernie2.batches.stages import StagePlan
from ernie2.batches.streams import Cursor, DataStreams, StreamState
from ernie2.errors import ConfigError, Ernie2Error, RunFailed
from ernie2.processes import hidden_main_module

PREFETCH_STEPS = 6
"""Steps requested from workers beyond the current one. While one worker builds packs of a slow task set, others build
those of the steps around it."""
MAX_WORKERS = 8
"""Default limit on the workers of a rank."""
MAX_SHARING_WORKERS = 4
"""Limit on the workers that share data streams, if there are fewer streams than this."""
POLL_SECONDS = 1.0
"""Interval at which a waiting loader checks that its workers are alive."""
GRACE_SECONDS = 30
"""How long a worker lives on after SIGTERM, which schedulers send to every process of a job."""

StepPacks = tuple[list[PackedBatch], list[StreamState]]
StepIndex = tuple[int, int]
"""A stage and a step in it."""
StreamTask = tuple[int, str]
"""The number of a data stream and a main task, whose cursor in that stream one worker advances."""
BuiltPack = tuple[Layout, Cursor]
"""Layout of a pack in the shared buffer, and the main task's cursor after it."""


def default_workers(streams: int, main_tasks: int, spare_cores: int) -> int:
    """Return the number of workers for a rank with a GPU, `streams` data streams and `main_tasks` different main tasks.

    One per data stream, at most the spare cores and at most 8, but no more than needed to build a step's packs in the
    same number of rounds: 6 streams and 4 cores give 3. Fewer than 4 streams are shared by up to 4 workers, by main
    task.
    """
    limit = max(1, min(MAX_WORKERS, spare_cores))
    if limit < streams:
        rounds = -(-streams // limit)
        return -(-streams // rounds)
    return streams * max(1, min(main_tasks, min(MAX_SHARING_WORKERS, limit) // streams))


class Loader:
    """Loads the packs of each step of `plans`, built by `workers` processes, or by this one if 0.

    `numbers`: its data streams, default all. `wait_seconds`: total time spent in `load`, in which nothing was trained.
    A context manager: leaving it ends the workers. Raises `ConfigError` for a task that other processes cannot import.
    """

    def __init__(
        self, streams: DataStreams, plans: Sequence[StagePlan], workers: int = 0, numbers: Sequence[int] | None = None
    ) -> None:
        self.numbers = list(range(streams.count)) if numbers is None else list(numbers)
        self.wait_seconds = 0.0
        self._streams, self._plans = streams, plans
        for task in streams.tasks.values() if workers else ():
            if type(task).__module__ == "__main__":
                raise ConfigError(
                    f"task {task.name!r} is defined in the script being run, which loader workers cannot import. Move "
                    "it to a module, or set train.workers=0."
                )
        pairs = [(number, task) for task in main_tasks_of(plans) for number in self.numbers]
        self._shares = [pairs[w::workers] for w in range(min(workers, len(pairs)))]
        self._workers: list[_Worker] = []
        self._requested: list[StepIndex] = []
        self._next: StepIndex | None = None
        self._expected: tuple[StepIndex | None, Sequence[StreamState]] | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; a later `load` starts new ones."""
        for worker in self._workers:
            worker.end()
        self._workers, self._requested, self._expected = [], [], None

    def load(self, stage: int, step: int, states: Sequence[StreamState]) -> StepPacks:
        """Return the packs of step `step` of stage `stage`, one per data stream, and the states after it.

        `states`: of the data streams before the step. Raises the `TaskError` or `ShardError` of a worker, and
        `RunFailed` if one was killed.
        """
        start = time.monotonic()
        try:
            return self._load((stage, step), states)
        finally:
            self.wait_seconds += time.monotonic() - start

    def _load(self, index: StepIndex, states: Sequence[StreamState]) -> StepPacks:
        if not self._shares:
            active, main_task = _task_set(self._plans, index)
            built = [
                self._streams.pack(number, state, main_task, active)
                for number, state in zip(self.numbers, states, strict=True)
            ]
            return [pack for pack, _ in built], [state for _, state in built]
        if self._expected is None or self._expected[0] != index or self._expected[1] is not states:
            self._restart(index, states)
        self._prefetch()
        main_task = self._main_task(self._requested.pop(0))
        received: dict[int, tuple[PackedBatch, StreamState]] = {}
        for worker in self._workers:
            received.update(worker.receive(main_task))
        after = [{**state, **received[number][1]} for number, state in zip(self.numbers, states, strict=True)]
        self._expected = (_next_index(self._plans, index), after)
        return [received[number][0] for number in self.numbers], after

    def _restart(self, index: StepIndex, states: Sequence[StreamState]) -> None:
        """Set all workers to `index` and discard the packs they built for other steps."""
        if not self._workers:
            self._workers = [_Worker(self._streams, self._plans, share) for share in self._shares]
        for requested in self._requested:
            for worker in self._workers:
                worker.receive(self._main_task(requested))
        by_number = dict(zip(self.numbers, states, strict=True))
        for worker in self._workers:
            worker.send({number: by_number[number] for number, _ in worker.pairs})
        self._requested = []
        self._next = index

    def _prefetch(self) -> None:
        while len(self._requested) <= PREFETCH_STEPS and self._next is not None:
            for worker in self._workers:
                worker.request(self._next, self._main_task(self._next))
            self._requested.append(self._next)
            self._next = _next_index(self._plans, self._next)

    def _main_task(self, index: StepIndex) -> str:
        return self._plans[index[0]].main_task(index[1])


class _Worker:
    """A loader worker and its pairs of data stream and main task, in the training process.

    It writes packs into a shared ring buffer, one answer after the other. The buffer has room for all outstanding
    requests, so no answer is overwritten before `receive` has copied it.
    """

    def __init__(self, streams: DataStreams, plans: Sequence[StagePlan], pairs: Sequence[StreamTask]) -> None:
        self.pairs = pairs
        self._packs = Counter(task for _, task in pairs)
        self._slots = max(self._packs.values())
        self._buffer = SharedBuffer((PREFETCH_STEPS + 1) * self._slots, streams.caps.buffer_size)
        self._received = 0
        context = multiprocessing.get_context("forkserver")
        self._requests, requests = context.Pipe(duplex=False)[::-1]
        self._results, results = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(
            target=_work,
            args=(streams, plans, pairs, self._buffer, requests, results),
            name="ernie2-loader",
            daemon=True,
        )
        with hidden_main_module():
            self._process.start()
        requests.close()
        results.close()

    def send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # `receive` reports the lost worker
            self._requests.send(message)

    def request(self, index: StepIndex, main_task: str) -> None:
        if main_task in self._packs:
            self.send(index)

    def receive(self, main_task: str) -> dict[int, tuple[PackedBatch, StreamState]]:
        """Return the answer to the oldest open request, for a step of `main_task`; empty if it is not this worker's."""
        if main_task not in self._packs:
            return {}
        while not self._results.poll(POLL_SECONDS):
            if not self._process.is_alive() and not self._results.poll():
                self._raise_lost()
        try:
            answer: dict[int, BuiltPack] | BaseException = self._results.recv()
        except (EOFError, OSError):
            self._process.join(POLL_SECONDS)
            self._raise_lost()
        if isinstance(answer, BaseException):
            raise answer
        first = self._received % (PREFETCH_STEPS + 1) * self._slots
        self._received += 1
        return {
            number: (layout.pack(self._buffer.rows[slot, : layout.size].copy()), {main_task: cursor})
            for slot, (number, (layout, cursor)) in enumerate(answer.items(), first)
        }

    def _raise_lost(self) -> NoReturn:
        code = self._process.exitcode
        if code == -signal.SIGBUS:
            raise RunFailed(
                "a loader worker could not read a file of the shards: the file was truncated or its disk failed. Run "
                "`ernie2 prepare` again into the same folder, then `ernie2 resume`."
            )
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        raise RunFailed(
            f"a loader worker was ended {how} from outside, most likely for lack of memory. The last checkpoint is "
            "complete: run `ernie2 resume`. train.workers=0 trains without loader workers."
        )

    def end(self) -> None:
        self._process.kill()  # it ignores SIGTERM at first, and has nothing to save
        self._process.join()
        self._requests.close()
        self._results.close()
        self._buffer.close()


def _work(
    streams: DataStreams,
    plans: Sequence[StagePlan],
    pairs: Sequence[StreamTask],
    buffer: SharedBuffer,
    requests: Connection,
    results: Connection,
) -> None:
    """Run a worker: receive states to start from, then steps to build packs for, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process ends its workers
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_SECONDS))  # the training process may finish its step
    states: dict[int, StreamState] = {}
    slots = len(buffer.rows) // (PREFETCH_STEPS + 1)
    answered = 0
    while True:
        try:
            message = requests.recv()
        except (EOFError, OSError):
            return
        if isinstance(message, dict):
            states = message
            continue
        answer: dict[int, BuiltPack] | Exception = {}
        try:
            active, main_task = _task_set(plans, message)
            built = {}
            for slot, number in enumerate([n for n, task in pairs if task == main_task], answered * slots):
                pack, states[number] = streams.pack(number, states[number], main_task, active)
                flat = pack.flattened().flat
                assert flat is not None
                buffer.rows[slot, : len(flat)] = flat
                built[number] = pack.layout(), states[number][main_task]
            answer = built
        except Ernie2Error as error:
            answer = error
        except Exception:
            answer = RunFailed(f"building a batch failed because of a bug in ernie2:\n{traceback.format_exc()}")
        answered = (answered + 1) % (PREFETCH_STEPS + 1)
        with suppress(BrokenPipeError, OSError):
            results.send(answer)


def main_tasks_of(plans: Sequence[StagePlan]) -> list[str]:
    """Return the main tasks of all steps of `plans`, in order of their tasks."""
    return list(dict.fromkeys(plan.tasks[index] for plan in plans for index in dict.fromkeys(plan.main_tasks.tolist())))


def _task_set(plans: Sequence[StagePlan], index: StepIndex) -> tuple[tuple[str, ...], str]:
    plan = plans[index[0]]
    return plan.active_tasks(index[1]), plan.main_task(index[1])


def _next_index(plans: Sequence[StagePlan], index: StepIndex) -> StepIndex | None:
    """Return the step after `index`, also in a later stage; None after the last."""
    stage, step = index[0], index[1] + 1
    while stage < len(plans) and step >= len(plans[stage]):
        stage, step = stage + 1, 0
    return (stage, step) if stage < len(plans) else None


class SharedBuffer:
    """`slots` rows of `size` int32 in memory that processes share; `rows` (slots, size) is a view of it.

    Pass it to a process as an argument when starting it. Memory is allocated as rows are written, and freed when no
    process has the buffer any more, however they ended: it has no name and leaves no file.
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
        """Release the memory, once no view of it is in use."""
        self.rows = np.zeros((0, 0), np.int32)
        os.close(self._descriptor)


def _attach(slots: int, size: int, handle: Any) -> SharedBuffer:
    return SharedBuffer(slots, size, handle.detach())


def _anonymous_file() -> int:
    """Create a file without a name, in memory if the system allows; /dev/shm is small in many containers."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ernie2-packs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
