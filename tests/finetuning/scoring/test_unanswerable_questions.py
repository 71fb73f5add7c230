"""Unanswerable questions: the threshold against a search over all, and the metrics of the official evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_finetuning as tiny
from ernie2.datasets.examples import Answer, Example, Split
from ernie2.finetuning.encoding import ExampleEncoder
from ernie2.finetuning.finetuned_model import load_finetuned
from ernie2.finetuning.inference.predict import iter_predictions, prediction_to_json
from ernie2.finetuning.inference.predictions import ExamplePrediction, apply_threshold
from ernie2.finetuning.jobs import Job
from ernie2.finetuning.runs import run_seeds
from ernie2.finetuning.scoring.answers import (
    RULES,
    accepted_answers,
    choose_threshold,
    score_answer,
    score_with_unanswerable,
)
from ernie2.finetuning.spans import Candidate

SQUAD = RULES["squad"]


def question(*answers: str) -> Example:
    return Example("0", "Who?", "Li Bai met Du Fu.", tuple(Answer(text, 0) for text in answers))


def test_only_an_empty_answer_to_an_unanswerable_question_is_correct() -> None:
    assert score_answer((), "", SQUAD) == (1.0, 1.0)
    assert score_answer((), "the", SQUAD) == (1.0, 1.0)  # nothing is left of it, as in the official evaluation
    assert score_answer((), "Li Bai", SQUAD) == (0.0, 0.0)
    assert score_answer(("Li Bai",), "", SQUAD) == (0.0, 0.0)


def test_values_by_hand_over_all_answerable_and_unanswerable_questions() -> None:
    examples = [question("Li Bai"), question("Du Fu", "Fu"), question(), question()]
    figures = score_with_unanswerable(examples, ["Bai", "", "", "Du Fu"], SQUAD)
    # F1 of "Bai" against "Li Bai": 2 · 1 / (1 + 2)
    assert figures == pytest.approx(
        {
            "exact_match": 25.0,
            "answer_f1": 100 * (2 / 3 + 0 + 1 + 0) / 4,
            "has_answer_exact_match": 0.0,
            "has_answer_f1": 100 / 3,
            "no_answer_exact_match": 50.0,
            "no_answer_f1": 50.0,
        }
    )
    assert set(score_with_unanswerable([question("Li")], ["Li"], SQUAD)) == {
        "exact_match", "answer_f1", "has_answer_exact_match", "has_answer_f1",
    }  # fmt: skip


def test_the_threshold_is_the_midpoint_between_two_null_scores() -> None:
    examples = [question("Li Bai"), question(), question("Du Fu")]
    assert choose_threshold(examples, ["Li Bai", "Li", "Du Fu"], [-3.0, 4.0, 1.0], SQUAD) == 2.5
    assert choose_threshold(examples[1:2], ["Li"], [4.0], SQUAD) == 3.0  # nothing is answered
    assert choose_threshold(examples[:1], ["Li Bai"], [-3.0], SQUAD) == -2.0  # everything is


ROWS = st.lists(
    st.tuples(st.sampled_from([(), ("Li Bai",), ("Du Fu", "Fu")]), st.sampled_from(["Li Bai", "Li", "Fu"]),
              st.integers(-3, 3)), min_size=1, max_size=12)  # fmt: skip


@settings(deadline=None)
@given(ROWS)
def test_no_other_threshold_has_a_higher_f1(rows: list[tuple[tuple[str, ...], str, int]]) -> None:
    examples = [question(*answers) for answers, _, _ in rows]

    def f1(threshold: float) -> float:
        texts = ["" if null > threshold else text for _, text, null in rows]
        return score_with_unanswerable(examples, texts, SQUAD)["answer_f1"]

    chosen = choose_threshold(examples, [text for _, text, _ in rows], [float(null) for *_, null in rows], SQUAD)
    assert f1(chosen) == pytest.approx(max(f1(at + 0.5) for at in range(-5, 5)))


def test_accepted_answers_that_are_empty_after_normalisation_are_dropped() -> None:
    assert accepted_answers(question("the", "Li"), SQUAD) == ("Li",)


def test_an_unanswerable_question_is_trained_towards_cls(tmp_path: Path) -> None:
    pretrained = tiny.pretrained(tmp_path / "checkpoint")
    encoder = ExampleEncoder(pretrained.tokenizer, "span", (), tiny.settings(), 4)
    some = [Example("0", "w1", "w2 w3", (Answer("w3", 3),)), Example("1", "w1", "w2 w3", ())]
    data = encoder.encode([*some, Example("2", "w1", "w2", (Answer("w9", -1),))], labelled=True)
    assert [one.labels.tolist() for one in data.sequences if one.labels is not None] == [[[4, 4]], [[0, 0]]]
    assert data.notes == ("1 of 3 questions are skipped: no answer occurs in the context",)


def test_a_question_above_the_threshold_gets_the_empty_answer() -> None:
    outcome = ExamplePrediction(
        "Li", answers=(Candidate("Li", 0, 2, 1.0, 0.8), Candidate("Bai", 3, 6, 0.0, 0.2)), null_score=0.5
    )
    assert [one.value for one in apply_threshold([outcome], 0.4)] == [""]
    assert [one.value for one in apply_threshold([outcome], 0.6)] == ["Li"]
    assert apply_threshold([outcome], None) == [outcome]
    prediction = prediction_to_json(question(), apply_threshold([outcome], 0.4)[0], "span", allow_empty=True)
    assert (prediction["label"], prediction["start"], prediction["end"], prediction["null_score"]) == (
        "",
        None,
        None,
        0.5,
    )
    assert prediction["probability"] == pytest.approx(1 / (1 + 2.718281828**-0.5 / 0.8), abs=1e-6)
    assert prediction["answers"][0]["text"] == "Li"
    assert "null_score" not in prediction_to_json(question(), outcome, "span")


def test_the_threshold_is_chosen_on_dev_saved_and_used_by_predict(tmp_path: Path) -> None:
    """Questions that ask for `bad` have no answer."""
    rows = [
        Example(one.id, "bad ?", one.pair, ()) if number % 2 else one
        for seed in (0, 1)
        for number, one in enumerate(tiny.examples("span", 16, seed))
    ]
    splits = {name: Split(tuple(some), (name,), "own") for name, some in (("train", rows), ("dev", rows[:16]))}
    metrics = ("exact_match", "answer_f1", "has_answer_f1", "no_answer_f1")
    data = replace(tiny.data("span"), splits=splits, unanswerable=True, metrics=metrics, texts=("text", "pair"))
    learning = tiny.settings(epochs=40, peak_lr=5e-3)
    job = Job(tiny.pretrained(tmp_path / "checkpoint"), data, learning, 0, tmp_path / "out")
    (run,) = run_seeds(job, [0])
    assert run.metrics["dev"]["no_answer_f1"] == 100.0
    assert run.metrics["dev"]["has_answer_f1"] > 50.0
    finetuned = load_finetuned(run.folder / "model")
    threshold = finetuned.config.null_threshold
    assert f"no-answer threshold {threshold:.4f} (chosen on dev by best F1; dev scores are optimistic)" in run.notes[-1]
    lines = tmp_path / "x.tsv"
    lines.write_text("text\tpair\n" + "".join(f"{one.text}\t{one.pair}\n" for one in rows[:16]))
    labels = [one["label"] for one in iter_predictions(finetuned, lines)]
    assert [not text for text in labels] == [bool(number % 2) for number in range(16)]
