"""The nine Chinese sets of the paper and two stand-ins under names of their own, as declared data.

Row counts are those of the official releases; spans count questions. DuReader's extractive part, as the paper used it,
was never released, and NLPCC-DBQA is hard to get: `dureader_robust` and `para_rank` can take their places but are
other data, so they are never printed beside the paper's rows.
"""

from __future__ import annotations

from ernie2.datasets.declarations import Columns, Dataset, Files

_TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
_HUB = {"train": "train", "dev": "validation", "test": "test"}


def _files(
    split: str, rows: int, *names: str, subset: tuple[str, ...] = (), substitutes: tuple[str, ...] = ()
) -> Files:
    return Files(
        official=(f"{split}.tsv", f"{split}.txt", f"{split}.csv", *names),
        rows=(rows,),
        hub=_HUB[split],
        subset=subset,
        substitutes=substitutes,
    )


def _contexts(
    split: str, rows: int, *names: str, subset: tuple[str, ...] = (), substitutes: tuple[str, ...] = ()
) -> Files:
    return Files(
        official=(*names, f"{split}.json"), rows=(rows,), hub=_HUB[split], subset=subset, substitutes=substitutes
    )


def _pairs(name: str, title: str, folders: tuple[str, ...], rows: tuple[int, int, int], stem: str) -> Dataset:
    """A set of sentence pairs that mean the same (1) or not (0)."""
    splits = dict(zip(("train", "dev", "test"), rows, strict=True))
    return Dataset(
        name=name,
        title=title,
        group="chinese",
        folders=folders,
        head="classification",
        metrics=("accuracy",),
        labels=("0", "1"),
        meanings=("different", "same"),
        positive="1",
        columns=Columns(
            text=("text_a", "sentence1"),
            pair=("text_b", "sentence2"),
            without_header=("text_a", "text_b", "label"),
        ),
        splits={split: _files(split, n, f"{stem}.{split}.data", f"{stem}_{split}.tsv") for split, n in splits.items()},
    )


CMRC2018 = Dataset(
    name="cmrc2018",
    title="CMRC 2018",
    group="chinese",
    folders=("cmrc2018", "cmrc", "squad-style-data"),
    head="span",
    form="squad",
    metrics=("exact_match", "answer_f1"),
    answer_rules="cmrc2018",
    splits={
        # the trial set is official, and shares no context with dev, but it is not a part of the training set
        "train": _contexts("train", 10_142, "cmrc2018_train.json", substitutes=("cmrc2018_trial.json", "trial.json")),
        "dev": _contexts("dev", 3_219, "cmrc2018_dev.json"),
        "test": _contexts("test", 4_895, "cmrc2018_test.json"),
    },
)
DRCD = Dataset(
    name="drcd",
    title="DRCD",
    group="chinese",
    folders=("drcd",),
    head="span",
    form="squad",
    metrics=("exact_match", "answer_f1"),
    answer_rules="cmrc2018",
    traditional=True,
    splits={
        "train": _contexts("train", 26_936, "DRCD_training.json"),
        "dev": _contexts("dev", 3_524, "DRCD_dev.json"),
        "test": _contexts("test", 3_493, "DRCD_test.json"),
    },
)
DUREADER = Dataset(
    name="dureader",
    title="DuReader",
    group="chinese",
    folders=("dureader",),
    head="span",
    form="squad",
    metrics=("exact_match", "answer_f1"),
    answer_rules="cmrc2018",
    splits={"train": _contexts("train", 15_763), "dev": _contexts("dev", 1_628)},
)
DUREADER_ROBUST = Dataset(
    name="dureader_robust",
    title="DuReader-robust",
    group="chinese",
    folders=("dureader_robust", "dureader_robust-data"),
    head="span",
    form="squad",
    metrics=("exact_match", "answer_f1"),
    answer_rules="dureader_robust",
    stands_for="dureader",
    splits={
        "train": _contexts("train", 14_520, subset=("demo_train.json", "demo/demo_train.json")),
        "dev": _contexts("dev", 1_417),
    },
)
MSRA_NER = Dataset(
    name="msra_ner",
    title="MSRA-NER",
    group="chinese",
    folders=("msra_ner", "msra-ner"),
    head="tagging",
    form="tags",
    metrics=("entity_f1",),
    labels=_TAGS,
    scheme="IOB2",
    columns=Columns(text=("text_a", "tokens"), label=("label", "ner_tags"), without_header=("text_a", "label")),
    splits={"train": _files("train", 20_864), "dev": _files("dev", 2_318), "test": _files("test", 4_636)},
)
XNLI = Dataset(
    name="xnli",
    title="XNLI",
    group="chinese",
    folders=("xnli", "XNLI", "zh"),
    head="classification",
    metrics=("accuracy",),
    labels=("entailment", "neutral", "contradiction"),
    aliases={"contradictory": "contradiction"},
    columns=Columns(
        text=("text_a", "premise"),
        pair=("text_b", "hypothesis"),
        without_header=("text_a", "text_b", "label"),
    ),
    splits={
        "train": _files("train", 392_702, substitutes=("train_from_*.tsv",)),
        "dev": _files("dev", 2_490),
        "test": _files("test", 5_010),
    },
)
CHNSENTICORP = Dataset(
    name="chnsenticorp",
    title="ChnSentiCorp",
    group="chinese",
    folders=("chnsenticorp", "ChnSentiCorp"),
    head="classification",
    metrics=("accuracy",),
    labels=("0", "1"),
    meanings=("negative", "positive"),
    positive="1",
    columns=Columns(text=("text_a", "text"), without_header=("label", "text_a")),
    splits={"train": _files("train", 9_600), "dev": _files("dev", 1_200), "test": _files("test", 1_200)},
)
_RANKED = Columns(text=("text_a",), pair=("text_b",), group=("qid",))
DBQA = Dataset(
    name="dbqa",
    title="NLPCC-DBQA",
    group="chinese",
    folders=("nlpcc-dbqa", "nlpcc_dbqa", "dbqa"),
    head="classification",
    metrics=("mrr", "f1"),
    labels=("0", "1"),
    meanings=("no_answer", "answers"),
    positive="1",
    columns=_RANKED,
    tolerance=0.01,  # the splits behind the paper are known to the thousand only
    splits={"train": _files("train", 182_477), "dev": _files("dev", 40_995), "test": _files("test", 81_536)},
)
PARA_RANK = Dataset(
    name="para_rank",
    title="DuReader paragraph ranking",
    group="chinese",
    folders=("dureader_v2_demo", "para_rank"),
    head="classification",
    metrics=("mrr", "f1"),
    labels=("0", "1"),
    meanings=("less_related", "most_related"),
    positive="1",
    columns=_RANKED,
    stands_for="dbqa",
    splits={
        "train": Files(official=("para_rank_train.tsv",), rows=(1_401,), hub="train"),
        "dev": Files(official=("para_rank_dev.tsv",), rows=(1_471,), hub="validation"),
    },
)
LCQMC = _pairs("lcqmc", "LCQMC", ("lcqmc", "LCQMC"), (238_766, 8_802, 12_500), "LCQMC")
BQ = _pairs("bq", "BQ Corpus", ("bq_corpus", "bq", "BQ"), (100_000, 10_000, 10_000), "BQ")

CHINESE = (
    CMRC2018,
    DRCD,
    DUREADER,
    DUREADER_ROBUST,
    MSRA_NER,
    XNLI,
    CHNSENTICORP,
    LCQMC,
    BQ,
    DBQA,
    PARA_RANK,
)
