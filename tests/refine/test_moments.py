"""Streaming moments equal batch moments, in any order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geohsal.refine.moments import Moments


def _same(a: Moments, b: Moments) -> None:
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-9, atol=1e-9 * max(1, a.count))


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_any_cut_and_order_gives_the_batch_result(seed, cuts):
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(60, 3)) * [1, 10, 0.1] + [100, 0, -5]).astype(np.float32)
    parts = np.split(rows, sorted(cuts))
    merged = Moments.empty(3)
    for index in rng.permutation(len(parts)):
        merged = merged.update(parts[index])
    _same(merged, Moments.of(rows))
    np.testing.assert_allclose(merged.covariance, np.cov(rows.T, bias=True), atol=1e-8)


def test_merge_is_associative_and_has_a_neutral_element():
    rng = np.random.default_rng(0)
    a, b, c = (Moments.of(rng.normal(size=(n, 4)) + 50) for n in (3, 1, 40))
    _same(a.merge(b).merge(c), a.merge(b.merge(c)))
    _same(a.merge(b), b.merge(a))
    _same(a.merge(Moments.empty(4)), a)
    _same(Moments.empty(4).merge(a), a)
    assert not Moments.of(np.ones((1, 4))).covariance.any()
