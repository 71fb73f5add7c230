"""Rotary positions: queries and keys are turned by angles that grow with the position (Su et al., arXiv 2104.09864).

T tokens · N heads · D width of a head · H = N · D hidden
"""

from __future__ import annotations

import torch
from torch import Tensor

_BASE = 10_000.0


def rotary_angles(positions: Tensor, head_width: int) -> Tensor:
    """positions (T,) -> cosines and sines (2, T, 1, D / 2) float32; pair i turns by position / 10,000^(2 i / D)."""
    rates = _BASE ** (-torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width)
    angles = positions[:, None, None].float() * rates
    return torch.stack([angles.cos(), angles.sin()])


def rotate(rows: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (i, i + D / 2) of every head: rows (T, H), angles (2, T, 1, D / 2) -> (T, H), same dtype."""
    cosine, sine = angles
    low, high = rows.view(len(rows), -1, 2 * angles.shape[-1]).chunk(2, -1)  # each (T, N, D / 2)
    turned = torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)
    return turned.to(rows.dtype).flatten(1)
