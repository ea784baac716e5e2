"""Caps on the corrections of a scene: they hold, larger margins stay, and cuts change nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geohsal.geo.states import PixelState
from geohsal.refine.correction_caps import (
    LEVELS,
    cap_corrections,
    correction_floor,
    count_corrections,
    margin_levels,
    merge_corrections,
)

CORRECTED, AMBIGUOUS = int(PixelState.CORRECTED), int(PixelState.AMBIGUOUS)
Maps = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]


def cap(
    states: NDArray[np.uint8],
    teacher: NDArray[np.uint8],
    plar_class: NDArray[np.uint8],
    margin: NDArray[np.float32],
    *,
    corrected_cap: float = 0.2,
    flow_cap: float = 0.25,
    cuts: tuple[int, ...] = (),
) -> NDArray[np.uint8]:
    """Caps by counts of the parts between the rows of `cuts`, the last part first."""
    edges = [0, *cuts, len(states)]
    parts = [slice(low, high) for low, high in pairwise(edges)]
    counts = merge_corrections(
        [
            count_corrections(states[at], teacher[at], plar_class[at], margin[at])
            for at in reversed(parts)
        ]
    )
    floor = correction_floor(counts, corrected_cap=corrected_cap, flow_cap=flow_cap)
    return np.concatenate(
        [
            cap_corrections(states[at], teacher[at], plar_class[at], margin[at], floor=floor)
            for at in parts
        ]
    )


def random_maps(seed: int, *, ties: bool) -> Maps:
    rng = np.random.default_rng(seed)
    shape = (12, 13)
    states = rng.choice(np.arange(7, dtype=np.uint8), size=shape)
    teacher = rng.choice(np.array([0, 0, 0, 1, 2], dtype=np.uint8), size=shape)
    plar_class = ((teacher + rng.integers(1, 4, shape)) % 4).astype(np.uint8)
    margin = rng.integers(0, 5, shape) if ties else rng.exponential(20, shape)
    return states, teacher, plar_class, margin.astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_caps_hold_for_any_map(
    seed: int, ties: bool, corrected_cap: float, flow_cap: float
) -> None:
    states, teacher, plar_class, margin = random_maps(seed, ties=ties)
    capped = cap(
        states, teacher, plar_class, margin, corrected_cap=corrected_cap, flow_cap=flow_cap
    )
    changed = capped != states
    assert (states[changed] == CORRECTED).all()
    assert (capped[changed] == AMBIGUOUS).all()
    unlabelled = states >= int(PixelState.TRUSTED)
    kept = capped == CORRECTED
    assert kept.sum() <= corrected_cap * unlabelled.sum() + 1e-6
    for number in range(4):
        net = (kept & (plar_class == number)).sum() - (kept & (teacher == number)).sum()
        assert abs(net) <= flow_cap * (unlabelled & (teacher == number)).sum() + 1e-6


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 11), max_size=4))
def test_the_cut_into_chunks_changes_nothing(seed: int, cuts: list[int]) -> None:
    maps = random_maps(seed, ties=seed % 2 == 0)
    assert np.array_equal(cap(*maps), cap(*maps, cuts=tuple(sorted(set(cuts)))))


@given(st.integers(0, 2**32 - 1))
def test_of_a_pair_of_classes_the_larger_margins_stay(seed: int) -> None:
    states, teacher, plar_class, margin = random_maps(seed, ties=False)
    capped = cap(states, teacher, plar_class, margin)
    for pair in {(int(a), int(b)) for a, b in zip(teacher.flat, plar_class.flat, strict=True)}:
        own = (states == CORRECTED) & (teacher == pair[0]) & (plar_class == pair[1])
        stay, fall = margin[own & (capped == CORRECTED)], margin[own & (capped == AMBIGUOUS)]
        assert stay.min(initial=np.inf) >= fall.max(initial=-np.inf)


@given(st.lists(st.floats(0, 2.0**90, width=32, allow_subnormal=False), min_size=2))
def test_a_larger_margin_is_never_on_a_lower_level(values: list[float]) -> None:
    margin = np.sort(np.array(values, dtype=np.float32))
    levels = margin_levels(margin).astype(np.int64)
    assert (np.diff(levels) >= 0).all()
    apart = margin[1:] > margin[:-1] * np.float32(1 + 2**-7)
    normal = margin[:-1] > 1e-37
    assert (np.diff(levels)[apart & normal] > 0).all()  # half a percent is told apart


def test_odd_margins_have_a_level() -> None:
    odd = np.array([0.0, -0.0, -1.0, np.inf], dtype=np.float32)
    levels = margin_levels(odd)
    assert levels[:3].tolist() == [0, 0, 0]
    assert levels[3] < LEVELS


def test_a_level_that_is_too_much_falls_whole_and_larger_margins_stay() -> None:
    states = np.full((4, 5), CORRECTED, dtype=np.uint8)
    states[3] = int(PixelState.LABELLED)  # 15 unlabelled pixels: 3 may be corrected
    teacher = np.zeros((4, 5), dtype=np.uint8)
    margin = np.zeros((4, 5), dtype=np.float32)
    margin[2, 3:] = 9.0, 8.0
    capped = cap(states, teacher, teacher + np.uint8(1), margin, flow_cap=1.0)
    assert np.flatnonzero(capped == CORRECTED).size == 0  # class 1 may gain none: it has no pixel
    teacher[0, :2] = 1
    capped = cap(states, teacher, 1 - teacher, margin, flow_cap=1.0)
    assert np.flatnonzero(capped == CORRECTED).tolist() == [13, 14]
    assert (capped == AMBIGUOUS).sum() == 13
    assert (capped[3] == int(PixelState.LABELLED)).all()
    assert (states[0] == CORRECTED).all()  # the input is left alone


def test_flow_is_net_and_the_smaller_margins_of_the_class_fall() -> None:
    """Four pixels go from 0 to 1, one comes back; class 0 (of 10) may lose 2 net, so one falls."""
    states = np.full((1, 20), int(PixelState.TRUSTED), dtype=np.uint8)
    states[0, [0, 1, 2, 3, 10]] = CORRECTED
    teacher = np.repeat([0, 1], 10).astype(np.uint8)[None]
    margin = np.zeros((1, 20), dtype=np.float32)
    margin[0, [0, 1, 2, 3, 10]] = [5, 1, 7, 3, 2]
    capped = cap(states, teacher, 1 - teacher, margin, corrected_cap=1.0, flow_cap=0.2)
    assert np.flatnonzero(capped == CORRECTED).tolist() == [0, 2, 3, 10]


@pytest.mark.parametrize("state", [PixelState.NODATA, PixelState.TRUSTED])
def test_maps_without_corrections_are_returned_as_they_are(state: PixelState) -> None:
    states = np.full((3, 3), int(state), dtype=np.uint8)
    empty = np.zeros((3, 3), dtype=np.uint8)
    assert np.array_equal(cap(states, empty, empty, empty.astype(np.float32)), states)
