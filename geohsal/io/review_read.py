"""Reads reviewed files: per region its status and per pixel the class that a person gave it.

A pixel takes, by its centre: an edited or added answer first (a redrawn one before one that only
got another class), then the region's assigned class, then the untouched prefilled answer; else it
stays unknown. Where anything is wrong, nothing is taken in and all of it is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely import STRtree

from geohsal.errors import ReviewError
from geohsal.geo.polygons import burn
from geohsal.geo.scene import ClassInfo, QueryRegion, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.review_rows import AnswerRow, Asked, RegionRow, ReviewedFile, Status, read_file
from geohsal.io.review_schema import ANSWERS
from geohsal.io.round_record import Answer

TOUCH = 1e-3
"""Pixels by which bounds must reach into a cell: neighbours share an edge, give or take noise."""

SHOWN = 10
"""Problems that one message names; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedRegion:
    """What a person said of one region.

    `classes` (row, col) covers the region's cell: class ids, 255 where nothing is known. Only
    regions whose status is done hold classes.
    """

    region: QueryRegion
    status: Status
    assigned_class: int | None
    classes: NDArray[np.uint8]
    reviewer: str | None
    reviewed_ms: int | None
    source: str

    @property
    def labelled_pixels(self) -> int:
        """Pixels that got a class."""
        return int((self.classes != IGNORE_INDEX).sum())

    @property
    def unknown_pixels(self) -> int:
        """Pixels that were asked about and got none."""
        return self.region.pixels - self.labelled_pixels


@dataclass(slots=True, kw_only=True)
class ReviewCounts:
    """How a review went: prefilled answers of done regions, regions by status, pixels."""

    accepted: int = 0
    corrected: int = 0
    added: int = 0
    deleted: int = 0
    done: int = 0
    unsure: int = 0
    skipped: int = 0
    todo: int = 0
    unknown_pixels: int = 0
    class_pixels: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedRound:
    """All regions of a round (also those not reviewed), by rank; `contents` names the files."""

    round: int
    regions: tuple[ReviewedRegion, ...]
    counts: ReviewCounts
    notes: tuple[str, ...]
    contents: Mapping[str, str]


def read_review(
    paths: Sequence[Path],
    *,
    regions: Sequence[QueryRegion],
    answers: Sequence[Answer],
    scenes: Mapping[str, Scene],
    classes: Sequence[ClassInfo],
    round: int,
    request: str | None = None,
) -> ReviewedRound:
    """Read the reviewed files of a round; several people may have shared its regions.

    Args:
        paths: reviewed GeoPackages, in any state QGIS leaves them in.
        regions: the run's record of what was asked.
        answers: the run's record of what was prefilled.
        scenes: by scene id; those of `regions` at least.
        classes: in the order of their ids.
        round: the round under review.
        request: of the query; files that carry another are refused; None: not compared.

    Raises:
        ReviewError: a file is no review file or of another round, or has problems: one line that
            names the features.
    """
    used = {region.scene_id for region in regions}
    asked = Asked(
        index=round,
        request=request,
        regions={region.region_id: region for region in regions},
        answers={answer.answer_id: answer for answer in answers},
        scenes={name: scenes[name] for name in sorted(used)},
        num_classes=len(classes),
    )
    files = [read_file(path, asked) for path in paths]
    owners = _owners(files)
    counts = ReviewCounts()
    burnt: dict[str, NDArray[np.uint8]] = {}
    for file in files:
        burnt |= _burn_file(file, asked, {rid for rid, owner in owners.items() if owner is file})
        _count_answers(file, asked, owners, counts)
    _refuse(files)
    ranked = sorted(regions, key=lambda region: (region.rank, region.region_id))
    reviewed = tuple(_reviewed(region, owners.get(region.region_id), burnt) for region in ranked)
    _count_regions(reviewed, counts)
    return ReviewedRound(
        round=round,
        regions=reviewed,
        counts=counts,
        notes=tuple(_notes(files, asked)),
        contents={file.path.name: file.content for file in files},
    )


def _owners(files: Sequence[ReviewedFile]) -> dict[str, ReviewedFile]:
    """Which file decides about a region: the one where it is not `todo`."""
    owners: dict[str, ReviewedFile] = {}
    for file in files:
        for region_id, row in file.regions.items():
            other = owners.get(region_id)
            if other is None or other.regions[region_id].status == "todo":
                owners[region_id] = file
            elif row.status != "todo":
                file.problems.append(
                    f"region {region_id} is reviewed in {other.path.name} and in {file.path.name}"
                )
    return owners


def _refuse(files: Sequence[ReviewedFile]) -> None:
    problems = [problem for file in files for problem in file.problems]
    if not problems:
        return
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    names = ", ".join(str(file.path) for file in files if file.problems)
    raise ReviewError(f"{names}: nothing was taken in: {'; '.join(problems[:SHOWN])}{more}")


def _burn_file(file: ReviewedFile, asked: Asked, owned: set[str]) -> dict[str, NDArray[np.uint8]]:
    """Classes by region id of the done regions that this file decides; adds to its problems."""
    file.touched = {row.fid: set() for row in file.answers}
    burnt: dict[str, NDArray[np.uint8]] = {}
    clashes: dict[tuple[str, str], int] = {}
    index, met = AnswerIndex(file.answers), set[int]()
    for region_id, region in asked.regions.items():
        near = index.near(region)
        met.update(row.fid for row in near)
        masks = {row.fid: answer_mask(row, region) for row in near}
        for row in near:
            if masks[row.fid].any():
                file.touched[row.fid].add(region_id)
        decision = file.regions.get(region_id)
        if decision and region_id in owned and decision.status == "done":
            burnt[region_id] = _classes(region, decision, near, masks, clashes)
    for row in file.answers:
        _check_place(file, row, asked, met)
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


