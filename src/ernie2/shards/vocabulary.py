"""WordPiece vocabularies: read from BERT and ERNIE files, or trained deterministically.

The WordPiece trainer of `tokenizers` numbers the letters and their continuing forms in the order of a randomly seeded
hash map, and breaks ties of merges by these numbers, so two runs differ. Here the words are counted first, and the
trainer receives every letter and continuing letter in sorted order, which makes the result deterministic.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit
from tokenizers.trainers import WordPieceTrainer

from ernie2.errors import TokenizerError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens of BERT and ERNIE; a trained vocabulary begins with them, in this order."""
CONTINUATION_PREFIX = "##"
"""Prefix of a token that continues a word."""
MAX_WORD_LENGTH = 100
"""Words with more characters become [UNK], as in BERT."""

_SENTENCEPIECE = "▁"  # marks the beginning of a word
_BRACKETED = re.compile(r"\[.*\]|<.*>")
_MAX_WORDS = 4_000_000  # distinct words in memory while counting
_MAX_OCCURRENCES = 40_000_000  # words fed to the trainer; counts of larger corpora are scaled down
_COVERAGE = 0.9999  # share of all characters whose letter is in the vocabulary
_LINE_WORDS = 1_000


def bert_normalizer(lowercase: bool, strip_accents: bool | None = None, chinese: bool = True) -> BertNormalizer:
    """Return BERT's normalizer: drops control characters and, with `chinese`, puts spaces around Chinese characters.

    `strip_accents` None: strip accents if `lowercase`.
    """
    return BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lowercase
    )


def read_vocabulary(text: str, where: str) -> tuple[dict[str, int], list[str]]:
    """Parse BERT's one token per line (the id is the line) or ERNIE's `token<TAB>id`; return (token -> id, notes).

    Ids run from 0 without gaps. If a token is on several lines, the last counts, as in transformers. The other ids,
    those of empty lines, and those missing in an ERNIE file become `[unusedN]`. Notes count these cases. Raises
    `TokenizerError`, naming `where` and the line, for a duplicate id, a malformed line, and SentencePiece vocabularies.
    """
    lines = text.rstrip("\r\n \t").split("\n")
    numbered = re.fullmatch(r".+\t\d+\r?", lines[0]) is not None
    tokens: dict[str, int] = {}
    lines_of: dict[int, int] = {}
    repeated: list[tuple[str, int, int]] = []
    empty: list[int] = []
    for number, line in enumerate(lines, start=1):
        token, identity = line.rstrip(" \t\r"), number - 1
        if numbered and token:
            token, _, digits = line.removesuffix("\r").rpartition("\t")
            if not digits.isdecimal():
                raise TokenizerError(f"{where}, line {number}: {line!r} does not have the form token<TAB>id.")
            identity = int(digits)
            if identity in lines_of:
                raise TokenizerError(
                    f"{where}, line {number}: the id {identity} is also that of line {lines_of[identity]}."
                )
        if not token:
            empty.append(number)
            continue
        if token in tokens:
            repeated.append((token, lines_of[tokens[token]], number))
        tokens[token] = identity
        lines_of[identity] = number
    _check_not_sentencepiece(tokens, where)
    notes = []
    if repeated:
        examples = ", ".join(f"{token!r} (lines {first} and {again})" for token, first, again in repeated[:3])
        notes.append(
            f"{where}: {len(repeated):,} line{'s repeat tokens' if len(repeated) > 1 else ' repeats a token'}: "
            f"{examples}{', …' if len(repeated) > 3 else ''}. The last line counts; the other ids are never used."
        )
    if empty:
        notes.append(
            f"{where}: {len(empty):,} empty line{'s' * (len(empty) > 1)}, the first is line {empty[0]}; "
            f"{'ignored' if numbered else 'the lines after it keep their ids'}."
        )
    return fill_unused_ids(tokens, where), notes


