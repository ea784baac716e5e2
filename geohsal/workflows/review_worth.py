"""Was the review worth it: where answers differ from the maps, and from earlier labels."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError

from geohsal.errors import RasterError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.gdal import quiet
from geohsal.io.label_store import read_label_raster
from geohsal.io.ledger import LedgerEntry, active_entries, decode_classes
from geohsal.io.review_read import ReviewedRegion
from geohsal.io.run import Round, Run
from geohsal.query.cell_sums import expected_answers

REFINED_BAND, TEACHER_BAND = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewWorth:
    """Shares of answered pixels where a map had been wrong; None where nothing was answered.

    `asked_*` are regions chosen by score, `audit_*` the random ones: the gain of asking there.
    """

    asked_pixels: int
    asked_teacher_wrong: float | None
    asked_refined_wrong: float | None
    audit_pixels: int
    audit_teacher_wrong: float | None
    audit_refined_wrong: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionWorth:
    """One region held against the round's maps.

    `pixels` got a class; in `teacher_wrong` and `refined_wrong` of them a map had said another.
    `answers` is the number of answer polygons that the cost model expects.
    """

    audit: bool
    pixels: int
    teacher_wrong: int
    refined_wrong: int
    answers: int


def region_worths(
    round_: Round, regions: Sequence[ReviewedRegion], *, num_classes: int
) -> dict[str, RegionWorth]:
    """By region id; regions of scenes without maps are left out.

    Raises:
        RasterError: a map cannot be read.
    """
    found = {}
    for item in regions:
        path = round_.raster(item.region.scene_id, "class")
        if not path.exists():
            continue
        try:
            with quiet(), rasterio.open(path) as source:
                refined, teacher = source.read(
                    [REFINED_BAND, TEACHER_BAND], window=item.region.cell
                )
        except RasterioIOError as error:
            raise RasterError(f"{path}: cannot be read ({error}); query the round again") from None
        known = item.classes != IGNORE_INDEX
        counts = np.bincount(refined[item.region.mask], minlength=IGNORE_INDEX + 1)[:num_classes]
        expected = expected_answers(counts[None], np.array([item.region.pixels]))
        found[item.region.region_id] = RegionWorth(
            audit=item.region.audit,
            pixels=int(known.sum()),
            teacher_wrong=int((teacher != item.classes)[known].sum()),
            refined_wrong=int((refined != item.classes)[known].sum()),
            answers=int(expected[0]),
        )
    return found


def review_worth(worths: Iterable[RegionWorth]) -> ReviewWorth | None:
    """How often the round's maps were wrong in answered pixels; None where there are no maps."""
    counts: Counter[tuple[bool, str]] = Counter()
    for item in worths:
        counts[item.audit, "pixels"] += item.pixels
        counts[item.audit, "teacher"] += item.teacher_wrong
        counts[item.audit, "refined"] += item.refined_wrong
    if not counts:
        return None
    return ReviewWorth(
        asked_pixels=counts[False, "pixels"],
        asked_teacher_wrong=_share(counts, False, "teacher"),
        asked_refined_wrong=_share(counts, False, "refined"),
        audit_pixels=counts[True, "pixels"],
        audit_teacher_wrong=_share(counts, True, "teacher"),
        audit_refined_wrong=_share(counts, True, "refined"),
    )


def _share(counts: Counter[tuple[bool, str]], audit: bool, name: str) -> float | None:
    pixels = counts[audit, "pixels"]
    return counts[audit, name] / pixels if pixels else None


def label_changes(
    run: Run,
    regions: Sequence[ReviewedRegion],
    earlier: Sequence[LedgerEntry],
    class_names: Sequence[str],
) -> tuple[str, ...]:
    """One line per region and pair of classes where an answer overrules an earlier label."""
    lines = []
    for item in regions:
        if not item.labelled_pixels:
            continue
        before = _labels_before(run, item, earlier)
        changed = (before != IGNORE_INDEX) & (item.classes != IGNORE_INDEX)
        changed &= before != item.classes
        pairs = Counter(zip(before[changed].tolist(), item.classes[changed].tolist(), strict=True))
        lines += [
            f"region {item.region.region_id}: {pixels} px from {class_names[old]} to "
            f"{class_names[new]}"
            for (old, new), pixels in sorted(pairs.items())
        ]
    return tuple(lines)


def _labels_before(
    run: Run, item: ReviewedRegion, earlier: Sequence[LedgerEntry]
) -> NDArray[np.uint8]:
    """Classes of a region's cell by the manifest and the rounds before."""
    region = item.region
    row, col = int(region.cell.row_off), int(region.cell.col_off)
    height, width = item.classes.shape
    classes = read_label_raster(run.base_labels(region.scene_id), region.cell).classes.copy()
    for entry in active_entries(earlier):
        top, left, rows, cols = entry.cell
        if entry.scene_id != region.scene_id:
            continue
        low_row, low_col = max(top, row), max(left, col)
        high_row, high_col = min(top + rows, row + height), min(left + cols, col + width)
        if low_row >= high_row or low_col >= high_col:
            continue
        burnt = decode_classes(entry.classes_rle, height=rows, width=cols)[
            low_row - top : high_row - top, low_col - left : high_col - left
        ]
        part = classes[low_row - row : high_row - row, low_col - col : high_col - col]
        part[burnt != IGNORE_INDEX] = burnt[burnt != IGNORE_INDEX]
    return classes
