"""How a batch is selected: best first, by lot, by spread in feature or gradient space."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from geohsal.config import QueryConfig
from geohsal.query.basket import Basket, Pool, Why
from geohsal.query.ranking import in_order, leading

_NEAR_TOP = 0.95
"""Distances from this share of the largest are brought up to date together."""

_MOST_SPREAD = 2**17
"""Regions that a spread over the whole pool is made over at most."""

_ROWS = 16384
"""Rows of features that are worked on at once: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a selector chooses from; arrays run along the pool, which is in the order of ids.

    `features` (region, feature) are mean features, `embeddings` (region, dimension) gradient
    embeddings (no columns unless the acquisition needs them), `labelled` (labelled region,
    feature) the mean features of what is labelled already (no rows unless needed). `seed` is of
    run and round. `spaced` asks to keep the exclusion distance. `proven` says that the error mask
    was seen to rank errors better than chance.
    """

    pool: Pool
    features: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    labelled: NDArray[np.float32]
    config: QueryConfig
    seed: int
    spaced: bool
    proven: bool = True


Select = Callable[[Basket, Offer], None]
"""Buys regions until the basket takes no more, or the strategy has no opinion on the rest."""


def best_first(basket: Basket, offer: Offer) -> None:
    """Regions of positive worth, best first."""
    _buy(basket, offer, -offer.pool.score, among=offer.pool.score > 0, why="score")


def by_lot(basket: Basket, offer: Offer) -> None:
    """Regions in the order of their draws."""
    _buy(basket, offer, offer.pool.lot, among=_anywhere(offer), why="turn")


def diverse(basket: Basket, offer: Offer) -> None:
    """k-centre among the best (method 3.6), then best first, then by predicted error.

    The shortlist is `query.diversity` times the regions that the money left would buy; equal
    distances go to the better score. While nothing shows that the predicted errors are errors (no
    error is withheld, the error mask ranks no better than chance, or there is none), the best are
    no better than others and every region is on the list, of a pool above 131,072 regions so many
    drawn by lot.
    """
    order = _shortlist(basket, offer)
    if order.size:
        points = _standardised(offer.features[order])
        distance = np.full(len(order), np.inf)
        why: Why = "score" if offer.proven else "spread"
        _farthest_first(basket, offer, order=order, points=points, distance=distance, why=why)
    best_first(basket, offer)
    _buy(basket, offer, -offer.pool.error, among=offer.pool.error > 0, why="error")


def _shortlist(basket: Basket, offer: Offer) -> NDArray[np.intp]:
    """What `diverse` spreads over, best first."""
    pool, among = offer.pool, basket.open(spaced=offer.spaced)
    if offer.proven:
        among &= pool.score > 0
    count = int(among.sum())
    if offer.proven and count:
        wanted = math.ceil(basket.left / float(np.median(pool.cost[among])))
        count = min(count, math.ceil(offer.config.diversity * min(wanted, count)))
    elif count > _MOST_SPREAD:
        among &= pool.lot <= np.partition(pool.lot[among], _MOST_SPREAD - 1)[_MOST_SPREAD - 1]
    return leading(-pool.score, among, count=count)


def core_set(basket: Basket, offer: Offer) -> None:
    """Greedy k-centre on mean features (Sener & Savarese 2018), away from all that is labelled.

    Labelled regions and those in the basket are the first centres; without any, the first region
    is the one of smallest id.
    """
    order = np.flatnonzero(basket.open(spaced=offer.spaced))
    points = offer.features[order]
    centres = np.concatenate([offer.labelled, offer.features[basket.items]])
    distance = np.full(len(order), np.inf)
    if len(centres) and len(order):
        distance = KDTree(centres).query(points)[0] ** 2
    _farthest_first(basket, offer, order=order, points=points, distance=distance, why="turn")


def k_means_plus_plus(basket: Basket, offer: Offer) -> None:
    """Seeding of k-means++ on gradient embeddings (BADGE, Ash et al. 2020).

    The first is the largest; each further one is drawn in proportion to its squared distance to
    the nearest drawn before.
    """
    order = np.flatnonzero(basket.open(spaced=offer.spaced))
    points = offer.embeddings[order]
    rng = np.random.default_rng([offer.seed, int(offer.spaced)])
    before = [item for item, why in zip(basket.items, basket.why, strict=True) if why == "turn"]
    weight = _squared_distance(points, np.zeros_like(points[:1]))
    if before and len(order):
        weight = KDTree(offer.embeddings[before]).query(points)[0] ** 2
    started, cheapest = bool(before), _cheapest(offer, order)
    while weight.any():
        place = _drawn(weight, rng) if started else int(np.argmax(weight))
        bought = basket.take(int(order[place]), spaced=offer.spaced, why="turn")
        if bought:
            distance = _squared_distance(points, points[place])
            weight = np.minimum(weight, distance) if started else distance
            started = True
        weight[place] = 0
        if bought and not basket.affords(cheapest):
            break


def _drawn(weight: NDArray[np.float64], rng: np.random.Generator) -> int:
    total = np.cumsum(weight)
    place = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
    return min(place, int(np.flatnonzero(weight)[-1]))


def _anywhere(offer: Offer) -> NDArray[np.bool_]:
    return np.ones(len(offer.pool), dtype=np.bool_)


def _buy(
    basket: Basket,
    offer: Offer,
    keys: NDArray[np.float64],
    *,
    among: NDArray[np.bool_],
    why: Why,
) -> None:
    """Buy what is free, least key first."""
    among = among & basket.open(spaced=offer.spaced)
    cheapest = _cheapest(offer, np.flatnonzero(among))
    for block in in_order(keys, among):
        for item in block.tolist():
            if basket.take(item, spaced=offer.spaced, why=why) and not basket.affords(cheapest):
                return


def fill_by_lot(basket: Basket, offer: Offer) -> None:
    """What the strategy has no opinion on, at random: a query is never empty in silence."""
    _buy(basket, offer, offer.pool.lot, among=_anywhere(offer), why="random")


def _farthest_first(
    basket: Basket,
    offer: Offer,
    *,
    order: NDArray[np.intp],
    points: NDArray[np.floating],
    distance: NDArray[np.float64],
    why: Why,
) -> None:
    """Buy the region farthest from all centres, again and again; ties go to the first of `order`.

    `points` and `distance`, squared to the nearest centre, run along `order`.
    """
    cheapest = _cheapest(offer, order)
    spread = _Spread(points, distance)
    for _ in range(len(order)):
        place = spread.farthest()
        bought = basket.take(int(order[place]), spaced=offer.spaced, why=why)
        spread.leave(place, centre=bought)
        if bought and not basket.affords(cheapest):
            break


class _Spread:
    """Squared distances of points to the nearest centre, brought up to date only where they count.

    A distance only shrinks as centres come, so one that ignores the last centres is a bound: a
    point below the farthest need not be looked at.
    """

    def __init__(self, points: NDArray[np.floating], distance: NDArray[np.float64]) -> None:
        self._points = points
        self._distance = distance
        self._known = np.zeros(len(points), dtype=np.int32)
        self._centres: list[int] = []

    def farthest(self) -> int:
        """The point farthest from all centres; the first of equals."""
        while True:
            place = int(np.argmax(self._distance))
            if self._known[place] == len(self._centres):
                return place
            few = len(self._points) <= _ROWS
            bound = 0.0 if few else _NEAR_TOP * self._distance[place]
            stale = self._known < len(self._centres)
            self._update(np.flatnonzero(stale & (self._distance >= bound)))

    def leave(self, place: int, *, centre: bool) -> None:
        """Never give this point again; it may be a centre from now on."""
        if centre:
            self._centres.append(place)
        self._distance[place] = -1  # every other distance is at least 0

    def _update(self, places: NDArray[np.intp]) -> None:
        for start in range(0, len(places), _ROWS):
            rows = places[start : start + _ROWS]
            points, nearest = self._points[rows], self._distance[rows]
            for centre in self._centres[int(self._known[rows].min()) :]:
                np.minimum(nearest, _squared_distance(points, self._points[centre]), out=nearest)
            self._distance[rows], self._known[rows] = nearest, len(self._centres)


def _cheapest(offer: Offer, order: NDArray[np.intp]) -> float:
    return float(offer.pool.cost[order].min()) if order.size else math.inf


def _standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns of mean 0 and deviation 1, without a second table of float64."""
    mean = features.mean(axis=0, dtype=np.float64)
    squares = np.zeros((1, features.shape[1]))
    for start in range(0, len(features), _ROWS):
        apart = features[start : start + _ROWS] - mean
        squares = np.concatenate([squares, apart * apart]).sum(axis=0, keepdims=True)
    spread = np.sqrt(squares[0] / len(features))
    spread = np.where(spread > 0, spread, 1.0)
    scaled = np.empty_like(features)
    for start in range(0, len(features), _ROWS):
        rows = slice(start, start + _ROWS)
        scaled[rows] = (features[rows] - mean) / spread
    return scaled


def _squared_distance(
    points: NDArray[np.floating], centre: NDArray[np.floating]
) -> NDArray[np.float64]:
    apart = points - centre
    squared: NDArray[np.float64] = np.einsum("nf,nf->n", apart, apart).astype(np.float64)
    return squared
