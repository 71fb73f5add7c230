"""A model as one process trains it, or many together: whole on every rank (DDP), or sharded among them (FSDP2).

Two rules make both equal to one process that has all packs. A gradient is the sum over ranks of what each computes
from the counts of the whole step. And a head takes part on all ranks or on none: where its task scored nothing in the
packs of some rank, that rank contributes zero (`MultiTaskModel.forward`, `active`); where the task is idle on all, the
gradient stays None and the optimiser leaves the head alone.
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
from ernie2.training.distributed import World


class SingleProcess:
    """Data parallelism disabled: one process has the whole model and all packs."""

    def __init__(self, model: nn.Module, world: World | None = None) -> None:
        self.model = model
        self.world = world or World(device=torch.device("cpu"))
        self._wrapped: Any = model

    def losses(self, inputs: Inputs, active: Collection[str]) -> dict[str, TaskLoss]:
        """The losses of a pack; `active`: tasks that score something somewhere in this step, on any rank."""
        shared = (active,) if self.world.size > 1 else ()
        made: dict[str, TaskLoss] = self._wrapped(inputs, *shared)
        return made

    def pack(self, last: bool) -> AbstractContextManager[object]:
        """What forward and backward of a pack run in; gradients are summed over ranks with the `last` of a step."""
        return nullcontext()

    def total(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """0-d figures by task, the same tasks on all ranks, summed over ranks by one message."""
        if self.world.size == 1 or not figures:
            return dict(figures)
        names = sorted(figures)
        summed = self.world.total(torch.stack([figures[name] for name in names]))
        return dict(zip(names, summed, strict=True))


class Replicated(SingleProcess):
    """Every rank holds the whole model; gradients are summed while they are computed."""

    def __init__(self, model: MultiTaskModel, world: World) -> None:
        super().__init__(model, world)
        _register()
        torch._dynamo.config.optimize_ddp = False  # layers are compiled one by one, so there is nothing to cut
        self._wrapped = DistributedDataParallel(model, find_unused_parameters=True)

    def pack(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self._wrapped.no_sync()


class Sharded(SingleProcess):
    """Every rank holds a share of all parameters, gradients and moments, and sees a layer whole while it computes it.

    Linears are sharded layer by layer; embeddings, the vocabulary matrix tied to them, norms and heads together.

    `dtype`: that of matrix products, in which the linears of layers are gathered. Autocast would round them to it
    anyway, so the numbers are the same. All else is gathered as it is kept, in float32, for it is used so: rows of
    tables are summed, and norms applied, before anything is rounded. Gradients are summed over ranks in float32.
    """

    def __init__(self, model: MultiTaskModel, world: World, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(model, world)
        if model.settings.kind != "transformer":
            raise ConfigError("train.parallel=fsdp shards layers of a Transformer; for lstm and gru say ddp.")
        from torch.distributed.device_mesh import init_device_mesh  # these take seconds to import
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        _register()
        for parameter in model.parameters():
            world.spread(parameter.data)
        mesh = init_device_mesh(world.device.type, (world.size,))
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        norms = nn.ModuleList(part for part in model.encoder.layers.modules() if isinstance(part, nn.LayerNorm))
        for layer in model.encoder.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy, ignored_params=set(norms.parameters()))
        # The group of the whole model stops at layers, which have groups; so while it is made it is shown norms by a
        # path of their own. Groups of norms alone would cost two more messages a layer, and cut its compiled graph.
        model.add_module("norms", norms)
        fully_shard(model, mesh=mesh)
        del model.norms
        register_fsdp_forward_method(model, "predictions")

    def pack(self, last: bool) -> AbstractContextManager[object]:
        self._wrapped.set_requires_gradient_sync(last)
        return nullcontext()


def spread(model: MultiTaskModel, world: World, kind: str, dtype: torch.dtype = torch.float32) -> SingleProcess:
    """`model` as the ranks of `world` train it, starting from the parameters of rank 0.

    `kind`: "ddp", "fsdp", or "auto", which is ddp. `dtype`: that of matrix products. A world of one needs neither. An
    optimiser is made afterwards.
    """
    if world.size == 1:
        return SingleProcess(model, world)
    return Sharded(model, world, dtype) if kind == "fsdp" else Replicated(model, world)


def resharded(model: nn.Module) -> None:
    """Puts the shares of parameters back into place where evaluation left some of a sharded model whole."""
    if (reshard := getattr(model, "reshard", None)) is not None:
        reshard()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its values, wherever they lie; all ranks must ask together where it is a `DTensor`."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


@cache
def _register() -> None:
    """Lets DDP and FSDP find the tensors in a `TaskLoss`."""
    torch.export.register_dataclass(TaskLoss)
