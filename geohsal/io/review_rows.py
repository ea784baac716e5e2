"""Rows of reviewed files as values: classes, states and outlines in pixels, with what is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from geohsal.errors import GeoreferenceError, ReviewError
from geohsal.geo.patches import shape_hash
from geohsal.geo.polygons import mask_to_multipolygon, reproject, to_map
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.geopackage import map_transform, same_crs
from geohsal.io.gpkg_read import Rows, content_hash, is_open, read_provenance, read_rows
from geohsal.io.review_origin import Asked, check_origin
from geohsal.io.review_schema import ANSWERS, REGIONS, STATUSES
from geohsal.io.review_source import Source, settled
from geohsal.io.round_record import Answer

Status = Literal["todo", "done", "unsure", "skipped"]

_REGION_FIELDS = (
    "region_id",
    "round",
    "status",
    "assigned_class",
    "reviewed_by",
    "reviewed_ms",
)
_ANSWER_FIELDS = ("answer_id", "region_id", "scene_id", "suggested_class", "assigned_class")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRow:
    """What a file says of one region; `moved`: somebody changed its outline."""

    region_id: str
    fids: tuple[int, ...]
    status: Status
    assigned_class: int | None
    reviewer: str | None
    reviewed_ms: int | None
    moved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One answer polygon; `outlines` holds it in (column, row) of each scene it may be of.

    `edited`: its class or outline is not what was written, or it was added (`record` is None);
    `redrawn`: not only its class. `class_id` is IGNORE_INDEX where something is wrong with it: then
    nothing is known below it.
    """

    fid: int
    name: str
    region_id: str
    record: Answer | None
    class_id: int
    edited: bool
    redrawn: bool
    outlines: Mapping[str, BaseGeometry]

    @property
    def spoilt(self) -> bool:
        """Whether something is wrong with it."""
        return self.class_id == IGNORE_INDEX


