"""Orders that are sorted only as far as they are read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geohsal.query import ranking, selectors
from geohsal.query.ranking import in_order, leading


@given(
    keys=hnp.arrays(np.float64, st.integers(0, 60), elements=st.integers(-3, 3).map(float)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_blocks_together_are_the_stable_order(keys: np.ndarray, seed: int) -> None:
    among = np.random.default_rng(seed).random(len(keys)) < 0.7
    places = np.flatnonzero(among)
    wanted = places[np.argsort(keys[places], kind="stable")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "FIRST", 3)
        patch.setattr(ranking, "GROWTH", 2)
        blocks = list(in_order(keys, among))
        for count in range(len(places) + 1):
            assert np.array_equal(leading(keys, among, count=count), wanted[:count])
    assert np.array_equal(np.concatenate([*blocks, wanted[:0]]), wanted)
    assert all(block.size for block in blocks)


def test_little_is_sorted_where_little_is_read() -> None:
    keys = np.random.default_rng(0).random(100_000)
    first = next(in_order(keys, np.ones(len(keys), dtype=bool)))
    assert len(first) == ranking.FIRST
    assert np.array_equal(first, np.argsort(keys, kind="stable")[: len(first)])


@pytest.mark.parametrize("levels", [3, 0], ids=["ties", "apart"])
def test_bounds_find_the_same_farthest_points(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against distances that are all brought up to date for every centre."""
    monkeypatch.setattr(selectors, "_ROWS", 50)
    rng = np.random.default_rng(levels)
    points = rng.normal(size=(400, 5)).astype(np.float32)
    points = np.round(levels * points) if levels else points
    plain = np.full(len(points), np.inf)
    spread = selectors._Spread(points, plain.copy())
    for _ in range(len(points)):
        wanted, bought = int(np.argmax(plain)), bool(rng.random() < 0.6)
        assert spread.farthest() == wanted
        spread.leave(wanted, centre=bought)
        if bought:
            apart = points - points[wanted]
            plain = np.minimum(plain, np.einsum("nf,nf->n", apart, apart))
        plain[wanted] = -1


@pytest.mark.parametrize("rows", [1, 49, 50, 51, 333])
def test_standardised_in_blocks_to_the_last_bit(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "_ROWS", 50)
    features = np.random.default_rng(rows).gamma(2.0, 3.0, (rows, 7)).astype(np.float32)
    features[:, 3] = 2.5
    spread = features.std(axis=0, dtype=np.float64)
    centred = features - features.mean(axis=0, dtype=np.float64)
    wanted = (centred / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    assert np.array_equal(selectors._standardised(features), wanted)
