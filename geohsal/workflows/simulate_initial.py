"""Cells drawn by lot and answered from the truth: the labels that a simulation may begin with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geohsal.config import CostConfig
from geohsal.errors import BudgetError
from geohsal.geo.areas import pixel_area_m2
from geohsal.geo.budget import Budget, parse_budget
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.cog import write_cog
from geohsal.io.labels import read_truth
from geohsal.io.manifest import LabelSource
from geohsal.query.draws import cell_draws
from geohsal.workflows.context import RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What labels cost; `area_m2` is None where scenes have no position on Earth."""

    pixels: int = 0
    area_m2: float | None = 0.0
    seconds: float = 0.0
    regions: int = 0

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        known = self.area_m2 is not None and other.area_m2 is not None
        return Spent(
            pixels=self.pixels + other.pixels,
            area_m2=(self.area_m2 or 0.0) + (other.area_m2 or 0.0) if known else None,
            seconds=self.seconds + other.seconds,
            regions=self.regions + other.regions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A cell of the query's grid; sorts by its lot. `pixels` of it are valid and may train."""

    lot: float
    scene_id: str
    row: int
    col: int
    pixels: int


def draw_labels(
    context: RunContext, folder: Path, *, seed: int, budget_text: str
) -> tuple[dict[str, LabelSource], Spent]:
    """Write label rasters of cells drawn by lot within a budget, and say what they cost.

    A cell must hold as many usable pixels as a query asks for (query.min_share). The draw of a
    cell depends on seed and place alone.

    Args:
        context: a run without labels, tiled to know what may train.
        folder: takes a raster per scene with drawn cells.
        seed: of the lots.
        budget_text: in regions, pixels, ground area or per cent.

    Raises:
        BudgetError: the budget means nothing here, is in minutes, or buys no cell.
        LabelError: truth cannot be read.
    """
    budget = parse_budget(
        budget_text,
        pool_pixels=context.record.train_valid_pixels,
        local=context.record.local,
    )
    if budget.unit == "seconds":
        raise BudgetError(f"budget {budget_text!r}: cells drawn by lot are not counted in minutes")
    side, labels, spent = context.config.query.region_px, {}, Spent()
    found = [cell for name in context.scenes for cell in _cells(context, name, seed=seed)]
    cells = _within(found, budget, context.scenes)
    for scene_id, scene in context.scenes.items():
        own = [cell for cell in cells if cell.scene_id == scene_id]
        if own:
            kept = _truth_in(context, scene, own, side=side)
            path = folder / f"{scene_id}.tif"
            write_cog(path, kept, scene=scene, nodata=IGNORE_INDEX, band_names=("class",))
            labels[scene_id] = LabelSource(path=str(path.absolute()), ignore=(IGNORE_INDEX,))
            spent = spent.plus(_cost(own, scene, kept, side=side, prices=context.config.cost))
    return labels, spent


def _cells(context: RunContext, scene_id: str, *, seed: int) -> list[_Cell]:
    """Cells of a scene with enough pixels that are valid and may train."""
    side = context.config.query.region_px
    with context.open(scene_id) as scene:
        extent = scene.scene.extent
        if not scene.trainable(extent).any():
            return []
        usable = scene.trainable(extent) & scene.read(extent)[1]
    rows = np.arange(0, usable.shape[0], side)
    cols = np.arange(0, usable.shape[1], side)
    counts = np.add.reduceat(np.add.reduceat(usable.astype(np.int64), rows, 0), cols, 1)
    lots = cell_draws(
        scene_id,
        np.arange(len(rows))[:, None],
        cols=np.arange(len(cols))[None, :],
        seed=seed,
        purpose="initial",
    )
    least = context.config.query.min_share * side * side
    return [
        _Cell(
            lot=float(lots[row, col]),
            scene_id=scene_id,
            row=int(row),
            col=int(col),
            pixels=int(counts[row, col]),
        )
        for row, col in np.argwhere(counts >= max(least, 1))
    ]


def _within(cells: Sequence[_Cell], budget: Budget, scenes: dict[str, Scene]) -> list[_Cell]:
    """Cells in the order of their lots as long as the budget lasts."""
    areas = {name: pixel_area_m2(scene) for name, scene in scenes.items()}
    left, chosen = budget.amount, []
    for cell in sorted(cells, key=lambda item: (item.lot, item.scene_id, item.row, item.col)):
        area = areas[cell.scene_id]
        cost = budget.cost(
            pixels=cell.pixels,
            area_m2=None if area is None else area * cell.pixels,
            seconds=0.0,
        )
        if cost <= left:
            left -= cost
            chosen.append(cell)
    if not chosen:
        raise BudgetError(f"budget {budget.text!r}: buys no cell to begin with; give more")
    return chosen


def _truth_in(
    context: RunContext, scene: Scene, cells: Sequence[_Cell], *, side: int
) -> NDArray[np.uint8]:
    """The truth (row, col) inside cells, 255 elsewhere."""
    source = context.manifest.scene(scene.scene_id).truth
    kept = np.full(scene.shape, IGNORE_INDEX, dtype=np.uint8)
    if source is None:
        return kept
    where = f"scene {scene.scene_id!r}: truth"
    truth = read_truth(source, scene, context.manifest.classes, where=where)
    for area in (_area(cell, side) for cell in cells):
        kept[area] = truth[area]
    return kept


def _area(cell: _Cell, side: int) -> tuple[slice, slice]:
    top, left = cell.row * side, cell.col * side
    return slice(top, top + side), slice(left, left + side)


def _cost(
    cells: Sequence[_Cell],
    scene: Scene,
    kept: NDArray[np.uint8],
    *,
    side: int,
    prices: CostConfig,
) -> Spent:
    """What drawn cells cost: an answer per class in each."""
    pixels = sum(cell.pixels for cell in cells)
    area = pixel_area_m2(scene)
    answers = sum(len(np.unique(kept[_area(cell, side)])) for cell in cells)
    return Spent(
        pixels=pixels,
        area_m2=None if area is None else area * pixels,
        seconds=len(cells) * prices.seconds_per_region + answers * prices.seconds_per_answer,
        regions=len(cells),
    )
