"""Reading GeoPackages that a person has worked on: always a settled copy, never the file itself.

Layers and fields are found whatever their case, the geometry and id columns whatever their name,
and further columns do not matter: other software shouts, renames and adds.
"""

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from geohsal.errors import ReviewError
from geohsal.io.atomic import unwritten
from geohsal.io.gpkg_extras import PROVENANCE
from geohsal.io.review_schema import ANSWERS, REGIONS

SIDECARS = ("-wal", "-shm", "-journal")
"""Files that SQLite keeps beside a database that is open or was not closed cleanly."""

_MAGIC = b"SQLite format 3\x00"
_WRITE_VERSION = 18
"""Place in an SQLite header; 2 there means write-ahead logging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A layer as it stands: columns by field name, None for NULL, in the order of `fids`.

    A whole-number column may hold text or fractions, where a person or program put them; a
    geometry that cannot be read is None, its id is in `damaged`.
    """

    layer: str
    crs: CRS | None
    fids: tuple[int, ...]
    geometries: tuple[BaseGeometry | None, ...]
    columns: dict[str, list[Any]]
    damaged: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.fids)


@contextmanager
def settled_copy(path: Path) -> Iterator[Path]:
    """A copy with all saved edits in one file, also where QGIS left a -wal or -journal behind.

    Raises:
        ReviewError: there is no such file, it is no GeoPackage, or a program is writing to it.
        WriteError: the folder of temporary files is full.
    """
    _require_sqlite(path)
    _refuse_locked(path)
    with tempfile.TemporaryDirectory(prefix="geohsal-review-") as folder:
        copy = Path(folder) / "review.gpkg"
        try:
            shutil.copyfile(path, copy)
            for suffix in SIDECARS[::2]:  # -shm is rebuilt from -wal
                beside = path.with_name(path.name + suffix)
                if beside.exists():
                    shutil.copyfile(beside, copy.with_name(copy.name + suffix))
        except OSError as error:
            raise unwritten(copy, error) from None
        try:
            with closing(sqlite3.connect(copy)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("SELECT table_name FROM gpkg_contents").fetchall()
        except sqlite3.Error as error:
            raise ReviewError(f"{path}: not a readable GeoPackage ({error})") from None
        yield copy


def _require_sqlite(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except OSError as error:
        raise ReviewError(f"{path}: cannot be read ({error.strerror or error})") from None
    if head != _MAGIC:
        raise ReviewError(f"{path}: not a GeoPackage; give the reviewed .gpkg of this round")


def _refuse_locked(path: Path) -> None:
    """A program in the middle of an edit holds a lock, unless it keeps a log beside the file."""
    with path.open("rb") as stream:
        head = stream.read(_WRITE_VERSION + 1)
    if head[_WRITE_VERSION : _WRITE_VERSION + 1] == b"\x02" or is_open(path):
        return
    try:
        address = f"file:{quote(str(path.resolve()))}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=0.2)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise ReviewError(
                f"{path}: another program is writing to it; save the edits, close it there (QGIS) "
                "and try again"
            ) from None
    except sqlite3.Error:
        pass  # whatever else is wrong shows when the copy is read


def is_open(path: Path) -> bool:
    """Whether SQLite keeps files beside it: open in a program, or not closed cleanly."""
    return any(path.with_name(path.name + suffix).exists() for suffix in SIDECARS)


def layer_names(path: Path, *, where: Path) -> list[str]:
    """Names of the layers of a vector file; `where` is the name used in messages.

    Raises:
        ReviewError: it cannot be read.
    """
    with reading("", where=where):
        return [str(name) for name in pyogrio.list_layers(path)[:, 0]]


def field_names(path: Path, layer: str, *, where: Path) -> list[str]:
    """Names of the fields of a layer; `where` is the name used in messages.

    Raises:
        ReviewError: there is no such layer, or it cannot be read.
    """
    with reading(layer, where=where):
        return [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]


def read_rows(copy: Path, layer: str, *, fields: Sequence[str], where: Path) -> Rows:
    """The rows of a layer of a settled copy; `where` is the name used in messages.

    Raises:
        ReviewError: the layer or a field is missing, or the file is damaged.
    """
    layers = {name.lower(): name for name in layer_names(copy, where=where)}
    real = layers.get(layer, layer)
    with reading(layer, where=where):
        meta, fids, geometry, data = pyogrio.raw.read(copy, layer=real, return_fids=True)
    columns = dict(zip([name.lower() for name in meta["fields"]], data, strict=True))
    missing = [name for name in fields if name not in columns]
    if missing:
        found = ", ".join(columns) or "none"
        raise ReviewError(
            f"{where}: layer {layer} has no field {', '.join(missing)} (found: {found})"
        )
    numbers = tuple(int(fid) for fid in fids)
    geometries, damaged = _geometries(geometry, numbers)
    values = {name: [_plain(value) for value in columns[name]] for name in fields}
    place = {fid: number for number, fid in enumerate(numbers)}
    for fid, name, value in _words_in_numbers(copy, meta, fields, layer=real, where=where):
        values[name][place[fid]] = value
    return Rows(
        layer=layer,
        crs=_crs(meta["crs"], where=where),
        fids=numbers,
        geometries=geometries,
        columns=values,
        damaged=damaged,
    )


@contextmanager
def reading(layer: str, *, where: Path) -> Iterator[None]:
    """Turn GDAL's errors on a layer of a review file into geohsal's."""
    try:
        yield
    except pyogrio.errors.DataLayerError:
        raise ReviewError(f"{where}: no layer {layer}; give the file as it was written") from None
    except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError, sqlite3.Error) as error:
        reason = " ".join(str(error).split())
        short = reason if len(reason) <= 160 else f"{reason[:60]} ... {reason[-90:]}"
        raise ReviewError(f"{where}: cannot be read ({short}); restore it from a copy") from None


