"""The encoder with a head a task: a pack goes in, a summed loss with its count comes out for every task scored in it.

T tokens in the pack · H hidden · P scored positions of a task
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from ernie2.config.settings import EncoderSettings
from ernie2.model.encoder import padded_rows
from ernie2.model.encoders import build_encoder
from ernie2.model.heads import ClassHead, Head, HeadSpec, TaskLoss, VocabularyHead
from ernie2.model.inputs import Inputs, TaskTargets
from ernie2.model.levers import enabled
from ernie2.model.scored_rows import ScoredRows
from ernie2.model.tensor_names import vocabulary_tensors


class MultiTaskModel(nn.Module):
    """One encoder shared by all tasks, one head a task, built from (settings, vocabulary size, heads, seed) alone.

    Every parameter's start depends on the seed and its own name only: a head is the same whatever other heads there
    are, and the encoder is the same with any heads. `vocab_size` word pieces are `padded_rows(vocab_size)` rows of the
    word table; the rows beyond are zero and never predicted.

    `static_shapes`: whether training wants inputs of static shapes, as what is compiled does.
    """

    static_shapes = False

    def __init__(self, settings: EncoderSettings, vocab_size: int, specs: Sequence[HeadSpec], seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.vocab_size = vocab_size
        self.specs = {spec.name: spec for spec in specs}
        self.encoder = build_encoder(settings, padded_rows(vocab_size), seed)
        self.heads = nn.ModuleDict({spec.name: self._head(spec, seed) for spec in specs})
        with torch.no_grad():
            self.encoder.embeddings.token.weight[vocab_size:] = 0.0

    @property
    def masked_task(self) -> str | None:
        """The task whose head scores the vocabulary, None where there is none."""
        return next((spec.name for spec in self.specs.values() if spec.classes is None), None)

    def _head(self, spec: HeadSpec, seed: int) -> Head:
        if spec.classes is None:
            return VocabularyHead(self.settings, spec, self.vocab_size, padded_rows(self.vocab_size), seed)
        return ClassHead(self.settings, spec, seed)

    def compile_parts(self, backend: str = "inductor") -> None:
        """Compiles what training runs: embeddings, a layer for all, every head; evaluation stays as it is.

        Dropout draws other masks than without, still as a function of the seed alone.
        """
        self.static_shapes = True
        self.encoder.compile_parts(backend)
        for head in self.heads.values():
            assert isinstance(head, Head)
            head.compile_parts(backend)

    def forward(self, inputs: Inputs, active: Collection[str] = ()) -> dict[str, TaskLoss]:
        """A pack -> by task name, for every task with targets in it: summed loss, count, number correct.

        `active`: tasks that take part whether this pack has targets of theirs or not. Without, their loss is a zero
        whose gradient reaches, as zeros, all parameters it would reach with targets.
        """
        rows = inputs.rows if enabled("scored_rows") else None
        hidden = self.encoder(inputs, rows)
        losses = {}
        for name in dict.fromkeys((*inputs.targets, *active)):
            if name in inputs.targets:
                head, given = self._scored(name, hidden, inputs, rows)
                losses[name] = head.loss(*given)
            else:
                losses[name] = self._nothing(name, hidden)
        return losses

    def _nothing(self, name: str, hidden: Tensor) -> TaskLoss:
        """A loss of zero over no targets that depends on all parameters of the task, and on the encoder."""
        parameters = list(self.heads[name].parameters())
        if self.specs[name].level == "sentence":
            parameters += self.encoder.pooler.parameters()
        touched = [hidden.float().sum(), *(parameter.sum() for parameter in parameters)]
        return TaskLoss(0.0 * torch.stack(touched).sum(), 0, torch.zeros((), dtype=torch.int64, device=hidden.device))

    def _scored(
        self, name: str, hidden: Tensor, inputs: Inputs, rows: ScoredRows | None
    ) -> tuple[Head, tuple[Tensor, Tensor, TaskTargets]]:
        """hidden (T, H), or (R, H) at `rows` -> a task's head and what it is given: hidden states, or pooled first
        tokens, at the scored positions (P, H), the word table, targets.
        """
        head, targets = self.heads[name], inputs.targets[name]
        assert isinstance(head, Head)
        positions = targets.positions if rows is None else rows.places[name]
        sentence = self.specs[name].level == "sentence"
        picked = self.encoder.pool(hidden, positions) if sentence else hidden.index_select(0, positions)
        return head, (picked, self.encoder.embeddings.token.weight, targets)

    @torch.no_grad()
    def predictions(self, inputs: Inputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Held-out evaluation: by task name, per scored position its loss (P,) float32 and predicted class (P,) int64.

        Without dropout, whatever mode the model is in; padded targets are left out.
        """
        training, found = self.training, dict[str, tuple[Tensor, Tensor]]()
        self.eval()
        try:
            rows = inputs.rows if enabled("scored_rows") else None
            hidden = self.encoder(inputs, rows)
            for name, targets in inputs.targets.items():
                head, given = self._scored(name, hidden, inputs, rows)
                losses, predicted = head.predict(*given)
                found[name] = losses[: targets.count], predicted[: targets.count]
            return found
        finally:
            self.train(training)


def tensors_of(model: MultiTaskModel, without: Collection[str] = ()) -> dict[str, Tensor]:
    """All parameters by our names, padding rows of the vocabulary taken off, but for those named in `without`."""
    rows = vocabulary_tensors(model.specs.values())
    return {
        name: (tensor[: model.vocab_size] if name in rows else tensor).detach().cpu().clone()
        for name, tensor in model.state_dict().items()
        if name not in without
    }
