"""Tiny models Paddle wrote, and what PaddleNLP computed with them (tests/model/formats/paddle/README.md)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from ernie2.batches.batch import pack_sequences
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel

FOLDER = Path(__file__).parent / "model/formats/paddle"
LAYOUTS = {
    "paddlenlp-task": "PaddleNLP",
    "paddlenlp-plain": "PaddleNLP",
    "dygraph": "Paddle dygraph",
    "fluid": "Paddle fluid",
}
WEIGHTS = {"paddlenlp-task": "model_state.pdparams", "dygraph": "saved_weights.pdparams"}


def copied(name: str, folder: Path) -> Path:
    """A copy of one of the models, to be spoilt."""
    return Path(shutil.copytree(FOLDER / name, folder / name))


def outputs(model: MultiTaskModel, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """hidden, pooled, logits -> (ours, PaddleNLP's) at the tokens that are no padding."""
    with np.load(FOLDER / name / "reference.npz") as reference:
        theirs = dict(reference)
    real = theirs["attention_mask"].astype(bool)
    rows = range(len(real))
    tokens = [theirs["input_ids"][i][real[i]] for i in rows]
    segments = [theirs["token_type_ids"][i][real[i]] for i in rows]
    task_ids = [int(theirs["task_type_ids"][i][0]) for i in rows]
    batch = pack_sequences(tokens, segments, task_ids, {}, size=int(real.sum()), longest=int(real.sum(1).max()), pad=0)
    inputs = Inputs.from_batch(batch, "cpu", static=False)
    with torch.no_grad():
        hidden = model.eval().encoder(inputs)
        pooled = model.encoder.pool(hidden, inputs.starts[:-1].long())
        logits = model.heads["knowledge_masking"](hidden, model.encoder.embeddings.token.weight)
    return {
        "hidden": (hidden.numpy(), theirs["hidden"][real]),
        "pooled": (pooled.numpy(), theirs["pooled"]),
        "logits": (logits.numpy()[:, : model.vocab_size], theirs["logits"][real]),
    }