@dataclass(slots=True, kw_only=True)
class ReviewedFile:
    """One review, read; rows with `problems` teach nothing, `notes` are only told.

    `touched` maps the feature id of an answer to the regions of which it holds a pixel's centre.
    """

    path: Path
    name: str
    content: str
    crs: CRS | None
    package: int | None = None
    touched: dict[int, set[str]] = field(default_factory=dict)
    regions: dict[str, RegionRow] = field(default_factory=dict)
    answers: list[AnswerRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_file(source: Source, asked: Asked) -> ReviewedFile:
    """Read one review.

    Raises:
        ReviewError: it is no review, or of another run or round.
    """
    path = source.path
    with settled(source) as copy:
        provenance = read_provenance(copy)
        regions = read_rows(copy, REGIONS, fields=_REGION_FIELDS, where=path)
        answers = read_rows(copy, ANSWERS, fields=_ANSWER_FIELDS, where=path)
        content = content_hash(copy, where=path)
    file = ReviewedFile(path=path, name=source.name, content=content, crs=answers.crs)
    if provenance is None:
        file.notes.append(f"{file.name}: carries no record of its run; matched by region ids")
    else:
        check_origin(path, provenance, asked)
        package = provenance.get("package")
        file.package = package if isinstance(package, int) else None
    if any(is_open(own) for own in source.paths):
        file.notes.append(
            f"{file.name}: is open in another program; what was saved there counts, so save, close "
            "it and ingest again if you edited more"
        )
    _read_regions(file, regions, asked)
    _read_answers(file, answers, asked)
    return file


def _read_regions(file: ReviewedFile, rows: Rows, asked: Asked) -> None:
    seen: dict[str, list[RegionRow]] = {}
    for number, fid in enumerate(rows.fids):
        values = {name: column[number] for name, column in rows.columns.items()}
        row = _region_row(file, values, rows.geometries[number], rows.crs, fid, asked)
        if row is not None:
            seen.setdefault(row.region_id, []).append(row)
    for region_id, found in seen.items():
        row = _latest(found)
        if len({(item.status, item.assigned_class) for item in found}) > 1:
            fids = ", ".join(str(item.fids[0]) for item in found)
            file.problems.append(
                f"{REGIONS} features {fids}: region {region_id} is there {len(found)} times and "
                "they disagree"
            )
            row = replace(row, status="todo", assigned_class=None)
        file.regions[region_id] = row


def _latest(found: Sequence[RegionRow]) -> RegionRow:
    last = max(found, key=lambda row: row.reviewed_ms or 0)
    return RegionRow(
        region_id=last.region_id,
        fids=tuple(row.fids[0] for row in found),
        status=last.status,
        assigned_class=last.assigned_class,
        reviewer=last.reviewer,
        reviewed_ms=last.reviewed_ms,
        moved=len(found) == 1 and last.moved,
    )


def _region_row(
    file: ReviewedFile,
    values: Mapping[str, Any],
    geometry: BaseGeometry | None,
    crs: CRS | None,
    fid: int,
    asked: Asked,
) -> RegionRow | None:
    where = f"{REGIONS} feature {fid}"
    region = asked.regions.get(_text(values["region_id"]))
    if region is None or values["round"] not in (None, asked.index):
        found = values["region_id"] or "empty"
        file.problems.append(f"{where}: region_id {found} was not asked in round {asked.index}")
        return None
    status = _text(values["status"]).lower() or "todo"
    if status not in STATUSES:
        file.problems.append(f"{where}: status {status!r} is none of {', '.join(STATUSES)}")
        status = "todo"
    assigned, problem = parse_class(values["assigned_class"], asked.num_classes)
    if problem:
        file.problems.append(f"{where}: assigned_class {problem}")
        status = "todo"
    if status != "done" and assigned is not None:
        file.notes.append(f"region {region.region_id}: has a class, but its status is {status}")
    stamp = values["reviewed_ms"]
    return RegionRow(
        region_id=region.region_id,
        fids=(fid,),
        status=cast(Status, status),
        assigned_class=assigned,
        reviewer=_text(values["reviewed_by"]) or None,
        reviewed_ms=int(stamp) if isinstance(stamp, int | float) else None,
        moved=_moved(region, geometry, crs, asked.scenes[region.scene_id]),
    )


def _moved(
    region: QueryRegion, geometry: BaseGeometry | None, crs: CRS | None, scene: Scene
) -> bool:
    outline = mask_to_multipolygon(
        region.mask,
        transform=Affine.translation(region.cell.col_off, region.cell.row_off),
    )
    found = None if geometry is None else in_pixels(geometry, crs, scene)
    return found is None or shape_hash(found) != shape_hash(outline)


def _read_answers(file: ReviewedFile, rows: Rows, asked: Asked) -> None:
    if rows.crs is None and not all(scene.local for scene in asked.scenes.values()):
        raise ReviewError(f"{file.path}: layer {ANSWERS} has lost its CRS; set it again in QGIS")
    for number, fid in enumerate(rows.fids):
        values = {name: column[number] for name, column in rows.columns.items()}
        name = _text(values["answer_id"])
        geometry = rows.geometries[number]
        problem = _answer_problem(values, geometry, asked)
        if fid in rows.damaged:
            problem = "has a damaged geometry"
        outlines = _outlines(values, geometry, rows.crs, asked)
        if not problem and not outlines:
            problem = "has no position in its scene; check the layer's CRS"
        if problem:
            label = f" ({name})" if name else ""
            file.problems.append(f"{ANSWERS} feature {fid}{label}: {problem}")
        file.answers.append(_answer_row(values, outlines, fid, asked, spoilt=bool(problem)))


def _answer_problem(values: Mapping[str, Any], geometry: BaseGeometry | None, asked: Asked) -> str:
    """What is wrong with a row; empty where nothing is."""
    problem = _outline_problem(geometry)
    if problem:
        return problem
    assigned, problem = parse_class(values["assigned_class"], asked.num_classes)
    if problem:
        return f"assigned_class {problem}"
    suggested, problem = parse_class(values["suggested_class"], asked.num_classes)
    if problem:
        return f"suggested_class {problem}"
    if assigned is None and suggested is None:
        return "has no class"
    region_id, scene_id = _text(values["region_id"]), _text(values["scene_id"])
    if region_id and region_id not in asked.regions:
        return f"region_id {region_id} was not asked in round {asked.index}"
    if scene_id and scene_id not in asked.scenes:
        return f"scene_id {scene_id} is not a scene of this round"
    return ""


def _outlines(
    values: Mapping[str, Any], geometry: BaseGeometry | None, crs: CRS | None, asked: Asked
) -> dict[str, BaseGeometry]:
    """The polygon in (column, row) of the scene that a row names, of all where it names none."""
    if geometry is None or geometry.is_empty or not geometry.geom_type.endswith("Polygon"):
        return {}
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    region_id, scene_id = _text(values["region_id"]), _text(values["scene_id"])
    region = asked.regions.get(region_id)
    name = scene_id if scene_id in asked.scenes else region.scene_id if region else ""
    scenes = [asked.scenes[name]] if name else list(asked.scenes.values())
    found = {scene.scene_id: in_pixels(geometry, crs, scene) for scene in scenes}
    return {name: outline for name, outline in found.items() if outline is not None}


def _answer_row(
    values: Mapping[str, Any],
    outlines: Mapping[str, BaseGeometry],
    fid: int,
    asked: Asked,
    *,
    spoilt: bool,
) -> AnswerRow:
    assigned, _ = parse_class(values["assigned_class"], asked.num_classes)
    suggested, _ = parse_class(values["suggested_class"], asked.num_classes)
    class_id = suggested if assigned is None else assigned
    record = asked.answers.get(_text(values["answer_id"]))
    own = outlines.get(record.scene_id) if record else None
    redrawn = record is None or own is None or shape_hash(own) != record.shape
    reclassed = record is None or assigned is not None or suggested != record.suggested_class
    return AnswerRow(
        fid=fid,
        name=_text(values["answer_id"]) or f"feature {fid}",
        region_id=_text(values["region_id"]),
        record=record,
        class_id=IGNORE_INDEX if spoilt or class_id is None else class_id,
        edited=redrawn or reclassed or spoilt,
        redrawn=redrawn or spoilt,
        outlines=outlines,
    )


def _outline_problem(geometry: BaseGeometry | None) -> str:
    if geometry is None or geometry.is_empty:
        return "has no geometry"
    if geometry.geom_type not in ("Polygon", "MultiPolygon"):
        return f"is a {geometry.geom_type}, not a polygon"
    if not geometry.is_valid:
        return f"has an invalid geometry ({shapely.is_valid_reason(geometry)})"
    return ""


def in_pixels(geometry: BaseGeometry, crs: CRS | None, scene: Scene) -> BaseGeometry | None:
    """The polygon in (column, row) of a scene; None where it has no position there."""
    flat = shapely.force_2d(geometry)
    if not scene.local and scene.crs and crs and not same_crs(crs, scene.crs):
        try:
            flat = reproject(flat, crs, scene.crs)
        except GeoreferenceError:
            return None
    return to_map([flat], ~map_transform(scene))[0]


def parse_class(value: Any, num_classes: int) -> tuple[int | None, str]:
    """(class id or None, what is wrong with the value)."""
    if value is None or value == "":
        return None, ""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None, f"{value!r} is not a class id (0 to {num_classes - 1})"
    if not number.is_integer() or not 0 <= number < num_classes:
        return None, f"{value!r} is not a class id (0 to {num_classes - 1})"
    return int(number), ""


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
