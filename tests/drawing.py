"""Shapes that a person draws over regions of a made-up round."""

import geopandas
import numpy as np
from affine import Affine
from rasterio.features import geometry_mask
from review_factory import CELL, GRIDS, Asked
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry


def square(asked: Asked, number: int, left: float, top: float, side: float) -> Polygon:
    """A square in the file's CRS; left, top and side in pixels of a region's cell."""
    region = asked.regions[number]
    transform = GRIDS[region.scene_id][1] @ Affine.translation(
        region.cell.col_off + left, region.cell.row_off + top
    )
    corners = [(0, 0), (side, 0), (side, side), (0, side)]
    return Polygon([transform @ corner for corner in corners])


def inside(geometry: BaseGeometry, asked: Asked, number: int) -> np.ndarray:
    """Pixels (row, col) of a region's cell whose centre a polygon in the file's CRS holds."""
    region = asked.regions[number]
    transform = GRIDS[region.scene_id][1] @ Affine.translation(
        region.cell.col_off, region.cell.row_off
    )
    return geometry_mask([geometry], (CELL, CELL), transform, invert=True)


def added(geometry: Polygon, class_id: int | None, **values: object) -> dict[str, object]:
    return {"geometry": geometry, "assigned_class": class_id, **values}


def add(frame: geopandas.GeoDataFrame, *rows: dict[str, object]) -> None:
    for row in rows:
        frame.loc[frame.index.max() + 1] = {name: row.get(name) for name in frame.columns}
