"""Hugging Face gets the instances of our packs with their labels, and trains on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comparisons import hugging_face
from comparisons.hugging_face import (
    SIDES,
    UNSCORED,
    HuggingFaceModel,
    Unpacked,
    build_sides,
    by_length,
    by_pack,
    chosen_sides,
    unpack,
)
from ernie2.batches.batch import PackedBatch, Targets, pack_sequences
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.errors import ConfigError
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel

CPU = torch.device("cpu")
MASKING = "knowledge_masking"
TINY = EncoderSettings(layers=1, hidden=8, heads=2, position_rows=16, dropout=0.0)
SETTINGS = TrainSettings(peak_lr=1e-2)


def pack_of(lengths: Sequence[int], masked: Sequence[int], room: int = 24) -> PackedBatch:
    """Ids count up from 5; `masked` positions of the pack have the label 9."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    targets = {MASKING: Targets(np.array([*masked, 0]), np.array([9] * len(masked) + [0]), len(masked))}
    return pack_sequences(
        [np.arange(5 + a, 5 + b) for a, b in pairwise(starts)],
        [np.full(length, number % 2) for number, length in enumerate(lengths)],
        [number % 3 for number in range(len(lengths))],
        targets,
        size=room,
        longest=16,
        pad=0,
    )


def model_of(settings: EncoderSettings = TINY) -> MultiTaskModel:
    return MultiTaskModel(settings, 64, [HeadSpec(MASKING, "token", None)], 0)


def test_sequences_come_out_as_they_went_in_with_their_labels() -> None:
    first, second = unpack(pack_of([3, 2], [1, 4]), MASKING)
    assert (first.tokens.tolist(), second.tokens.tolist()) == ([5, 6, 7], [8, 9])
    assert (first.segments.tolist(), second.segments.tolist()) == ([0, 0, 0], [1, 1])
    assert (first.task_ids.tolist(), second.task_ids.tolist()) == ([0, 0, 0], [1, 1])
    assert (first.labels.tolist(), second.labels.tolist()) == ([-100, 9, -100], [-100, 9])


def test_a_sequence_without_masked_tokens_has_tokens_labelled_with_themselves() -> None:
    whole, none = unpack(pack_of([9, 2], [10]), MASKING)
    assert whole.labels.tolist() == [5, *[UNSCORED] * 6, 12, UNSCORED]
    assert none.labels.tolist() == [UNSCORED, 9]
    (unmasked,) = unpack(pack_of([2], [1]), None)
    assert unmasked.labels.tolist() == [5, UNSCORED]


def test_a_dense_batch_is_padded_at_the_end_and_not_scored_there() -> None:
    batch = hugging_face.pad_sequences(unpack(pack_of([3, 2], [1, 4]), MASKING), 4, 0, with_task_ids=True)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0], [8, 9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 9, -100, -100], [-100, 9, -100, -100]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]
    assert batch["task_type_ids"].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]
    assert "task_type_ids" not in hugging_face.pad_sequences(
        unpack(pack_of([3], [1]), MASKING), 3, 0, with_task_ids=False
    )


@given(st.lists(st.lists(st.integers(1, 16), min_size=1, max_size=9), min_size=1, max_size=3))
def test_grouping_keeps_every_sequence_and_never_pads_more_than_padding_by_pack(packs: list[list[int]]) -> None:
    unpacked = [[Unpacked(*[np.zeros(length)] * 4) for length in pack] for pack in packs]
    grouped = by_length(unpacked)
    flat = [len(sequence) for group in grouped for sequence in group]
    assert flat == sorted(length for pack in packs for length in pack)
    assert [[len(s) for s in pack] for pack in by_pack(unpacked)] == packs
    longest = max(flat)
    assert sum(len(group) * max(map(len, group)) for group in grouped) <= longest * len(flat)


def test_the_loss_equals_that_of_our_model() -> None:
    pytest.importorskip("transformers")
    ours, pack = model_of().train(), pack_of([7, 3, 5], [1, 2, 8, 11])
    made = ours(Inputs.from_batch(pack, CPU, static=False))[MASKING]
    shared = HuggingFaceModel(ours, SETTINGS, 0, CPU)
    batch = hugging_face.pad_sequences(unpack(pack, MASKING), 7, 0, with_task_ids=True)
    assert shared.model(**batch).loss.item() == pytest.approx((made.sum / made.count).item(), rel=1e-5)


def gradients_after(
    side: hugging_face.HuggingFaceSide, shared: HuggingFaceModel, packs: Sequence[PackedBatch]
) -> torch.Tensor:
    """The gradient of the token embedding in one step of `side`."""
    kept: list[torch.Tensor] = []
    step = shared.optimizer.step
    table = shared.model.ernie.embeddings.word_embeddings.weight
    shared.optimizer.step = lambda: kept.append(table.grad.clone())  # type: ignore[assignment, method-assign]
    side.step(packs)
    shared.optimizer.step = step  # type: ignore[method-assign]
    return kept[0]


