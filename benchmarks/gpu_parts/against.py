"""Hugging Face on the same instances, in turns with ours: grouped by length, and padded to one shape and compiled."""

from __future__ import annotations

from comparisons.hf_sides import measure_with_hf
from comparisons.hugging_face import SIDES
from gpu_parts.job import Job
from gpu_parts.training import bench_of, note_of


def measure(job: Job) -> None:
    """Note the rates of each side and of ours beside it; where one fails, the other is measured all the same.

    On a CPU the compiled side is asked for too, with a compiler that changes nothing, which shows that its shapes hold.
    """
    bench = bench_of(job, job.scale.few)
    backend = "inductor" if job.device.type == "cuda" else "eager"
    for name in ("hf-grouped", "hf-compiled"):
        bench.note = note_of(job, beside=SIDES[name])
        try:
            made = measure_with_hf(bench, [name], job.scale.sequences, backend)
        except Exception as error:
            job.note("against", side=SIDES[name], error=f"{type(error).__name__}: {error}"[:300])
            continue
        (side,) = made["against"]["sides"]
        job.note("against", side=side["name"], library=made["against"]["library"], ours=made["step"], theirs=side)
