"""Token counts: what a budget is measured in.

A token here is a WordPiece of the vocabulary that ships beside the default embedder (uncased, 29,525
pieces), counted word by word: the text is split at white space and each word costs its pieces. So counts
are additive over white space, the same on every machine, and need no network. A word the vocabulary does
not know costs one token per four characters, lest a pasted blob count as one.

A language model has its own tokenizer and counts otherwise: nearly the same on plain English prose, more
or fewer on ids, digits, code and other scripts. A budget bounds a bundle's size, it does not predict a bill.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from importlib import resources
from typing import Final

from tokenizers import Tokenizer

_FILE: Final = "embed/minilm_static_256/tokenizer.json"
WORDS_CACHED_MAX: Final = 1 << 17
"""Distinct words whose cost is remembered: about 15 MB, the working vocabulary of a large tenant."""
UNKNOWN_CHARS: Final = 4
"""Characters per token of a word outside the vocabulary: the usual rule of thumb for English."""
WORD_CHARS_MAX: Final = 100
"""Longer words are counted by length: nobody's vocabulary holds them, and they would fill the cache."""


@functools.cache
def _file() -> bytes:
    return (resources.files("context_plane") / _FILE).read_bytes()


@functools.cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_buffer(_file())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@functools.cache
def tokenizer_digest() -> str:
    """SHA-256, hex, of the vocabulary file: part of every spec fingerprint."""
    return hashlib.sha256(_file()).hexdigest()


def count(text: str) -> int:
    """Tokens of a text. Thread-safe. `count(a + " " + b) == count(a) + count(b)`."""
    words = text.split()
    known = max(map(len, words), default=0) <= WORD_CHARS_MAX  # nearly always: then no call but the cache's
    return sum(map(_pieces if known else word_tokens, words))


def count_batch(texts: Iterable[str]) -> list[int]:
    """Tokens of each text, in order."""
    return [count(text) for text in texts]


def word_tokens(word: str) -> int:
    """Tokens of one word (no white space inside)."""
    return _long(word) if len(word) > WORD_CHARS_MAX else _pieces(word)


def _long(word: str) -> int:
    return -(-len(word) // UNKNOWN_CHARS)


@functools.lru_cache(maxsize=WORDS_CACHED_MAX)
def _pieces(word: str) -> int:
    tokenizer = _tokenizer()
    unknown = tokenizer.token_to_id("[UNK]")
    encoding = tokenizer.encode(word, add_special_tokens=False)
    return sum(
        _long(word[start:stop]) if piece == unknown else 1
        for piece, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
    )
