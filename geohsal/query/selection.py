"""Selection of a round's regions under a budget: some by lot for audit, the rest by worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geohsal.config import QueryConfig
from geohsal.errors import BudgetError, RunError
from geohsal.geo.budget import Budget, counted
from geohsal.geo.scene import QueryRegion
from geohsal.query.acquisition import acquisition
from geohsal.query.basket import Basket, Pool, id_order
from geohsal.query.choice import choose
from geohsal.query.costs import cost_text
from geohsal.query.draws import cell_draws
from geohsal.query.reasons import describe, notes_of
from geohsal.query.regions import Candidates
from geohsal.query.selectors import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The regions of a round, best first, audit regions spread evenly among them.

    `chosen` indexes the candidate table; `audit`, `scores` and `reasons` run along it. `spent`
    and `remainder` are in the budget's unit; `notes` say where a rule could not be kept or the
    budget not be used.
    """

    chosen: NDArray[np.intp]
    audit: NDArray[np.bool_]
    scores: NDArray[np.float64]
    reasons: tuple[str, ...]
    spent: float
    remainder: float
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.chosen)


def select(
    candidates: Candidates,
    costs: NDArray[np.float64],
    *,
    budget: Budget,
    config: QueryConfig,
    seed: int,
    tiles: Sequence[str] | NDArray[np.str_],
    class_names: Sequence[str],
    labelled: NDArray[np.float32] | None = None,
    proven: bool = True,
) -> Selection:
    """Choose regions for one round (method 3.6, 3.7). The order of `candidates` changes nothing.

    A share of the budget goes to audit regions drawn uniformly from the pool; the rest as the
    configured acquisition aggregates and selects, then by lot. Budget and tile cap are never
    broken; the exclusion distance only where the pool has nothing else to offer.

    Args:
        candidates: the pool, of all scenes.
        costs: cost of each candidate in the budget's unit (`costs.region_costs`), above 0.
        budget: what may be spent.
        config: the section `query`.
        seed: of run and round.
        tiles: tile id of each candidate (`regions.tiles_of`).
        class_names: names for the reasons, by class id.
        labelled: (labelled region, feature) mean features, for acquisitions that need them.
        proven: whether the error mask was seen to rank errors better than chance.

    Raises:
        ConfigError: nobody knows the acquisition.
        RunError: the pool is empty.
        BudgetError: the budget is below the cheapest region.
    """
    _check(candidates, costs, budget=budget, tiles=tiles)
    strategy = acquisition(config.strategy)
    worth = strategy.worth(candidates, costs, config=config)
    pool = _pool(candidates, costs, worth, seed=seed, tiles=tiles)
    offer = _offer(pool, candidates, labelled, config=config, seed=seed, proven=proven)
    basket = choose(offer, strategy.select, amount=budget.amount)
    ranked = _rank(pool, basket)
    items = np.array([basket.items[i] for i in ranked], dtype=np.intp)
    why = [basket.why[i] for i in ranked]
    return Selection(
        chosen=pool.origin[items],
        audit=np.array([reason == "audit" for reason in why]),
        scores=pool.score[items],
        reasons=tuple(
            describe(candidates, int(i), why=w, strategy=strategy, class_names=class_names)
            for i, w in zip(pool.origin[items], why, strict=True)
        ),
        spent=basket.spent,
        remainder=basket.left,
        notes=notes_of(basket, budget=budget, config=config),
    )


def to_query_regions(
    candidates: Candidates,
    selection: Selection,
    *,
    masks: Sequence[NDArray[np.bool_]],
    round_index: int,
    areas_m2: NDArray[np.float64],
    seconds: NDArray[np.float64],
) -> list[QueryRegion]:
    """The chosen regions as values, in rank order from 1.

    Args:
        candidates: the table that was selected from.
        selection: what was chosen.
        masks: pool pixels (row, col) of the cell of each chosen region, in rank order.
        round_index: round of the query.
        areas_m2: ground area of each candidate; NaN where it has none.
        seconds: of a reviewer, for each candidate.

    Raises:
        ValueError: a mask does not hold the pixels that were charged.
    """
    return [
        _query_region(
            candidates,
            selection,
            place=place,
            mask=mask,
            round_index=round_index,
            area_m2=float(areas_m2[index]),
            seconds=float(seconds[index]),
        )
        for place, (index, mask) in enumerate(zip(selection.chosen, masks, strict=True))
    ]


def _query_region(
    candidates: Candidates,
    selection: Selection,
    *,
    place: int,
    mask: NDArray[np.bool_],
    round_index: int,
    area_m2: float,
    seconds: float,
) -> QueryRegion:
    index = int(selection.chosen[place])
    name, cell = candidates.region_id(index), candidates.window(index)
    if mask.shape != (cell.height, cell.width) or mask.sum() != candidates.pixels[index]:
        raise ValueError(
            f"region {name}: its mask is {mask.shape} with {mask.sum()} pixels, expected "
            f"{(cell.height, cell.width)} with {candidates.pixels[index]}"
        )
    plar_class = int(candidates.plar_class[index])
    return QueryRegion(
        region_id=name,
        scene_id=candidates.scene_id(index),
        round=round_index,
        rank=place + 1,
        cell=cell,
        mask=mask,
        score=float(selection.scores[place]),
        reason=selection.reasons[place],
        error_probability=float(candidates.mean_error[index]),
        undecided_share=float(candidates.undecided_share[index]),
        teacher_class=int(candidates.teacher_class[index]),
        plar_class=None if plar_class < 0 else plar_class,
        margin=float(candidates.margin[index]),
        area_m2=None if math.isnan(area_m2) else area_m2,
        cost_min=seconds / 60,
        audit=bool(selection.audit[place]),
    )


