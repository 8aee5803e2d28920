"""Terms of an item: hashes that items with similar texts or embeddings have in common.

Words, runs of five letters within long words, pairs of letters in scripts without spaces, and
buckets of an embedding. Two items are alike by the terms that both have, rare ones above all; see
`models.retrieval.similar_texts`.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InvalidRecord

MAX_TERMS = 20
"""Terms of an item."""

MAX_TEXT = 400
"""Characters of one property that count."""

TITLES = ("title", "name", "itemname", "productname", "headline")
DESCRIPTION = "description"
EMBEDDING = ("EMBEDDING", "embedding")
"""Names of properties: titles (compared without underscores), whose words come first; the
description, whose words come last; and the embedding."""

MAX_TITLE_WORDS, MAX_TITLE_RUNS = 8, 10
"""Terms of titles before those of other properties."""

RUN = 5
"""Letters of a run; words up to this long are their own only run."""

WITHOUT_SPACES = "\u0e00"
"""Letters from here on, from Thai to Korean, are of scripts whose words are not found by spaces."""

MAX_DIMENSIONS = 2048
BUCKETS, BUCKET_BITS = 12, 8
"""Buckets of an embedding, and the hyperplanes of each: items in one bucket lie on the same side of
all of them (Charikar 2002, "Similarity estimation techniques from rounding algorithms")."""

WORD = re.compile(r"[^\W_]+")


def terms_of(properties: Mapping[str, Any]) -> list[int]:
    """The item's terms, distinct 32-bit numbers, ascending; at most `MAX_TERMS`.

    Of an embedding, then of titles, then of all other texts but addresses of pages and pictures,
    descriptions last. About 25 µs for a title and a description; 60 µs more with an embedding.

    Raises
    ------
    InvalidRecord
        The embedding is not numbers.

    Examples
    --------
    >>> len({*terms_of({"TITLE": "Green tent"})} & {*terms_of({"NAME": "A TENT, green"})})
    2
    """
    found: dict[int, None] = {}
    embedding = embedding_of(properties)
    if embedding is not None:
        found.update(dict.fromkeys(_buckets(embedding)))
    for text in _terms_of_texts(properties):
        if len(found) >= MAX_TERMS:
            break
        found[zlib.crc32(text.encode("utf-8", "replace")) or 1] = None
    return sorted([*found][:MAX_TERMS])


def _terms_of_texts(properties: Mapping[str, Any]) -> Iterator[str]:
    titles: list[str] = []
    others: list[str] = []
    descriptions: list[str] = []
    for name, value in properties.items():
        if not isinstance(value, str) or name in EMBEDDING or "://" in value[:16]:
            continue
        folded = name.replace("_", "").lower()
        kind = titles if folded in TITLES else others
        (descriptions if folded.endswith(DESCRIPTION) else kind).append(value)
    words = [word for text in titles for word in _words(text)][:MAX_TITLE_WORDS]
    yield from words
    runs = (word[at : at + RUN] for word in words for at in range(len(word) - RUN + 1))
    yield from [f"{run}~" for run in runs if run not in words][:MAX_TITLE_RUNS]
    for text in others + descriptions:
        yield from _words(text)


def _words(text: str) -> Iterator[str]:
    folded = unicodedata.normalize("NFKC", text[:MAX_TEXT]).casefold()
    for word in WORD.findall(folded):
        if word[0] >= WITHOUT_SPACES and len(word) > 2:
            yield from (word[at : at + 2] for at in range(len(word) - 1))
        else:
            yield word


def embedding_of(properties: Mapping[str, Any]) -> list[float] | None:
    """The numbers of the property `EMBEDDING`, a text such as ".12, -.5, .3"; None without one.

    Raises
    ------
    InvalidRecord
        It is not 2 to `MAX_DIMENSIONS` finite numbers, or all are 0.

    Examples
    --------
    >>> embedding_of({"EMBEDDING": "[0.5, -1]"})
    [0.5, -1.0]
    """
    text = next((properties[name] for name in EMBEDDING if properties.get(name)), None)
    if text is None:
        return None
    try:
        numbers = [float(part) for part in str(text).strip(" []").replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= MAX_DIMENSIONS or not all(map(math.isfinite, numbers)):
        raise InvalidRecord(f"EMBEDDING is a text of 2 to {MAX_DIMENSIONS} numbers")
    if not any(numbers):
        raise InvalidRecord("EMBEDDING is not all zeros")
    return numbers


def _buckets(embedding: list[float]) -> list[int]:
    import numpy as np  # noqa: PLC0415  as below

    is_above = _hyperplanes(len(embedding)) @ np.array(embedding) > 0.0
    sides = np.packbits(is_above.reshape(BUCKETS, BUCKET_BITS), axis=1)
    return [zlib.crc32(b"bucket %d" % n, side) or 1 for n, side in enumerate(sides[:, 0].tolist())]


@functools.lru_cache(maxsize=4)
def _hyperplanes(dimensions: int) -> Any:  # noqa: ANN401  an array
    # Most records have no embedding, and most processes that check records need no numpy.
    import numpy as np  # noqa: PLC0415

    # The same in every process, for ever: terms are stored.
    rng = np.random.Generator(np.random.PCG64(dimensions))
    return rng.standard_normal((BUCKETS * BUCKET_BITS, dimensions))
