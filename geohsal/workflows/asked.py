"""Which pixels are not asked about again: answered regions, and unsure ones at rest."""

from collections.abc import Callable, Container, Iterator

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.geo.scene import QueryRegion, Scene
from geohsal.io.ledger import LedgerEntry, active_entries, read_ledger
from geohsal.io.round_record import read_regions
from geohsal.io.run import Run
from geohsal.workflows.round_rasters import read_teacher

CHANGED_SHARE = 0.05
"""An unsure or skipped region may be asked again once the teacher changed this share of it."""

SQUARE_PX = 256
"""Regions are found by the squares of this side that they lie in."""

_Box = tuple[int, int, int, int]
"""Top, left, bottom, right: pixels of a scene."""


class Blocked:
    """Pixels of regions that are not asked about again, kept region by region.

    Small enough to send to another process: a region costs one bit a pixel, a scene nothing.
    """

    __slots__ = ("_squares",)

    def __init__(self) -> None:
        self._squares: dict[str, dict[tuple[int, int], list[tuple[_Box, bytes]]]] = {}

    @property
    def scene_ids(self) -> list[str]:
        """Scenes with a blocked region, in order."""
        return sorted(self._squares)

    def add(self, region: QueryRegion) -> None:
        """Block the pixels of a region's mask."""
        box = _box(region.cell)
        kept = (box, np.packbits(region.mask).tobytes())
        squares = self._squares.setdefault(region.scene_id, {})
        for square in _squares(box):
            squares.setdefault(square, []).append(kept)

    def window(self, scene_id: str, window: Window) -> NDArray[np.bool_] | None:
        """(row, col) of a window of a scene, True where blocked; None where nothing is."""
        squares, box = self._squares.get(scene_id, {}), _box(window)
        near = {found for square in _squares(box) for found in squares.get(square, ())}
        near = {found for found in near if _meet(found[0], box)}
        if not near:
            return None
        blocked = np.zeros((box[2] - box[0], box[3] - box[1]), dtype=np.bool_)
        for cell, bits in near:
            _mark(blocked, box, cell, bits)
        return blocked if blocked.any() else None


def _box(window: Window) -> _Box:
    top, left = int(window.row_off), int(window.col_off)
    return top, left, top + int(window.height), left + int(window.width)


def _squares(box: _Box) -> Iterator[tuple[int, int]]:
    top, left, bottom, right = box
    for row in range(top // SQUARE_PX, -(-bottom // SQUARE_PX)):
        for col in range(left // SQUARE_PX, -(-right // SQUARE_PX)):
            yield row, col


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _mark(blocked: NDArray[np.bool_], box: _Box, cell: _Box, bits: bytes) -> None:
    """Mark in a window what it shares with the mask of a cell."""
    shape = (cell[2] - cell[0], cell[3] - cell[1])
    flat = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=shape[0] * shape[1])
    mask = flat.reshape(shape).astype(np.bool_)
    top, left = max(box[0], cell[0]), max(box[1], cell[1])
    bottom, right = min(box[2], cell[2]), min(box[3], cell[3])
    there = slice(top - box[0], bottom - box[0]), slice(left - box[1], right - box[1])
    blocked[there] |= mask[top - cell[0] : bottom - cell[0], left - cell[1] : right - cell[1]]


def answered_regions(run: Run) -> list[tuple[QueryRegion, LedgerEntry]]:
    """Regions of earlier rounds that a reviewer has looked at, with their ledger entries."""
    entries = [entry for entry in active_entries(read_ledger(run.ledger)) if entry.region_id]
    by_round: dict[int, dict[str, QueryRegion]] = {}
    found = []
    for entry in entries:
        if entry.round not in by_round:
            regions = read_regions(run.round(entry.round).regions)
            by_round[entry.round] = {region.region_id: region for region in regions}
        region = by_round[entry.round].get(entry.region_id)
        if region is not None:
            found.append((region, entry))
    return found


def blocked_pixels(
    run: Run, scenes: Container[str]
) -> tuple[Blocked, list[tuple[QueryRegion, int]]]:
    """Pixels never asked again (done regions), and the regions that rest until the model changes.

    Args:
        run: whose reviewers are asked.
        scenes: ids of the scenes that matter; regions of others are left out.

    Returns:
        The done regions; and unsure or skipped regions with the round that asked about them.
    """
    blocked = Blocked()
    resting: dict[str, tuple[QueryRegion, int]] = {}
    for region, entry in answered_regions(run):
        if region.scene_id not in scenes:
            continue
        if entry.status == "done":
            blocked.add(region)
            resting.pop(region.region_id, None)
        elif entry.status in ("unsure", "skipped"):
            resting[region.region_id] = (region, entry.round)
    return blocked, [resting[key] for key in sorted(resting)]


def unchanged(
    run: Run,
    region: QueryRegion,
    asked_in: int,
    *,
    scene: Scene,
    teacher: Callable[[Window], NDArray[np.uint8]],
) -> bool:
    """Whether the teacher still says nearly the same there as when the region was asked about.

    Args:
        run: whose earlier rounds hold what the teacher said.
        region: unsure or skipped.
        asked_in: the round that asked about it.
        scene: of the region.
        teacher: gives the classes (row, col) of a window of the scene that it names now.
    """
    before = read_teacher(run.round(asked_in), scene, region.cell)[region.mask]
    now = teacher(region.cell)[region.mask]
    return float((before != now).mean()) < CHANGED_SHARE
