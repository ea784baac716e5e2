"""The order in which regions are bought: by lot, by spread in feature space, by worth, to fill."""

import math

import numpy as np
from numpy.typing import NDArray

from geohsal.config import QueryConfig
from geohsal.query.basket import Basket, Pool, Why

AUDIT_FROM_REGIONS = 5
"""A budget that buys this many typical regions holds at least one audit region."""

_CAP_TURNS = 4
"""Turns of tightening the tile cap to the outcome before it is halved each time."""


def choose(
    pool: Pool, features: NDArray[np.float32], *, amount: float, config: QueryConfig
) -> Basket:
    """Fill a basket: audit, then diverse and worthy regions, under the caps of the outcome.

    `features` (region, feature) runs along `pool`. The tile cap depends on the number of regions,
    so start from the largest number that the budget could buy and tighten until the cap of the
    outcome holds for the outcome.
    """
    most = int((np.cumsum(np.sort(pool.cost)) <= amount * (1 + 1e-9)).sum())
    cap = _tile_cap(most, pool, share=config.tile_cap)
    for turn in range(len(pool) + 1):
        basket = _choose_under(pool, features, amount=amount, config=config, cap=cap)
        allowed = _tile_cap(len(basket), pool, share=config.tile_cap)
        if basket.busiest <= allowed:
            break
        cap = allowed if turn < _CAP_TURNS else max(1, allowed // 2)
    return basket


def _tile_cap(regions: int, pool: Pool, *, share: float) -> int:
    """At most max(1, share of the regions, 2 x regions / pool tiles) from one tile (design 7)."""
    pool_tiles = int(pool.tile.max()) + 1
    return int(max(1, share * regions, 2 * regions / pool_tiles))


def _choose_under(
    pool: Pool, features: NDArray[np.float32], *, amount: float, config: QueryConfig, cap: int
) -> Basket:
    basket = Basket(pool, amount=amount, cap=cap, exclusion=config.exclusion)
    _buy_audit(basket, pool, share=config.audit_share, amount=amount)
    worth = np.argsort(-pool.score, kind="stable")
    worth = worth[pool.score[worth] > 0]
    by_error = np.argsort(-pool.error, kind="stable")
    by_error = by_error[pool.error[by_error] > 0]
    by_lot = np.argsort(pool.lot, kind="stable")
    for spaced in (True, False):
        if config.strategy != "random":
            _buy_diverse(
                basket, pool, order=worth, features=features, factor=config.diversity, spaced=spaced
            )
        _buy(basket, pool, order=worth, spaced=spaced, why="score")
        _buy(basket, pool, order=by_error, spaced=spaced, why="error")
        _buy(basket, pool, order=by_lot, spaced=spaced, why="random")
    return basket


def _buy_audit(basket: Basket, pool: Pool, *, share: float, amount: float) -> None:
    """Regions in the order of their draws, until the next does not fit the audit's share.

    Stopping there, not looking for a cheaper one, keeps the sample from favouring small regions.
    """
    if share == 0:
        return
    order = np.argsort(pool.draw, kind="stable")
    within = min(amount, share * amount * (1 + 1e-12))
    for item in order.tolist():
        if not basket.affords(pool.cost[item], within=within):
            break
        basket.take(item, spaced=True, why="audit")
    if not len(basket) and amount / float(np.median(pool.cost)) >= AUDIT_FROM_REGIONS:
        any(basket.take(item, spaced=True, why="audit") for item in order.tolist())


def _buy(basket: Basket, pool: Pool, *, order: NDArray[np.intp], spaced: bool, why: Why) -> None:
    order = order[basket.open(spaced=spaced)[order]]
    cheapest = float(pool.cost[order].min()) if order.size else math.inf
    for item in order.tolist():
        if basket.take(item, spaced=spaced, why=why) and not basket.affords(cheapest):
            break


def _buy_diverse(
    basket: Basket,
    pool: Pool,
    *,
    order: NDArray[np.intp],
    features: NDArray[np.float32],
    factor: float,
    spaced: bool,
) -> None:
    """Greedy k-centre on standardised features among the best, from the best one on.

    The shortlist is `factor` times the regions that the money left would buy; equal distances
    go to the better score.
    """
    order = order[basket.open(spaced=spaced)[order]]
    if not order.size:
        return
    wanted = math.ceil(basket.left / float(np.median(pool.cost[order])))
    order = order[: math.ceil(factor * min(wanted, order.size))]
    cheapest = float(pool.cost[order].min())
    points = _standardised(features[order])
    distance = np.full(len(order), np.inf, dtype=np.float32)
    for _ in range(len(order)):
        place = int(np.argmax(distance))
        bought = basket.take(int(order[place]), spaced=spaced, why="score")
        if bought:
            np.minimum(distance, _squared_distance(points, points[place]), out=distance)
        distance[place] = -1  # seen; every other distance is at least 0
        if bought and not basket.affords(cheapest):
            break


def _standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    spread = features.std(axis=0, dtype=np.float64)
    centred = features - features.mean(axis=0, dtype=np.float64)
    scaled: NDArray[np.float32] = (centred / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    return scaled


def _squared_distance(
    points: NDArray[np.float32], centre: NDArray[np.float32]
) -> NDArray[np.float32]:
    apart = points - centre
    squared: NDArray[np.float32] = np.einsum("nf,nf->n", apart, apart)
    return squared
