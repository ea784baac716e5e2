"""Decisions per region (decisions.csv) as a review: what they leave alone holds as prefilled."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import rasterio
from rasterio.errors import RasterioIOError
from shapely.affinity import translate

from geohsal.errors import DataError, RasterError, ReviewError
from geohsal.geo.patches import find_patches, shape_hash
from geohsal.geo.scene import QueryRegion
from geohsal.io.decisions_csv import Decision, read_decisions, read_decisions_origin
from geohsal.io.gdal import quiet
from geohsal.io.review_origin import Asked, Origin
from geohsal.io.review_rows import AnswerRow, RegionRow, ReviewedFile, Status, parse_class
from geohsal.io.round_record import Answer
from geohsal.io.run import Round

SUFFIX = ".csv"
REFINED_BAND = 1


def read_decided_origin(path: Path) -> Origin:
    """Where a file of decisions says it comes from.

    Raises:
        ReviewError: it is no such file.
    """
    found = read_decisions_origin(path)
    content = hashlib.sha256(repr(read_decisions(path)).encode()).hexdigest()
    return Origin(name=path.name, round=found.round, run=None, content=content)


def read_decided(
    path: Path, asked: Asked, *, round_: Round, sieve_px: int, name: str = ""
) -> ReviewedFile:
    """Decisions as if they had been made in the review file.

    Args:
        path: decisions.csv.
        asked: what was asked.
        round_: whose class rasters the answers were prefilled from.
        sieve_px: as when they were.
        name: names it among others; else its file name does.

    Raises:
        ReviewError: it is of another round or query.
        DataError: the rasters are not those of the query.
    """
    origin = read_decisions_origin(path)
    if origin.round != asked.index:
        raise ReviewError(
            f"{path}: belongs to round {origin.round}, but round {asked.index} is the one under "
            "review; give the decisions of that round"
        )
    if asked.request not in (None, origin.request):
        raise ReviewError(
            f"{path}: belongs to another run, or to a query that was made anew since; decide on "
            "the page that was written for this round"
        )
    content = read_decided_origin(path).content
    file = ReviewedFile(path=path, name=name or path.name, content=content, crs=None)
    for number, decision in enumerate(read_decisions(path), start=1):
        row = _region_row(file, decision, number, asked)
        if row is not None:
            file.regions[row.region_id] = row
            region = asked.regions[row.region_id]
            if row.status == "done":
                file.answers += _prefilled(region, asked, round_, sieve_px, len(file.answers))
    return file


def _region_row(
    file: ReviewedFile, decision: Decision, number: int, asked: Asked
) -> RegionRow | None:
    if decision.region_id not in asked.regions:
        file.problems.append(
            f"row of region {decision.region_id}: it was not asked in round {asked.index}"
        )
        return None
    assigned, problem = parse_class(decision.assigned_class, asked.num_classes)
    if problem:
        file.problems.append(f"row of region {decision.region_id}: assigned_class {problem}")
    if decision.status != "done" and assigned is not None:
        file.notes.append(
            f"region {decision.region_id}: has a class, but its status is {decision.status}"
        )
    return RegionRow(
        region_id=decision.region_id,
        fids=(number,),
        status="todo" if problem else cast(Status, decision.status),
        assigned_class=assigned,
        reviewer=decision.reviewed_by or None,
        reviewed_ms=decision.reviewed_ms,
        moved=False,
    )


def _prefilled(
    region: QueryRegion, asked: Asked, round_: Round, sieve_px: int, count: int
) -> Iterator[AnswerRow]:
    """The answers of a region as they were written, from the map that they were made of."""
    path = round_.raster(region.scene_id, "class")
    try:
        with quiet(), rasterio.open(path) as source:
            refined = source.read(REFINED_BAND, window=region.cell)
    except RasterioIOError as error:
        raise RasterError(f"{path}: cannot be read ({error}); query the round again") from None
    records = _by_shape(asked.answers, region.region_id)
    found = find_patches(refined, mask=region.mask, sieve_px=sieve_px)
    for number, polygon in enumerate(found.polygons, start=1):
        outline = translate(polygon, region.cell.col_off, region.cell.row_off)
        record = records.pop(shape_hash(outline), None)
        if record is None:
            break
        if record.suggested_class is not None:
            yield AnswerRow(
                fid=count + number,
                name=record.answer_id,
                region_id=region.region_id,
                record=record,
                class_id=record.suggested_class,
                edited=False,
                redrawn=False,
                outlines={region.scene_id: outline},
            )
    if records or len(found.polygons) == 0:
        raise DataError(
            f"{path}: is not the raster that the answers of region {region.region_id} were made "
            "of; restore it, or review the GeoPackage in QGIS"
        )


def _by_shape(answers: Mapping[str, Answer], region_id: str) -> dict[str, Answer]:
    return {item.shape: item for item in answers.values() if item.region_id == region_id}
