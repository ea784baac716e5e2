"""Layers of very many polygons, written batch by batch: GeoPackage, GeoParquet or FlatGeobuf.

Every file carries the record of the request that made it, so that the same request is recognised.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray

from geohsal.errors import DataError
from geohsal.geo.scene import ClassInfo
from geohsal.io.atomic import replacing, unwritten
from geohsal.io.gpkg_extras import add_extras, one_time
from geohsal.io.gpkg_read import read_provenance
from geohsal.io.review_schema import Kind, Layer

SUFFIXES = (".gpkg", ".parquet", ".fgb")
RECORD = "geohsal"
"""Key of the record in GeoParquet and FlatGeobuf metadata."""

_OGR_ERRORS = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError)
_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int32(),
    "big": pa.int64(),
    "real": pa.float64(),
    "bool": pa.bool_(),
}
_MULTI = b"\x01\x06\x00\x00\x00\x01\x00\x00\x00"
"""WKB of a multipolygon of one member, up to that member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonBatch:
    """Some rows of a layer; `columns` by field name."""

    polygons: NDArray[Any]
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """The same as an Arrow table's rows: the fields of the layer, then the geometry as WKB."""

    rows: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PolygonLayer:
    """A layer and its rows, made while they are written; `crs` as GDAL reads it."""

    layer: Layer
    crs: str
    batches: Iterable[PolygonBatch | PackedBatch]


def write_polygons(
    path: Path,
    layers: Sequence[PolygonLayer],
    *,
    classes: Sequence[ClassInfo],
    record: Mapping[str, Any],
) -> None:
    """Write a new file (not atomic: give it a part that is renamed afterwards).

    Args:
        path: its suffix, one of SUFFIXES, says the format; only .gpkg holds several layers.
        layers: written in this order.
        classes: for the styles of a .gpkg.
        record: what the file was made of; plain values.

    Raises:
        WriteError: the file cannot be written.
        GeohsalError: whatever the batches raise.
    """
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    try:
        if path.suffix == ".parquet":
            _write_parquet(path, layers[0], text)
        elif path.suffix == ".fgb":
            _write_flatgeobuf(path, layers[0], text)
        else:
            _write_geopackage(path, layers, classes, text)
    except (*_OGR_ERRORS, sqlite3.Error, pa.ArrowException) as error:
        raise unwritten(path, error) from error


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a file; None where there is none, or the file is another's or damaged."""
    try:
        if path.suffix == ".gpkg":
            return read_provenance(path)
        if path.suffix == ".parquet":
            text = (pq.read_schema(path).metadata or {}).get(RECORD.encode())
        else:
            text = (pyogrio.read_info(path)["layer_metadata"] or {}).get(RECORD)
        record = json.loads(text) if text else None
    except (OSError, ValueError, pa.ArrowException, *_OGR_ERRORS):
        return None
    return record if isinstance(record, dict) else None


def count_polygons(path: Path) -> int:
    """How many polygons a file that `write_polygons` wrote holds."""
    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    layers = [name for name, geometry in pyogrio.list_layers(path) if geometry]
    return sum(
        int(pyogrio.read_info(path, layer=name, force_feature_count=True)["features"])
        for name in layers
    )


def _write_geopackage(
    path: Path, layers: Sequence[PolygonLayer], classes: Sequence[ClassInfo], text: str
) -> None:
    with one_time():
        for number, layer in enumerate(layers):
            _write_arrow(
                path,
                layer,
                driver="GPKG",
                multi=True,
                dataset_options={} if number else {"VERSION": "1.3", "DATETIME_FORMAT": "UTC"},
                layer_options={
                    "FID": "fid",
                    "GEOMETRY_NAME": "geom",
                    "SPATIAL_INDEX": "YES",
                    "IDENTIFIER": layer.layer.title,
                    "DESCRIPTION": layer.layer.description,
                },
            )
    with closing(sqlite3.connect(path)) as connection:
        own = [layer.layer for layer in layers]
        add_extras(connection, own, classes=classes, provenance=text)


def _write_flatgeobuf(path: Path, layer: PolygonLayer, text: str) -> None:
    _write_arrow(path, layer, driver="FlatGeobuf", multi=False, layer_metadata={RECORD: text})
    last = int(pyogrio.read_info(path)["features"]) - 1
    if last < 0:
        return
    try:  # GDAL says nothing when the last bytes of a file find no place
        pyogrio.raw.read(path, skip_features=last, max_features=1)
    except (*_OGR_ERRORS, ValueError):
        raise unwritten(path, "its last polygon is missing") from None


def _write_arrow(
    path: Path, layer: PolygonLayer, *, driver: str, multi: bool, **options: Any
) -> None:
    schema = _schema(layer.layer, "geom")
    raised: list[BaseException] = []
    batches = _remembering(_arrow(layer, schema, multi=multi), raised)
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, batches),
            path,
            layer=layer.layer.name,
            driver=driver,
            geometry_name="geom",
            geometry_type="MultiPolygon" if multi else "Polygon",
            crs=layer.crs,
            **options,
        )
    except Exception:
        if raised:  # GDAL says only that the stream broke
            raise raised[0] from None
        raise


def _remembering(
    batches: Iterator[pa.RecordBatch], raised: list[BaseException]
) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except BaseException as error:
        raised.append(error)
        raise


def _write_parquet(path: Path, layer: PolygonLayer, text: str) -> None:
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": pyproj.CRS.from_user_input(layer.crs).to_json_dict(),
            }
        },
    }
    metadata = {"geo": json.dumps(geo), RECORD: text}
    schema = _schema(layer.layer, "geometry").with_metadata(metadata)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _arrow(layer, schema, multi=False):
            writer.write_batch(batch)


def _schema(layer: Layer, geometry: str) -> pa.Schema:
    fields = [(field.name, _TYPES[field.kind]) for field in layer.fields]
    return pa.schema([*fields, (geometry, pa.binary())])


def _arrow(layer: PolygonLayer, schema: pa.Schema, *, multi: bool) -> Iterator[pa.RecordBatch]:
    for batch in layer.batches:
        if isinstance(batch, PackedBatch):
            *columns, geometry = batch.rows.columns
            blobs = geometry.to_pylist() if multi else []
        else:
            blobs = list(shapely.to_wkb(batch.polygons))
            geometry = pa.array(blobs, pa.binary())
            columns = [
                pa.array(batch.columns[field.name], _TYPES[field.kind])
                for field in layer.layer.fields
            ]
        if multi:
            geometry = pa.array([_MULTI + blob for blob in blobs], pa.binary())
        yield pa.record_batch([*columns, geometry], schema=schema)


def pack_batches(path: Path, layer: Layer, batches: Iterable[PolygonBatch]) -> None:
    """Set rows of a layer aside, to be read by `packed_batches`; the same rows, the same bytes.

    Raises:
        WriteError: the file cannot be written.
        GeohsalError: whatever the batches raise.
    """
    schema = _schema(layer, "geometry")
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    rows = PolygonLayer(layer=layer, crs="", batches=batches)
    try:
        with (
            replacing(path) as part,
            pa.OSFile(str(part), "wb") as sink,
            pa.ipc.new_file(sink, schema, options=options) as writer,
        ):
            for batch in _arrow(rows, schema, multi=False):
                writer.write_batch(batch)
    except pa.ArrowException as error:
        raise unwritten(path, error) from error


def packed_batches(path: Path) -> Iterator[PackedBatch]:
    """Rows that `pack_batches` set aside, one batch at a time.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with pa.OSFile(str(path), "rb") as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield PackedBatch(rows=reader.get_batch(number))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); delete it and export again"
        ) from None
