"""The run's own record of a round's regions and prefilled answers, independent of any review file.

Both are Parquet tables in the round's folder; regions.parquet is GeoParquet and opens in QGIS.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from geohsal.errors import DataError
from geohsal.geo.polygons import densify, mask_to_multipolygon, reproject
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.io.atomic import replacing
from geohsal.io.geopackage import LONLAT
from geohsal.io.run import Round

FORMAT_VERSION = 1
_KEY = b"geohsal"
Row = TypeVar("Row")
_PLAIN = tuple(
    field.name for field in fields(QueryRegion) if field.name not in ("cell", "mask", "plar_class")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A prefilled answer as it was written; `shape` names its geometry (`geo.patches`)."""

    answer_id: str
    region_id: str
    scene_id: str
    suggested_class: int | None
    source: str
    shape: str


AnswerTable = tuple[Answer, ...]

_ANSWER_SCHEMA = pa.schema(
    [
        ("answer_id", pa.string()),
        ("region_id", pa.string()),
        ("scene_id", pa.string()),
        ("suggested_class", pa.int32()),
        ("source", pa.string()),
        ("shape", pa.string()),
    ]
)


def answers_path(round_: Round) -> Path:
    """Where a round keeps its prefilled answers."""
    return round_.dir / "answers.parquet"


def fingerprint(regions: Sequence[QueryRegion], answers: Sequence[Answer]) -> str:
    """Name of what was asked: ties a review file to its run and round."""
    digest = hashlib.sha256()
    for region in sorted(regions, key=lambda item: item.region_id):
        digest.update(f"{region.region_id} {region.round} {_pack(region.mask)}\n".encode())
    for answer in sorted(answers, key=lambda item: item.answer_id):
        digest.update(f"{answer.answer_id} {answer.suggested_class} {answer.shape}\n".encode())
    return digest.hexdigest()


def write_regions(path: Path, regions: Sequence[QueryRegion], scenes: Mapping[str, Scene]) -> None:
    """Write the regions of a round; geometry is EPSG:4326, null for local scenes.

    Raises:
        DataError: the file cannot be written.
    """
    columns: dict[str, Any] = {
        name: [getattr(region, name) for region in regions] for name in _PLAIN
    }
    columns["plar_class"] = pd.array([region.plar_class for region in regions], dtype="Int32")
    columns["pixels"] = [region.pixels for region in regions]
    for name in ("row_off", "col_off", "height", "width"):
        columns[name] = [int(getattr(region.cell, name)) for region in regions]
    columns["mask"] = [_pack(region.mask) for region in regions]
    outlines = [_outline(region, scenes[region.scene_id]) for region in regions]
    frame = geopandas.GeoDataFrame(columns, geometry=outlines, crs="EPSG:4326")
    with replacing(path) as part:
        frame.to_parquet(part, index=False)
        table = pq.read_table(part)
        version = json.dumps({"format_version": FORMAT_VERSION}).encode()
        pq.write_table(
            table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: version}), part
        )


def _outline(region: QueryRegion, scene: Scene) -> BaseGeometry | None:
    if scene.local or scene.crs is None:
        return None
    transform = scene.transform @ scene.transform.translation(
        region.cell.col_off, region.cell.row_off
    )
    step = float(np.hypot(scene.transform.a, scene.transform.d))
    outline = densify(mask_to_multipolygon(region.mask, transform=transform), step)
    return reproject(outline, scene.crs, LONLAT)


def read_regions(path: Path) -> list[QueryRegion]:
    """The regions of a round, exactly as they were written.

    Raises:
        DataError: the file is missing or damaged.
    """
    return _rows(path, _region)


def _region(row: Mapping[str, Any]) -> QueryRegion:
    shape = (row["height"], row["width"])
    plain = {name: row[name] for name in _PLAIN}
    return QueryRegion(
        **plain,
        plar_class=row["plar_class"],
        cell=Window(row["col_off"], row["row_off"], row["width"], row["height"]),
        mask=_unpack(row["mask"], shape),
    )


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write the prefilled answers of a round.

    Raises:
        DataError: the file cannot be written.
    """
    columns = {name: [getattr(answer, name) for answer in answers] for name in _ANSWER_SCHEMA.names}
    version = json.dumps({"format_version": FORMAT_VERSION}).encode()
    with replacing(path) as part:
        pq.write_table(
            pa.table(columns, schema=_ANSWER_SCHEMA.with_metadata({_KEY: version})), part
        )


def read_answers(path: Path) -> AnswerTable:
    """The prefilled answers of a round.

    Raises:
        DataError: the file is missing or damaged.
    """
    return tuple(_rows(path, lambda row: Answer(**row)))


def _rows(path: Path, make: Callable[[Mapping[str, Any]], Row]) -> list[Row]:
    try:
        return [make(row) for row in _read(path)]
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); restore it from a copy") from None


def _read(path: Path) -> list[dict[str, Any]]:
    table = pq.read_table(path)
    version = json.loads((table.schema.metadata or {}).get(_KEY, b"{}")).get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: has format_version {version}, this geohsal reads {FORMAT_VERSION}"
        )
    names = [name for name in table.column_names if name != "geometry"]
    rows: list[dict[str, Any]] = table.select(names).to_pylist()
    return rows


def _pack(mask: NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def _unpack(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    bits = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
