"""The world a run is trained in: one process, or as many as torchrun started, on one machine or on several.

    torchrun --nproc-per-node 8 -m ernie2 pretrain RECIPE

Messages, files and questions to the disk are rank 0's; the others wait for it. Tensors on GPUs travel
by NCCL; tensors on the host, and Python values, by gloo.
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

PATIENCE = timedelta(days=7)
"""How long ranks wait for what one of them does alone, such as preparing shards; one that dies is noticed before."""


@dataclass(frozen=True)
class World:
    """A rank among `size`; without arguments, the world of one.

    `local_rank`, `local_size`: the same among the ranks of this machine. `restarts`: how often torchrun started all
    ranks anew because one had died; `job`: its `--rdzv-id`, by which a machine that comes back knows the others.
    `waiting`: the gloo group of everything that may take long.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: device_of(0))
    restarts: int = 0
    job: str | None = None
    waiting: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone speaks and writes."""
        return self.rank == 0

    def lanes(self, count: int) -> list[int]:
        """The lanes of `count` this rank fills: rank r has r, r + size, …"""
        return list(range(self.rank, count, self.size))

    def turns(self, count: int) -> int:
        """Things of `count` a rank has at most; who has fewer fills up, so that all meet equally often."""
        return -(-count // self.size)

    def total(self, values: Tensor) -> Tensor:
        """`values` summed over all ranks, in place; any device."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def spread(self, values: Tensor) -> Tensor:
        """`values` of rank 0 on all ranks, in place; any device."""
        if self.size > 1:
            dist.broadcast(values, src=0)
        return values

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on some rank, by one message between hosts."""
        return flag if self.size == 1 else bool(self.total(torch.tensor(int(flag))))

    def gather(self, value: Value) -> list[Value]:
        """Every rank's `value` by rank, on all of them; waits for the slowest."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.waiting)
        return found

    def on_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns on rank 0, on all ranks; where it raises, all ranks stop as in `together`."""
        made: list[Any] = [None]
        with self.together():
            if self.first:
                made[0] = make()
        if self.size > 1:
            dist.broadcast_object_list(made, src=0, group=self.waiting)
        value: Value = made[0]
        return value

    @contextmanager
    def together(self) -> Iterator[None]:
        """A stretch of work that succeeds on all ranks or on none.

        The lowest rank that met an `Ernie2Error` raises it; the others end without a word.
        """
        error: Ernie2Error | None = None
        try:
            yield
        except Ernie2Error as met:
            if self.size == 1:
                raise
            error = met
        if self.size == 1:
            return
        codes = self.gather(None if error is None else error.exit_code)
        failed = next((rank for rank, code in enumerate(codes) if code is not None), None)
        if failed is None:
            return
        if error is not None and failed == self.rank:
            raise error
        raise SystemExit(codes[failed])


@contextmanager
def open_world() -> Iterator[World]:
    """The world torchrun started this process in; the world of one where it was not started by torchrun.

    Ranks but the first print nothing inside. Process groups that are there already are used and left open.
    Raises `ConfigError` where a machine has fewer GPUs than ranks, `RunFailed` where another rank is gone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield World()
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
    world = World(
        rank=dist.get_rank(),
        size=size,
        local_rank=local_rank,
        local_size=local_size,
        device=device,
        restarts=int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        job=_job(),
        waiting=dist.new_group(backend="gloo", timeout=PATIENCE),
    )
    try:
        with muted(not world.first), _naming_lost_ranks():
            yield world
        if ours:  # after an error the process ends, and groups whose other ranks are gone may not be closed in order
            dist.destroy_process_group()
    finally:
        _let_gloo_rest()


def _let_gloo_rest(seconds: float = 5.0) -> None:
    """Wait, `seconds` at most, until the threads of gloo have nothing in hand.

    A collective is reported as done before the thread that ran it drops its tensors, for which it needs Python. If
    Python is shutting down by then, the process ends with SIGABRT after all its work was done. The groups themselves
    outlive `destroy_process_group` once a model was wrapped in DDP, so their threads cannot be joined.
    """
    ends = time.monotonic() + seconds
    looks = 0
    while looks < 2 and time.monotonic() < ends:
        time.sleep(0.01)  # in which they can have the interpreter's lock
        looks = 0 if _busy_threads("pt_gloo_runloop") else looks + 1


def _busy_threads(name: str) -> int:
    """Threads of this process called `name` that run or are ready to; 0 on systems that do not show it."""
    busy = 0
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # it may end meanwhile
            called, _, rest = (thread / "stat").read_text().partition("(")[2].rpartition(")")
            busy += called == name and rest.split()[0] != "S"
    return busy


@contextmanager
def _naming_lost_ranks() -> Iterator[None]:
    """Turns what gloo and NCCL say when another rank is gone into a `RunFailed`."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RunFailed(
            f"another rank ended or cannot be reached ({str(error).splitlines()[0]}). What it said stands above or in "
            "its own output. The last checkpoint is whole: torchrun with --max-restarts goes on from it by itself, "
            "`ernie2 resume` otherwise."
        ) from error


def _store(size: int) -> Store:
    """Where ranks find each other. torchrun may keep one store over its restarts, with the addresses of ranks that are
    gone still in it; a part of its own for every start keeps them apart. Where it makes a new one for every start
    (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1) there must be no parts: machines may differ in how often they started.
    """
    store: Store = next(rendezvous("env://"))[0]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"ernie2/start_{restarts}_of_{size}", store)


def _job() -> str | None:
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name == "none" else name  # which is what torchrun calls a job without a name


def device_of(local_rank: int) -> torch.device:
    """The GPU of a rank among those of its machine, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"rank {local_rank} of this machine finds no GPU of its own, since there are {torch.cuda.device_count()}: "
            f"start torchrun with --nproc-per-node {torch.cuda.device_count()}."
        )
    return torch.device("cuda", local_rank) if "LOCAL_RANK" in os.environ else torch.device("cuda")
