"""Softmax attention written out, a sequence at a time: what every kernel is compared with."""

from __future__ import annotations

import torch
from torch import Tensor


def one_by_one(qkv: Tensor, lengths: list[int], heads: int) -> Tensor:
    """qkv (T, 3H) -> (T, H)."""
    width = qkv.shape[1] // 3
    outputs = []
    for part in qkv.split(list(lengths)):
        query, key, value = part.view(len(part), 3, heads, -1).permute(1, 2, 0, 3)
        scores = query @ key.transpose(1, 2) / (width / heads) ** 0.5
        outputs.append((scores.softmax(-1) @ value).transpose(0, 1).reshape(len(part), width))
    return torch.cat(outputs)
