"""Superpixels: whole, of the size wanted, named by their core, the same whenever made."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

from geohsal.geo.scene import SceneMaps
from geohsal.geo.states import PixelState
from geohsal.query.cell_sums import CellSums
from geohsal.query.feature_sums import sum_features
from geohsal.query.layout import window_layout
from geohsal.query.regions import Candidates
from geohsal.query.superpixels import superpixel_layout, superpixels


@pytest.fixture(scope="module")
def scene() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Two fields with a slanted border, a little noise, a corner without data."""
    rows, cols = np.indices((64, 96))
    field = (cols + rows // 2 > 60).astype(np.float32)
    image = np.stack([field * 2 - 1, 1 - field, 0 * field])
    image += np.random.default_rng(0).normal(0, 0.05, image.shape)
    valid = np.ones((64, 96), dtype=bool)
    valid[50:, :20] = False
    return np.where(valid, image, 0).astype(np.float32), valid


def test_superpixels_cover_what_is_valid_and_follow_borders(
    scene: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    image, valid = scene
    numbers = superpixels(image, valid, region_px=16)
    np.testing.assert_array_equal(numbers > 0, valid)
    assert np.unique(numbers).tolist() == list(range(numbers.max() + 1))
    sizes = np.bincount(numbers[valid])[1:]
    assert 16 <= len(sizes) <= 32
    assert 150 < np.median(sizes) < 400
    rows, cols = np.indices(valid.shape)
    field = cols + rows // 2 > 60
    inside = np.array([field[numbers == n].mean() for n in range(1, len(sizes) + 1)])
    mixed = (np.minimum(inside, 1 - inside) * sizes).sum()
    assert mixed < 0.02 * valid.sum()  # squares of this size: about 8 %
    for number in range(1, len(sizes) + 1):
        assert ndimage.label(numbers == number, np.ones((3, 3)))[1] == 1
    np.testing.assert_array_equal(superpixels(image, valid, region_px=16), numbers)


def test_one_grey_field_is_cut_all_the_same() -> None:
    valid = np.ones((32, 32), dtype=bool)
    found = superpixels(np.zeros((3, 32, 32), dtype=np.float32), valid, region_px=16)
    sizes = np.bincount(found.ravel())
    assert len(sizes) == 5
    assert sizes[0] == 0
    assert np.abs(sizes[1:] - 256).max() < 40
    nothing = np.zeros((8, 8), dtype=bool)
    assert not superpixels(np.zeros((3, 8, 8), np.float32), nothing, region_px=4).any()


def test_the_layout_numbers_superpixels_within_their_core() -> None:
    numbers = np.array(
        [
            [1, 1, 0, 0, 4, 4],
            [1, 2, 0, 0, 4, 4],
            [2, 2, 3, 0, 4, 5],
        ],
        dtype=np.int32,
    )
    cores = [Window(0, 0, 2, 3), Window(2, 0, 2, 3), Window(4, 0, 2, 3)]
    layout = superpixel_layout(numbers, cores, region_px=4)
    assert len(layout) == layout.atoms == 5
    assert layout.row.tolist() == [0] * 5
    assert layout.col.tolist() == [0, 0, 2, 4, 4]
    assert layout.number.tolist() == [1, 2, 1, 1, 2]
    assert layout.size.tolist() == [3, 3, 1, 5, 1]
    boxes = np.column_stack([layout.top, layout.left, layout.height, layout.width])
    assert boxes.tolist() == [[0, 0, 2, 2], [1, 0, 2, 2], [2, 2, 1, 1], [0, 4, 3, 2], [2, 5, 1, 1]]


def test_a_core_without_superpixels_keeps_the_numbers_of_the_others() -> None:
    numbers = np.array([[0, 0, 1, 2]], dtype=np.int32)
    cores = [Window(0, 0, 2, 1), Window(2, 0, 1, 1), Window(3, 0, 1, 1)]
    layout = superpixel_layout(numbers, cores, region_px=4)
    assert layout.col.tolist() == [2, 3]
    assert layout.number.tolist() == [1, 1]
    nothing = superpixel_layout(numbers * 0, cores, region_px=4)
    assert len(nothing) == nothing.atoms == 0


@pytest.mark.parametrize("shape", [(8, 8), (20, 17), (3, 40), (9, 8)])
def test_windows_hold_every_pixel_and_none_lies_in_another(shape: tuple[int, int]) -> None:
    layout = window_layout(shape, region_px=8)
    covered = np.zeros(shape, dtype=int)
    boxes = list(zip(layout.top, layout.left, layout.height, layout.width, strict=True))
    for top, left, height, width in boxes:
        covered[top : top + height, left : left + width] += 1
    assert covered.min() >= 1
    assert covered.max() <= 4
    ends = [(t, left, t + h, left + w) for t, left, h, w in boxes]
    for one in ends:
        for other in ends:
            inside = one[0] >= other[0] and one[1] >= other[1]
            assert one == other or not (inside and one[2] <= other[2] and one[3] <= other[3])


def test_statistics_of_superpixels_are_those_of_their_pixels(
    make_maps: Callable[..., SceneMaps],
    scene: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    image, valid = scene
    numbers = superpixels(image, valid, region_px=16)
    layout = superpixel_layout(numbers, [Window(0, 0, 96, 64)], region_px=16)
    maps = make_maps((64, 96), seed=3)
    pool = (maps.state > PixelState.LABELLED) & valid
    features = np.random.default_rng(0).normal(size=(2, 64, 96)).astype(np.float32)

    def table(cuts: list[tuple[slice, slice]]) -> Candidates:
        sums = CellSums("north", layout, num_classes=3, num_features=2)
        for at in cuts:
            part = {f.name: getattr(maps, f.name)[at] for f in fields(SceneMaps)}
            sums.add(numbers[at] - 1, pool[at], maps=SceneMaps(**part))
            values = torch.from_numpy(np.ascontiguousarray(features[:, *at]))
            sums.add_features(sum_features(values, numbers[at] - 1, pool[at] & (numbers[at] > 0)))
        return sums.candidates(min_share=0.5)

    found = table([(slice(0, 64), slice(0, 96))])
    other = table([(slice(r, r + 32), slice(c, c + 48)) for c in (48, 0) for r in (0, 32)])
    for field in fields(Candidates):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(other, field.name))
    assert 10 < len(found) <= len(layout)
    for index in range(len(found)):
        own = (numbers == found.atom[index] + 1) & pool
        assert found.pixels[index] == own.sum() >= 0.5 * (numbers == found.atom[index] + 1).sum()
        assert found.score_sum[index] == pytest.approx(maps.undecided[own].sum(), abs=1e-3)
        np.testing.assert_allclose(found.features[index], features[:, own].mean(axis=1), atol=1e-5)
        assert found.region_id(index) == f"north-s16-r00000-c00000-{found.atom[index] + 1}"
        rows, cols = np.nonzero(numbers == found.atom[index] + 1)
        box = found.window(index)
        assert (box.row_off, box.col_off) == (rows.min(), cols.min())
        assert (box.height, box.width) == (np.ptp(rows) + 1, np.ptp(cols) + 1)
