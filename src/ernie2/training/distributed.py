"""The process group of a run: one process, or all processes that torchrun started, on one or several machines.

    torchrun --nproc-per-node 8 -m ernie2 pretrain RECIPE

Rank 0 prints messages, reads and writes files; the others wait for it. Tensors on GPUs are sent by NCCL; tensors in
host memory and Python values by gloo.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ernie2.console import muted
from ernie2.errors import ConfigError, Ernie2Error, RunFailed

Value = TypeVar("Value")

OBJECT_TIMEOUT = timedelta(days=7)
"""How long ranks wait for work of one rank, such as preparing shards; a rank that dies is noticed earlier."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among all ranks of a run; without arguments, a single process.

    `local_rank`, `local_size`: the same on this machine. `restarts`: how often torchrun restarted all ranks because
    one had died; `job`: its `--rdzv-id`, by which a machine that returns finds the others. `object_group`: gloo group
    for Python values, with a long timeout.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: device_of(0))
    restarts: int = 0
    job: str | None = None
    object_group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that prints and writes."""
        return self.rank == 0

    def own_streams(self, count: int) -> list[int]:
        """Return the numbers of this rank's data streams, of `count` in total: rank r has r, r + size, …"""
        return list(range(self.rank, count, self.size))

    def max_per_rank(self, count: int) -> int:
        """Return the most items any rank has when `count` items are dealt out; ranks with fewer pad to it."""
        return -(-count // self.size)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum `values` over all ranks, in place; any device."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        """Copy `values` of rank 0 to all ranks, in place; any device."""
        if self.size > 1:
            dist.broadcast(values, src=0)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set on any rank, with one message in host memory."""
        return flag if self.size == 1 else bool(self.all_reduce(torch.tensor(int(flag))))

    def all_gather(self, value: Value) -> list[Value]:
        """Return the `value` of every rank, by rank; waits for the slowest."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.object_group)
        return values

    def run_on_first(self, function: Callable[[], Value]) -> Value:
        """Call `function` on rank 0 and return its result on all ranks; if it raises, all stop (`shared_errors`)."""
        values: list[Any] = [None]
        with self.shared_errors():
            if self.is_first:
                values[0] = function()
        if self.size > 1:
            dist.broadcast_object_list(values, src=0, group=self.object_group)
        value: Value = values[0]
        return value

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """Stop all ranks if the block raises an `Ernie2Error` on any of them.

        The lowest rank with an error raises it; the others exit silently.
        """
        error: Ernie2Error | None = None
        try:
            yield
        except Ernie2Error as raised:
            if self.size == 1:
                raise
            error = raised
        if self.size == 1:
            return
        codes = self.all_gather(None if error is None else error.exit_code)
        failed = next((rank for rank, code in enumerate(codes) if code is not None), None)
        if failed is None:
            return
        if error is not None and failed == self.rank:
            raise error
        raise SystemExit(codes[failed])


@contextmanager
def open_process_group() -> Iterator[ProcessGroup]:
    """Join the process group of torchrun; without torchrun, yield that of a single process.

    Only the first rank prints inside. An initialised `torch.distributed` is used and left open.
    Raises `ConfigError` if a machine has fewer GPUs than ranks, `RunFailed` if another rank is lost.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ProcessGroup()
        return
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = device_of(local_rank)
    ours = not dist.is_initialized()
    if ours:
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            device_id=device if cuda else None,
            rank=int(os.environ["RANK"]),
            world_size=size,
            store=_store(size),
        )
    group = ProcessGroup(
        rank=dist.get_rank(),
        size=size,
        local_rank=local_rank,
        local_size=local_size,
        device=device,
        restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        job=_job(),
        object_group=dist.new_group(backend="gloo", timeout=OBJECT_TIMEOUT),
    )
    try:
        with muted(not group.is_first), _lost_ranks_as_errors():
            yield group
        if ours:  # not after an error: the process ends, and closing a group without its other ranks may hang
            dist.destroy_process_group()
    finally:
        _wait_for_gloo_threads()


def _wait_for_gloo_threads(seconds: float = 5.0) -> None:
    """Wait, `seconds` at most, until the threads of gloo are idle.

    A collective returns before its thread releases its tensors, for which it needs Python. If Python is shutting down
    by then, the process ends with SIGABRT although its work is done. DDP keeps the groups alive after
    `destroy_process_group`, so their threads cannot be joined.
    """
    end = time.monotonic() + seconds
    idle_checks = 0
    while idle_checks < 2 and time.monotonic() < end:
        time.sleep(0.01)  # lets them take the interpreter's lock
        idle_checks = 0 if _busy_threads("pt_gloo_runloop") else idle_checks + 1


def _busy_threads(name: str) -> int:
    """Count the threads of this process called `name` that are not asleep; 0 on systems without /proc."""
    busy = 0
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # the thread may end meanwhile
            thread_name, _, rest = (thread / "stat").read_text().partition("(")[2].rpartition(")")
            busy += thread_name == name and rest.split()[0] != "S"
    return busy


@contextmanager
def _lost_ranks_as_errors() -> Iterator[None]:
    """Turn the errors of gloo and NCCL about a lost rank into a `RunFailed`."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RunFailed(
            f"another rank ended or cannot be reached ({str(error).splitlines()[0]}). See its messages above or in "
            "its own output. The last checkpoint is complete: torchrun with --max-restarts resumes from it by itself, "
            "otherwise run `ernie2 resume`."
        ) from error


def _store(size: int) -> Store:
    """Return the store through which ranks find each other.

    torchrun may keep one store over its restarts, with addresses of lost ranks in it; a prefix for each start hides
    them. With a new store for each start (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1) there must be no prefix: machines may
    differ in how often they started.
    """
    store: Store = next(rendezvous("env://"))[0]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"ernie2/start_{restarts}_of_{size}", store)


def _job() -> str | None:
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name == "none" else name  # torchrun's name for a job without one


def device_of(local_rank: int) -> torch.device:
    """Return the GPU of a rank of this machine, or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"rank {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}. "
            f"Start torchrun with --nproc-per-node {torch.cuda.device_count()}."
        )
    return torch.device("cuda", local_rank) if "LOCAL_RANK" in os.environ else torch.device("cuda")
