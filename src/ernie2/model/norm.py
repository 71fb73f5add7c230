"""Layer norm with float32 statistics, its placement around a branch of a layer, and the dtype of matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype of matrix products with `tensor`: the autocast dtype if autocast is on, else its own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


class Norm(nn.LayerNorm):
    """Layer norm computed in the dtype of its parameters (float32), for inputs of any dtype."""

    def forward(self, values: Tensor) -> Tensor:
        """values (T, H) -> (T, H), same dtype."""
        return super().forward(values.to(self.weight.dtype)).to(values.dtype)


class PostNorm(Norm):
    """norm(stream + branch(stream)), as in BERT and the paper."""

    final = False
    """Whether the encoder needs another norm after its last layer."""

    def before(self, stream: Tensor) -> Tensor:
        """Return the input of the branch, (T, H)."""
        return stream

    def after(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Add stream and branch, each (T, H), in the dtype of the parameters -> (T, H), dtype of the stream."""
        return nn.LayerNorm.forward(self, stream.to(self.weight.dtype) + branch).to(stream.dtype)


class PreNorm(PostNorm):
    """stream + branch(norm(stream)) (Xiong et al., arXiv 2002.04745)."""

    final = True

    def before(self, stream: Tensor) -> Tensor:
        return self(stream)  # type: ignore[no-any-return]

    def after(self, stream: Tensor, branch: Tensor) -> Tensor:
        return (stream.to(self.weight.dtype) + branch).to(stream.dtype)


NORMS: dict[str, type[PostNorm]] = {"post": PostNorm, "pre": PreNorm}
"""By the value of `encoder.norm`."""
