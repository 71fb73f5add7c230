"""Compiled functions with static shapes: one graph for all layers, one a head, and no more of them as a run goes on.

The parts of the model are compiled, never the loop over the tasks of a step: seven tasks make more sets than a
compiler should see. What varies in shape from batch to batch must be marked so (`attention` marks its starts).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_MOST_GRAPHS = 64
"""Graphs of one function (heads share theirs) before torch silently stops compiling; its own default is 8."""


def compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """`function` compiled at its first call by `backend` ("inductor"; "eager" and "aot_eager" for tests).

    Every shape it has not seen compiles it anew, except along dimensions marked as dynamic.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
    made: Callable[..., Any] = torch.compile(function, backend=backend, dynamic=False)
    return made


def run_module(module: nn.Module, *arguments: Any) -> Any:
    """`module(*arguments)`: as a function, so that all modules of one form share what is compiled for one of them."""
    return module(*arguments)
