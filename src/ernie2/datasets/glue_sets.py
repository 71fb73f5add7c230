"""The ten sets of GLUE and its diagnostic set AX, as declared data. Row counts are those of the official release."""

from __future__ import annotations

from ernie2.datasets.declarations import Columns, Dataset, Files

_NLI = ("entailment", "neutral", "contradiction")
_BINARY_NLI = ("entailment", "not_entailment")
_SENTENCES = Columns(text=("sentence1",), pair=("sentence2",))
_PREMISES = Columns(
    text=("sentence1", "premise"), pair=("sentence2", "hypothesis"), label=("gold_label", "label", "label1")
)


def _train(rows: int, *more: int) -> Files:
    return Files(official=("train.tsv",), rows=(rows, *more), hub="train", subset=("train_subset*.tsv",))


def _dev(rows: int) -> Files:
    # an extract called dev_subset was cut out of the training file, since the development files are small: a stand-in
    return Files(official=("dev.tsv",), rows=(rows,), hub="validation", substitutes=("dev_subset*.tsv",))


def _test(rows: int) -> Files:
    return Files(official=("test.tsv",), rows=(rows,), hub="test")


def _mnli(split: str, hub: str, half: str, rows: int) -> Files:
    return Files(
        official=(f"{split}_{half}.tsv",),
        rows=(rows,),
        hub=f"{hub}_{half}",
        subset=(f"{split}_{half}_*.tsv",),
    )


GLUE = (
    Dataset(
        name="cola",
        title="CoLA",
        group="glue",
        folders=("CoLA", "cola"),
        head="classification",
        metrics=("matthews",),
        labels=("0", "1"),
        meanings=("unacceptable", "acceptable"),
        positive="1",
        columns=Columns(text=("sentence",), without_header=("source", "label", "mark", "sentence")),
        splits={"train": _train(8_551), "dev": _dev(1_043), "test": _test(1_063)},
    ),
    Dataset(
        name="sst2",
        title="SST-2",
        group="glue",
        folders=("SST-2", "sst2"),
        head="classification",
        metrics=("accuracy",),
        labels=("0", "1"),
        meanings=("negative", "positive"),
        positive="1",
        columns=Columns(text=("sentence",)),
        splits={"train": _train(67_349), "dev": _dev(872), "test": _test(1_821)},
    ),
    Dataset(
        name="mrpc",
        title="MRPC",
        group="glue",
        folders=("MRPC", "mrpc"),
        head="classification",
        metrics=("accuracy", "f1"),
        labels=("0", "1"),
        meanings=("not_equivalent", "equivalent"),
        positive="1",
        columns=Columns(text=("#1 String", "sentence1"), pair=("#2 String", "sentence2"), label=("Quality", "label")),
        splits={"train": _train(3_668), "dev": _dev(408), "test": _test(1_725)},
    ),
    Dataset(
        name="stsb",
        title="STS-B",
        group="glue",
        folders=("STS-B", "stsb"),
        head="regression",
        metrics=("pearson", "spearman"),
        columns=Columns(text=("sentence1",), pair=("sentence2",), label=("score", "label")),
        splits={"train": _train(5_749), "dev": _dev(1_500), "test": _test(1_379)},
    ),
    Dataset(
        name="qqp",
        title="QQP",
        group="glue",
        folders=("QQP", "qqp"),
        head="classification",
        metrics=("accuracy", "f1"),
        labels=("0", "1"),
        meanings=("not_duplicate", "duplicate"),
        positive="1",
        ragged=True,  # a few questions of the official files hold a line break
        columns=Columns(text=("question1",), pair=("question2",), label=("is_duplicate", "label")),
        splits={"train": _train(363_846, 363_849), "dev": _dev(40_430), "test": _test(390_965)},
    ),
    Dataset(
        name="mnli",
        title="MNLI-m/mm",
        group="glue",
        folders=("MNLI", "mnli"),
        head="classification",
        metrics=("accuracy",),
        labels=_NLI,
        columns=_PREMISES,
        splits={
            "train": _train(392_702),
            "dev_matched": _mnli("dev", "validation", "matched", 9_815),
            "dev_mismatched": _mnli("dev", "validation", "mismatched", 9_832),
            "test_matched": _mnli("test", "test", "matched", 9_796),
            "test_mismatched": _mnli("test", "test", "mismatched", 9_847),
        },
    ),
    Dataset(
        name="qnli",
        title="QNLI",
        group="glue",
        folders=("QNLI", "qnli"),
        head="classification",
        metrics=("accuracy",),
        labels=_BINARY_NLI,
        columns=Columns(text=("question",), pair=("sentence",)),
        splits={"train": _train(104_743), "dev": _dev(5_463), "test": _test(5_463)},
    ),
    Dataset(
        name="rte",
        title="RTE",
        group="glue",
        folders=("RTE", "rte"),
        head="classification",
        metrics=("accuracy",),
        labels=_BINARY_NLI,
        columns=_SENTENCES,
        splits={"train": _train(2_490), "dev": _dev(277), "test": _test(3_000)},
    ),
    Dataset(
        name="wnli",
        title="WNLI",
        group="glue",
        folders=("WNLI", "wnli"),
        head="classification",
        metrics=("accuracy",),
        labels=("0", "1"),
        meanings=("not_entailment", "entailment"),
        positive="1",
        columns=_SENTENCES,
        splits={"train": _train(635), "dev": _dev(71), "test": _test(146)},
    ),
    Dataset(
        name="ax",
        title="AX",
        group="glue",
        folders=("AX", "ax", "diagnostic", "MNLI"),
        head="classification",
        metrics=("matthews",),
        labels=_NLI,
        columns=Columns(
            text=("sentence1", "premise", "Premise"),
            pair=("sentence2", "hypothesis", "Hypothesis"),
            label=("label", "Label"),
        ),
        splits={"test": Files(official=("diagnostic-full.tsv", "diagnostic.tsv"), rows=(1_104,), hub="test")},
        trained_on="mnli",
    ),
)
