"""A CUDA card that computes nothing and notices what a real one would stand still for.

Tensors are fake (`FakeTensorMode`): they have shape, dtype and device, and no values. An operation on a mix of devices
or dtypes fails as on a card. What a card only slows down for is noted in `Card.waits`, with the line of ernie2 it came
from: a value read by the host (`.item()`, `bool()`, `.cpu()`), a copy from memory that is not pinned, and waiting for
a stream or for an event of the running step. Read values are answered by zeros.
"""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import ernie2

CUDA = torch.device("cuda")
_SOURCE = str(Path(ernie2.__file__).parent)
_READS = {torch.ops.aten._local_scalar_dense.default}
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Card(contextlib.ExitStack):
    """A context in which there is one fake CUDA device. `capability`: its compute capability, (8, 0) and above Ampere.

    `watched`: whether waits are noted; what is compiled must not be watched, and reading a value is an error there.
    `waits`: for everything the host waited for, what it was and where. `copies`: copies from the host to the card.
    `steps`: how many steps have begun; an event of an earlier step has happened when it is waited for.
    """

    def __init__(self, capability: tuple[int, int] = (9, 0), watched: bool = True) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.copies = 0
        self.steps = 0
        self._capability, self._watched = capability, watched
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)  # made while there is no device: it must not open one
        self._pinned: list[Any] = []  # storages stay here, so that no other comes to lie at their address

    def __enter__(self) -> Card:
        super().__enter__()
        for owner, name, stand_in in self._stand_ins():
            self.enter_context(mock.patch.object(owner, name, stand_in))
        self.enter_context(self._mode)
        if self._watched:
            self.enter_context(_Watch(self))
        return self

    def wait(self, what: str) -> None:
        """Notes that the host waits for the card."""
        frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(_SOURCE)]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else "outside"
        self.waits.append(f"{what} ({where})")

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` lies in memory that was pinned."""
        return any(tensor.untyped_storage()._cdata == storage._cdata for storage in self._pinned)

    def _stand_ins(self) -> list[tuple[Any, str, Any]]:
        """What replaces the parts of torch that ask the driver."""
        card = self

        def pinned(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
            copy = tensor.clone()
            card._pinned.append(copy.untyped_storage())
            return copy

        def as_numpy(tensor: torch.Tensor, *, force: bool = False) -> Any:
            if not isinstance(tensor, FakeTensor):
                return numpy_of(tensor, force=force)
            assert tensor.device.type == "cpu", "a CUDA tensor has no numpy values"
            return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))

        class Event:
            def __init__(self, *_: Any, **__: Any) -> None:
                self.step = -1

            def record(self, *_: Any) -> None:
                self.step = card.steps

            def query(self) -> bool:
                return self.step < card.steps

            def synchronize(self) -> None:
                if not self.query():
                    card.wait("waits for an event of this step")

            def wait(self, *_: Any) -> None:
                """Makes a stream wait, not the host."""

        class Stream:
            def __init__(self, *_: Any, **__: Any) -> None:
                self.device = CUDA

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def wait_stream(self, *_: Any) -> None:
                """Makes a stream wait, not the host."""

            wait_event = wait_stream

            def record_event(self, event: Any = None) -> Any:
                event = event or Event()
                event.record()
                return event

            def synchronize(self) -> None:
                card.wait("waits for a stream")

        numpy_of = torch.Tensor.numpy
        facts = {
            "is_available": True,
            "is_initialized": True,
            "device_count": 1,
            "current_device": 0,
            "get_device_capability": self._capability,
            "get_device_name": "a card that computes nothing",
            "max_memory_allocated": 0,
            "memory_allocated": 0,
            "reset_peak_memory_stats": None,
            "set_device": None,
            "current_stream": Stream(),
            "get_rng_state": None,
            "set_rng_state": None,
        }
        return [
            *((torch.cuda, name, lambda *_, answer=answer, **__: answer) for name, answer in facts.items()),
            (torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or self._ampere),
            (torch.cuda, "synchronize", lambda *_: card.wait("waits for the card")),
            (torch.cuda, "Stream", Stream),
            (torch.cuda, "stream", lambda stream: stream),
            (torch.cuda, "Event", Event),
            (torch, "Event", Event),
            (torch.Tensor, "pin_memory", pinned),
            (torch.Tensor, "is_pinned", lambda tensor, *_: card.is_pinned(tensor)),
            (torch.Tensor, "record_stream", lambda *_: None),
            (torch.Tensor, "numpy", as_numpy),
        ]

    @property
    def _ampere(self) -> bool:
        return self._capability >= (8, 0)


class _Watch(TorchDispatchMode):
    """Sees every operation before the fake tensors do."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self._card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _READS and isinstance(args[0], FakeTensor):
            if args[0].device.type == "cuda":
                self._card.wait("reads a value")
            return args[0].dtype.is_floating_point * 0.0 if args[0].dtype != torch.bool else False
        made = func(*args, **kwargs)
        if func in _COPIES:
            target, source = (args[0], args[1]) if func is torch.ops.aten.copy_.default else (made, args[0])
            queued = kwargs.get("non_blocking", False) or (len(args) > 2 and bool(args[2]))
            self._copied(source, target, queued)
        return made

    def _copied(self, source: torch.Tensor, target: torch.Tensor, queued: bool) -> None:
        if source.device.type == "cuda" and target.device.type == "cpu" and not queued:
            self._card.wait("copies to the host")
        if source.device.type == "cpu" and target.device.type == "cuda":
            self._card.copies += 1
            if not self._card.is_pinned(source):
                self._card.wait("copies from memory that is not pinned")
            elif not queued:
                self._card.wait("waits for a copy from the host")
