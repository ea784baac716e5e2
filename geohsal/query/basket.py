"""Regions bought so far in one selection, and the rules that buying obeys."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geohsal.query.regions import Candidates

Why = Literal["audit", "score", "spread", "turn", "error", "random"]
"""How a region came into the batch: drawn for audit, by score, by spread as no score is proven, as
the strategy's turn came (by spread or by lot), or to fill up: by predicted error, at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What selection needs of each candidate, in the order of ids: scene, row, column, number.

    `origin` is the index in the caller's table; `top`, `left`, `bottom`, `right` bound the region
    in pixels of its scene. `anchor` is a row of pixels, never below `top`, that rises within a
    scene. `tile` is a number per tile, `draw` and `lot` are uniform draws (for the audit, and for
    what is chosen by lot). Where regions are `overlapping`, two that meet are never both bought.
    """

    origin: NDArray[np.intp]
    scene: NDArray[np.int64]
    anchor: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    bottom: NDArray[np.int64]
    right: NDArray[np.int64]
    tile: NDArray[np.int64]
    cost: NDArray[np.float64]
    score: NDArray[np.float64]
    error: NDArray[np.float64]
    draw: NDArray[np.float64]
    lot: NDArray[np.float64]
    region_px: int
    overlapping: bool

    def __len__(self) -> int:
        return len(self.origin)


def id_order(candidates: Candidates) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Indices in the order of scene id, row, column, number; and the scenes' places in it.

    Raises:
        ValueError: a region is there twice.
    """
    ids = np.array(candidates.scene_ids)
    place = np.empty(len(ids), dtype=np.int64)
    place[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    scene = place[candidates.scene]
    keys = (scene, candidates.row, candidates.col, candidates.number)
    order = np.lexsort(keys[::-1])
    table = np.stack([key[order] for key in keys])
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

    def __init__(self, pool: Pool, *, amount: float, cap: int, exclusion_px: float) -> None:
        """`cap` is the largest number from one tile; `exclusion_px` the distance of two edges."""
        self._pool = pool
        self._amount = amount
        self._cap = cap
        self._exclusion = exclusion_px
        self._line = int(pool.bottom.max()) + 1
        self._keys = pool.scene * self._line + pool.anchor
        self._reach = int((pool.bottom - pool.anchor).max())
        self._spent = Fraction(0)
        self._taken = np.zeros(len(pool), dtype=bool)
        self._near = np.zeros(len(pool), dtype=bool)
        self._shut = np.zeros(len(pool), dtype=bool)
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
        free = self.unused & (self._in_tile[pool.tile] < self._cap)
        free &= pool.cost <= self.left * (1 + 1e-9)
        return free & ~self._near if spaced else free

    @property
    def unused(self) -> NDArray[np.bool_]:
        """Regions of the pool that were neither bought nor overlap one that was."""
        return ~(self._taken | self._shut)

    @property
    def capped(self) -> bool:
        """Whether a region was left that the tile cap alone forbids."""
        return bool(self.unused.any()) and self.affords(float(self._pool.cost[self.unused].min()))

    def take(self, item: int, *, spaced: bool, why: Why) -> bool:
        """Buy one region; False where a rule forbids it."""
        tile = self._pool.tile[item]
        if self._taken[item] or self._shut[item] or self._in_tile[tile] >= self._cap:
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
        """Regions whose edges are less than the exclusion distance away, and those that overlap."""
        pool, reach = self._pool, min(self._exclusion, float(self._line))
        scene = int(pool.scene[item]) * self._line
        first = max(0, math.floor(pool.top[item] - reach - self._reach))
        last = min(self._line - 1, math.ceil(pool.bottom[item] + reach))
        start = int(np.searchsorted(self._keys, scene + first))
        stop = int(np.searchsorted(self._keys, scene + last, side="right"))
        part = slice(start, stop)
        rows = np.maximum(pool.top[part] - pool.bottom[item], pool.top[item] - pool.bottom[part])
        cols = np.maximum(pool.left[part] - pool.right[item], pool.left[item] - pool.right[part])
        apart = np.maximum(rows, cols)
        self._near[part] |= np.maximum(apart, 0) < self._exclusion
        if pool.overlapping:
            self._shut[part] |= apart < 0
