"""GeoPackages that QGIS opens ready for work: layers, default styles, field domains, provenance."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geohsal.errors import DataError
from geohsal.geo.polygons import densify, reproject, to_map
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.atomic import unwritten
from geohsal.io.gpkg_extras import add_extras, one_time
from geohsal.io.review_schema import Kind, Layer

LONLAT = CRS.from_epsg(4326)
PIXEL_GRID = (
    'ENGCRS["Pixel grid",EDATUM["Scene"],CS[Cartesian,2],'
    'AXIS["x",east,ORDER[1]],AXIS["y",north,ORDER[2]],LENGTHUNIT["metre",1]]'
)
"""CRS of layers whose scene has none, so that QGIS asks for none."""

Item = TypeVar("Item")
Shape = TypeVar("Shape", Polygon, MultiPolygon)

_DTYPES: dict[Kind, tuple[Any, Any]] = {
    "text": (object, None),
    "int": (np.int32, 0),
    "big": (np.int64, 0),
    "real": (np.float64, np.nan),
    "bool": (np.bool_, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A layer and its rows; `crs` as GDAL reads it, `columns` by field name, None is NULL."""

    layer: Layer
    crs: str
    geometries: Sequence[BaseGeometry]
    columns: Mapping[str, Sequence[Any]]


@dataclass(slots=True, kw_only=True)
class RowList:
    """Rows of a layer as they are collected; fields without a value are NULL."""

    layer: Layer
    geometries: list[BaseGeometry] = field(default_factory=list)
    values: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, geometry: BaseGeometry, values: Mapping[str, Any]) -> None:
        """Append a row."""
        self.geometries.append(geometry)
        self.values.append(values)

    def table(self, crs: str) -> Table:
        """The rows as columns."""
        names = [item.name for item in self.layer.fields]
        columns = {name: [row.get(name) for row in self.values] for name in names}
        return Table(layer=self.layer, crs=crs, geometries=self.geometries, columns=columns)


def file_groups(scenes: Iterable[Scene]) -> list[tuple[str | None, list[Scene]]]:
    """Which scenes share a file: (None, all that lie on Earth), then (id, [local scene])."""
    ordered = sorted(scenes, key=lambda scene: scene.scene_id)
    earth = [scene for scene in ordered if not scene.local]
    groups: list[tuple[str | None, list[Scene]]] = [(None, earth)] if earth else []
    return groups + [(scene.scene_id, [scene]) for scene in ordered if scene.local]


def scene_tables(
    name: str,
    items: Sequence[tuple[Scene, Item]],
    *,
    layer: Callable[[str], Layer],
    add: Callable[[RowList, Item, Scene, CRS | None], None],
) -> list[Table]:
    """One layer of all that lies on Earth and one per local scene; an empty one without items.

    Args:
        name: of the first layer; the others append the id of their scene.
        items: in the order of their rows, each with its scene.
        layer: the layer of a name.
        add: appends what an item has to say, its geometries in the given CRS.
    """
    used = {scene.scene_id: scene for scene, _ in items}
    tables = []
    for local, group in file_groups(used.values()) or [(None, [])]:
        rows = RowList(layer=layer(f"{name}_{local}" if local else name))
        crs, own = common_crs(group), {scene.scene_id for scene in group}
        for scene, item in items:
            if scene.scene_id in own:
                add(rows, item, scene, crs)
        tables.append(rows.table(crs_text(crs, group)))
    return tables


def common_crs(scenes: Sequence[Scene]) -> CRS | None:
    """The one CRS of a file about these scenes: theirs if they share it, else EPSG:4326.

    Returns:
        None for a single local scene, whose layers lie on its own grid.

    Raises:
        DataError: a local scene shares the file with others.
    """
    local = [scene for scene in scenes if scene.local or scene.crs is None]
    if local and len(scenes) > 1:
        raise DataError(
            f"scene {local[0].scene_id} has no position on Earth and cannot share a layer with "
            "others; write one file per scene"
        )
    if local:
        return None
    first = scenes[0].crs if scenes else None
    return first if first and all(same_crs(scene.crs, first) for scene in scenes) else LONLAT


def same_crs(one: CRS | None, other: CRS | None) -> bool:
    """Whether two CRS are the same, also where only their EPSG codes tell."""
    if one is None or other is None:
        return one is other
    return bool(one == other) or one.to_epsg() == other.to_epsg() is not None


def map_transform(scene: Scene) -> Affine:
    """From (column, row) to the coordinates of layers about this scene.

    A scene without a transform is drawn by GIS software with its first row on top, at y = 0.
    """
    return Affine(1, 0, 0, 0, -1, 0) if scene.transform.is_identity else scene.transform


def place(polygon: Shape, scene: Scene, crs: CRS | None, *, window: Window) -> Shape:
    """A polygon in (column, row) of a window, moved to the CRS of a file.

    In another CRS it gets a vertex per pixel edge, so that it burns the same pixels.
    """
    moved = translate(polygon, window.col_off, window.row_off)
    if crs is None or scene.crs is None or same_crs(scene.crs, crs):
        return to_map([moved], map_transform(scene))[0]
    return reproject(to_map([densify(moved, 1.0)], scene.transform)[0], scene.crs, crs)


def crs_text(crs: CRS | None, scenes: Sequence[Scene] = ()) -> str:
    """What GDAL and QGIS are told: an EPSG code where there is one, else WKT."""
    if crs is None:
        own = scenes[0].crs if scenes else None
        return str(own.to_wkt()) if own else PIXEL_GRID
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def write_geopackage(
    path: Path,
    tables: Sequence[Table],
    *,
    classes: Sequence[ClassInfo],
    provenance: Mapping[str, Any],
) -> None:
    """Write a new file at `path` (not atomic: give it a part that is renamed afterwards).

    Raises:
        WriteError: the file cannot be written.
    """
    try:
        with one_time():
            for number, table in enumerate(tables):
                _write_layer(path, table, first=number == 0)
        with closing(sqlite3.connect(path)) as connection:
            add_extras(
                connection,
                [table.layer for table in tables],
                classes=classes,
                provenance=json.dumps(provenance, sort_keys=True, ensure_ascii=False),
            )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, sqlite3.Error) as error:
        raise unwritten(path, error) from error


def _write_layer(path: Path, table: Table, *, first: bool) -> None:
    layer = table.layer
    data = [_column(table.columns[field.name], field.kind) for field in layer.fields]
    pyogrio.raw.write(
        path,
        np.array(shapely.to_wkb(list(table.geometries)), dtype=object),
        [values for values, _ in data],
        [field.name for field in layer.fields],
        field_mask=[nulls for _, nulls in data],
        layer=layer.name,
        driver="GPKG",
        geometry_type="MultiPolygon",
        promote_to_multi=True,
        crs=table.crs,
        # GDAL 3.11 and later would write version 1.4, which older QGIS warns about; without UTC
        # times carry the writer's own offset
        dataset_options={"VERSION": "1.3", "DATETIME_FORMAT": "UTC"} if first else {},
        layer_options={
            "FID": "fid",
            "GEOMETRY_NAME": "geom",
            "SPATIAL_INDEX": "YES",
            "IDENTIFIER": layer.title,
            "DESCRIPTION": layer.description,
        },
    )


def _column(values: Sequence[Any], kind: Kind) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    dtype, filler = _DTYPES[kind]
    nulls = np.array([value is None for value in values], dtype=np.bool_)
    if kind == "text":
        return np.array(list(values), dtype=object), None
    filled = [filler if value is None else value for value in values]
    return np.array(filled, dtype=dtype), nulls
