"""Compile functions with static shapes: one graph for all layers, one per head, no recompilation during a run.

The parts of the model are compiled, not the loop over the tasks of a step: seven tasks make too many combinations.
Dimensions that vary from batch to batch must be marked as dynamic (`attention` marks its starts).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_MAX_GRAPHS = 64
"""Graphs per function (heads share theirs) after which torch silently stops compiling; torch's default is 8."""


def compile_function(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Return `function` compiled by `backend` at its first call ("inductor"; "eager" and "aot_eager" for tests).

    A new shape causes a recompilation, except along dimensions marked as dynamic.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_GRAPHS)
    compiled: Callable[..., Any] = torch.compile(function, backend=backend, dynamic=False)
    return compiled


def run_module(module: nn.Module, *arguments: Any) -> Any:
    """Return `module(*arguments)`; a function, so that modules of the same class share one compiled graph."""
    return module(*arguments)
