"""Settings of what a run reads: corpora, tokeniser, knowledge spans and shards."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from ernie2.config.base import MAX_COUNT, LineText, PathText, SettingsModel
from ernie2.config.languages import check_language
from ernie2.errors import ConfigError


def _language(code: str) -> str:
    try:
        return check_language(code)
    except ConfigError as error:
        raise ValueError(str(error).rstrip(".")) from None


class PairSettings(SettingsModel):
    """Columns of a table of labelled pairs."""

    a: str = "sentence1"
    """The first text."""
    b: str = "sentence2"
    """The second text."""
    label: str = "label"
    """The class of the pair."""

    @model_validator(mode="after")
    def _three_columns(self) -> PairSettings:
        if len({self.a, self.b, self.label}) < 3:
            raise ValueError(f"a, b and label are three columns, but name {self.a!r}, {self.b!r} and {self.label!r}")
        return self


class CorpusSettings(SettingsModel):
    """One source of documents, or of labelled pairs."""

    path: PathText | tuple[PathText, ...]
    """A file, several files, a glob, or any fsspec URL: .txt, .jsonl, .parquet, each also as .gz or .zst where it has
    that; for labelled pairs .tsv in place of .txt.
    `package:NAME` is a corpus shipped with ernie2."""
    language: Annotated[str, AfterValidator(_language)] = "en"
    """ISO 639 code, of two letters where the language has them; it chooses the sentence rules, and `zh` the Chinese
    word annotator."""
    licence: LineText = "not stated"
    """Goes into the model card."""
    text: str = "text"
    """Field or column holding the text (jsonl, parquet)."""
    id: str = "id"
    """Field or column that names a document; its number in the file where absent."""
    group: str | None = None
    """Field whose value keeps documents together on one side of the train / held-out split (default: the document; of
    labelled pairs, the first text)."""
    spans: str = "spans"
    """Field with given knowledge spans, a list of [start, end, kind] in characters of the text."""
    pairs: PairSettings | None = None
    """Makes this a corpus of labelled pairs, a row of a table each, and names the columns; null: documents."""
    weight: float | None = Field(default=None, ge=1e-9, le=1e15)
    """Share of a task's tokens that come from this corpus, relative to the others (default: its number of tokens, so
    that a task reads its corpora equally often). Special tokens are not counted."""

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @model_validator(mode="after")
    def _pairs_have_columns_of_their_own(self) -> CorpusSettings:
        fields = type(self).model_fields
        given = [name for name in ("text", "id", "spans") if getattr(self, name) != fields[name].default]
        if self.pairs is not None and given:
            raise ValueError(
                f"{' and '.join(f'`{name}`' for name in given)} cannot stand beside `pairs`: the columns of labelled "
                "pairs are named by pairs.a, pairs.b and pairs.label, and they bring no ids and no spans"
            )
        return self


class TokenizerSettings(SettingsModel):
    """The vocabulary: set exactly one of `file` and `train`."""

    file: PathText | None = None
    """A BERT vocab.txt, an ERNIE `token<TAB>id` file, or a `tokenizers` JSON."""
    train: int | None = Field(default=None, ge=64, le=4_000_000)
    """Size of a WordPiece vocabulary to train on the train documents."""
    lowercase: bool | None = None
    """Lower-case and strip accents, as training a vocabulary does by default. A vocabulary file is used as the files
    beside it say, or lower-cased where it has no capitals and no combining marks; a tokenizers JSON says so itself."""
    max_unknown: float = Field(default=0.2, ge=0, le=1)
    """`prepare` refuses a corpus in which a larger share of the tokens is [UNK]: the vocabulary does not fit."""

    @model_validator(mode="after")
    def _one_of_two(self) -> TokenizerSettings:
        if (self.file is None) == (self.train is None):
            raise ValueError("set exactly one of `file` (a vocabulary) and `train` (a size)")
        return self


class PhraseSettings(SettingsModel):
    """Phrases mined from the corpus: runs of words that occur together far more often than chance (NPMI)."""

    min_count: int = Field(default=8, ge=2, le=MAX_COUNT)
    """Occurrences a phrase needs."""
    min_npmi: float = Field(default=0.35, ge=-1, le=1)
    """Normalised pointwise mutual information a phrase needs, from -1 (never together) to 1 (always)."""
    max_words: int = Field(default=4, ge=2, le=8)
    """Longest phrase, in words."""
    max_phrases: int = Field(default=50_000, ge=0, le=10_000_000)
    """The best this many are kept; also bounds the memory of counting."""


class KnowledgeSettings(SettingsModel):
    """Which annotators mark words, phrases and entities. Spans given in the input are always used."""

    gazetteer: PathText | None = None
    """A text file of entities, one a line, optionally `entity<TAB>kind` (kind: entity or phrase)."""
    phrases: PhraseSettings | None = PhraseSettings()
    """How phrases are mined from the corpus; null to mine none."""
    chinese: bool = True
    """Words and nr/ns/nt/nz entities by rjieba for corpora whose language is zh."""
    spacy: str | None = None
    """Name of an installed spaCy pipeline: its entities and noun chunks (needs the extra spacy)."""


class ShardSettings(SettingsModel):
    """How documents become shards."""

    folder: PathText
    """Where the shards go."""
    shard_tokens: int = Field(default=1_000_000, ge=1_000, le=MAX_COUNT)
    """About this many tokens a shard; decides the units of work, so it belongs to the identity of the shards."""
    document_tokens: int = Field(default=4096, ge=64, le=65_535)
    """Longer documents are split at paragraphs into sections of at most this many tokens."""
    sentence_tokens: int = Field(default=506, ge=8, le=1_048_576)
    """Longer sentences are hard-split, never inside a span: the room of one sequence after its special tokens."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the documents that are used, by hash of their group; a smaller share is part of a larger one."""
    heldout: float = Field(default=0.02, ge=0, lt=1)
    """Share of documents held out, by hash of their group."""
    min_heldout: int = Field(default=50, ge=0, le=MAX_COUNT)
    """At least this many documents are held out (at most half of them)."""
