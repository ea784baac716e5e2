from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geohsal.geo.moments import BandMoments


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 1000))
def test_pieces_merge_to_the_whole_in_any_cut(sizes, seed):
    rng = np.random.default_rng(seed)
    pieces = [rng.normal(1e4, 3, (2, size)).astype(np.float32) for size in sizes]
    whole = np.concatenate(pieces, axis=1).astype(np.float64)
    merged = reduce(BandMoments.merge, map(BandMoments.of, pieces), BandMoments.empty(2))
    assert merged.count == whole.shape[1]
    if merged.count > 1:
        assert merged.mean == pytest.approx(whole.mean(axis=1), rel=1e-12)
        assert [merged.std(0), merged.std(1)] == pytest.approx(whole.std(axis=1), rel=1e-9)
        assert merged.low == tuple(whole.min(axis=1))


def test_large_offsets_lose_no_digits():
    values = np.tile(np.array([60_000.0, 60_001.0], dtype=np.float32), 50_000)[np.newaxis]
    halves = [BandMoments.of(values[:, :17]), BandMoments.of(values[:, 17:])]
    merged = halves[0].merge(halves[1])
    assert merged.std(0) == pytest.approx(0.5, rel=1e-9)
    assert not merged.constant(0)


def test_a_constant_band_gets_scale_one():
    odd = np.full((1, 1000), 0.1, dtype=np.float32)
    merged = BandMoments.of(odd[:, :333]).merge(BandMoments.of(odd[:, 333:]))
    assert merged.constant(0)
    assert merged.std(0) == 1.0
    assert BandMoments.empty(1).std(0) == 1.0
