"""Attention inside each sequence of a pack: `plan` picks a kernel and runs it; the other modules are the kernels."""
