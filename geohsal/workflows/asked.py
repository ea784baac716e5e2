"""Which pixels are not asked about again: answered regions, and unsure ones at rest."""

import numpy as np
from numpy.typing import NDArray

from geohsal.geo.patches import slices
from geohsal.geo.scene import QueryRegion, Scene, SceneMaps
from geohsal.io.ledger import LedgerEntry, active_entries, read_ledger
from geohsal.io.round_record import read_regions
from geohsal.io.run import Run
from geohsal.workflows.round_rasters import read_teacher

CHANGED_SHARE = 0.05
"""An unsure or skipped region may be asked again once the teacher changed this share of it."""


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
    run: Run, scenes: dict[str, Scene]
) -> tuple[dict[str, NDArray[np.bool_]], list[tuple[QueryRegion, int]]]:
    """Pixels never asked again (done regions), and the regions that rest until the model changes.

    Returns:
        By scene, (row, col) True inside done regions; and unsure or skipped regions with the
        round that asked about them.
    """
    blocked: dict[str, NDArray[np.bool_]] = {}
    resting: dict[str, tuple[QueryRegion, int]] = {}
    for region, entry in answered_regions(run):
        if entry.status == "done":
            mask = blocked.setdefault(
                region.scene_id, np.zeros(scenes[region.scene_id].shape, dtype=np.bool_)
            )
            mask[slices(region.cell)] |= region.mask
            resting.pop(region.region_id, None)
        elif entry.status in ("unsure", "skipped"):
            resting[region.region_id] = (region, entry.round)
    return blocked, [resting[key] for key in sorted(resting)]


def unchanged(
    run: Run, region: QueryRegion, asked_in: int, *, scene: Scene, maps: SceneMaps
) -> bool:
    """Whether the teacher still says nearly the same there as when the region was asked about."""
    before = read_teacher(run.round(asked_in), scene, region.cell)[region.mask]
    now = maps.teacher[slices(region.cell)][region.mask]
    return float((before != now).mean()) < CHANGED_SHARE
