"""Data parallelism: one process, DDP (a replica on every rank) or FSDP2 (parameters sharded among ranks).

Two rules make the result equal to that of one process with all packs. A gradient is the sum over ranks, each computed
with the counts of the entire step. A head takes part on all ranks or on none: a rank whose packs score nothing for its
task contributes zero (`MultiTaskModel.forward`, `active`); if no rank scores the task, the gradient stays None and the
optimiser skips the head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ernie2.errors import ConfigError
from ernie2.model.heads import TaskLoss
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.training.distributed import ProcessGroup


class Parallelism:
    """How the ranks of a process group train one model; the base class of the three ways."""

    def __init__(self, model: nn.Module, group: ProcessGroup) -> None:
        self.model, self.group = model, group
        self._wrapped: Any = model

    def losses(self, inputs: Inputs, active: Collection[str]) -> dict[str, TaskLoss]:
        """Return the losses of a pack; `active`: tasks with scored positions in this step, on any rank."""
        shared = (active,) if self.group.size > 1 else ()
        losses: dict[str, TaskLoss] = self._wrapped(inputs, *shared)
        return losses

    def gradient_sync(self, last_pack: bool) -> AbstractContextManager[object]:
        """Return the context for forward and backward of a pack; ranks sum gradients in the last pack of a step."""
        return nullcontext()

    def all_reduce(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return 0-d tensors by task summed over ranks in one message; all ranks pass the same tasks."""
        if self.group.size == 1 or not figures:
            return dict(figures)
        names = sorted(figures)
        summed = self.group.all_reduce(torch.stack([figures[name] for name in names]))
        return dict(zip(names, summed, strict=True))


class SingleProcess(Parallelism):
    """Data parallelism disabled: one process has the entire model and all packs."""

    def __init__(self, model: nn.Module, group: ProcessGroup | None = None) -> None:
        super().__init__(model, group or ProcessGroup(device=torch.device("cpu")))


class Replicated(Parallelism):
    """DDP: every rank holds the entire model; gradients are summed during the backward pass."""

    def __init__(self, model: MultiTaskModel, group: ProcessGroup) -> None:
        super().__init__(model, group)
        _register_task_loss()
        torch._dynamo.config.optimize_ddp = False  # layers are compiled one by one, so there is nothing to cut
        self._wrapped = DistributedDataParallel(model, find_unused_parameters=True)

    def gradient_sync(self, last_pack: bool) -> AbstractContextManager[object]:
        return nullcontext() if last_pack else self._wrapped.no_sync()


class Sharded(Parallelism):
    """FSDP2: every rank holds a shard of all parameters, gradients and moments, and gathers a layer to compute it.

    Linears are sharded layer by layer; embeddings, the vocabulary matrix tied to them, norms and heads in one group.

    `dtype`: dtype of matrix products, in which the linears of layers are gathered. Autocast rounds them to it anyway,
    so the numbers are the same. All other parameters are gathered in float32, because rows of tables are summed and
    norms applied before rounding. Gradients are summed over ranks in float32.
    """

    def __init__(self, model: MultiTaskModel, group: ProcessGroup, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(model, group)
        if model.settings.kind != "transformer":
            raise ConfigError("train.parallel=fsdp shards layers of a Transformer; use ddp for lstm and gru.")
        from torch.distributed.device_mesh import init_device_mesh  # these take seconds to import
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        _register_task_loss()
        for parameter in model.parameters():
            group.broadcast(parameter.data)
        mesh = init_device_mesh(group.device.type, (group.size,))
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        norms = nn.ModuleList(part for part in model.encoder.layers.modules() if isinstance(part, nn.LayerNorm))
        for layer in model.encoder.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy, ignored_params=set(norms.parameters()))
        # FSDP's group of the entire model leaves out layers, which have groups. A second path to the norms puts them
        # into it. Groups for norms only would cost two more messages a layer and split its compiled graph.
        model.add_module("norms", norms)
        fully_shard(model, mesh=mesh)
        del model.norms
        register_fsdp_forward_method(model, "predictions")

    def gradient_sync(self, last_pack: bool) -> AbstractContextManager[object]:
        self._wrapped.set_requires_gradient_sync(last_pack)
        return nullcontext()


def parallelize(
    model: MultiTaskModel, group: ProcessGroup, kind: str, dtype: torch.dtype = torch.float32
) -> Parallelism:
    """Set up data parallelism of `model` over `group`, starting from the parameters of rank 0.

    `kind`: "ddp", "fsdp", or "auto" (ddp). `dtype`: dtype of matrix products. A group of one rank ignores both. Build
    the optimiser afterwards.
    """
    if group.size == 1:
        return SingleProcess(model, group)
    return Sharded(model, group, dtype) if kind == "fsdp" else Replicated(model, group)


def reshard(model: nn.Module) -> None:
    """Shard again the parameters of a sharded model that evaluation left gathered."""
    if (method := getattr(model, "reshard", None)) is not None:
        method()


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with all its values; for a `DTensor` this is a collective call."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


@cache
def _register_task_loss() -> None:
    """Let DDP and FSDP find the tensors in a `TaskLoss`."""
    torch.export.register_dataclass(TaskLoss)
