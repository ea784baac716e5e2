"""Vector layers as geometries in a scene's pixel coordinates, with their feature ids."""

from dataclasses import dataclass
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geohsal.errors import GeoreferenceError, LabelError
from geohsal.geo.polygons import to_map, transformer_between
from geohsal.geo.scene import Scene
from geohsal.io.gdal import reason

LISTED = 10
"""Things that a message lists before it says how many more there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Features of one layer in the order of their ids; `values` is the field asked for."""

    name: str
    fids: tuple[int, ...]
    geometries: tuple[BaseGeometry | None, ...]
    values: tuple[Any, ...]
    crs: pyproj.CRS | None


def layer_names(path: str, *, where: str) -> list[str]:
    """Layers with a geometry.

    Raises:
        LabelError: the file is missing or no vector file.
    """
    try:
        listed = pyogrio.list_layers(path)
    except (DataSourceError, OSError) as error:
        raise LabelError(f"{where}: cannot be read ({_short(error)})") from None
    return [str(name) for name, kind in listed if kind is not None]


def field_names(path: str, layer: str, *, where: str) -> list[str]:
    """Names of a layer's fields, in its order.

    Raises:
        LabelError: the layer cannot be read.
    """
    try:
        return [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]
    except (DataSourceError, OSError, ValueError) as error:
        raise LabelError(f"{where}: layer {layer!r} cannot be read ({_short(error)})") from None


def read_layer(path: str, *, layer: str, field: str | None, where: str) -> Layer:
    """All features of a layer, with the values of one field.

    Raises:
        LabelError: the layer cannot be read.
    """
    try:
        frame = pyogrio.read_dataframe(
            path, layer=layer, columns=[] if field is None else [field], fid_as_index=True
        )
    except (DataSourceError, OSError, ValueError) as error:
        raise LabelError(f"{where}: layer {layer!r} cannot be read ({_short(error)})") from None
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise LabelError(f"{where}: layer {layer!r} has no geometry")
    frame = frame.sort_index()
    return Layer(
        name=layer,
        fids=tuple(int(fid) for fid in frame.index),
        geometries=tuple(frame.geometry.array),
        values=(None,) * len(frame) if field is None else tuple(frame[field].tolist()),
        crs=frame.crs,
    )


def _short(error: Exception) -> str:
    return reason(error).partition("; It might help")[0]


def defect(geometry: BaseGeometry | None) -> str | None:
    """Why a geometry cannot stand for pixels; None where it can."""
    if geometry is None or geometry.is_empty:
        return "no geometry"
    if geometry.geom_type not in ("Polygon", "MultiPolygon"):
        return f"a {geometry.geom_type}, not a polygon"
    if not geometry.is_valid:
        return f"invalid geometry ({shapely.is_valid_reason(geometry).partition('[')[0].strip()})"
    return None


def listing(items: list[str], *, separator: str = "; ") -> str:
    """The first items, and how many more there are."""
    more = f"{separator}and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return separator.join(items[:LISTED]) + more


def to_pixels(
    geometries: list[BaseGeometry], crs: pyproj.CRS | None, scene: Scene, *, where: str
) -> list[BaseGeometry]:
    """Geometries moved to (column, row) of a scene; empty where they have no position there.

    Edges are cut into short pieces before they change CRS, so that long straight lines stay on
    the same ground.

    Raises:
        LabelError: the layer has no CRS but the scene has one, or the other way round.
        GeoreferenceError: there is no way between the two CRS.
    """
    source = None if crs is None or crs.is_engineering else CRS.from_wkt(crs.to_wkt())
    if source is not None and scene.local and source != scene.crs:
        raise LabelError(
            f"{where}: lies in {source.to_string()[:60]}, but the scene is a pixel grid without a "
            "position; draw it in the scene's own coordinates, without a CRS"
        )
    if source is None and not scene.local:
        raise LabelError(f"{where}: has no CRS; assign the one it was drawn in (QGIS: Set CRS)")
    if source is not None and scene.crs is not None:
        try:
            geometries = _reprojected(geometries, source, scene.crs)
        except GeoreferenceError as error:
            raise GeoreferenceError(f"{where}: {error}") from None
    return to_map(geometries, ~scene.transform)


def _reprojected(geometries: list[BaseGeometry], source: CRS, target: CRS) -> list[BaseGeometry]:
    if source == target or not geometries:
        return geometries
    transformer = transformer_between(source, target)

    def apply(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    array = np.array(geometries, dtype=object)
    left, bottom, right, top = shapely.total_bounds(array)
    step = max(right - left, top - bottom) / 256
    moved = shapely.transform(shapely.segmentize(array, step) if step > 0 else array, apply)
    return [_sound(geometry) for geometry in moved]


def _sound(geometry: BaseGeometry) -> BaseGeometry:
    """Empty where a vertex left the CRS; repaired where rounding made edges cross."""
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        return shapely.Polygon()
    return geometry if geometry.is_valid else shapely.make_valid(geometry, method="structure")