def _check(
    candidates: Candidates,
    costs: NDArray[np.float64],
    *,
    budget: Budget,
    tiles: Sequence[str] | NDArray[np.str_],
) -> None:
    if not len(candidates) == len(costs) == len(tiles):
        raise ValueError("candidates, costs and tiles must be equally many")
    if not len(candidates):
        raise RunError(
            "nothing is left to ask: no train cell holds enough valid, unlabelled pixels; add "
            "scenes to the manifest, or lower query.min_share"
        )
    if not (np.isfinite(costs) & (costs > 0)).all():
        raise ValueError("costs must be finite and above 0")
    cheapest = int(np.argmin(costs))
    if costs[cheapest] > budget.amount:
        price = cost_text(float(costs[cheapest]), budget.unit)
        raise BudgetError(
            f"budget {budget.text}: buys nothing, the cheapest of "
            f"{counted(len(costs), 'region')} costs {price}; give at least {price}"
        )


def _pool(
    candidates: Candidates,
    costs: NDArray[np.float64],
    worth: NDArray[np.float64],
    *,
    seed: int,
    tiles: Sequence[str] | NDArray[np.str_],
) -> Pool:
    order, scene = id_order(candidates)
    top, left = candidates.top.astype(np.int64)[order], candidates.left.astype(np.int64)[order]
    return Pool(
        origin=order,
        scene=scene[order],
        anchor=candidates.anchor.astype(np.int64)[order],
        top=top,
        left=left,
        bottom=top + candidates.cell_height[order],
        right=left + candidates.cell_width[order],
        tile=_numbered(np.asarray(tiles))[order],
        cost=costs.astype(np.float64)[order],
        score=worth.astype(np.float64)[order],
        error=candidates.mean_error[order],
        draw=_draws(candidates, order, seed=seed, purpose="audit"),
        lot=_draws(candidates, order, seed=seed, purpose="fill"),
        region_px=candidates.region_px,
        overlapping=candidates.unit == "window",
    )


def _numbered(names: NDArray[np.str_]) -> NDArray[np.int64]:
    """A number per name. Neighbours mostly share a tile, so only its first name is looked up."""
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    numbers = np.unique(names[starts], return_inverse=True)[1].astype(np.int64)
    return np.repeat(numbers, np.diff(starts, append=len(names)))


def _offer(
    pool: Pool,
    candidates: Candidates,
    labelled: NDArray[np.float32] | None,
    *,
    config: QueryConfig,
    seed: int,
    proven: bool,
) -> Offer:
    return Offer(
        pool=pool,
        features=_along(candidates.features, pool.origin),
        embeddings=_along(candidates.embeddings, pool.origin),
        labelled=candidates.features[:0] if labelled is None else labelled,
        config=config,
        seed=seed,
        spaced=True,
        proven=proven,
    )


def _along(table: NDArray[np.float32], order: NDArray[np.intp]) -> NDArray[np.float32]:
    """Rows in this order; a large table that is in order already is not copied."""
    if np.array_equal(order, np.arange(len(table))):
        return table
    return table[order]


def _draws(
    candidates: Candidates, order: NDArray[np.intp], *, seed: int, purpose: str
) -> NDArray[np.float64]:
    """A draw of each candidate, in this order, in which every scene lies together."""
    draws = np.empty(len(order))
    scene = candidates.scene[order]
    starts = np.flatnonzero(np.diff(scene, prepend=-1)).tolist()
    for low, high in pairwise([*starts, len(order)]):
        own = order[low:high]
        number = candidates.number[own].astype(np.int64) << 32
        draws[low:high] = cell_draws(
            candidates.scene_ids[int(scene[low])],
            candidates.row[own],
            cols=candidates.col[own] + number,
            seed=seed,
            purpose=purpose,
        )
    return draws


def _rank(pool: Pool, basket: Basket) -> list[int]:
    """Places in the basket in rank order; audits at even distances among the others.

    What a strategy chose in turn keeps its order and comes first; the rest goes by score, then
    by predicted error.
    """
    audit = [i for i, why in enumerate(basket.why) if why == "audit"]
    rest = [i for i, why in enumerate(basket.why) if why != "audit"]

    def worth(place: int) -> tuple[float, ...]:
        item = basket.items[place]
        if basket.why[place] == "turn":
            return 0, place
        return 1, -pool.score[item], -pool.error[item], item

    rest.sort(key=worth)
    total, ranked = len(basket), []
    slots = {int((i + 0.5) * total / len(audit)): place for i, place in enumerate(audit)}
    following = iter(rest)
    for position in range(total):
        ranked.append(slots[position] if position in slots else next(following))
    return ranked