def train_vocabulary(texts: Iterable[str], vocab_size: int, lowercase: bool) -> dict[str, int]:
    """Train a WordPiece vocabulary of at most `vocab_size` tokens on `texts`; return token -> id, `SPECIALS` first.

    A small corpus gives fewer tokens. Memory is bounded: beyond four million distinct words the rarest are dropped.
    The letters of the rarest 0.01 % of the text are left out, so a word with one becomes [UNK]. Raises `TokenizerError`
    if there is no word to train on.
    """
    words = _count_words(texts, lowercase)
    if not words:
        raise TokenizerError("the text to train a vocabulary on has no words; use a corpus with text.")
    letters, continued = _alphabet(words, vocab_size - len(SPECIALS))
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIALS, *continued],  # fixes their ids
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=CONTINUATION_PREFIX,
        show_progress=False,
    )
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.train_from_iterator(_repeat_words(words), trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return dict(sorted(vocabulary.items(), key=lambda entry: entry[1]))


def fill_unused_ids(tokens: dict[str, int], where: str, size: int = 0) -> dict[str, int]:
    """Assign an `[unusedN]` token to every unused id, also below `size`. Modify and return `tokens`.

    Raises `TokenizerError` if the largest id is far above the number of tokens.
    """
    size = max(size, max(tokens.values(), default=-1) + 1)
    if size > 2 * len(tokens) + 1_000:
        raise TokenizerError(f"{where}: the largest id is {size - 1}, but there are only {len(tokens)} tokens.")
    used = set(tokens.values())
    number = 0
    for identity in range(size):
        if identity in used:
            continue
        while f"[unused{number}]" in tokens:
            number += 1
        tokens[f"[unused{number}]"] = identity
    return tokens


def count_lost_by_lowercasing(tokens: Iterable[str]) -> tuple[int, int]:
    """Return (tokens that never occur in lower-cased text, tokens with case or a combining mark).

    The first are tokens with a capital letter or, because lower-casing strips accents, a combining mark; many tokens of
    Devanagari or Thai have one. Special and unused tokens do not count.

    >>> count_lost_by_lowercasing(["[MASK]", "Paris", "##es", "的", "7", "हिन्दी"])
    (2, 3)
    """
    lost = able = 0
    for token in tokens:
        if token.isascii():
            marked = False
            if _BRACKETED.fullmatch(token):
                continue
        else:
            marked = any(unicodedata.category(character) == "Mn" for character in token)
        gone = marked or token != token.lower()
        lost += gone
        able += gone or token != token.upper()
    return lost, able


def _check_not_sentencepiece(tokens: Mapping[str, int], where: str) -> None:
    marked = sum(token.startswith(_SENTENCEPIECE) for token in tokens)
    if marked > len(tokens) / 5 and not any(token.startswith(CONTINUATION_PREFIX) for token in tokens):
        raise TokenizerError(
            f"{where}: {marked:,} of {len(tokens):,} tokens begin with {_SENTENCEPIECE}, so this is the vocabulary "
            "of a SentencePiece model, which a list of tokens does not fully describe. Use its tokenizer.json."
        )


def _count_words(texts: Iterable[str], lowercase: bool) -> Counter[str]:
    """Count words as the trained tokeniser will split them; deterministic for the same texts in the same order."""
    normalize, split = bert_normalizer(lowercase).normalize_str, BertPreTokenizer().pre_tokenize_str
    words: Counter[str] = Counter()
    for text in texts:
        words.update([word for word, _ in split(normalize(text))])
        least = 1
        while len(words) > _MAX_WORDS:
            words = Counter({word: count for word, count in words.items() if count > least})
            least *= 2
    return Counter({word: count for word, count in words.items() if len(word) <= MAX_WORD_LENGTH})


def _alphabet(words: Counter[str], size: int) -> tuple[list[str], list[str]]:
    """Return the letters of a vocabulary and their continuing forms, both sorted; together at most `size`.

    The most frequent letters are chosen until they cover the text, except those that occur only once.
    """
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        inside.update(word[1:])
        for letter in word:
            counts[letter] += count
    uncovered = counts.total() * _COVERAGE
    chosen: list[str] = []
    for letter, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        size -= 1 + (letter in inside)
        if uncovered <= 0 or size < 0 or (count < 2 and chosen):
            break
        chosen.append(letter)
        uncovered -= count
    return sorted(chosen), [CONTINUATION_PREFIX + letter for letter in sorted(chosen) if letter in inside]


def _repeat_words(words: Counter[str]) -> Iterator[str]:
    """Yield every word as often as it was counted, scaled down for a large corpus, for the trainer to count."""
    shrink = max(1, -(-words.total() // _MAX_OCCURRENCES))
    for word in sorted(words):
        count = words[word] // shrink
        while count > 0:
            yield " ".join([word] * min(count, _LINE_WORDS))
            count -= _LINE_WORDS