def test_however_batches_are_laid_out_the_gradient_is_the_same() -> None:
    pytest.importorskip("transformers")
    packs = [pack_of([7, 3, 5], [1, 2, 8, 11]), pack_of([2, 9], [0, 6])]
    shared = HuggingFaceModel(model_of(), SETTINGS, 0, CPU)
    padded, grouped = build_sides(shared, "fp32", CPU, 16, ["hf-padded", "hf-grouped"])
    first, second = (gradients_after(side, shared, packs) for side in (padded, grouped))
    assert first.abs().sum() > 0
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_a_step_counts_real_tokens_and_those_with_padding() -> None:
    pytest.importorskip("transformers")
    packs = [pack_of([7, 3, 5], [1, 2, 8, 11]), pack_of([2, 9], [0, 6])]
    shared = HuggingFaceModel(model_of(), SETTINGS, 0, CPU)
    padded, grouped, fixed, _ = build_sides(shared, "bf16", CPU, 16, list(SIDES))
    fixed._model = shared.model  # layouts without the minutes of a compiler
    steps = [side.step(packs) for side in (padded, grouped, fixed)]
    assert [step.tokens for step in steps] == [26, 26, 26]
    # by pack 3 · 7 + 2 · 9; sorted 2 3 5 7 9 into four: 2 3 | 5 | 7 | 9; twice 3 sequences (one a filler) of 16
    assert [step.with_padding for step in steps] == [39, 27, 96]
    assert all(step.seconds > 0 for step in steps)


def test_where_memory_does_not_suffice_batches_are_halved_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    shared = HuggingFaceModel(model_of(), SETTINGS, 0, CPU)
    (side,) = build_sides(shared, "fp32", CPU, 16, ["hf-padded"])
    train, tried = side._train, []

    def short_of_memory(batches: Sequence[dict[str, torch.Tensor]]) -> float:
        tried.append([len(batch["input_ids"]) for batch in batches])
        if max(tried[-1]) > 2:
            raise torch.OutOfMemoryError
        return train(batches)

    monkeypatch.setattr(side, "_train", short_of_memory)
    side.step([pack_of([2, 3, 4, 2, 2, 3, 2], [1, 6])])
    assert tried == [[7], [4, 3], [2, 2, 2, 1]]
    assert (side.most, side.largest) == (2, 2)


def shapes_trained(
    side: hugging_face.HuggingFaceSide, fits: int, packs: Sequence[PackedBatch]
) -> list[tuple[int, ...]]:
    """Shapes of the batches of a step of `side`, tried ones included, where `fits` sequences fit into memory."""
    train, tried = side._train, []

    def with_little_memory(batches: Sequence[dict[str, torch.Tensor]]) -> float:
        tried.extend(tuple(batch["input_ids"].shape) for batch in batches)
        if len(batches[0]["input_ids"]) > fits:
            raise torch.OutOfMemoryError
        return train(batches)

    side._train = with_little_memory  # type: ignore[assignment, method-assign]
    side.step(packs)
    side._train = train  # type: ignore[method-assign]
    return tried


def test_the_compiled_side_has_batches_of_one_shape_and_starts_at_the_size_given() -> None:
    pytest.importorskip("transformers")
    packs = [pack_of([2, 3, 4, 2, 2, 3, 2], [1, 6]), pack_of([5, 4], [2])]
    shared = HuggingFaceModel(model_of(), SETTINGS, 0, CPU)
    (halving,) = build_sides(shared, "fp32", CPU, 16, ["hf-compiled"])
    (given,) = build_sides(shared, "fp32", CPU, 16, ["hf-compiled"], sequences=4)
    halving._model = given._model = shared.model  # shapes without the minutes of a compiler
    assert shapes_trained(halving, 4, packs) == [(7, 16)] * 2 + [(4, 16)] * 3  # a second shape to compile for
    assert shapes_trained(given, 4, packs) == [(4, 16)] * 3
    assert shapes_trained(given, 4, packs[1:]) == [(4, 16)]  # a step with fewer sequences too


def test_sequences_that_fill_a_batch_change_no_gradient() -> None:
    pytest.importorskip("transformers")
    packs = [pack_of([7, 3, 5], [1, 2, 8, 11]), pack_of([2, 9], [0, 6])]
    shared = HuggingFaceModel(model_of(), SETTINGS, 0, CPU)
    padded, filled = build_sides(shared, "fp32", CPU, 16, ["hf-padded", "hf-compiled"], sequences=4)
    filled._model = shared.model
    first, second = (gradients_after(side, shared, packs) for side in (padded, filled))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_sides_are_chosen_by_name_and_hf_means_all_that_suit_the_device() -> None:
    assert chosen_sides("hf", CPU) == ("hf-padded", "hf-grouped")
    assert chosen_sides("hf", torch.device("cuda")) == tuple(SIDES)
    assert chosen_sides("hf-compiled,hf-padded,hf-compiled", CPU) == ("hf-compiled", "hf-padded")
    with pytest.raises(ConfigError, match=r"--against fairseq: choose hf .*hf-grouped"):
        chosen_sides("hf,fairseq", CPU)


def test_recurrent_encoders_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="does not support kind=lstm"):
        HuggingFaceModel(model_of(EncoderSettings(kind="lstm", layers=1, hidden=8)), SETTINGS, 0, CPU)


def test_without_transformers_the_error_has_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match="pip install transformers"):
        HuggingFaceModel(model_of(), SETTINGS, 0, CPU)
