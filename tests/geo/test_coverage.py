"""Strips of codes as seamless polygons, beside those of GDAL for the whole raster."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from geohsal.geo.coverage import Strip, affine_move, cover, to_polygons
from geohsal.geo.polygons import sieve

CODES = npst.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)
)


def strips(codes: NDArray[Any], rows: int) -> Iterator[Strip]:
    for top in range(0, len(codes), rows):
        bottom = min(top + rows, len(codes))
        yield Strip(
            top=top,
            codes=codes[top:bottom],
            before=codes[top - 1] if top else None,
            after=codes[bottom] if bottom < len(codes) else None,
            values=[codes[top:bottom].astype(float)],
            kind=codes[top:bottom],
            kinds=5,
        )


def covered(
    codes: NDArray[Any], rows: int, *, simplify_px: float = 0.0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(codes, sums, polygons) of a raster cut into strips."""
    found = list(cover(strips(codes, rows), weight=lambda row, col: row, simplify_px=simplify_px))
    polygons = [to_polygons(part.rings) for part in found if part.codes.size]
    return (
        np.concatenate([part.codes for part in found]),
        np.concatenate([part.sums for part in found]),
        np.concatenate([np.zeros(0, dtype=object), *polygons]),
    )


def as_set(codes: Any, polygons: Any) -> list[tuple[int, bytes]]:
    """Polygons by code and outline, whatever their order, first vertex or extra vertices."""
    tidy = shapely.normalize(shapely.simplify(shapely.normalize(polygons), 0))
    return sorted(zip(map(int, codes), shapely.to_wkb(shapely.normalize(tidy)), strict=True))


@given(codes=CODES, rows=st.integers(1, 13))
@settings(max_examples=200)
def test_strips_give_the_polygons_of_the_whole(codes: NDArray[np.uint8], rows: int) -> None:
    found, sums, polygons = covered(codes, rows)
    whole = [
        (int(code), shapely.make_valid(shapely.geometry.shape(outline)))
        for outline, code in shapes(codes, mask=codes > 0, connectivity=4)
    ]
    expected = np.array([polygon for _, polygon in whole], dtype=object)
    assert as_set(found, polygons) == as_set([code for code, _ in whole], expected)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.area(polygons).tolist() == sums[:, 0].tolist()


@given(codes=CODES, rows=st.integers(1, 13), tolerance=st.sampled_from([0.5, 1.0, 2.5]))
@settings(max_examples=200)
def test_simplified_strips_still_fit(codes: NDArray[np.uint8], rows: int, tolerance: float) -> None:
    exact, simple = covered(codes, rows), covered(codes, rows, simplify_px=tolerance)
    assert np.array_equal(exact[0], simple[0])
    assert shapely.is_valid(simple[2]).all()
    assert not shapely.is_empty(simple[2]).any()
    assert shapely.coverage_is_valid(simple[2])
    union = shapely.union_all(simple[2])
    assert union.area == pytest.approx(shapely.area(simple[2]).sum())


@given(codes=CODES, rows=st.integers(1, 13))
def test_sums_are_those_of_the_pixels(codes: NDArray[np.uint8], rows: int) -> None:
    found, sums, _ = covered(codes, rows)
    image, total = np.zeros(codes.shape, int), 0
    for code in (1, 2, 3):
        parts, count = ndimage.label(codes == code)
        image[parts > 0] = parts[parts > 0] + total
        total += count
    row = np.arange(len(codes))[:, None] * np.ones(codes.shape)
    numbers = np.arange(1, total + 1)
    expected = np.stack(
        [ndimage.sum(v, image, numbers) for v in (np.ones(codes.shape), row, codes)], axis=-1
    ).reshape(-1, 3)
    assert sorted(map(tuple, sums[:, :3])) == sorted(map(tuple, expected))
    kinds = np.zeros((len(found), 5))
    kinds[np.arange(len(found)), found] = sums[:, 0]
    assert np.array_equal(sums[:, 3:], kinds)


def noisy(size: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    fields = ndimage.gaussian_filter(rng.normal(size=(4, size, size)), (0, 5, 5))
    codes = (fields.argmax(0) + 1).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.02] = 0
    return codes


@pytest.mark.parametrize("rows", [7, 64, 300])
def test_a_larger_map_has_no_gap_or_seam(rows: int) -> None:
    codes = noisy(300)
    codes = sieve(codes, mask=codes > 0, size_px=6)
    found, _, polygons = covered(codes, rows, simplify_px=1.0)
    assert shapely.coverage_is_valid(polygons)
    whole = covered(codes, 300)
    assert len(found) == len(whole[0])
    assert shapely.get_num_interior_rings(polygons).sum() == (
        shapely.get_num_interior_rings(whole[2]).sum()
    )
    # no outline follows a seam for longer than those of the exact polygons do
    for seam in range(rows, 300, rows):
        line = shapely.LineString([(0, seam), (300, seam)])
        drawn, exact = (
            shapely.length(shapely.intersection(shapely.boundary(p), line)).sum()
            for p in (polygons, whole[2])
        )
        assert drawn <= exact


def test_one_patch_around_all_others() -> None:
    codes = np.full((40, 30), 1, np.uint8)
    codes[1:-1:2, 1:-1:2] = 2
    found, _, polygons = covered(codes, 3)
    [large] = polygons[found == 1]
    assert len(large.interiors) == (found == 2).sum() == 19 * 14
    assert large.is_valid


def test_memory_holds_a_strip_and_open_patches_only() -> None:
    codes = np.indices((60, 40)).sum(0).astype(np.uint8) % 2 + 1  # a chessboard: nothing stays open
    released = [part.codes.size for part in cover(strips(codes, 6), weight=lambda row, _: row)]
    assert released == [6 * 40 - 40, *[6 * 40] * 8, 6 * 40 + 40]


@given(codes=CODES, step=st.sampled_from([0.7, 1.0, 5.0]))
def test_neighbours_get_the_same_vertices_where_lines_are_cut(
    codes: NDArray[np.uint8], step: float
) -> None:
    turn = affine_move(Affine.rotation(20) @ Affine.scale(0.1, -0.1))
    for part in cover(strips(codes, 4), weight=lambda row, _: row, simplify_px=1.0):
        if not part.codes.size:
            continue
        polygons = to_polygons(part.rings, move=turn, step_px=step)
        plain = to_polygons(part.rings)
        longest = max(
            np.hypot(*np.diff(shapely.get_coordinates(ring), axis=0).T).max()
            for ring in shapely.get_rings(polygons)
        )
        assert longest <= 0.1 * step + 1e-9
        assert shapely.area(polygons) == pytest.approx(0.01 * shapely.area(plain))
        edges: dict[frozenset[tuple[float, float]], int] = {}
        for ring in shapely.get_rings(polygons):
            points = [tuple(point) for point in shapely.get_coordinates(ring)]
            for pair in pairwise(points):
                edges[frozenset(pair)] = edges.get(frozenset(pair), 0) + 1
        assert shapely.coverage_is_valid(polygons)
        assert set(edges.values()) <= {1, 2}
