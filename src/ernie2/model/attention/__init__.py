"""Attention inside each sequence of a pack: `plan` picks a kernel; `padded`, `products` and `fused` hold them."""
