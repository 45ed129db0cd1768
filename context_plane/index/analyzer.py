"""Text to terms, the same for the documents and the queries of every index.

1. NFKC, case folding, NFKC: compatibility forms and cases of a letter are one.
2. *Words* are runs of letters, marks and digits, with apostrophes inside kept (`customer's`). Runs in
   scripts written without spaces (and Hangul) become overlapping pairs of letters, a lone letter itself.
3. *Compounds*, words joined by single `-_.@/:#+&` without space, also give the joined form when it looks
   like an identifier: it has a digit or an `@` (`zd-8812`, `a-2e4581`, `joe@acme.com`, `v2.10`).
4. Purely alphabetic words are stemmed by Snowball English (Porter2); others are kept as they are.
5. The stop words of Lucene's English analyzer give no term (on HERB that ranks better).

Pure and deterministic. Whatever changes a single term of any text changes `ANALYZER`.
"""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Final

import regex
from Stemmer import Stemmer  # type: ignore[import-not-found]  # an extension module without stubs

ANALYZER: Final = "snowball-en/1"
"""Recorded beside every index; indexes of another analyzer are rebuilt, never mixed."""
TERM_CHARS_MAX: Final = 64
"""Longer runs are encoded data, not words; nobody types them. Their terms are dropped, not cut."""
_STOP_WORDS_TEXT: Final = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these
they this to was will with
"""
STOP_WORDS: Final = frozenset(_STOP_WORDS_TEXT.split())

COMPOUNDS_CACHED_MAX: Final = 1 << 17
"""Distinct compounds whose terms are remembered: some 40 MB when full. A tenant's texts repeat their words."""

_UNSPACED: Final = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}&&[\p{L}\p{M}\p{N}]]"
_WORD: Final = r"[\p{L}\p{M}\p{N}]+(?:['’][\p{L}\p{M}\p{N}]+)*"
_COMPOUND: Final = regex.compile(rf"{_WORD}(?:[-_.@/:#+&]{_WORD})*", regex.V1)
_ASCII_WORD: Final = r"[a-z0-9]+(?:'[a-z0-9]+)*"
_ASCII_COMPOUND: Final = re.compile(rf"{_ASCII_WORD}(?:[-_.@/:#+&]{_ASCII_WORD})*")
"""What `_COMPOUND` finds in a folded ASCII text, at a fraction of its cost."""
_PART: Final = regex.compile(_WORD, regex.V1)
_SCRIPTS: Final = regex.compile(
    rf"(?P<unspaced>{_UNSPACED}+)|(?P<spaced>(?:(?!{_UNSPACED})[\p{{L}}\p{{M}}\p{{N}}'’])+)", regex.V1
)
_LETTER: Final = regex.compile(r"[\p{L}\p{N}]\p{M}*|\p{M}+", regex.V1)
_IDENTIFYING: Final = regex.compile(r"[\p{N}@]", regex.V1)

_local = threading.local()
"""A Snowball stemmer keeps state between calls: one per thread."""


def analyze(text: str) -> list[str]:
    """The terms of a text in reading order, repeats included."""
    folded = _fold(text)
    compounds = (_ASCII_COMPOUND if folded.isascii() else _COMPOUND).findall(folded)
    short = max(map(len, compounds), default=0) <= TERM_CHARS_MAX  # long ones would fill the cache
    return list(chain.from_iterable(map(_known_terms if short else _terms, compounds)))


def term_counts(text: str) -> dict[str, int]:
    """How often each term occurs; keys in order of first occurrence."""
    return dict(Counter(analyze(text)))


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _terms(compound: str) -> tuple[str, ...]:
    return _known_terms(compound) if len(compound) <= TERM_CHARS_MAX else tuple(_split(compound))


@functools.lru_cache(maxsize=COMPOUNDS_CACHED_MAX)
def _known_terms(compound: str) -> tuple[str, ...]:
    return tuple(_split(compound))


def _split(compound: str) -> Iterator[str]:
    """Terms of words that were written together: the joined form first, then each part."""
    parts = [compound] if compound.isalpha() else _PART.findall(compound)
    if len(parts) > 1 and len(compound) <= TERM_CHARS_MAX and _IDENTIFYING.search(compound):
        yield compound
    for part in parts:
        if part.isascii():
            yield from _word(part)
        else:
            yield from _mixed(part)


def _mixed(part: str) -> Iterator[str]:
    """Terms of a word that may change between scripts with and without spaces."""
    for run in _SCRIPTS.finditer(part):
        if run.lastgroup == "spaced":
            yield from _word(run.group())
            continue
        letters = _LETTER.findall(run.group())
        yield from letters if len(letters) == 1 else (a + b for a, b in pairwise(letters))


def _word(word: str) -> Iterator[str]:
    word = word.replace("’", "'").strip("'")
    if not word or len(word) > TERM_CHARS_MAX or word.removesuffix("'s") in STOP_WORDS:
        return
    yield _stem(word) if word.replace("'", "").isalpha() else word


def _stem(word: str) -> str:
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer("english")
    stem: str = stemmer.stemWord(word)
    return stem
