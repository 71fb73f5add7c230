"""Hugging Face alternating with ernie2 on the same instances: grouped by length, or padded to one shape, compiled."""

from __future__ import annotations

from comparisons.hf_sides import measure_with_hf
from comparisons.hugging_face import SIDES
from gpu_parts.job import Job
from gpu_parts.training import bench_of, note_of


def measure(job: Job) -> None:
    """Record the rates of each side with ours; if one fails, the other is still measured.

    On a CPU the compiled side uses the "eager" compiler, to test its static shapes.
    """
    bench = bench_of(job, job.scale.few)
    backend = "inductor" if job.device.type == "cuda" else "eager"
    for name in ("hf-grouped", "hf-compiled"):
        bench.note = note_of(job, beside=SIDES[name])
        try:
            figures = measure_with_hf(bench, [name], job.scale.sequences, backend)
        except Exception as error:
            job.note("against", side=SIDES[name], error=f"{type(error).__name__}: {error}"[:300])
            continue
        (side,) = figures["against"]["sides"]
        job.note("against", side=side["name"], library=figures["against"]["library"], ours=figures["step"], theirs=side)
