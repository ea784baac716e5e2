"""Editing rows of a GeoPackage in place, so that styles, domains and spatial index stay alive."""

import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geohsal.errors import DataError
from geohsal.io.gpkg_extras import now_text

_ENVELOPE_BYTES = (0, 32, 48, 48, 64)
_LITTLE_ENDIAN_WITH_ENVELOPE = 0b11
_HEADER = "<2sBBi4d"


@contextmanager
def editing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that may change feature tables; committed and compacted if the block succeeds.

    The triggers that keep the spatial index call functions that SQLite does not have; they are
    lent to it here.

    Raises:
        DataError: the database refuses.
    """
    try:
        with closing(sqlite3.connect(path)) as connection:
            for name, function in _FUNCTIONS.items():
                connection.create_function(name, 1, function, deterministic=True)
            with connection:
                yield connection
                connection.execute("UPDATE gpkg_contents SET last_change = ?", (now_text(),))
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be edited ({error})") from error


def encode(geometry: Polygon | MultiPolygon, *, srs_id: int) -> bytes:
    """A polygon as a GeoPackage stores it in a layer of multipolygons."""
    parts = [geometry] if isinstance(geometry, Polygon) else list(geometry.geoms)
    multi = MultiPolygon(parts)
    left, bottom, right, top = multi.bounds
    head = struct.pack(
        _HEADER, b"GP", 0, _LITTLE_ENDIAN_WITH_ENVELOPE, srs_id, left, right, bottom, top
    )
    return head + shapely.to_wkb(multi, byte_order=1)


def decode(blob: bytes) -> BaseGeometry:
    """The geometry in a GeoPackage blob."""
    return shapely.from_wkb(blob[8 + _ENVELOPE_BYTES[(blob[3] >> 1) & 0b111] :])


def srs_id(connection: sqlite3.Connection, layer: str) -> int:
    """Number by which the file knows a layer's CRS."""
    row = connection.execute(
        "SELECT srs_id FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
    ).fetchone()
    return int(row[0])


def _bound(index: int) -> Callable[[bytes | None], float | None]:
    def bound(blob: bytes | None) -> float | None:
        return None if blob is None else float(decode(blob).bounds[index])

    return bound


def _is_empty(blob: bytes | None) -> int | None:
    return None if blob is None else int(decode(blob).is_empty)


_FUNCTIONS: dict[str, Callable[[bytes | None], float | int | None]] = {
    "ST_IsEmpty": _is_empty,
    "ST_MinX": _bound(0),
    "ST_MinY": _bound(1),
    "ST_MaxX": _bound(2),
    "ST_MaxY": _bound(3),
}
