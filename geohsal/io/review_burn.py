"""Answers of one review burnt into its regions: whose word each pixel takes."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from geohsal.geo.polygons import burn
from geohsal.geo.scene import QueryRegion
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.review_origin import Asked
from geohsal.io.review_rows import AnswerRow, RegionRow, ReviewedFile
from geohsal.io.review_schema import ANSWERS

TOUCH = 1e-3
"""Pixels by which bounds must reach into a cell: neighbours share an edge, give or take noise."""

Mask = NDArray[np.bool_]
Classes = NDArray[np.uint8]


def burn_file(file: ReviewedFile, asked: Asked) -> dict[str, Classes]:
    """Classes (row, col) by region id of the done regions of a file; adds to its problems."""
    file.touched = {row.fid: set() for row in file.answers}
    burnt: dict[str, Classes] = {}
    clashes: dict[tuple[str, str], int] = {}
    index, met = AnswerIndex(file.answers), set[int]()
    astray = _astray(file, asked, index)
    for region_id, region in asked.regions.items():
        near = index.near(region)
        met.update(row.fid for row in near)
        masks = {row.fid: answer_mask(row, region) for row in near}
        touching = [row for row in near if masks[row.fid].any()]
        for row in touching:
            file.touched[row.fid].add(region_id)
        decision = file.regions.get(region_id)
        if decision and decision.status == "done":
            burnt[region_id] = _classes(region, decision, near, masks, astray, clashes)
        elif decision:
            _note_unused(file, decision, touching)
    for row in file.answers:
        if row.fid in astray:
            file.touched[row.fid].clear()
        else:
            _check_place(file, row, met)
    file.problems.extend(
        f"{ANSWERS} {one} and {other} give {pixels} pixels two classes"
        for (one, other), pixels in clashes.items()
    )
    return burnt


class AnswerIndex:
    """Finds the answers whose bounds meet a region's cell."""

    def __init__(self, rows: Sequence[AnswerRow]) -> None:
        self._rows: dict[str, list[AnswerRow]] = {}
        for row in rows:
            for scene_id in row.outlines:
                self._rows.setdefault(scene_id, []).append(row)
        self._trees = {
            scene_id: STRtree([row.outlines[scene_id] for row in own])
            for scene_id, own in self._rows.items()
        }

    def near(self, region: QueryRegion) -> list[AnswerRow]:
        """Answers in the order of the file; touching does not count."""
        tree, cell = self._trees.get(region.scene_id), region.cell
        if tree is None:
            return []
        inner = shapely.box(
            cell.col_off + TOUCH,
            cell.row_off + TOUCH,
            cell.col_off + cell.width - TOUCH,
            cell.row_off + cell.height - TOUCH,
        )
        return [self._rows[region.scene_id][number] for number in sorted(tree.query(inner))]


def answer_mask(row: AnswerRow, region: QueryRegion) -> Mask:
    """Asked pixels (row, col) of a region's cell whose centre an answer holds."""
    return outline_mask(row.outlines[region.scene_id], region)


def outline_mask(outline: BaseGeometry, region: QueryRegion) -> Mask:
    """Asked pixels of a region's cell whose centre a polygon in its scene's pixels holds."""
    burnt = burn(
        [(outline, 1)],
        transform=Affine.translation(region.cell.col_off, region.cell.row_off),
        shape=region.mask.shape,
        fill=0,
        dtype=np.uint8,
    )
    return np.asarray((burnt == 1) & region.mask)


def _astray(file: ReviewedFile, asked: Asked, index: AnswerIndex) -> set[int]:
    """Ids of added answers that name no scene and touch regions of several; adds to problems."""
    scenes: dict[int, set[str]] = {
        row.fid: set() for row in file.answers if len(row.outlines) > 1 and not row.spoilt
    }
    if not scenes:
        return set()
    for region in asked.regions.values():
        for row in index.near(region):
            if row.fid in scenes and answer_mask(row, region).any():
                scenes[row.fid].add(region.scene_id)
    astray = {fid for fid, names in scenes.items() if len(names) > 1}
    file.problems.extend(
        f"{ANSWERS} {_label(row)}: touches regions of scenes {', '.join(sorted(scenes[row.fid]))}; "
        "set its scene_id"
        for row in file.answers
        if row.fid in astray
    )
    return astray


def _classes(
    region: QueryRegion,
    decision: RegionRow,
    rows: Sequence[AnswerRow],
    masks: Mapping[int, Mask],
    astray: set[int],
    clashes: dict[tuple[str, str], int],
) -> Classes:
    """Untouched answers, the region's class, reclassed answers, redrawn ones; wrong ones on top."""
    classes = np.full(region.mask.shape, IGNORE_INDEX, dtype=np.uint8)
    for row in rows:
        if not row.edited:
            classes[masks[row.fid]] = row.class_id
    if decision.assigned_class is not None:
        classes[region.mask] = decision.assigned_class
    good = [row for row in rows if row.edited and not row.spoilt and row.fid not in astray]
    for redrawn in (False, True):
        own = [row for row in good if row.redrawn == redrawn]
        for row in own:
            classes[masks[row.fid]] = row.class_id
        _clear_clashes(classes, own, masks, clashes)
    for row in rows:
        if row.spoilt or row.fid in astray:
            classes[masks[row.fid]] = IGNORE_INDEX
    return classes


def _clear_clashes(
    classes: Classes,
    rows: Sequence[AnswerRow],
    masks: Mapping[int, Mask],
    clashes: dict[tuple[str, str], int],
) -> None:
    """Nothing is known where two rows of the same weight say different things."""
    for one, other in combinations(rows, 2):
        both = masks[one.fid] & masks[other.fid]
        if one.class_id != other.class_id and both.any():
            classes[both] = IGNORE_INDEX
            pair = (_label(one), _label(other))
            clashes[pair] = clashes.get(pair, 0) + int(both.sum())


def _label(row: AnswerRow) -> str:
    return row.name if row.record is None else f"{row.name} (feature {row.fid})"


def _note_unused(file: ReviewedFile, decision: RegionRow, rows: Sequence[AnswerRow]) -> None:
    edited = sum(row.edited for row in rows)
    if edited:
        file.notes.append(
            f"region {decision.region_id}: answers in it were edited or added ({edited}), but its "
            f"status is {decision.status}, so they teach nothing"
        )


def _check_place(file: ReviewedFile, row: AnswerRow, met: set[int]) -> None:
    if row.spoilt or file.touched[row.fid]:
        return
    where = f"{ANSWERS} {_label(row)}"
    if row.fid in met:
        file.notes.append(f"{where}: holds no pixel's centre of a region, so it says nothing")
    else:
        file.problems.append(f"{where}: lies outside every region")
