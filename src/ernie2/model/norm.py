"""Layer norm with float32 statistics, and where it stands around a branch of a layer."""

from __future__ import annotations

from torch import Tensor, nn


class Norm(nn.LayerNorm):
    """Layer norm in the dtype of its parameters (float32), whatever the dtype of what comes in and goes out again."""

    def forward(self, values: Tensor) -> Tensor:
        """values (T, H) -> (T, H), same dtype."""
        return super().forward(values.to(self.weight.dtype)).to(values.dtype)


class PostNorm(Norm):
    """norm(stream + branch(stream)), as BERT and the paper have it."""

    final = False
    """Whether the encoder needs one more norm after its last layer."""

    def before(self, stream: Tensor) -> Tensor:
        """Return what the branch reads, (T, H)."""
        return stream

    def after(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Join stream and branch, each (T, H), summed in the dtype of the parameters -> (T, H), the stream's dtype."""
        return nn.LayerNorm.forward(self, stream.to(self.weight.dtype) + branch).to(stream.dtype)


class PreNorm(PostNorm):
    """stream + branch(norm(stream)) (Xiong et al., arXiv 2002.04745)."""

    final = True

    def before(self, stream: Tensor) -> Tensor:
        """Return what the branch reads, (T, H)."""
        return self(stream)  # type: ignore[no-any-return]

    def after(self, stream: Tensor, branch: Tensor) -> Tensor:
        """Join stream and branch, each (T, H), summed in the dtype of the parameters -> (T, H), the stream's dtype."""
        return (stream.to(self.weight.dtype) + branch).to(stream.dtype)


NORMS: dict[str, type[PostNorm]] = {"post": PostNorm, "pre": PreNorm}
"""By the name of `encoder.norm`."""
