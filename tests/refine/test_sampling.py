"""Which labelled pixels become evidence."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geohsal.refine.sampling import (
    border_depth,
    count_regions,
    draw_pixels,
    interior,
    region_folds,
)


def interior_mask(classes, regions, *, distance_px):
    """Which pixels (row, col) of a whole scene are kept."""
    depth = border_depth(classes, at_most=distance_px + 1)
    row, col = np.nonzero((classes != 255) & (regions > 0))
    kept = interior(classes[row, col], regions[row, col], depth[row, col], distance_px=distance_px)
    mask = np.zeros(classes.shape, dtype=bool)
    mask[row[kept], col[kept]] = True
    return mask


def test_interior_keeps_a_stride_from_other_classes_and_from_unlabelled():
    classes = np.full((12, 12), 255, dtype=np.uint8)
    classes[2:10, 2:10] = 1
    regions = np.where(classes == 1, 7, 0).astype(np.int32)
    inner = interior_mask(classes, regions, distance_px=2)
    assert inner.sum() == 16
    assert inner[4:8, 4:8].all()
    assert np.array_equal(interior_mask(classes, regions, distance_px=0), classes == 1)


def test_regions_of_one_class_and_the_window_edge_are_no_border():
    classes = np.ones((6, 6), dtype=np.uint8)
    regions = np.repeat([[1, 1, 1, 2, 2, 2]], 6, axis=0).astype(np.int32)
    assert interior_mask(classes, regions, distance_px=4).all()


def test_a_thin_region_keeps_its_innermost_pixels():
    classes = np.full((7, 9), 255, dtype=np.uint8)
    classes[2:5, 1:8] = 3
    regions = np.where(classes == 3, 1, 0).astype(np.int32)
    inner = interior_mask(classes, regions, distance_px=4)
    assert inner.sum() == 5  # the middle row without its ends
    assert inner[3, 2:7].all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))
def test_depths_of_windows_with_a_margin_are_those_of_the_scene(seed, at_most, side):
    rng = np.random.default_rng(seed)
    classes = np.kron(rng.choice([0, 1, 255], size=(5, 6)), np.ones((4, 3))).astype(np.uint8)
    whole, pad = border_depth(classes, at_most=at_most), at_most - 1
    for top in range(0, classes.shape[0], side):
        above = max(0, top - pad)
        part = border_depth(classes[above : top + side + pad], at_most=at_most)
        inside = part[top - above :][: len(whole[top : top + side])]
        assert np.array_equal(inside, whole[top : top + side])


@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_no_class_of_any_region_is_lost(seed, distance):
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.array([0, 1, 255], dtype=np.uint8), size=(9, 11))
    regions = np.where(classes < 255, rng.integers(0, 4, classes.shape), 0).astype(np.int32)
    inner = interior_mask(classes, regions, distance_px=distance)
    labelled = regions > 0
    assert not inner[~labelled].any()
    before = set(zip(classes[labelled].tolist(), regions[labelled].tolist(), strict=True))
    after = set(zip(classes[inner].tolist(), regions[inner].tolist(), strict=True))
    assert before == after


def test_draw_is_capped_per_region_and_class_and_repeats_by_seed():
    labels = np.repeat([0, 1, 255, 0], [50, 3, 20, 40])
    regions = np.repeat([4, 4, 5, 9], [50, 3, 20, 40])

    def draw(seed: int, most: int = 10):
        rng = np.random.default_rng(seed)
        return draw_pixels(labels, regions, per_region=8, max_regions=most, rng=rng)

    rows = draw(0)
    groups = list(zip(labels[rows].tolist(), regions[rows].tolist(), strict=True))
    assert {g: groups.count(g) for g in set(groups)} == {(0, 4): 8, (1, 4): 3, (0, 9): 8}
    assert np.array_equal(rows, draw(0))
    assert not np.array_equal(rows, draw(1))
    assert np.array_equal(rows, np.sort(rows))
    assert count_regions(labels[draw(0, 1)], regions[draw(0, 1)], num_classes=2).tolist() == [1, 1]
    empty = np.zeros(0, dtype=int)
    rng = np.random.default_rng(0)
    assert len(draw_pixels(empty, empty, per_region=1, max_regions=1, rng=rng)) == 0
    assert count_regions(empty, empty, num_classes=2).tolist() == [0, 0]


def test_folds_keep_regions_whole_and_spread_classes():
    regions = np.repeat(np.arange(20) * 7, 4)
    labels = np.repeat(np.arange(4), 20)
    fold = region_folds(labels, regions, folds=5, rng=np.random.default_rng(0))
    for region in np.unique(regions):
        assert len(set(fold[regions == region])) == 1
    for label in range(4):
        assert set(fold[labels == label]) == set(range(5))
