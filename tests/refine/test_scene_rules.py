"""Agreement of neighbours, on maps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geohsal.geo.states import PixelState
from geohsal.refine.scene_rules import HALO_PX, apply_spatial_rule, spatial_rule

CORRECTED, AMBIGUOUS = int(PixelState.CORRECTED), int(PixelState.AMBIGUOUS)


def _slow_rule(plar_class, accepted, share):
    kept = np.zeros_like(accepted)
    for row, col in zip(*np.nonzero(accepted), strict=True):
        near = (slice(max(0, row - 2), row + 3), slice(max(0, col - 2), col + 3))
        mine = accepted[near] & (plar_class[near] == plar_class[row, col])
        kept[row, col] = mine.sum() >= share * accepted[near].sum()
    return kept


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.8]))
def test_spatial_rule_follows_the_definition_and_ignores_chunks(seed, share):
    rng = np.random.default_rng(seed)
    plar_class = rng.integers(0, 3, (14, 17)).astype(np.uint8)
    accepted = rng.random((14, 17)) < rng.random()
    kept = spatial_rule(plar_class, accepted, share=share)
    assert np.array_equal(kept, _slow_rule(plar_class, accepted, share))
    cut = int(rng.integers(1, 14))
    top, bottom = slice(0, cut + HALO_PX), slice(max(0, cut - HALO_PX), None)
    above = spatial_rule(plar_class[top], accepted[top], share=share)[:cut]
    below = spatial_rule(plar_class[bottom], accepted[bottom], share=share)
    assert np.array_equal(np.vstack([above, below[cut - max(0, cut - HALO_PX) :]]), kept)


def test_contradicted_decisions_become_ambiguous():
    states = np.full((5, 5), CORRECTED, dtype=np.uint8)
    states[0, 0] = int(PixelState.TRUSTED)
    plar_class = np.ones((5, 5), dtype=np.uint8)
    plar_class[2, 2] = 4
    ruled = apply_spatial_rule(states, plar_class, share=0.5)
    assert ruled[2, 2] == AMBIGUOUS
    assert ruled[0, 0] == int(PixelState.TRUSTED)
    assert (ruled == CORRECTED).sum() == 23


@pytest.mark.parametrize("state", [PixelState.NODATA, PixelState.TRUSTED])
def test_maps_without_decisions_are_returned_as_they_are(state):
    states = np.full((3, 3), int(state), dtype=np.uint8)
    empty = np.zeros((3, 3), dtype=np.uint8)
    assert np.array_equal(apply_spatial_rule(states, empty, share=0.5), states)
