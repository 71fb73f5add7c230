"""Vocabularies of word pieces: read from BERT and ERNIE files, or trained, the same from the same text every time.

The WordPiece trainer of `tokenizers` numbers the letters and their continuing forms in the order of a randomly seeded
hash map and breaks ties of merges by these numbers, so two runs differ. Here the words are counted first; then the
trainer is handed every letter and continuing letter in sorted order, which leaves nothing to chance.
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
"""Prefix of a piece that continues a word."""
MAX_WORD_CHARACTERS = 100
"""Words of more characters become [UNK], as in BERT."""

_SENTENCEPIECE = "▁"  # marks the beginning of a word
_BRACKETED = re.compile(r"\[.*\]|<.*>")
_MOST_WORDS = 4_000_000  # different words held while counting
_MOST_OCCURRENCES = 40_000_000  # words fed to the trainer; counts of larger corpora are scaled down
_COVERED = 0.9999  # share of all characters whose own letter is in the vocabulary
_FED_AT_ONCE = 1_000


def bert_normalizer(lowercase: bool, strip_accents: bool | None = None, chinese: bool = True) -> BertNormalizer:
    """BERT's normalizer: drops control characters and, with `chinese`, puts spaces around Chinese characters.

    `strip_accents`: None strips accents exactly where `lowercase` is set.
    """
    return BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lowercase
    )


def read_vocabulary(text: str, where: str) -> tuple[dict[str, int], list[str]]:
    """Return (token -> id, notes) of BERT's one token a line (the id is the line) or ERNIE's `token<TAB>id`.

    Ids run from 0 without a gap. Of a token on several lines the last line counts, as in transformers; the other ids,
    those of empty lines and those that no line of an ERNIE file has become an `[unusedN]` of their own. Notes say how
    often that was so. Raises `TokenizerError` naming `where` and the line for an id that comes twice, a line of the
    wrong form, and SentencePiece vocabularies.
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
                raise TokenizerError(f"{where}, line {number}: {line!r} is not of the form token<TAB>id.")
            identity = int(digits)
            if identity in lines_of:
                raise TokenizerError(
                    f"{where}, line {number}: the id {identity} is that of line {lines_of[identity]} too."
                )
        if not token:
            empty.append(number)
            continue
        if token in tokens:
            repeated.append((token, lines_of[tokens[token]], number))
        tokens[token] = identity
        lines_of[identity] = number
    _refuse_sentencepiece(tokens, where)
    notes = []
    if repeated:
        shown = ", ".join(f"{token!r} (lines {first} and {again})" for token, first, again in repeated[:3])
        notes.append(
            f"{where}: {len(repeated):,} line{'s repeat tokens' if len(repeated) > 1 else ' repeats a token'}: {shown}"
            f"{', …' if len(repeated) > 3 else ''}. The last line counts; the other ids are never used."
        )
    if empty:
        notes.append(
            f"{where}: {len(empty):,} empty line{'s' * (len(empty) > 1)}, the first is line {empty[0]}; "
            f"{'passed over' if numbered else 'every line after one keeps its id'}."
        )
    return fill_unused_ids(tokens, where), notes


def train_vocabulary(texts: Iterable[str], vocab_size: int, lowercase: bool) -> dict[str, int]:
    """token -> id of a WordPiece vocabulary of at most `vocab_size` tokens, trained on `texts`; `SPECIALS` come first.

    A small corpus gives fewer tokens than asked. Memory is bounded: the rarest words are forgotten beyond four million
    different ones. Letters that make up the rarest 0.01 % of the text are left out, so a word with one becomes [UNK].
    Raises `TokenizerError` when there is no word to train on.
    """
    words = _count_words(texts, lowercase)
    if not words:
        raise TokenizerError("the text to train a vocabulary on has no words; give it a corpus with text.")
    letters, continued = _letters(words, vocab_size - len(SPECIALS))
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIALS, *continued],  # so that their ids are given, not met by chance
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=CONTINUATION_PREFIX,
        show_progress=False,
    )
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.train_from_iterator(_repeated(words), trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return dict(sorted(vocabulary.items(), key=lambda entry: entry[1]))


def fill_unused_ids(tokens: dict[str, int], where: str, size: int = 0) -> dict[str, int]:
    """Give every id that no token has, below `size` too, an `[unusedN]` of its own. Changes and returns `tokens`.

    Raises `TokenizerError` where the largest id is far beyond the number of tokens.
    """
    size = max(size, max(tokens.values(), default=-1) + 1)
    if size > 2 * len(tokens) + 1_000:
        raise TokenizerError(f"{where}: the largest id is {size - 1}, but there are only {len(tokens)} tokens.")
    taken = set(tokens.values())
    number = 0
    for identity in range(size):
        if identity in taken:
            continue
        while f"[unused{number}]" in tokens:
            number += 1
        tokens[f"[unused{number}]"] = identity
    return tokens


def count_lost_by_lowercasing(tokens: Iterable[str]) -> tuple[int, int]:
    """Return how many tokens lower-cased text never shows, of how many with case or a combining mark.

    Those are tokens with a capital letter, and, because lower-casing strips accents, with a combining mark, as many of
    Devanagari or Thai have. Special and unused tokens do not count.

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


def _refuse_sentencepiece(tokens: Mapping[str, int], where: str) -> None:
    marked = sum(token.startswith(_SENTENCEPIECE) for token in tokens)
    if marked > len(tokens) / 5 and not any(token.startswith(CONTINUATION_PREFIX) for token in tokens):
        raise TokenizerError(
            f"{where}: {marked:,} of {len(tokens):,} tokens begin with {_SENTENCEPIECE}, so this is the vocabulary "
            "of a SentencePiece model, which a list of tokens does not describe. Give its tokenizer.json."
        )


def _count_words(texts: Iterable[str], lowercase: bool) -> Counter[str]:
    """Words as the finished tokeniser will see them; the same for the same texts in the same order."""
    normalize, split = bert_normalizer(lowercase).normalize_str, BertPreTokenizer().pre_tokenize_str
    words: Counter[str] = Counter()
    for text in texts:
        words.update([word for word, _ in split(normalize(text))])
        least = 1
        while len(words) > _MOST_WORDS:
            words = Counter({word: count for word, count in words.items() if count > least})
            least *= 2
    return Counter({word: count for word, count in words.items() if len(word) <= MAX_WORD_CHARACTERS})


def _letters(words: Counter[str], room: int) -> tuple[list[str], list[str]]:
    """The letters a vocabulary holds, and their forms that continue a word, both sorted; together at most `room`.

    The most frequent letters, until they cover the text, skipping those that are there only once.
    """
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        inside.update(word[1:])
        for letter in word:
            counts[letter] += count
    left = counts.total() * _COVERED
    kept: list[str] = []
    for letter, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        room -= 1 + (letter in inside)
        if left <= 0 or room < 0 or (count < 2 and kept):
            break
        kept.append(letter)
        left -= count
    return sorted(kept), [CONTINUATION_PREFIX + letter for letter in sorted(kept) if letter in inside]


def _repeated(words: Counter[str]) -> Iterator[str]:
    """Every word as often as it was counted, or in proportion where the corpus is large, for the trainer to count."""
    shrink = max(1, -(-words.total() // _MOST_OCCURRENCES))
    for word in sorted(words):
        count = words[word] // shrink
        while count > 0:
            yield " ".join([word] * min(count, _FED_AT_ONCE))
            count -= _FED_AT_ONCE
