"""Peak rates of the machine: copies, and matrix products of the encoder's shapes."""

from __future__ import annotations

import os
import platform
import sys

import torch

from ernie2.processes import cores
from ernie2.training.environment import git_state, versions
from gpu_parts.job import Job
from gpu_parts.timing import milliseconds


def measure(job: Job) -> None:
    """Record the environment, the copy rate, and each matrix product forward and backward."""
    device, scale = job.device, job.scale
    card = {}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        major, minor = torch.cuda.get_device_capability(device)
        card = {
            "name": about.name,
            "memory_bytes": about.total_memory,
            "multiprocessors": about.multi_processor_count,
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    job.note(
        "environment",
        device=device.type,
        card=card,
        python=sys.version.split()[0],
        machine=platform.machine(),
        cores=cores(),
        load=list(os.getloadavg()),
        versions=versions(),
        git=git_state(),
    )
    _copy(job)
    rows, width = scale.tokens, scale.width
    shapes = [(scale.square,) * 3] + [
        (rows, into, out) for into, out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    ]
    for m, k, n in shapes:
        x, w, g = (torch.randn(*shape, device=device).bfloat16() for shape in ((m, k), (n, k), (m, n)))
        products = {
            "forward": lambda x=x, w=w: x @ w.t(),
            "input_gradient": lambda g=g, w=w: g @ w,
            "weight_gradient": lambda g=g, x=x: g.t() @ x,
        }
        rates = {
            name: 2 * m * k * n / milliseconds(product, device, scale.repeats) / 1e9
            for name, product in products.items()
        }
        job.note("matmul", rows=m, inner=k, columns=n, teraflops=rates)


def _copy(job: Job) -> None:
    source = torch.empty(job.scale.copied, device=job.device).normal_()
    target = torch.empty_like(source)
    took = milliseconds(lambda: target.copy_(source), job.device, job.scale.repeats)
    job.note("copy", bytes=source.nbytes, terabytes_per_second=2 * source.nbytes / took / 1e9)