def _words_in_numbers(
    copy: Path, meta: dict[str, Any], fields: Sequence[str], *, layer: str, where: Path
) -> Iterator[tuple[int, str, Any]]:
    """SQLite keeps any value in any column, and GDAL would read a word in a whole number as 0."""
    whole = {
        name.lower(): name
        for name, dtype in zip(meta["fields"].tolist(), meta["dtypes"].tolist(), strict=True)
        if dtype.startswith("int")
    }
    with reading(layer, where=where), closing(sqlite3.connect(copy)) as connection:
        for name in fields:
            if name not in whole:
                continue
            rows = connection.execute(
                f'SELECT rowid, "{whole[name]}" FROM "{layer}" '
                f"WHERE typeof(\"{whole[name]}\") NOT IN ('integer', 'null')"
            )
            yield from ((int(fid), name, value) for fid, value in rows)


def _crs(text: str | None, *, where: Path) -> CRS | None:
    try:
        return CRS.from_user_input(text) if text else None
    except CRSError as error:
        raise ReviewError(f"{where}: its CRS cannot be understood ({error})") from None


def _geometries(
    blobs: NDArray[Any] | None, fids: Sequence[int]
) -> tuple[tuple[BaseGeometry | None, ...], frozenset[int]]:
    """Geometries, None where there is none or it cannot be read; ids of the latter."""
    if blobs is None:
        return (None,) * len(fids), frozenset()
    read = [None if blob is None else shapely.from_wkb(blob, on_invalid="ignore") for blob in blobs]
    damaged = frozenset(
        fid
        for fid, blob, geometry in zip(fids, blobs, read, strict=True)
        if blob is not None and geometry is None
    )
    return tuple(read), damaged


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def read_provenance(copy: Path) -> dict[str, Any] | None:
    """The record written into a file; None where other software has dropped it."""
    try:
        with closing(sqlite3.connect(copy)) as connection:
            row = connection.execute(
                "SELECT metadata FROM gpkg_metadata WHERE md_standard_uri = ?", (PROVENANCE,)
            ).fetchone()
    except sqlite3.Error:
        return None
    try:
        record = json.loads(row[0]) if row else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def content_hash(copy: Path, *, where: Path, layers: Sequence[str] = (REGIONS, ANSWERS)) -> str:
    """Name of what layers say, whatever the order of rows or state of the file."""
    digest = hashlib.sha256()
    known = {name.lower(): name for name in layer_names(copy, where=where)}
    for layer in layers:
        names = [name.lower() for name in field_names(copy, known.get(layer, layer), where=where)]
        rows = read_rows(copy, layer, fields=names, where=where)
        lines = [
            json.dumps(
                [
                    *(rows.columns[name][number] for name in sorted(names)),
                    None if geometry is None else shapely.to_wkb(geometry, hex=True),
                ],
                default=str,
            )
            for number, geometry in enumerate(rows.geometries)
        ]
        digest.update("\n".join([layer, *sorted(lines)]).encode())
    return digest.hexdigest()


def is_edited(path: Path) -> bool:
    """Whether a review file says anything else than when it was written, or is open right now.

    Raises:
        ReviewError: it is no GeoPackage, or has no regions and answers.
    """
    if is_open(path):
        return True
    with settled_copy(path) as copy:
        record = read_provenance(copy) or {}
        return record.get("content") != content_hash(copy, where=path)
