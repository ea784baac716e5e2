"""Fills a copy of a review file the way a person would: reclass, redraw, add, delete, tick off."""

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geohsal.errors import RequestError, ReviewError
from geohsal.geo.polygons import mask_to_multipolygon
from geohsal.geo.scene import QueryRegion
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import replacing
from geohsal.io.geopackage import place
from geohsal.io.gpkg_edit import editing, encode, srs_id
from geohsal.io.gpkg_read import content_hash, settled_copy
from geohsal.io.qgis_project import forget_project
from geohsal.io.review_burn import answer_mask
from geohsal.io.review_origin import Asked
from geohsal.io.review_rows import AnswerRow, ReviewedFile, Status
from geohsal.io.review_schema import ANSWERS, REGIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """What to write for one region; `classes` (row, col) covers its cell, 255 stays unknown."""

    status: Status
    classes: NDArray[np.uint8]


@dataclass(slots=True, kw_only=True)
class FillCounts:
    """What the reviewer did to prefilled answers, and regions told as one class."""

    accepted: int = 0
    reclassed: int = 0
    redrawn: int = 0
    added: int = 0
    deleted: int = 0
    uniform: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A part of a prefilled answer that is one class."""

    class_id: int
    mask: NDArray[np.bool_]


def fill_review(
    file: ReviewedFile,
    out: Path,
    fillings: Mapping[str, Filling],
    *,
    asked: Asked,
    reviewer: str,
    overwrite: bool = False,
) -> tuple[FillCounts, bool]:
    """Write a filled copy of a review file; styles, domains and metadata travel along.

    Args:
        file: the review file, read and unedited.
        out: where the copy goes; an existing file with the same content is left alone.
        fillings: by region id; other regions stay as they are.
        asked: the record the file was read against.
        reviewer: who signs.
        overwrite: replace an `out` that says something else.

    Returns:
        What was done, and whether `out` was written (False: it said the same already).

    Raises:
        RequestError: `out` exists and says something else.
        DataError: `out` cannot be written.
    """
    counts = FillCounts()
    own: dict[str, list[AnswerRow]] = {}
    for row in file.answers:
        own.setdefault(row.region_id, []).append(row)
    with settled_copy(file.path) as copy:
        with editing(copy) as connection:
            forget_project(connection)
            for region_id, filling in fillings.items():
                region, rows = asked.regions[region_id], own.get(region_id, [])
                _fill(connection, file, region, rows, filling, asked, counts)
                connection.execute(
                    f"UPDATE {REGIONS} SET reviewed_by = ? WHERE region_id = ?",
                    (reviewer, region_id),
                )
        if out.exists() and _says_the_same(copy, out):
            return counts, False
        if out.exists() and not overwrite:
            raise RequestError(
                f"{out}: exists with other answers; give --overwrite or another name"
            )
        with replacing(out) as part:
            shutil.copyfile(copy, part)
    return counts, True


def _says_the_same(copy: Path, path: Path) -> bool:
    try:
        with settled_copy(path) as other:
            return content_hash(copy, where=copy) == content_hash(other, where=path)
    except ReviewError:
        return False


def _fill(
    connection: sqlite3.Connection,
    file: ReviewedFile,
    region: QueryRegion,
    rows: Sequence[AnswerRow],
    filling: Filling,
    asked: Asked,
    counts: FillCounts,
) -> None:
    values = np.unique(filling.classes[region.mask]).tolist()
    uniform = filling.status == "done" and len(values) == 1 and values[0] != IGNORE_INDEX
    connection.execute(
        f"UPDATE {REGIONS} SET status = ?, assigned_class = ? WHERE region_id = ?",
        (filling.status, values[0] if uniform else None, region.region_id),
    )
    if uniform:
        counts.uniform += 1
    elif filling.status == "done":
        for row in rows:
            _answer(connection, file, row, region, filling.classes, asked, counts)


def _answer(
    connection: sqlite3.Connection,
    file: ReviewedFile,
    row: AnswerRow,
    region: QueryRegion,
    classes: NDArray[np.uint8],
    asked: Asked,
    counts: FillCounts,
) -> None:
    inside = answer_mask(row, region)
    pieces = list(_pieces(inside, classes, row.class_id))
    if not pieces:
        connection.execute(f"DELETE FROM {ANSWERS} WHERE fid = ?", (row.fid,))
        counts.deleted += 1
        return
    first, *others = pieces
    if not np.array_equal(first.mask, inside):
        connection.execute(
            f"UPDATE {ANSWERS} SET geom = ? WHERE fid = ?",
            (_blob(connection, file, region, first.mask, asked), row.fid),
        )
        counts.redrawn += 1
    elif first.class_id == row.class_id:
        counts.accepted += 1
    if first.class_id != row.class_id:
        connection.execute(
            f"UPDATE {ANSWERS} SET assigned_class = ? WHERE fid = ?", (first.class_id, row.fid)
        )
        counts.reclassed += 1
    for piece in others:
        connection.execute(
            f"INSERT INTO {ANSWERS}(geom, region_id, scene_id, assigned_class, notes)"
            " VALUES(?, ?, ?, ?, '')",
            (
                _blob(connection, file, region, piece.mask, asked),
                region.region_id,
                region.scene_id,
                piece.class_id,
            ),
        )
        counts.added += 1


def _pieces(
    inside: NDArray[np.bool_], classes: NDArray[np.uint8], suggested: int
) -> Iterator[_Piece]:
    """Parts of one class: the suggested one first if it is there, then by class id."""
    values: Sequence[int] = np.unique(classes[inside]).tolist()
    for class_id in sorted(values, key=lambda value: (value != suggested, value)):
        if class_id != IGNORE_INDEX:
            yield _Piece(class_id=class_id, mask=inside & (classes == class_id))


def _blob(
    connection: sqlite3.Connection,
    file: ReviewedFile,
    region: QueryRegion,
    mask: NDArray[np.bool_],
    asked: Asked,
) -> bytes:
    scene = asked.scenes[region.scene_id]
    outline = mask_to_multipolygon(mask, transform=Affine.identity())
    placed = place(outline, scene, None if scene.local else file.crs, window=region.cell)
    return encode(placed, srs_id=srs_id(connection, ANSWERS))
