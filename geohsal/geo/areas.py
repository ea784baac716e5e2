"""Ground area of pixels and cells, in square metres, for any CRS that lies on Earth.

Outlines are projected to an equal-area projection on the scene's own ellipsoid: Lambert azimuthal
for projected scenes, Lambert cylindrical for scenes in longitude and latitude (there a cell is an
exact rectangle). Scale distortion and units (feet, degrees) of the scene's CRS drop out.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import GeoreferenceError
from geohsal.geo.scene import Scene
from geohsal.geo.tiling import map_outlines

EDGE_POINTS = 4


def pixel_area_m2(scene: Scene) -> float | None:
    """Ground area of the pixel in the middle of the scene; None for local scenes."""
    middle = Window(scene.width // 2, scene.height // 2, 1, 1)
    areas = cell_areas_m2(scene, [middle])
    return None if areas is None else float(areas[0])


def region_area_m2(scene: Scene, cell: Window, mask: NDArray[np.bool_]) -> float | None:
    """Ground area of the True pixels of a cell: the cell's area times their share.

    Returns:
        Square metres; None for local scenes.
    """
    areas = cell_areas_m2(scene, [cell])
    return None if areas is None else float(areas[0] * mask.mean())


def cell_areas_m2(scene: Scene, cells: Sequence[Window]) -> NDArray[np.float64] | None:
    """Ground areas of many cells at once; None for local scenes.

    Raises:
        GeoreferenceError: a cell lies outside the area where the scene's CRS is defined.
    """
    if scene.local or scene.crs is None:
        return None
    outlines = map_outlines(scene, cells, edge_points=EDGE_POINTS)
    x, y = _equal_area(scene).transform(outlines[..., 0], outlines[..., 1])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise GeoreferenceError(
            f"scene {scene.scene_id}: a cell has no position on Earth in {scene.crs.to_string()}; "
            "check the CRS and the transform"
        )
    x = x - x[:, :1]
    y = y - y[:, :1]
    crossed = x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y
    areas: NDArray[np.float64] = np.abs(crossed.sum(axis=1)) / 2.0
    return areas


def _equal_area(scene: Scene) -> pyproj.Transformer:
    assert scene.crs is not None
    x, y = map_outlines(scene, [scene.extent], edge_points=1)[0].mean(axis=0).tolist()
    return _equal_area_at(scene.crs.to_wkt(version="WKT2_2019"), x, y)


@lru_cache(maxsize=64)
def _equal_area_at(wkt: str, x: float, y: float) -> pyproj.Transformer:
    source = pyproj.CRS.from_wkt(wkt)
    ellipsoid = source.ellipsoid
    if ellipsoid is None:
        raise GeoreferenceError(
            f"CRS {source.name} has no ellipsoid, so no ground area; set crs: local in the manifest"
        )
    lon, lat = _to_degrees(source, x, y)
    axes = f"+a={ellipsoid.semi_major_metre!r} +b={ellipsoid.semi_minor_metre!r}"
    method = "cea" if source.is_geographic else f"laea +lat_0={lat!r}"
    target = f"+proj={method} +lon_0={lon!r} {axes} +over +units=m +no_defs +type=crs"
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _to_degrees(source: pyproj.CRS, x: float, y: float) -> tuple[float, float]:
    geodetic = source.geodetic_crs
    assert geodetic is not None
    to_geodetic = pyproj.Transformer.from_crs(source, geodetic, always_xy=True)
    lon, lat = to_geodetic.transform(x, y)
    if not (np.isfinite(lon) and np.isfinite(lat)):
        raise GeoreferenceError(
            f"the point {x:.6g}, {y:.6g} has no position on Earth in {source.name}; "
            "check the CRS and the transform"
        )
    degrees = np.degrees(geodetic.axis_info[0].unit_conversion_factor)
    return float(lon * degrees), float(lat * degrees)
