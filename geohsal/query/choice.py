"""The order in which regions are bought: by lot for the audit, then as the strategy selects."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from geohsal.query.basket import Basket, Pool
from geohsal.query.ranking import in_order
from geohsal.query.selectors import Offer, Select, fill_by_lot

AUDIT_FROM_REGIONS = 5
"""A budget that buys this many typical regions holds at least one audit region."""

_CAP_TURNS = 4
"""Turns of tightening the tile cap to the outcome before it is halved each time."""


def choose(offer: Offer, select: Select, *, amount: float) -> Basket:
    """Fill a basket: audit regions, then what `select` buys, then by lot.

    The tile cap depends on the number of regions, so start from the largest number that the
    budget could buy and tighten until the cap of the outcome holds for the outcome.
    """
    pool, share = offer.pool, offer.config.tile_cap
    most = int((np.cumsum(np.sort(pool.cost)) <= amount * (1 + 1e-9)).sum())
    cap = _tile_cap(most, pool, share=share)
    for turn in range(len(pool) + 1):
        basket = _choose_under(offer, select, amount=amount, cap=cap)
        allowed = _tile_cap(len(basket), pool, share=share)
        if basket.busiest <= allowed:
            break
        cap = allowed if turn < _CAP_TURNS else max(1, allowed // 2)
    return basket


def _tile_cap(regions: int, pool: Pool, *, share: float) -> int:
    """At most max(1, share of the regions, 2 x regions / pool tiles) from one tile (design 7)."""
    pool_tiles = int(pool.tile.max()) + 1
    return int(max(1, share * regions, 2 * regions / pool_tiles))


def _choose_under(offer: Offer, select: Select, *, amount: float, cap: int) -> Basket:
    basket = Basket(
        offer.pool,
        amount=amount,
        cap=cap,
        exclusion_px=offer.config.exclusion * offer.pool.region_px,
    )
    _buy_audit(basket, offer.pool, share=offer.config.audit_share, amount=amount)
    for spaced in (True, False):
        turn = replace(offer, spaced=spaced)
        select(basket, turn)
        fill_by_lot(basket, turn)
    return basket


def _buy_audit(basket: Basket, pool: Pool, *, share: float, amount: float) -> None:
    """Regions in the order of their draws, until the next does not fit the audit's share.

    Stopping there, not looking for a cheaper one, keeps the sample from favouring small regions.
    """
    if share == 0:
        return
    within = min(amount, share * amount * (1 + 1e-12))
    for item in _by_draw(pool):
        if not basket.affords(pool.cost[item], within=within):
            break
        basket.take(item, spaced=True, why="audit")
    if not len(basket) and amount / float(np.median(pool.cost)) >= AUDIT_FROM_REGIONS:
        any(basket.take(item, spaced=True, why="audit") for item in _by_draw(pool))


def _by_draw(pool: Pool) -> Iterator[int]:
    for block in in_order(pool.draw, np.ones(len(pool), dtype=np.bool_)):
        yield from block.tolist()
