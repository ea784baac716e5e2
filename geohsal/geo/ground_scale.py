"""How long a row of pixels is on the ground, for a scale bar."""

import math

import numpy as np
import pyproj
from rasterio.windows import Window

from geohsal.geo.scene import Scene
from geohsal.geo.tiling import map_outlines

BAR_SHARE = 0.3
"""Part of the width that a scale bar may take."""


def column_step_m(scene: Scene) -> float | None:
    """Ground distance of neighbouring pixels of the middle row, in metres; None for local scenes.

    Geodesic, so that neither the projection's scale nor the CRS's unit matters. None too where the
    CRS says nothing about the middle of the scene.
    """
    if scene.local or scene.crs is None:
        return None
    crs = pyproj.CRS.from_wkt(scene.crs.to_wkt(version="WKT2_2019"))
    geodetic, geod = crs.geodetic_crs, crs.get_geod()
    if geodetic is None or geod is None:
        return None
    middle = Window(scene.width // 2, scene.height // 2, 1, 1)
    ring = map_outlines(scene, [middle], edge_points=1)[0]  # corners: the first two lie in a row
    to_geodetic = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    lon, lat = to_geodetic.transform(ring[:2, 0], ring[:2, 1])
    factor = np.degrees(geodetic.axis_info[0].unit_conversion_factor)
    lon, lat = np.asarray(lon) * factor, np.asarray(lat) * factor
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    _, _, metres = geod.inv(lon[0], lat[0], lon[1], lat[1])
    return float(metres) if metres > 0 else None


def bar_metres(width_m: float) -> float:
    """The longest of 1, 2, 5, 10, ... metres (or parts) that fits into `BAR_SHARE` of a width."""
    most = BAR_SHARE * width_m
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (5, 2, 1, 0.5) if step * power <= most)
