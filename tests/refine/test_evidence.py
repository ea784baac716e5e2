"""Bounds, rankings and counts that thresholds rest on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geohsal.refine.evidence import (
    aupr,
    auroc,
    calibration_error,
    least_precise_cut,
    wilson_lower,
    wilson_upper,
)


def test_wilson_bounds_match_known_values():
    assert float(wilson_lower(8, 10)) == pytest.approx(0.4902, abs=1e-4)
    assert float(wilson_upper(8, 10)) == pytest.approx(0.9433, abs=1e-4)
    assert float(wilson_lower(0, 0)) == 0.0
    assert float(wilson_upper(0, 0)) == 1.0
    assert float(wilson_lower(34, 34)) < 0.90 < float(wilson_lower(35, 35))


@given(st.integers(0, 2**32 - 1))
def test_the_cut_is_the_smallest_that_is_precise(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 30, 200) / 30  # many ties
    right = rng.random(200) < 0.6 + 0.4 * score
    cut = least_precise_cut(score, right, precision=0.8)
    good = [
        c
        for c in np.unique(score)
        if wilson_lower(right[score >= c].sum(), (score >= c).sum()) >= 0.8
    ]
    assert cut == (min(good) if good else None)


def test_rankings_need_both_outcomes():
    score = np.array([0.1, 0.4, 0.35, 0.8])
    wrong = np.array([False, False, True, True])
    assert auroc(score, wrong) == pytest.approx(0.75)
    assert aupr(score, wrong) == pytest.approx(0.8333, abs=1e-4)
    assert auroc(score, np.zeros(4, dtype=bool)) is None
    assert aupr(score[:0], wrong[:0]) is None
    assert calibration_error(score[:0], wrong[:0]) is None
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0.0
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, True])) == pytest.approx(0.5)
