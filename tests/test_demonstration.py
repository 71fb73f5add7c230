import numpy as np
import pytest

import tiny
import tiny_run
from ernie2 import demonstration
from ernie2.demonstration import QUESTIONS, demo, score
from ernie2.errors import ConfigError, RunStopped
from ernie2.runs import prepare as preparing
from ernie2.runs.build import build
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import Shards
from ernie2.training.records import Records

QUESTION = QUESTIONS["en"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two books of ten chapters; chapters 8 and 9 of each are held out."""
    rng = np.random.default_rng(0)
    books = [[f"{book}#{chapter}" for chapter in range(10)] for book in ("first", "second")]
    names = [name for book in books for name in book[:8]] + [name for book in books for name in book[8:]]
    documents = [tiny.random_document(rng, name=name, group=i) for i, name in enumerate(names)]
    return tiny_run.write_shards(tmp_path_factory.mktemp("demo") / "shards", documents, heldout=4)


def passages(shards, split, seed=0):
    return demonstration._passages(list(shards.corpora.values()), split, ["first", "second"], 20, tiny.VOCABULARY, seed)


def test_passages_are_balanced_sequences_with_a_maximum_length(shards):
    made = passages(shards, "train")
    assert np.bincount([int(one.labels[0]) for one in made]).tolist() == [10, 10]
    for sequence in (one.tokens for one in made):
        assert (sequence[0], sequence[-1]) == (tiny.CLS, tiny.SEP)
        assert 2 < len(sequence) <= demonstration.PASSAGE_TOKENS + 2


def test_no_test_passage_comes_from_a_chapter_that_was_trained_on(shards):
    corpus = shards.corpora["text"]
    heldout = {corpus.document("heldout", i).name for i in range(corpus.num_documents("heldout"))}
    train = {corpus.document("train", i).name for i in range(corpus.num_documents("train"))}
    assert len(heldout) == 4
    assert not heldout & train
    texts = " ".join(",".join(map(str, corpus.document("heldout", i).tokens)) for i in range(4))
    for sequence in (one.tokens for one in passages(shards, "heldout")):
        assert ",".join(map(str, sequence[1:-1])) in texts


def test_another_seed_draws_other_passages_and_the_same_seed_the_same(shards):
    one, again, other = ([one.tokens for one in passages(shards, "train", seed)] for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, other, strict=True))


def test_the_score_contains_every_seed_of_both_encoders_and_the_margin_with_its_interval(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(demonstration, "PASSAGE_TOKENS", 40)  # the tiny encoder has 64 positions
    made = build(tiny_run.recipe(tmp_path), shards)
    made.trainer.train()
    Records(tmp_path / "run").describe(made.record)
    found = score(tmp_path / "run", shards, QUESTION)
    margins = np.subtract(found["pretrained"], found["untrained"])
    assert len(margins) == len(found["seeds"]) == 3
    assert found["margin"] == pytest.approx(margins.mean())
    # Student's t with two degrees of freedom: 4.303
    assert found["margin_high"] - found["margin"] == pytest.approx(4.3027 * margins.std(ddof=1) / 3**0.5, abs=1e-4)
    assert found["classes"] == ["first", "second"]


def test_a_language_without_a_demo_is_refused_with_those_that_have_one(tmp_path):
    with pytest.raises(ConfigError, match=r"no demo in 'fr'.*en, zh"):
        demo("fr", tmp_path)
    assert not list(tmp_path.iterdir())
    assert set(QUESTIONS) == {"en", "zh"}


def test_a_folder_may_have_any_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(demonstration, "prepare", lambda name, overrides: seen.append(load_recipe(name, overrides)))
    monkeypatch.setattr(demonstration, "is_started", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        demo("en", tmp_path / "mine #2: new")
    assert [seen[0].run, seen[0].shards.folder] == [f"{tmp_path}/mine #2: new/en/{name}" for name in ("run", "shards")]


def test_a_demo_that_is_asked_to_stop_names_the_command_that_does_the_rest(tmp_path, monkeypatch):
    def stop(*_):
        raise RunStopped("received SIGINT; step 3 is saved. `ernie2 resume RUN` continues from it.")

    monkeypatch.setattr(demonstration, "prepare", lambda *_: None)
    monkeypatch.setattr(demonstration, "pretrain", stop)
    with pytest.raises(RunStopped) as stopped:
        demo("zh", tmp_path / "a b")
    assert f"Continue with `ernie2 demo --language zh --folder '{tmp_path}/a b'`." in str(stopped.value)
    assert "resume" not in str(stopped.value)


def test_a_sentence_longer_than_a_passage_is_cut_not_left_as_one_token(tmp_path):
    long = [tiny.document([[list(range(5, 105))], [[7, 8]]], name=f"{book}#0", group=i) for i, book in enumerate("ab")]
    shards = tiny_run.write_shards(tmp_path / "shards", long, heldout=2)
    made = demonstration._passages(list(shards.corpora.values()), "heldout", ["a", "b"], 2, tiny.VOCABULARY, 0)
    assert [len(one.tokens) for one in made] == [demonstration.PASSAGE_TOKENS + 2] * 2


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_class_of_the_shipped_text_is_held_out_too(language, tmp_path):
    shards = Shards(preparing.prepare(f"demo-{language}", [f"shards.folder={tmp_path}"], workers=1))
    corpora = list(shards.corpora.values())
    classes = sorted({demonstration._class_of(name) for c in corpora for shard in c.shards for name in shard.names})
    test = demonstration._passages(corpora, "heldout", classes, 40, tiny.VOCABULARY, 0)
    assert np.bincount([int(one.labels[0]) for one in test]).tolist() == [20, 20]
