"""The tile index of a run as GeoParquet: which tile lies where, in which split, how full."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely
from rasterio.windows import Window
from shapely.errors import GEOSException

from geohsal.errors import DataError
from geohsal.geo.scene import Tile
from geohsal.io.atomic import replacing

FORMAT_VERSION = 1
_BOX = ("row_off", "col_off", "height", "width")
_SCHEMA = pa.schema(
    [
        ("tile_id", pa.string()),
        ("scene_id", pa.string()),
        *((f"core_{name}", pa.int64()) for name in _BOX),
        *((f"window_{name}", pa.int64()) for name in _BOX),
        ("split", pa.string()),
        ("valid_share", pa.float64()),
        ("labelled_share", pa.float64()),
        ("footprint", pa.binary()),
    ]
)


def write_tiles(path: Path, tiles: Sequence[Tile]) -> None:
    """Write the index whole or not at all; the same tiles give the same bytes.

    Columns: tile_id, scene_id, core_* and window_* (row_off, col_off, height, width, in pixels),
    split, valid_share, labelled_share, footprint (WKB in EPSG:4326, null for local scenes).

    Raises:
        DataError: the folder cannot be written.
    """
    columns: dict[str, list[Any]] = {
        "tile_id": [tile.tile_id for tile in tiles],
        "scene_id": [tile.scene_id for tile in tiles],
        "split": [tile.split for tile in tiles],
        "valid_share": [tile.valid_share for tile in tiles],
        "labelled_share": [tile.labelled_share for tile in tiles],
        "footprint": [
            None if tile.footprint is None else shapely.to_wkb(tile.footprint) for tile in tiles
        ],
    }
    for name in _BOX:
        columns[f"core_{name}"] = [round(getattr(tile.core, name)) for tile in tiles]
        columns[f"window_{name}"] = [round(getattr(tile.window, name)) for tile in tiles]
    metadata = {"geo": json.dumps(_geo(tiles)), "format_version": str(FORMAT_VERSION)}
    table = pa.table(
        {name: columns[name] for name in _SCHEMA.names}, schema=_SCHEMA.with_metadata(metadata)
    )
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd")


def _geo(tiles: Sequence[Tile]) -> dict[str, Any]:
    """The `geo` metadata of GeoParquet 1.1."""
    outlines = [tile.footprint for tile in tiles if tile.footprint is not None]
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted({outline.geom_type for outline in outlines}),
        "crs": pyproj.CRS.from_epsg(4326).to_json_dict(),
    }
    if outlines:
        column["bbox"] = [float(value) for value in shapely.total_bounds(outlines)]
    return {"version": "1.1.0", "primary_column": "footprint", "columns": {"footprint": column}}


def read_tiles(path: Path) -> list[Tile]:
    """The tiles in the order they were written.

    Raises:
        DataError: the file is missing, damaged, not a tile index, or of a newer version.
    """
    try:
        table = pq.read_table(path)
        version = int((table.schema.metadata or {}).get(b"format_version", b"0"))
        rows = table.to_pylist() if version == FORMAT_VERSION else []
        tiles = [_tile(row) for row in rows]
    except (OSError, ValueError, KeyError, pa.ArrowException, GEOSException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read ({reason}); delete it and run geohsal tile again"
        ) from None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: a tile index of format {version or 'unknown'}, this geohsal reads "
            f"{FORMAT_VERSION}; delete it and run geohsal tile again"
        )
    return tiles


def _tile(row: dict[str, Any]) -> Tile:
    outline = row["footprint"]
    return Tile(
        tile_id=row["tile_id"],
        scene_id=row["scene_id"],
        core=_window(row, "core"),
        window=_window(row, "window"),
        split=row["split"],
        valid_share=row["valid_share"],
        labelled_share=row["labelled_share"],
        footprint=None if outline is None else shapely.from_wkb(outline),
    )


def _window(row: dict[str, Any], name: str) -> Window:
    return Window(
        row[f"{name}_col_off"], row[f"{name}_row_off"], row[f"{name}_width"], row[f"{name}_height"]
    )
