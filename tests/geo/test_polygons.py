import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS
from scipy import ndimage
from shapely.geometry import Polygon, box

from geohsal.errors import GeoreferenceError
from geohsal.geo.polygons import burn, densify, mask_to_multipolygon, polygonize, reproject

WGS84 = CRS.from_epsg(4326)
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
CODES = hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 3))
MASKS = hnp.arrays(np.bool_, SHAPES)
GRIDS = st.sampled_from(
    [
        (Affine(30.0, 0.0, 301_905.0, 0.0, -30.0, 4_154_085.0), 32612),
        (Affine(0.5, 0.0, 470_000.25, 0.0, -0.5, 5_780_000.75), 32632),
        (Affine(10.0, 0.0, 4_321_000.0, 0.0, 10.0, 3_210_000.0), 3035),  # south-up
        (Affine(3.0, 1.5, 987_000.0, 1.5, -3.0, 200_000.0), 2263),  # rotated, in feet
        (Affine(100.0, 0.0, -20_000.0, 0.0, -100.0, 30_000.0), 3031),
        (Affine(1e-4, 0.0, 13.4, 0.0, -1e-4, 52.5), 4258),
    ]
)


@given(CODES, GRIDS)
def test_polygons_are_the_patches_and_burn_back(codes, grid):
    transform, _ = grid
    polygons = polygonize(codes, transform=transform)
    patches = sum(ndimage.label(codes == code)[1] for code in np.unique(codes))
    assert len(polygons) == patches
    assert all(isinstance(polygon, Polygon) and polygon.is_valid for _, polygon in polygons)
    burnt = burn(
        [(polygon, code) for code, polygon in polygons],
        transform=transform,
        shape=codes.shape,
        fill=255,
        dtype=np.uint8,
    )
    np.testing.assert_array_equal(burnt, codes)


@given(MASKS, GRIDS)
def test_mask_becomes_a_valid_multipolygon_of_its_area(mask, grid):
    transform, _ = grid
    outline = mask_to_multipolygon(mask, transform=transform)
    assert outline.geom_type == "MultiPolygon"
    assert outline.is_valid
    assert outline.area == pytest.approx(mask.sum() * abs(transform.determinant), rel=1e-6)
    burnt = burn([(outline, 1)], transform=transform, shape=mask.shape, fill=0)
    np.testing.assert_array_equal(burnt == 1, mask)


@settings(max_examples=60)
@given(MASKS, GRIDS, st.booleans())
def test_pixels_survive_the_way_through_longitude_and_latitude(mask, grid, dense):
    transform, epsg = grid
    crs = CRS.from_epsg(epsg)
    outline = mask_to_multipolygon(mask, transform=transform)
    if dense:
        outline = densify(outline, 2.5 * abs(transform.determinant) ** 0.5)
    back = reproject(reproject(outline, crs, WGS84), WGS84, crs)
    burnt = burn([(back, 1)], transform=transform, shape=mask.shape, fill=0)
    np.testing.assert_array_equal(burnt == 1, mask)


def test_two_holes_that_touch_at_a_corner_stay_one_valid_polygon():
    codes = np.zeros((5, 5), dtype=np.uint8)
    codes[1, 1] = codes[2, 2] = codes[1, 3] = 1
    outer = [
        polygon for code, polygon in polygonize(codes, transform=Affine.identity()) if not code
    ]
    assert len(outer) == 1
    assert outer[0].is_valid
    assert outer[0].area == 22


def test_mask_leaves_pixels_out():
    codes = np.ones((2, 3), dtype=np.int32)
    mask = np.array([[True, False, True], [False, False, True]])
    polygons = polygonize(codes, transform=Affine.identity(), mask=mask)
    assert sorted(polygon.area for _, polygon in polygons) == [1.0, 2.0]
    assert polygonize(codes, transform=Affine.identity(), mask=np.zeros_like(mask)) == []


def test_sieve_joins_small_patches_to_the_largest_neighbour():
    codes = np.zeros((6, 6), dtype=np.uint8)
    codes[2, 2] = 1
    codes[4:, 4:] = 2
    found = polygonize(codes, transform=Affine.identity(), sieve_px=3)
    assert sorted(code for code, _ in found) == [0, 2]
    alone = polygonize(codes, transform=Affine.identity(), sieve_px=1000)
    assert len(alone) == 3, "no neighbour is that large: nothing to join"


def test_int32_codes_beyond_a_byte_are_kept():
    codes = np.array([[70_000, 70_001]], dtype=np.int32)
    assert [code for code, _ in polygonize(codes, transform=Affine.identity())] == [70_000, 70_001]


def test_later_shapes_win_and_centres_decide():
    burnt = burn(
        [(box(0, 0, 2, 2), 5), (box(1.4, 0, 3, 0.6), 9), (Polygon(), 7)],
        transform=Affine.identity(),
        shape=(2, 3),
        fill=-1,
    )
    np.testing.assert_array_equal(burnt, [[5, 9, 9], [5, 5, -1]])
    assert burnt.dtype == np.int32


def test_burning_nothing_gives_the_fill_value():
    empty = burn([], transform=Affine.identity(), shape=(2, 2), fill=255, dtype=np.uint8)
    np.testing.assert_array_equal(empty, np.full((2, 2), 255, dtype=np.uint8))
    assert empty.dtype == np.uint8
    assert burn([(box(0, 0, 1, 1), 1)], transform=Affine.identity(), shape=(0, 3), fill=0).size == 0


def test_densify_adds_points_but_no_area():
    outline = densify(box(0, 0, 10, 10), 1.0)
    assert len(outline.exterior.coords) == 41
    assert outline.area == 100


def test_a_position_that_does_not_exist_is_named():
    with pytest.raises(GeoreferenceError, match="has no position in EPSG:3857; check its CRS"):
        reproject(box(0, 91, 1, 92), WGS84, CRS.from_epsg(3857))


def test_same_crs_is_left_alone():
    outline = box(0, 0, 1, 1)
    assert reproject(outline, WGS84, WGS84) is outline
    assert shapely.equals_exact(reproject(outline, WGS84, CRS.from_epsg(4258)), outline, 1e-9)
