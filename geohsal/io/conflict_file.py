"""conflicts_rNNN.gpkg: where reviewers of a round differ, to be settled in QGIS and ingested."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import ReviewError
from geohsal.geo.patches import find_patches
from geohsal.geo.scene import ClassInfo, QueryRegion, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import replacing
from geohsal.io.geopackage import RowList, place, scene_tables, write_geopackage
from geohsal.io.gpkg_read import (
    content_hash,
    is_open,
    layer_names,
    read_provenance,
    read_rows,
    settled_copy,
)
from geohsal.io.review_burn import outline_mask
from geohsal.io.review_origin import Origin
from geohsal.io.review_read import Review, ReviewedRegion
from geohsal.io.review_rows import in_pixels, parse_class
from geohsal.io.review_schema import CONFLICTS, Field, Layer

FORMAT_VERSION = 1
KIND = "geohsal conflicts"
_FIELDS = ("conflict_id", "region_id", "assigned_class")


def _layer(name: str) -> Layer:
    return Layer(
        name=name,
        title="Conflicts" if name == CONFLICTS else f"Conflicts ({name})",
        description="Where reviewers differ: set the class, save, and give this file to ingest",
        fields=(
            Field(name="conflict_id", kind="text", alias="Conflict"),
            Field(name="region_id", kind="text", alias="Region"),
            Field(name="scene_id", kind="text", alias="Scene"),
            Field(name="class_a", kind="int", alias="One says", choices="class"),
            Field(name="class_b", kind="int", alias="The other says", choices="class"),
            Field(name="reviewer_a", kind="text", alias="One reviewer"),
            Field(name="reviewer_b", kind="text", alias="Other reviewer"),
            Field(name="pixels", kind="int", alias="Pixels"),
            Field(
                name="assigned_class",
                kind="int",
                alias="Class",
                note="empty: not settled, stays unknown",
                editable=True,
                choices="class",
            ),
            Field(name="notes", kind="text", alias="Notes", editable=True),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlements:
    """What conflict files say; `classes` by region id, (row, col) of its cell, 255 not settled."""

    classes: Mapping[str, NDArray[np.uint8]]
    problems: tuple[str, ...]


def write_conflicts(
    path: Path,
    regions: Sequence[ReviewedRegion],
    *,
    scenes: Mapping[str, Scene],
    classes: Sequence[ClassInfo],
    provenance: Mapping[str, Any],
) -> None:
    """Write one polygon per patch of pixels to which two people gave the same two classes.

    Args:
        path: an existing file is replaced; see `is_settled`.
        regions: those with conflicts.
        scenes: by scene id.
        classes: in the order of their ids.
        provenance: `run`, `round` and `conflicts`, see `conflict_set`.

    Raises:
        DataError: the file cannot be written.
    """
    items = [(scenes[item.region.scene_id], item) for item in regions]
    tables = scene_tables(CONFLICTS, items, layer=_layer, add=_add)
    record = {**provenance, "format_version": FORMAT_VERSION, "kind": KIND}
    with replacing(path) as part:
        write_geopackage(part, tables, classes=classes, provenance=record)


def conflict_set(regions: Sequence[ReviewedRegion]) -> str | None:
    """Names differences by region, pixels and the classes given there; None where there are none.

    The order of the reviews and who wrote them do not matter.
    """
    digest, found = hashlib.sha256(), False
    for item in sorted(regions, key=lambda item: item.region.region_id):
        if not item.conflict.any():
            continue
        found = True
        said = np.sort(np.stack([review.classes for review in item.reviews]), axis=0)
        first = said[0]
        other = np.where((said != first) & (said != IGNORE_INDEX), said, 0).max(axis=0)
        digest.update(f"{item.region.region_id} {item.conflict.shape}".encode())
        for array in (item.conflict, first[item.conflict], other[item.conflict]):
            digest.update(np.ascontiguousarray(array, dtype=np.uint8).tobytes())
    return digest.hexdigest() if found else None


def _add(rows: RowList, item: ReviewedRegion, scene: Scene, crs: Any) -> None:
    first, second, code = _pairs(item)
    found = find_patches(code, mask=item.conflict, sieve_px=0)
    for number, polygon in enumerate(found.polygons, start=1):
        at = np.argwhere(found.ids == number)[0]
        one, other = (item.reviews[int(which[tuple(at)])] for which in (first, second))
        rows.add(
            place(polygon, scene, crs, window=item.region.cell),
            {
                "conflict_id": f"{item.region.region_id}_x{number:03d}",
                "region_id": item.region.region_id,
                "scene_id": item.region.scene_id,
                "class_a": int(one.classes[tuple(at)]),
                "class_b": int(other.classes[tuple(at)]),
                "reviewer_a": _who(one),
                "reviewer_b": _who(other),
                "pixels": int(found.pixels[number - 1]),
                "notes": "",
            },
        )


def _pairs(item: ReviewedRegion) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int32]]:
    """Places of the first reviews that differ, per pixel, and a number per pair of words."""
    said = np.stack([review.classes for review in item.reviews])
    known = said != IGNORE_INDEX
    first = known.argmax(axis=0)
    one = np.take_along_axis(said, first[None], axis=0)[0]
    differs = known & (said != one)
    second = differs.argmax(axis=0)
    other = np.take_along_axis(said, second[None], axis=0)[0]
    code = ((first * len(said) + second) * 256 + one) * 256 + other
    return first, second, code.astype(np.int32)


def _who(review: Review) -> str:
    return f"{review.reviewer} ({review.source})" if review.reviewer else review.source


def read_conflicts_origin(path: Path) -> Origin:
    """Where a conflicts file says it comes from.

    Raises:
        ReviewError: it cannot be read, or carries no record.
    """
    with settled_copy(path) as copy:
        record = read_provenance(copy) or {}
        content = content_hash(copy, where=path, layers=_layers(copy, path))
    index = record.get("round")
    if not isinstance(index, int):
        raise ReviewError(
            f"{path}: carries no record of its round; settle the file that ingest wrote"
        )
    listed = record.get("conflicts")
    return Origin(
        name=path.name,
        round=index,
        run=record.get("run"),
        content=content,
        conflicts=listed if isinstance(listed, str) else None,
    )


def _layers(copy: Path, path: Path) -> list[str]:
    names = [name.lower() for name in layer_names(copy, where=path)]
    return [name for name in names if name.startswith(CONFLICTS)]


def is_settled(path: Path) -> bool:
    """Whether somebody has begun to settle it, or has it open; such a file is never replaced.

    Raises:
        ReviewError: it cannot be read.
    """
    if is_open(path):
        return True
    with settled_copy(path) as copy:
        layers = _layers(copy, path)
        tables = [read_rows(copy, name, fields=("assigned_class",), where=path) for name in layers]
    return any(value is not None for rows in tables for value in rows.columns["assigned_class"])


def read_settlements(
    path: Path,
    regions: Mapping[str, QueryRegion],
    *,
    scenes: Mapping[str, Scene],
    num_classes: int,
) -> Settlements:
    """Classes that somebody gave to pixels where reviewers differ; rows without one say nothing.

    Raises:
        ReviewError: the file cannot be read.
    """
    found: dict[str, NDArray[np.uint8]] = {}
    problems: list[str] = []
    with settled_copy(path) as copy:
        tables = [read_rows(copy, name, fields=_FIELDS, where=path) for name in _layers(copy, path)]
    for rows in tables:
        for number, fid in enumerate(rows.fids):
            where = f"{path.name}: {rows.layer} feature {fid}"
            class_id, problem = parse_class(rows.columns["assigned_class"][number], num_classes)
            region = regions.get(str(rows.columns["region_id"][number]))
            geometry = rows.geometries[number]
            if problem:
                problems.append(f"{where}: assigned_class {problem}")
            if class_id is None:
                continue
            if region is None:
                problems.append(f"{where}: region {rows.columns['region_id'][number]} is unknown")
                continue
            if geometry is None or not geometry.is_valid:
                problems.append(f"{where}: has no valid geometry")
                continue
            outline = in_pixels(geometry, rows.crs, scenes[region.scene_id])
            if outline is not None:
                nothing = np.full(region.mask.shape, IGNORE_INDEX, dtype=np.uint8)
                classes = found.setdefault(region.region_id, nothing)
                classes[outline_mask(outline, region)] = class_id
    return Settlements(classes=found, problems=tuple(problems))
