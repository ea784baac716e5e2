"""How a batch is selected: best first, by lot, by spread in feature or gradient space."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from geohsal.config import QueryConfig
from geohsal.query.basket import Basket, Pool, Why


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
    _buy(basket, offer, order=_by_worth(offer), why="score")


def by_lot(basket: Basket, offer: Offer) -> None:
    """Regions in the order of their draws."""
    _buy(basket, offer, order=np.argsort(offer.pool.lot, kind="stable"), why="turn")


def diverse(basket: Basket, offer: Offer) -> None:
    """k-centre among the best (method 3.6), then best first, then by predicted error.

    The shortlist is `query.diversity` times the regions that the money left would buy; equal
    distances go to the better score. While nothing shows that the predicted errors are errors (no
    error is withheld, the error mask ranks no better than chance, or there is none), the best are
    no better than others and every region is on the list.
    """
    order = _open(basket, offer, _by_worth(offer))
    if order.size and offer.proven:
        wanted = math.ceil(basket.left / float(np.median(offer.pool.cost[order])))
        order = order[: math.ceil(offer.config.diversity * min(wanted, order.size))]
    elif not offer.proven:
        order = _open(basket, offer, np.argsort(-offer.pool.score, kind="stable"))
    if order.size:
        points = _standardised(offer.features[order])
        distance = np.full(len(order), np.inf)
        why: Why = "score" if offer.proven else "spread"
        _farthest_first(basket, offer, order=order, points=points, distance=distance, why=why)
    best_first(basket, offer)
    by_error = np.argsort(-offer.pool.error, kind="stable")
    _buy(basket, offer, order=by_error[offer.pool.error[by_error] > 0], why="error")


def core_set(basket: Basket, offer: Offer) -> None:
    """Greedy k-centre on mean features (Sener & Savarese 2018), away from all that is labelled.

    Labelled regions and those in the basket are the first centres; without any, the first region
    is the one of smallest id.
    """
    order = _open(basket, offer, np.arange(len(offer.pool)))
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
    order = _open(basket, offer, np.arange(len(offer.pool)))
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


def _by_worth(offer: Offer) -> NDArray[np.intp]:
    order = np.argsort(-offer.pool.score, kind="stable")
    return order[offer.pool.score[order] > 0]


def _open(basket: Basket, offer: Offer, order: NDArray[np.intp]) -> NDArray[np.intp]:
    return order[basket.open(spaced=offer.spaced)[order]]


def _buy(basket: Basket, offer: Offer, *, order: NDArray[np.intp], why: Why) -> None:
    order = _open(basket, offer, order)
    cheapest = _cheapest(offer, order)
    for item in order.tolist():
        if basket.take(item, spaced=offer.spaced, why=why) and not basket.affords(cheapest):
            break


def fill_by_lot(basket: Basket, offer: Offer) -> None:
    """What the strategy has no opinion on, at random: a query is never empty in silence."""
    _buy(basket, offer, order=np.argsort(offer.pool.lot, kind="stable"), why="random")


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
    for _ in range(len(order)):
        place = int(np.argmax(distance))
        bought = basket.take(int(order[place]), spaced=offer.spaced, why=why)
        if bought:
            np.minimum(distance, _squared_distance(points, points[place]), out=distance)
        distance[place] = -1  # seen; every other distance is at least 0
        if bought and not basket.affords(cheapest):
            break


def _cheapest(offer: Offer, order: NDArray[np.intp]) -> float:
    return float(offer.pool.cost[order].min()) if order.size else math.inf


def _standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    spread = features.std(axis=0, dtype=np.float64)
    centred = features - features.mean(axis=0, dtype=np.float64)
    scaled: NDArray[np.float32] = (centred / np.where(spread > 0, spread, 1.0)).astype(np.float32)
    return scaled


def _squared_distance(
    points: NDArray[np.floating], centre: NDArray[np.floating]
) -> NDArray[np.float64]:
    apart = points - centre
    squared: NDArray[np.float64] = np.einsum("nf,nf->n", apart, apart).astype(np.float64)
    return squared
