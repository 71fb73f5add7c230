"""What ranks send each other of a sharded model, and in which dtype it is computed."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from ernie2.batches.batch import Targets, pack_sequences
from ernie2.config.settings import EncoderSettings
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.training.distributed import ProcessGroup
from ernie2.training.parallel import parallelize
from ernie2.training.step import DTYPES, autocast

SETTINGS = EncoderSettings(layers=2, hidden=16, heads=2, position_rows=32)
SPECS = [HeadSpec("words", "token", None), HeadSpec("order", "sentence", 3)]
CPU = torch.device("cpu")


@pytest.fixture
def group():
    """Rank 0 of two, of which the other is not there: messages go to nobody, and what comes back is anything."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield ProcessGroup(size=2, device=CPU)
    dist.destroy_process_group()


class Messages(TorchDispatchMode):
    """Notes what is gathered and scattered: (dtype, numbers of all ranks) of every message."""

    def __init__(self):
        super().__init__()
        self.gathered, self.scattered = [], []

    def __torch_dispatch__(self, function, _, arguments=(), options=None):
        name = function._schema.name
        if name == "c10d::_allgather_base_":  # (whole, share, …)
            self.gathered.append((arguments[0].dtype, arguments[0].numel()))
        if name == "c10d::_reduce_scatter_base_":  # (share, whole, …)
            self.scattered.append((arguments[1].dtype, arguments[1].numel()))
        return function(*arguments, **(options or {}))


def inputs():
    rng = np.random.default_rng(0)
    targets = {
        "words": Targets(np.arange(0, 12, 2), rng.integers(5, 50, size=6), 6),
        "order": Targets(np.array([0]), np.array([1]), 1),
    }
    pack = pack_sequences([rng.integers(5, 50, size=12)], [np.zeros(12, int)], [0], targets, size=16, longest=32, pad=0)
    return Inputs.from_batch(pack, CPU, static=False)


def dtypes_in_use(model):
    """Filled during a forward pass: by name, the dtype of every parameter at the moment it is used."""
    seen = {}

    def look(_module, _arguments):
        seen.update({name: p.dtype for name, p in model.named_parameters() if not hasattr(p, "full_tensor")})

    for layer in model.encoder.layers:
        layer.register_forward_pre_hook(look)  # after the one that gathers the layer
    return seen


@pytest.mark.parametrize("precision", DTYPES)
def test_linears_of_layers_are_gathered_in_the_dtype_of_products_and_all_else_in_float32(group, precision):
    model, low = MultiTaskModel(SETTINGS, 50, SPECS, seed=1), DTYPES[precision]
    sizes = {name: -(-len(p) // 2) * 2 * (p.numel() // len(p)) for name, p in model.named_parameters()}  # of two shares
    linear = {name for name in sizes if ".layers." in name and ".norm." not in name}
    assert len(linear) == 2 * 4 * 2  # two layers; queries with keys and values, output, inner, outer; weight and bias
    a_layer = sum(sizes[name] for name in linear) // 2
    parallelism = parallelize(model, group, "fsdp", low)
    seen = dtypes_in_use(model)
    with Messages() as messages, autocast(precision, CPU):
        losses = parallelism.losses(inputs(), ["words", "order"])
        (losses["words"].sum + losses["order"].sum).backward()
    assert seen == {name: low if name in linear else torch.float32 for name in sizes}
    rest = (torch.float32, sum(sizes.values()) - 2 * a_layer)
    assert messages.gathered == [rest, *[(low, a_layer)] * 4]  # layers for the forward pass and for the backward pass
    assert messages.scattered == [*[(torch.float32, a_layer)] * 2, rest]
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert not any("norms" in name for name in model.state_dict())
