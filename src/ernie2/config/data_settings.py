"""Settings of the data: corpora, tokeniser, knowledge spans and shards."""

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
    def _columns_differ(self) -> PairSettings:
        if len({self.a, self.b, self.label}) < 3:
            raise ValueError(f"a, b and label must name three columns, not {self.a!r}, {self.b!r} and {self.label!r}")
        return self


class CorpusSettings(SettingsModel):
    """One source of documents, or of labelled pairs."""

    path: PathText | tuple[PathText, ...]
    """A file, a list of files, a glob, or any fsspec URL: .txt, .jsonl or .parquet, the first two also as .gz or .zst;
    for labelled pairs .tsv instead of .txt.
    `package:NAME` is a corpus shipped with ernie2."""
    language: Annotated[str, AfterValidator(_language)] = "en"
    """ISO 639 code, of two letters if the language has one. It selects the sentence rules; `zh` also selects the
    Chinese word annotator."""
    licence: LineText = "not stated"
    """Licence of the text, shown in the model card."""
    text: str = "text"
    """Field or column with the text (jsonl, parquet)."""
    id: str = "id"
    """Field or column with the document's id; if absent, its number in the file."""
    group: str | None = None
    """Field whose value groups documents: a group is either in the training or in the held-out split (default: each
    document is a group; for labelled pairs, the first text)."""
    spans: str = "spans"
    """Field with knowledge spans in the input: a list of [start, end, kind] in characters of the text."""
    pairs: PairSettings | None = None
    """Set this for a corpus of labelled pairs, a table with one pair per row; it names the columns. null: documents."""
    weight: float | None = Field(default=None, ge=1e-9, le=1e15)
    """Share of a task's tokens read from this corpus, relative to the others, without special tokens (default: its
    number of tokens, so that a task reads each corpus equally often)."""

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @model_validator(mode="after")
    def _pairs_have_no_document_columns(self) -> CorpusSettings:
        fields = type(self).model_fields
        given = [name for name in ("text", "id", "spans") if getattr(self, name) != fields[name].default]
        if self.pairs is not None and given:
            raise ValueError(
                f"{' and '.join(f'`{name}`' for name in given)} cannot be combined with `pairs`: name the columns of "
                "labelled pairs with pairs.a, pairs.b and pairs.label; they have no ids and no spans"
            )
        return self


class TokenizerSettings(SettingsModel):
    """The vocabulary: set exactly one of `file` and `train`."""

    file: PathText | None = None
    """A BERT vocab.txt, an ERNIE `token<TAB>id` file, or a `tokenizers` JSON."""
    train: int | None = Field(default=None, ge=64, le=4_000_000)
    """Size of a WordPiece vocabulary to train on the training documents."""
    lowercase: bool | None = None
    """Lower-case and strip accents. Default when training a vocabulary: true. Default for a vocabulary file: as in the
    configuration files next to it, else true if it has no capitals and no combining marks. A `tokenizers` JSON sets
    this itself."""
    max_unknown: float = Field(default=0.2, ge=0, le=1)
    """Largest share of [UNK] tokens in a corpus; above it `prepare` fails, because the vocabulary does not fit."""

    @model_validator(mode="after")
    def _exactly_one_source(self) -> TokenizerSettings:
        if (self.file is None) == (self.train is None):
            raise ValueError("set exactly one of `file` (a vocabulary) and `train` (a size)")
        return self


class PhraseSettings(SettingsModel):
    """Phrases mined from the corpus: word sequences that occur together far more often than by chance (NPMI)."""

    min_count: int = Field(default=8, ge=2, le=MAX_COUNT)
    """Minimum occurrences of a phrase."""
    min_npmi: float = Field(default=0.35, ge=-1, le=1)
    """Minimum normalised pointwise mutual information of a phrase, from -1 (never together) to 1 (always)."""
    max_words: int = Field(default=4, ge=2, le=8)
    """Maximum words of a phrase."""
    max_phrases: int = Field(default=50_000, ge=0, le=10_000_000)
    """Number of best phrases used; also limits the memory for counting."""


class KnowledgeSettings(SettingsModel):
    """Which annotators mark words, phrases and entities. Spans given in the input are always used."""

    gazetteer: PathText | None = None
    """A text file of entities, one per line, optionally `entity<TAB>kind` (kind: entity or phrase)."""
    phrases: PhraseSettings | None = PhraseSettings()
    """How phrases are mined from the corpus; null to mine none."""
    chinese: bool = True
    """Annotate words and nr/ns/nt/nz entities with rjieba in corpora with language zh."""
    spacy: str | None = None
    """Name of an installed spaCy pipeline that annotates entities and noun chunks (needs the extra spacy)."""


class ShardSettings(SettingsModel):
    """How documents are prepared as shards."""

    folder: PathText
    """Folder of the prepared dataset."""
    shard_tokens: int = Field(default=1_000_000, ge=1_000, le=MAX_COUNT)
    """Approximate tokens per shard. It determines the units of work, so it is part of the dataset's fingerprint."""
    document_tokens: int = Field(default=4096, ge=64, le=65_535)
    """Maximum tokens per document; longer ones are split at paragraphs."""
    sentence_tokens: int = Field(default=506, ge=8, le=1_048_576)
    """Maximum tokens per sentence; longer ones are split, but not inside a span. Must fit into a sequence with its
    special tokens."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the documents to use, selected by a hash of their group; a smaller share is a subset of a larger one."""
    heldout: float = Field(default=0.02, ge=0, lt=1)
    """Share of documents held out, selected by a hash of their group."""
    min_heldout: int = Field(default=50, ge=0, le=MAX_COUNT)
    """Minimum number of held-out documents (but at most half of all)."""
