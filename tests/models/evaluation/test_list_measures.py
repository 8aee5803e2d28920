"""Diversity and calibration of lists."""

from __future__ import annotations

import math

import pytest

from models.evaluation.list_measures import CategoryMeasures, mean_measures, measures_text

FILMS = [
    {"genres": "war", "title": "one"},
    {"genres": "war", "title": "two"},
    {"genres": "space", "title": "three"},
    {"title": "four"},
]


def test_a_list_is_measured_by_its_categories() -> None:
    """Titles are none, and what no record says of an item does not count."""
    measured = CategoryMeasures(FILMS)

    alike, mixed = measured.of([0, 1, 3, 99], {0}), measured.of([0, 2], {0})

    assert alike == (0.0, 0.0)
    assert mixed.distance == 1.0
    assert mixed.divergence == pytest.approx(math.log(1 / (0.99 * 0.5 + 0.01)))
    nothing = measured.of([3], {3})
    assert all(map(math.isnan, nothing))
    assert mean_measures([alike, mixed, nothing]) == {
        "intra_list_distance": 0.5,
        "calibration_divergence": round(mixed.divergence / 2, 4),
    }
    assert measures_text(mean_measures([nothing])).strip() == ""


def test_without_columns_of_categories_what_items_share_counts() -> None:
    """A text that two items have is a category."""
    measured = CategoryMeasures([{"brand": "acme"}, {"brand": "acme"}, {"brand": "zenith"}])

    assert measured.of([0, 1], {0}) == (0.0, 0.0)
    assert math.isnan(measured.of([2], {0}).divergence)
