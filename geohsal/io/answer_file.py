"""labels.gpkg: everything that people answered so far, as polygons; always rebuilt whole."""

import datetime
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.geo.polygons import polygonize
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import replacing
from geohsal.io.geopackage import RowList, place, scene_tables, write_geopackage
from geohsal.io.ledger import LedgerEntry, decode_classes
from geohsal.io.review_schema import Field, Layer

FORMAT_VERSION = 1
LAYER = "labels"


def _layer(name: str) -> Layer:
    return Layer(
        name=name,
        title=f"Answers ({name})" if name != LAYER else "Answers taken in",
        description="What reviewers said, as training reads it; ingest writes it anew each time",
        fields=(
            Field(name="scene_id", kind="text", alias="Scene"),
            Field(name="region_id", kind="text", alias="Region"),
            Field(name="round", kind="int", alias="Round"),
            Field(name="class_id", kind="int", alias="Class", choices="class"),
            Field(name="class_name", kind="text", alias="Class name"),
            Field(name="reviewed_by", kind="text", alias="Reviewed by"),
            Field(name="reviewed_at", kind="text", alias="Reviewed at (UTC)"),
        ),
    )


def write_answers_file(
    path: Path,
    entries: Sequence[LedgerEntry],
    *,
    scenes: Mapping[str, Scene],
    classes: Sequence[ClassInfo],
) -> None:
    """Write the answers of the ledger's standing entries; a local scene gets a layer of its own.

    Raises:
        DataError: the file cannot be written, or the ledger is damaged.
    """
    items = [(scenes[entry.scene_id], entry) for entry in entries]
    tables = scene_tables(LAYER, items, layer=_layer, add=partial(_add, classes=classes))
    with replacing(path) as part:
        write_geopackage(
            part,
            tables,
            classes=classes,
            provenance={"format_version": FORMAT_VERSION, "kind": "geohsal labels"},
        )


def _add(
    rows: RowList,
    entry: LedgerEntry,
    scene: Scene,
    crs: CRS | None,
    *,
    classes: Sequence[ClassInfo],
) -> None:
    row, col, height, width = entry.cell
    burnt = decode_classes(entry.classes_rle, height=height, width=width)
    window = Window(col, row, width, height)
    found = polygonize(burnt, transform=Affine.identity(), mask=burnt != IGNORE_INDEX)
    for class_id, polygon in found:
        rows.add(
            place(polygon, scene, crs, window=window),
            {
                "scene_id": entry.scene_id,
                "region_id": entry.region_id,
                "round": entry.round,
                "class_id": class_id,
                "class_name": classes[class_id].name,
                "reviewed_by": entry.reviewer,
                "reviewed_at": _time(entry),
            },
        )


def _time(entry: LedgerEntry) -> str:
    if entry.reviewed_ms is None:
        return entry.time
    stamp = datetime.datetime.fromtimestamp(entry.reviewed_ms / 1000, datetime.UTC)
    return stamp.isoformat(timespec="seconds").replace("+00:00", "Z")