def answer_mask(row: AnswerRow, region: QueryRegion) -> NDArray[np.bool_]:
    """Asked pixels (row, col) of a region's cell whose centre an answer holds."""
    burnt = burn(
        [(row.outlines[region.scene_id], 1)],
        transform=Affine.translation(region.cell.col_off, region.cell.row_off),
        shape=region.mask.shape,
        fill=0,
        dtype=np.uint8,
    )
    return np.asarray((burnt == 1) & region.mask)


def _classes(
    region: QueryRegion,
    decision: RegionRow,
    rows: Sequence[AnswerRow],
    masks: Mapping[int, NDArray[np.bool_]],
    clashes: dict[tuple[str, str], int],
) -> NDArray[np.uint8]:
    classes = np.full(region.mask.shape, IGNORE_INDEX, dtype=np.uint8)
    for row in rows:
        if not row.edited:
            classes[masks[row.fid]] = row.class_id
    if decision.assigned_class is not None:
        classes[region.mask] = decision.assigned_class
    edited = sorted((row for row in rows if row.edited), key=lambda row: row.redrawn)
    for number, row in enumerate(edited):
        for other in edited[:number]:
            if other.class_id != row.class_id and other.redrawn == row.redrawn:
                both = int((masks[row.fid] & masks[other.fid]).sum())
                if both:
                    pair = (_label(other), _label(row))
                    clashes[pair] = clashes.get(pair, 0) + both
        classes[masks[row.fid]] = row.class_id
    return classes


def _label(row: AnswerRow) -> str:
    return row.name if row.record is None else f"{row.name} (feature {row.fid})"


def _check_place(file: ReviewedFile, row: AnswerRow, asked: Asked, met: set[int]) -> None:
    where = f"{ANSWERS} {_label(row)}"
    scenes = {asked.regions[region_id].scene_id for region_id in file.touched[row.fid]}
    if len(scenes) > 1:
        names = ", ".join(sorted(scenes))
        file.problems.append(f"{where}: touches regions of scenes {names}; set its scene_id")
    elif not scenes and row.fid in met:
        file.notes.append(f"{where}: holds no pixel's centre of a region, so it says nothing")
    elif not scenes:
        file.problems.append(f"{where}: lies outside every region")


def _count_answers(
    file: ReviewedFile, asked: Asked, owners: Mapping[str, ReviewedFile], counts: ReviewCounts
) -> None:
    rows: dict[str, list[AnswerRow]] = {}
    for row in file.answers:
        if row.record is None:
            taken = [name for name in file.touched[row.fid] if _done(file, name, owners)]
            counts.added += bool(taken)
        else:
            rows.setdefault(row.record.answer_id, []).append(row)
    for answer in asked.answers.values():
        if not _done(file, answer.region_id, owners):
            continue
        found = rows.get(answer.answer_id, [])
        assigned = file.regions[answer.region_id].assigned_class
        changed = assigned not in (None, answer.suggested_class)
        if not found:
            counts.deleted += 1
        elif changed or any(row.edited for row in found):
            counts.corrected += 1
        else:
            counts.accepted += 1


def _done(file: ReviewedFile, region_id: str, owners: Mapping[str, ReviewedFile]) -> bool:
    return owners.get(region_id) is file and file.regions[region_id].status == "done"


def _reviewed(
    region: QueryRegion, file: ReviewedFile | None, burnt: Mapping[str, NDArray[np.uint8]]
) -> ReviewedRegion:
    row = file.regions[region.region_id] if file else None
    nothing = np.full(region.mask.shape, IGNORE_INDEX, dtype=np.uint8)
    return ReviewedRegion(
        region=region,
        status=row.status if row else "todo",
        assigned_class=row.assigned_class if row else None,
        classes=burnt.get(region.region_id, nothing),
        reviewer=row.reviewer if row else None,
        reviewed_ms=row.reviewed_ms if row else None,
        source=file.path.name if file else "",
    )


def _count_regions(reviewed: Sequence[ReviewedRegion], counts: ReviewCounts) -> None:
    for item in reviewed:
        setattr(counts, item.status, getattr(counts, item.status) + 1)
        if item.status != "done":
            continue
        counts.unknown_pixels += item.unknown_pixels
        for class_id in np.unique(item.classes[item.classes != IGNORE_INDEX]).tolist():
            pixels = int((item.classes == class_id).sum())
            counts.class_pixels[class_id] = counts.class_pixels.get(class_id, 0) + pixels


def _notes(files: Sequence[ReviewedFile], asked: Asked) -> Iterator[str]:
    for file in files:
        yield from file.notes
        for row in file.regions.values():
            if row.moved:
                yield f"region {row.region_id}: its outline was changed; the cell as asked counts"
    seen = {region_id for file in files for region_id in file.regions}
    missing = sorted(set(asked.regions) - seen)
    if missing:
        shown = ", ".join(missing[:SHOWN])
        yield f"{len(missing)} regions have no row and stay to do: {shown}"
