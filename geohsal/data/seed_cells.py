"""Which grid cells make the first labels: drawn by chance in every scene, until classes suffice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geohsal.data.index import stable_hash
from geohsal.geo.states import IGNORE_INDEX

MIN_REGIONS = 3
"""Regions that a class should have (method: loop, seed)."""

MAX_EXCESS = 2.0
"""Multiple of the budget at which the search for scarce classes ends."""

MIN_SHARE = 0.5
"""Share of a whole cell that must be known for the cell to be drawn, as for queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCells:
    """The cells of one scene, numbered row by row from its origin.

    `known` (cell,) counts the pixels whose truth is known and that may train, `present` is
    (cell, class). `pool` counts the scene's valid train pixels, known or not.
    """

    scene_id: str
    known: NDArray[np.int64]
    present: NDArray[np.bool_]
    pool: int
    region_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDraw:
    """Sorted cells per scene, the pixels they cost, and the regions that each class has in them."""

    cells: dict[str, NDArray[np.int64]]
    pixels: int
    regions: NDArray[np.int64]


def count_cells(
    scene_id: str,
    classes: NDArray[np.uint8],
    *,
    pool: int,
    region_px: int,
    num_classes: int,
) -> SceneCells:
    """Count a scene's truth by cell.

    Args:
        scene_id: names the scene.
        classes: (row, col); 255 where truth is unknown or the pixel may not train.
        pool: valid train pixels of the scene.
        region_px: side of a cell.
        num_classes: classes of the manifest.
    """
    height, width = classes.shape
    cells_across = -(-width // region_px)
    column = np.arange(width) // region_px * num_classes
    counts = []
    for top in range(0, height, region_px):
        strip = classes[top : top + region_px]
        rows, cols = np.nonzero(strip != IGNORE_INDEX)
        codes = column[cols] + strip[rows, cols]
        counts.append(np.bincount(codes, minlength=cells_across * num_classes))
    table = np.concatenate(counts).reshape(-1, num_classes)
    return SceneCells(
        scene_id=scene_id,
        known=table.sum(axis=1),
        present=table > 0,
        pool=pool,
        region_px=region_px,
    )


def draw_cells(scenes: Sequence[SceneCells], *, share: float, seed: int) -> SeedDraw:
    """Draw cells for `share` of the pool, the same share in every scene as far as cells allow.

    While a class has fewer than three regions, cells that hold the scarcest class follow, until
    twice the budget is spent. Within a scene cells are in random order; a scene's order depends
    on `seed` and its id alone.

    Args:
        scenes: what may be drawn from.
        share: of the pool; above 0, at most 1.
        seed: of the draw.
    """
    order = _Order.of(scenes, seed=seed)
    budget = share * sum(scene.pool for scene in scenes)
    taken = np.zeros(order.cost.size, dtype=np.bool_)
    taken[: int(np.searchsorted(np.cumsum(order.cost), budget, side="right"))] = True
    spent = int(order.cost[taken].sum())
    regions = order.present[taken].sum(axis=0, dtype=np.int64)
    reachable = np.asarray(order.present.any(axis=0))
    while (scarce := reachable & (regions < MIN_REGIONS)).any():
        wanted = int(np.flatnonzero(scarce)[np.argmin(regions[scarce])])
        fitting = ~taken & order.present[:, wanted] & (order.cost <= MAX_EXCESS * budget - spent)
        if not fitting.any():
            reachable[wanted] = False
            continue
        cell = int(np.argmax(fitting))
        taken[cell] = True
        spent += int(order.cost[cell])
        regions += order.present[cell]
    return SeedDraw(cells=order.by_scene(taken, scenes), pixels=spent, regions=regions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """All cells that may be drawn, in the order of the draw."""

    scene: NDArray[np.int64]
    cell: NDArray[np.int64]
    cost: NDArray[np.int64]
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, scenes: Sequence[SceneCells], *, seed: int) -> "_Order":
        """Cells sorted by the share of their scene that is drawn before them.

        Systematic sampling: a scene's cells lie one after the other on the line from 0 to 1, each
        as long as its pixels, moved by a random part of a cell; a share is a cut through all
        scenes at the same place.
        """
        places, numbers, cells, costs = [], [], [], []
        for number, scene in enumerate(scenes):
            rng = np.random.default_rng([seed, stable_hash(scene.scene_id)])
            own = rng.permutation(np.flatnonzero(scene.known >= MIN_SHARE * scene.region_px**2))
            cost = scene.known[own]
            before = np.cumsum(cost) - cost
            places.append((before + rng.random() * cost) / max(int(cost.sum()), 1))
            numbers.append(np.full(own.size, number))
            cells.append(own)
            costs.append(cost)
        place, scene_of, cell, cost = map(np.concatenate, (places, numbers, cells, costs))
        present = np.concatenate([s.present[own] for s, own in zip(scenes, cells, strict=True)])
        ranks = np.lexsort((cell, scene_of, place))
        return cls(
            scene=scene_of[ranks], cell=cell[ranks], cost=cost[ranks], present=present[ranks]
        )

    def by_scene(
        self, taken: NDArray[np.bool_], scenes: Sequence[SceneCells]
    ) -> dict[str, NDArray[np.int64]]:
        """The cells that were taken, sorted, for every scene."""
        return {
            scene.scene_id: np.sort(self.cell[taken & (self.scene == number)])
            for number, scene in enumerate(scenes)
        }


def in_cells(
    shape: tuple[int, int], cells: NDArray[np.int64], *, region_px: int
) -> NDArray[np.bool_]:
    """True in the pixels (row, col) of these cells."""
    down, across = (-(-side // region_px) for side in shape)
    chosen = np.zeros(down * across, dtype=np.bool_)
    chosen[cells] = True
    rows, cols = np.arange(shape[0]) // region_px, np.arange(shape[1]) // region_px
    return np.asarray(chosen.reshape(down, across)[rows[:, None], cols[None, :]])
