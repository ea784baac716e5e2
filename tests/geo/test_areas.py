import time

import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.errors import GeoreferenceError
from geohsal.geo.areas import cell_areas_m2, pixel_area_m2, region_area_m2
from geohsal.geo.scene import Scene
from geohsal.geo.tiling import map_outlines


def scene(crs: str | int | None, transform: Affine, *, side: int = 1000) -> Scene:
    return Scene(
        scene_id="north",
        crs=None if crs is None else CRS.from_user_input(crs),
        transform=transform,
        height=side,
        width=side,
        bands=("red",),
        local=crs is None,
    )


def geodesic(target: Scene, cell: Window) -> float:
    """Ground area by many geodesics around the cell (Karney 2013), independent of our path."""
    assert target.crs is not None
    crs = pyproj.CRS.from_wkt(target.crs.to_wkt())
    outline = map_outlines(target, [cell], edge_points=256)[0]
    geodetic = crs.geodetic_crs
    lon, lat = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True).transform(*outline.T)
    degrees = np.degrees(geodetic.axis_info[0].unit_conversion_factor)
    area, _ = crs.get_geod().polygon_area_perimeter(
        np.asarray(lon) * degrees, np.asarray(lat) * degrees
    )
    return abs(area)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (32612, Affine(30, 0, 301_905, 0, -30, 4_154_085)),
        (2263, Affine(1, 0, 987_000, 0, -1, 200_000)),  # US survey feet
        (3857, Affine(10, 0, 1e6, 0, -10, 8e6)),  # scale 1.9
        (3031, Affine(1000, 0, -5e5, 0, -1000, 5e5)),  # around the pole
        (3035, Affine(7, 3, 4_321_000, 3, 7, 3_210_000)),  # rotated, south-up
        (4326, Affine(0.001, 0, 13.0, 0, -0.001, 60.0)),
        (4326, Affine(0.001, 0, 179.7, 0, -0.001, -10.0)),  # across the antimeridian
        (4807, Affine(0.01, 0, 1.0, 0, -0.01, 54.0)),  # grads from Paris
        ("EPSG:25832+5783", Affine(10, 0, 5e5, 0, -10, 5.3e6)),  # with a height system
    ],
)
def test_areas_are_true_ground_areas(crs, transform):
    target = scene(crs, transform)
    for cell in (Window(480, 490, 32, 24), Window(0, 0, 32, 32), Window(990, 5, 10, 1)):
        areas = cell_areas_m2(target, [cell])
        assert areas is not None
        assert areas[0] == pytest.approx(geodesic(target, cell), rel=1e-6)


def test_nominal_pixel_size_is_not_believed():
    mercator = scene(3857, Affine(10, 0, 1e6, 0, -10, 8e6))
    assert pixel_area_m2(mercator) == pytest.approx(28.0, abs=0.1)
    feet = scene(2263, Affine(1, 0, 987_000, 0, -1, 200_000))
    assert pixel_area_m2(feet) == pytest.approx(0.3048**2, rel=1e-3)


def test_region_area_is_the_share_of_its_pixels():
    target = scene(32612, Affine(30, 0, 301_905, 0, -30, 4_154_085))
    mask = np.zeros((32, 32), dtype=bool)
    mask[:8] = True
    cell = Window(64, 32, 32, 32)
    whole = region_area_m2(target, cell, np.ones_like(mask))
    assert whole == pytest.approx(32 * 32 * 900, rel=1e-3)
    assert region_area_m2(target, cell, mask) == pytest.approx(whole / 4)


def test_local_scenes_have_no_area():
    target = scene(None, Affine.identity())
    assert pixel_area_m2(target) is None
    assert cell_areas_m2(target, [Window(0, 0, 2, 2)]) is None
    assert region_area_m2(target, Window(0, 0, 2, 2), np.ones((2, 2), dtype=bool)) is None


def test_a_place_outside_the_crs_is_named():
    with pytest.raises(GeoreferenceError, match="no position on Earth"):
        pixel_area_m2(scene(3035, Affine(10, 0, 1e30, 0, -10, 1e30)))


def test_many_cells_are_fast():
    target = scene(32612, Affine(30, 0, 301_905, 0, -30, 4_154_085), side=10_240)
    cells = [Window(c, r, 32, 32) for r in range(0, 3200, 32) for c in range(0, 3200, 32)]
    start = time.process_time()
    areas = cell_areas_m2(target, cells)
    assert areas is not None
    assert areas.shape == (10_000,)
    assert time.process_time() - start < 2.0
