"""The encoder with one head per task: a pack → the summed loss and count of every task scored in it.

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
from ernie2.model.optimizations import is_enabled
from ernie2.model.scored_rows import ScoredRows
from ernie2.model.tensor_names import vocabulary_tensors


class MultiTaskModel(nn.Module):
    """One encoder shared by all tasks and one head per task.

    The initial value of a parameter depends only on the seed and its name, not on other heads. The token embedding has
    `padded_rows(vocab_size)` rows; those beyond `vocab_size` are zero and never predicted.

    `static_shapes`: whether training needs inputs of static shapes, as compiled code does.
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
        """The task whose head scores the vocabulary, or None."""
        return next((spec.name for spec in self.specs.values() if spec.classes is None), None)

    def _head(self, spec: HeadSpec, seed: int) -> Head:
        if spec.classes is None:
            return VocabularyHead(self.settings, spec, self.vocab_size, padded_rows(self.vocab_size), seed)
        return ClassHead(self.settings, spec, seed)

    def compile_parts(self, backend: str = "inductor") -> None:
        """Compile embeddings, one graph for all layers, and every head for training; evaluation stays eager.

        Dropout masks differ from those of eager mode, but still depend only on the seed.
        """
        self.static_shapes = True
        self.encoder.compile_parts(backend)
        for head in self.heads.values():
            assert isinstance(head, Head)
            head.compile_parts(backend)

    def forward(self, inputs: Inputs, active: Collection[str] = ()) -> dict[str, TaskLoss]:
        """A pack -> by task name: summed loss, count and number correct, for every task with targets.

        `active`: tasks to include even if this pack has no targets for them. Their loss is then zero, with zero
        gradients for all parameters of the task.
        """
        rows = inputs.rows if is_enabled("scored_rows") else None
        hidden = self.encoder(inputs, rows)
        losses = {}
        for name in dict.fromkeys((*inputs.targets, *active)):
            if name in inputs.targets:
                head, inputs_of_head = self._head_inputs(name, hidden, inputs, rows)
                losses[name] = head.loss(*inputs_of_head)
            else:
                losses[name] = self._zero_loss(name, hidden)
        return losses

    def _zero_loss(self, name: str, hidden: Tensor) -> TaskLoss:
        """Return a zero loss that depends on all parameters of the task and of the encoder."""
        parameters = list(self.heads[name].parameters())
        if self.specs[name].level == "sentence":
            parameters += self.encoder.pooler.parameters()
        touched = [hidden.float().sum(), *(parameter.sum() for parameter in parameters)]
        return TaskLoss(0.0 * torch.stack(touched).sum(), 0, torch.zeros((), dtype=torch.int64, device=hidden.device))

    def _head_inputs(
        self, name: str, hidden: Tensor, inputs: Inputs, rows: ScoredRows | None
    ) -> tuple[Head, tuple[Tensor, Tensor, TaskTargets]]:
        """hidden (T, H), or (R, H) at `rows` -> a task's head and its inputs: hidden states or pooled first tokens at
        the scored positions (P, H), the token embedding, and the targets.
        """
        head, targets = self.heads[name], inputs.targets[name]
        assert isinstance(head, Head)
        positions = targets.positions if rows is None else rows.places[name]
        sentence = self.specs[name].level == "sentence"
        states = self.encoder.pool(hidden, positions) if sentence else hidden.index_select(0, positions)
        return head, (states, self.encoder.embeddings.token.weight, targets)

    @torch.no_grad()
    def predictions(self, inputs: Inputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Evaluate a pack: by task name, losses (P,) float32 and predicted classes (P,) int64 of the scored positions.

        Runs in evaluation mode and restores the mode; padded targets are left out.
        """
        training, results = self.training, dict[str, tuple[Tensor, Tensor]]()
        self.eval()
        try:
            rows = inputs.rows if is_enabled("scored_rows") else None
            hidden = self.encoder(inputs, rows)
            for name, targets in inputs.targets.items():
                head, inputs_of_head = self._head_inputs(name, hidden, inputs, rows)
                losses, predicted = head.predict(*inputs_of_head)
                results[name] = losses[: targets.count], predicted[: targets.count]
            return results
        finally:
            self.train(training)


def model_tensors(model: MultiTaskModel, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Return all parameters by name, without padding rows of the vocabulary and without those named in `without`."""
    rows = vocabulary_tensors(model.specs.values())
    return {
        name: (tensor[: model.vocab_size] if name in rows else tensor).detach().cpu().clone()
        for name, tensor in model.state_dict().items()
        if name not in without
    }
