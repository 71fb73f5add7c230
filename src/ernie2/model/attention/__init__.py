"""Attention inside each sequence of a pack: `plan` picks the kernel of a batch; `padded` and `fused` are kernels."""
