"""Reading GeoPackages that a person has worked on: always a settled copy, never the file itself."""

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

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.geometry.base import BaseGeometry

from geohsal.errors import ReviewError
from geohsal.io.gpkg_extras import PROVENANCE
from geohsal.io.review_schema import ANSWERS, REGIONS

SIDECARS = ("-wal", "-shm", "-journal")
"""Files that SQLite keeps beside a database that is open or was not closed cleanly."""

_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A layer as it stands: columns by field name, None for NULL, in the order of `fids`."""

    layer: str
    crs: CRS | None
    fids: tuple[int, ...]
    geometries: tuple[BaseGeometry | None, ...]
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.fids)


@contextmanager
def settled_copy(path: Path) -> Iterator[Path]:
    """A copy with all saved edits in one file, also where QGIS left a -wal or -journal behind.

    Raises:
        ReviewError: there is no such file, or it is no GeoPackage.
    """
    _require_sqlite(path)
    with tempfile.TemporaryDirectory(prefix="geohsal-review-") as folder:
        copy = Path(folder) / "review.gpkg"
        shutil.copyfile(path, copy)
        for suffix in SIDECARS[::2]:  # -shm is rebuilt from -wal
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                shutil.copyfile(beside, copy.with_name(copy.name + suffix))
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


def read_rows(copy: Path, layer: str, *, fields: Sequence[str], where: Path) -> Rows:
    """The rows of a layer of a settled copy; `where` is the name used in messages.

    Raises:
        ReviewError: the layer or a field is missing, or a geometry cannot be read.
    """
    with _reading(layer, where=where):
        meta, fids, geometry, data = pyogrio.raw.read(copy, layer=layer, return_fids=True)
    columns = dict(zip(meta["fields"].tolist(), data, strict=True))
    missing = [name for name in fields if name not in columns]
    if missing:
        found = ", ".join(columns) or "none"
        raise ReviewError(
            f"{where}: layer {layer} has no field {', '.join(missing)} (found: {found})"
        )
    _refuse_words_in_numbers(copy, meta, fields, layer=layer, where=where)
    return Rows(
        layer=layer,
        crs=_crs(meta["crs"], where=where),
        fids=tuple(int(fid) for fid in fids),
        geometries=_geometries(geometry, layer=layer, fids=fids, where=where),
        columns={name: [_plain(value) for value in columns[name]] for name in fields},
    )


@contextmanager
def _reading(layer: str, *, where: Path) -> Iterator[None]:
    """Turn GDAL's errors on a layer of a review file into geohsal's."""
    try:
        yield
    except pyogrio.errors.DataLayerError:
        raise ReviewError(f"{where}: no layer {layer}; give the file as it was written") from None
    except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError, sqlite3.Error) as error:
        reason = " ".join(str(error).split())
        short = reason if len(reason) <= 160 else f"{reason[:60]} ... {reason[-90:]}"
        raise ReviewError(f"{where}: cannot be read ({short}); restore it from a copy") from None


def _refuse_words_in_numbers(
    copy: Path, meta: dict[str, Any], fields: Sequence[str], *, layer: str, where: Path
) -> None:
    """SQLite keeps any value in any column, and GDAL would read a word in a whole number as 0."""
    whole = {
        name
        for name, dtype in zip(meta["fields"].tolist(), meta["dtypes"].tolist(), strict=True)
        if dtype.startswith("int")
    }
    with _reading(layer, where=where), closing(sqlite3.connect(copy)) as connection:
        for name in fields:
            if name not in whole:
                continue
            row = connection.execute(
                f'SELECT rowid, "{name}" FROM "{layer}" '
                f"WHERE typeof(\"{name}\") NOT IN ('integer', 'null') LIMIT 1"
            ).fetchone()
            if row is not None:
                raise ReviewError(
                    f"{where}: {layer} feature {row[0]}: {name} is {row[1]!r}, not a whole number; "
                    "correct it in QGIS"
                )


def _crs(text: str | None, *, where: Path) -> CRS | None:
    try:
        return CRS.from_user_input(text) if text else None
    except CRSError as error:
        raise ReviewError(f"{where}: its CRS cannot be understood ({error})") from None


def _geometries(
    blobs: NDArray[Any] | None, *, layer: str, fids: NDArray[Any], where: Path
) -> tuple[BaseGeometry | None, ...]:
    if blobs is None:
        return (None,) * len(fids)
    read = [None if blob is None else shapely.from_wkb(blob, on_invalid="ignore") for blob in blobs]
    broken = [
        int(fid)
        for fid, blob, geometry in zip(fids, blobs, read, strict=True)
        if blob is not None and geometry is None
    ]
    if broken:
        raise ReviewError(f"{where}: {layer} features {broken[:10]} have a damaged geometry")
    return tuple(read)


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


def content_hash(copy: Path, *, where: Path) -> str:
    """Name of what regions and answers say, whatever the order of rows or state of the file."""
    digest = hashlib.sha256()
    for layer in (REGIONS, ANSWERS):
        with _reading(layer, where=where):
            names = pyogrio.read_info(copy, layer=layer)["fields"].tolist()
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
    if any(path.with_name(path.name + suffix).exists() for suffix in SIDECARS):
        return True
    with settled_copy(path) as copy:
        record = read_provenance(copy) or {}
        return record.get("content") != content_hash(copy, where=path)
