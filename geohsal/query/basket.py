"""Regions bought so far in one selection, and the rules that buying obeys."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geohsal.query.regions import Candidates

Why = Literal["audit", "score", "error", "random"]
"""How a region came into the batch: drawn for audit, by score, by predicted error, at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What selection needs of each candidate, in the order of ids: scene, cell row, cell column.

    `origin` is the index in the caller's table, `cell` = (scene * rows + row) * cols + col with
    rows and cols the largest row and column plus 1, `tile` a number per tile, `draw` and `lot`
    uniform draws (for the audit, and for what is filled at random).
    """

    origin: NDArray[np.intp]
    scene: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    cell: NDArray[np.int64]
    tile: NDArray[np.int64]
    cost: NDArray[np.float64]
    score: NDArray[np.float64]
    error: NDArray[np.float64]
    draw: NDArray[np.float64]
    lot: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.origin)


def cell_order(candidates: Candidates) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Indices in the order of scene id, cell row, cell column; and the scenes' places in it.

    Raises:
        ValueError: a cell is there twice.
    """
    ids = np.array(candidates.scene_ids)
    place = np.empty(len(ids), dtype=np.int64)
    place[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    scene = place[candidates.scene]
    order = np.lexsort((candidates.col, candidates.row, scene))
    table = np.stack([scene[order], candidates.row[order], candidates.col[order]])
    twice = np.flatnonzero((table[:, 1:] == table[:, :-1]).all(axis=0))
    if twice.size:
        name = candidates.region_id(int(order[twice[0]]))
        raise ValueError(f"region {name} is in the candidate table twice")
    return order, scene


class Basket:
    """Regions bought so far; `take` buys one more where budget, tile cap and distance allow.

    `items` are places in the pool and `why` runs along them; `close` counts the regions that lie
    nearer to an earlier one than the exclusion distance.
    """

    def __init__(self, pool: Pool, *, amount: float, cap: int, exclusion: float) -> None:
        """`cap` is the largest number from one tile; `exclusion` is in region sides."""
        self._pool = pool
        self._amount = amount
        self._cap = cap
        self._radius = math.ceil(min(exclusion, 1e6))
        self._rows = int(pool.row.max()) + 1
        self._cols = int(pool.col.max()) + 1
        self._spent = Fraction(0)
        self._taken = np.zeros(len(pool), dtype=bool)
        self._near = np.zeros(len(pool), dtype=bool)
        self._in_tile = np.zeros(int(pool.tile.max()) + 1, dtype=np.int64)
        self.items: list[int] = []
        self.why: list[Why] = []
        self.close = 0

    def __len__(self) -> int:
        return len(self.items)

    @property
    def spent(self) -> float:
        """Exact sum of the costs, rounded once."""
        return float(self._spent)

    @property
    def left(self) -> float:
        """What can still be spent."""
        return float(Fraction(self._amount) - self._spent)

    @property
    def busiest(self) -> int:
        """Largest number of regions from one tile."""
        return int(self._in_tile.max())

    def affords(self, cost: float, *, within: float | None = None) -> bool:
        """Whether one more region of this cost keeps the sum within the budget."""
        limit = self._amount if within is None else within
        return float(self._spent + Fraction(float(cost))) <= limit

    def open(self, *, spaced: bool) -> NDArray[np.bool_]:
        """Regions that may still be bought (the last rounding of cost is left to `take`)."""
        pool = self._pool
        free = ~self._taken & (self._in_tile[pool.tile] < self._cap)
        free &= pool.cost <= self.left * (1 + 1e-9)
        return free & ~self._near if spaced else free

    @property
    def unused(self) -> NDArray[np.bool_]:
        """Regions of the pool that were not bought."""
        return ~self._taken

    @property
    def capped(self) -> bool:
        """Whether a region was left that the tile cap alone forbids."""
        return bool(self.unused.any()) and self.affords(float(self._pool.cost[self.unused].min()))

    def take(self, item: int, *, spaced: bool, why: Why) -> bool:
        """Buy one region; False where a rule forbids it."""
        tile = self._pool.tile[item]
        if self._taken[item] or self._in_tile[tile] >= self._cap:
            return False
        if (spaced and self._near[item]) or not self.affords(self._pool.cost[item]):
            return False
        self._spent += Fraction(float(self._pool.cost[item]))
        self._taken[item] = True
        self.close += int(self._near[item])
        self._in_tile[tile] += 1
        self._mark_near(item)
        self.items.append(item)
        self.why.append(why)
        return True

    def _mark_near(self, item: int) -> None:
        """Cells whose edge is less than `exclusion` sides away: at most ceil(exclusion) cells."""
        pool, radius = self._pool, self._radius
        scene, row, col = int(pool.scene[item]), int(pool.row[item]), int(pool.col[item])
        rows = np.arange(max(0, row - radius), min(self._rows - 1, row + radius) + 1)
        line = (scene * self._rows + rows) * self._cols
        left = np.searchsorted(pool.cell, line + max(0, col - radius))
        right = np.searchsorted(pool.cell, line + min(self._cols - 1, col + radius), side="right")
        for start, stop in zip(left.tolist(), right.tolist(), strict=True):
            self._near[start:stop] = True
