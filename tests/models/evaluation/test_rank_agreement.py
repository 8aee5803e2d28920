"""Agreement of two lists, against plain definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.rank_agreement import overlap, rank_correlation

LISTS = st.lists(st.sampled_from([f"i{n}" for n in range(12)]), unique=True)


@given(LISTS, LISTS, st.integers(1, 30))
def test_overlap_is_a_share_and_symmetric(ours: list[str], theirs: list[str], k: int) -> None:
    """Between 0 and 1, symmetric, and 1 for equal lists."""
    share = overlap(ours, theirs, k=k)

    assert 0 <= share <= 1
    assert share == overlap(theirs, ours, k=k)
    assert overlap(ours, ours, k=k) == 1


@given(LISTS, LISTS)
def test_correlation_is_spearmans(ours: list[str], theirs: list[str]) -> None:
    """As scipy's for the places of the common items."""
    # Half a second to load, in each process of the tests.
    from scipy.stats import spearmanr

    common = [item for item in ours if item in theirs]
    found = rank_correlation(ours, theirs)

    if len(common) < 2:
        assert found is None
    else:
        expected = spearmanr(range(len(common)), [theirs.index(item) for item in common])
        assert found == pytest.approx(expected.statistic)
