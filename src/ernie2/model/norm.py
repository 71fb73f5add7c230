"""Layer norm with float32 statistics, whatever the dtype of the residual stream."""

from __future__ import annotations

from torch import Tensor, nn


class Norm(nn.LayerNorm):
    """Layer norm in the dtype of its parameters (float32), whatever the dtype of what comes in and goes out again."""

    def forward(self, values: Tensor) -> Tensor:
        """values (T, H) -> (T, H), same dtype."""
        return super().forward(values.to(self.weight.dtype)).to(values.dtype)

    def of_sum(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Norm of stream + branch, each (T, H), summed in the dtype of the parameters -> (T, H), the stream's dtype."""
        return super().forward(stream.to(self.weight.dtype) + branch).to(stream.dtype)
