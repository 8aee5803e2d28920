"""Themes of similar items: a title out of the items' own texts, and how well each item fits it.

Words and pairs of words that most of the items have and few others do (a class-based TF-IDF) make
the title; an item fits it by the cosine of its words with those of all the items. No language is
assumed: words that are everywhere carry no weight.

A title may come from elsewhere, such as a language model: a function after `WriteTitle` in a
package with an entry point of the group `ENTRY_POINTS`, which RECOMMENDER_THEME_TITLES names.

References
----------
Grootendorst (2022), "BERTopic: Neural topic modeling with a class-based TF-IDF procedure".
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import NamedTuple, Protocol

from models.errors import InvalidSetting
from models.metadata_records import Properties, named_values

ENTRY_POINTS = "streaming_recommender.theme_titles"

MAX_TEXT = 1000
"""Characters of one property that count."""

NAME_WEIGHT = 3.0
"""Of a word in an item's name; one in another text counts 1."""

MAX_TITLE = 60
SECOND_FROM = 0.5
"""Weight of a second phrase, of the first one's, from which on the title has both."""

CENTRE_WORDS = 30
"""Words of all items that an item's are compared with."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


class ThemedItem(NamedTuple):
    """An item as a theme sees it: its name, and its other texts."""

    item_id: str
    name: str
    texts: tuple[str, ...] = ()


class Theme(NamedTuple):
    """A title, and the items from the one that fits best on, each with its relevance, 0 to 1."""

    title: str
    item_ids: list[str]
    relevances: list[float]


class WriteTitle(Protocol):
    """Writes the title of similar items.

    Called in the job runner, in a thread, once for each line of a job, the item asked for first;
    may block. An error it raises ends the job.
    """

    def __call__(self, items: Sequence[ThemedItem]) -> str:
        """A short title; at most `MAX_TITLE` characters of it are kept."""


class Background(NamedTuple):
    """Document frequencies: how many of a catalogue's items have each word or pair of words."""

    n_items: int
    counts: Mapping[str, int]

    def weight(self, phrase: str) -> float:
        """Inverse document frequency: 0 for a phrase that all items have."""
        return math.log((1.0 + self.n_items) / (1.0 + self.counts.get(phrase, 0)))


def title_writer(name: str) -> WriteTitle | None:
    """The function of the entry point with this name; None for no name: titles are made here.

    Raises
    ------
    InvalidSetting
        No installed package has it.
    """
    if not name:
        return None
    found = entry_points(group=ENTRY_POINTS, name=name)
    if not found:
        raise InvalidSetting(f"RECOMMENDER_THEME_TITLES: no package has {name!r} in {ENTRY_POINTS}")
    loaded: WriteTitle = next(iter(found)).load()
    return loaded


def themed_item(item_id: str, properties: Properties | None, name_column: str) -> ThemedItem:
    """An item with its texts, but addresses; its name is that of a column, in any spelling.

    >>> themed_item("i", {"TITLE": "Tent", "GENRES": "a|b", "URL": "http://x"}, "title")
    ThemedItem(item_id='i', name='Tent', texts=('a|b',))
    """
    found = properties or {}
    named = named_values(found, [name_column]).get(name_column)
    name = str(named)[:MAX_TEXT] if named is not None else ""
    texts = [
        value[:MAX_TEXT]
        for value in found.values()
        if isinstance(value, str) and "://" not in value[:16] and value != named
    ]
    return ThemedItem(item_id, name, tuple(texts))


def background(items: Iterable[ThemedItem]) -> Background:
    """Counts of the phrases of a catalogue, or of a sample of it."""
    counts: Counter[str] = Counter()
    n_items = 0
    for item in items:
        counts.update(_phrases(item).keys())
        n_items += 1
    return Background(n_items, counts)


def theme_of(
    asked: ThemedItem,
    items: Sequence[ThemedItem],
    known: Background,
    write_title: WriteTitle | None = None,
) -> Theme:
    """The theme of an item and those similar to it. Some ms for 25 items with descriptions.

    Parameters
    ----------
    asked
        The item that the others are similar to: it counts for the title, and is not in the answer.
    known
        Of the whole catalogue.

    Examples
    --------
    >>> names = ["Green tent", "Family tent", "Dome tent", "Rice cooker", "Tea pot", "Hat"]
    >>> tent, *others = [ThemedItem(f"i{n}", name) for n, name in enumerate(names)]
    >>> found = theme_of(tent, others[:3], background([tent, *others]))
    >>> found.title, found.item_ids, [round(one, 2) for one in found.relevances]
    ('Tent', ['i1', 'i2', 'i3'], [0.3, 0.3, 0.0])
    """
    vectors = {item.item_id: _phrases(item) for item in (asked, *items)}
    totals: defaultdict[str, float] = defaultdict(float)
    for phrases in vectors.values():
        for phrase, weight in phrases.items():
            totals[phrase] += weight * known.weight(phrase)
    n_with = Counter(phrase for phrases in vectors.values() for phrase in phrases)
    # Of a single item all, of several what they have in common.
    shared = {phrase: total for phrase, total in totals.items() if n_with[phrase] > 1} or totals
    title = write_title([asked, *items]) if write_title is not None else _title(shared, n_with)
    centre = dict(sorted(shared.items(), key=lambda pair: (-pair[1], pair[0]))[:CENTRE_WORDS])
    relevances = {
        item.item_id: round(_cosine(vectors[item.item_id], centre, known), 7) for item in items
    }
    order = sorted(relevances, key=lambda item_id: -relevances[item_id])
    text = " ".join(title.split())[:MAX_TITLE]
    return Theme(text, order, [relevances[item_id] for item_id in order])


def _phrases(item: ThemedItem) -> dict[str, float]:
    """Words and pairs of words of an item, folded, with their weights in it."""
    found: dict[str, float] = {}
    for text, weight in ((item.name, NAME_WEIGHT), *((text, 1.0) for text in item.texts)):
        for part in text.split("|"):
            words = [word.casefold() for word in _WORD.findall(part)]
            pairs = (" ".join(pair) for pair in itertools.pairwise(words))
            for phrase in (*words, *pairs):
                if len(phrase) > 1 and not phrase.isdigit():
                    found[phrase] = max(found.get(phrase, 0.0), weight)
    return found


def _title(totals: Mapping[str, float], n_with: Mapping[str, int]) -> str:
    """The best phrase, and the next one where it is nearly as good and says something else."""
    strengths = {phrase: total * n_with[phrase] for phrase, total in totals.items()}
    # A pair says more than its words where as many items have it.
    ranked = sorted(strengths, key=lambda one: (-strengths[one], -one.count(" "), one))
    best = ranked[:1]
    for phrase in ranked[1:]:
        if strengths[phrase] < SECOND_FROM * strengths[best[0]]:
            break
        if set(best[0].split()).isdisjoint(phrase.split()):
            best.append(phrase)
            break
    return ", ".join(phrase[0].upper() + phrase[1:] for phrase in best)


def _cosine(phrases: Mapping[str, float], centre: Mapping[str, float], known: Background) -> float:
    own = {phrase: weight * known.weight(phrase) for phrase, weight in phrases.items()}
    product = sum(weight * centre.get(phrase, 0.0) for phrase, weight in own.items())
    lengths = math.hypot(*own.values()) * math.hypot(*centre.values())
    return product / lengths if lengths else 0.0
