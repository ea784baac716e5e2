"""What a region costs, in the unit of the budget; and what reviewing has been seen to cost."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geohsal.config import CostConfig
from geohsal.errors import BudgetError
from geohsal.geo.areas import cell_areas_m2
from geohsal.geo.budget import Budget, BudgetUnit, counted
from geohsal.geo.scene import Scene
from geohsal.query.regions import Candidates, by_scene

_WORDS: Mapping[BudgetUnit, tuple[str, float, int]] = {
    "regions": ("regions", 1.0, 0),
    "pixels": ("px", 1.0, 0),
    "m2": ("ha", 1e4, 6),
    "seconds": ("min", 60.0, 2),
}
"""Unit of a budget's text, its size in the budget's unit, and decimals worth showing."""


LONGEST_GAP_S = 600.0
"""A longer gap between two regions of a reviewer was a break, not work."""

SHORTEST_GAP_S = 1.0
"""Regions stamped faster than this were ticked off together, not looked at one by one."""

FEWEST_TIMED = 12
"""Timed regions below which the settings' prices hold."""

MOST_TIMED = 500
"""Only the latest so many are fitted: reviewers get faster."""

PER_REGION_S = (3.0, 300.0)
PER_ANSWER_S = (1.0, 120.0)
"""Learned prices stay within these bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One reviewed region with a time stamp (ms since 1970); `answers`: polygons to expect there.

    `answers` is None where only the stamp counts, not the work: skipped regions.
    """

    reviewer: str
    reviewed_ms: int
    answers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewPrices:
    """Seconds of a reviewer; `regions` were timed, and learned from if `learned`."""

    seconds_per_region: float
    seconds_per_answer: float
    regions: int
    learned: bool

    def __str__(self) -> str:
        """For people: the prices and where they come from."""
        prices = f"{self.seconds_per_region:.0f} s per region and {self.seconds_per_answer:.0f} s "
        if self.learned:
            return f"{prices}per answer, learned from {counted(self.regions, 'region')}"
        timed = f"{self.regions} of {FEWEST_TIMED} timed regions so far"
        return f"{prices}per answer, by the settings ({timed})"

    def over(self, config: CostConfig) -> CostConfig:
        """The settings with these prices."""
        return replace(
            config,
            seconds_per_region=self.seconds_per_region,
            seconds_per_answer=self.seconds_per_answer,
        )


def gaps(reviews: Iterable[Review]) -> list[tuple[Review, float]]:
    """Reviews with the seconds since the same reviewer's last stamp, breaks and bulk left out."""
    ordered = sorted(reviews, key=lambda item: (item.reviewer, item.reviewed_ms))
    found = [
        (later, (later.reviewed_ms - earlier.reviewed_ms) / 1000)
        for earlier, later in pairwise(ordered)
        if earlier.reviewer == later.reviewer
    ]
    return [(item, gap) for item, gap in found if SHORTEST_GAP_S <= gap <= LONGEST_GAP_S]


def learn_prices(reviews: Iterable[Review], config: CostConfig) -> ReviewPrices:
    """Seconds per region and per answer from reviewers' time stamps.

    Medians throughout (Theil-Sen), so that breaks below the limit and regions ticked off in
    passing do not count much. The settings hold until FEWEST_TIMED regions are timed; where all
    regions had equally many answers, their ratio does.
    """
    timed = [pair for pair in gaps(reviews) if pair[0].answers is not None]
    timed.sort(key=lambda pair: (pair[0].reviewed_ms, pair[0].reviewer))
    per_region, per_answer = config.seconds_per_region, config.seconds_per_answer
    learned = config.learn and len(timed) >= FEWEST_TIMED
    if learned:
        latest = timed[-MOST_TIMED:]
        answers = np.array([item.answers for item, _ in latest], dtype=np.float64)
        seconds = np.array([gap for _, gap in latest])
        per_region, per_answer = _fit(answers, seconds, config)
    return ReviewPrices(
        seconds_per_region=per_region,
        seconds_per_answer=per_answer,
        regions=len(timed),
        learned=learned,
    )


def _fit(
    answers: NDArray[np.float64], seconds: NDArray[np.float64], config: CostConfig
) -> tuple[float, float]:
    one, other = np.triu_indices(len(answers), k=1)
    apart = answers[other] - answers[one]
    slopes = (seconds[other] - seconds[one])[apart != 0] / apart[apart != 0]
    if slopes.size:
        per_answer = float(np.clip(np.median(slopes), *PER_ANSWER_S))
    else:
        expected = config.seconds_per_region + config.seconds_per_answer * answers
        share = config.seconds_per_answer / max(float(expected[0]), 1e-9)
        per_answer = float(np.clip(np.median(seconds) * share, *PER_ANSWER_S))
    per_region = float(np.clip(np.median(seconds - per_answer * answers), *PER_REGION_S))
    return round(per_region, 1), round(per_answer, 1)


def cost_seconds(answers: NDArray[np.integer], config: CostConfig) -> NDArray[np.float64]:
    """Seconds of a reviewer per region, from its expected number of answer polygons."""
    seconds: NDArray[np.float64] = (
        config.seconds_per_region + config.seconds_per_answer * answers.astype(np.float64)
    )
    return seconds


def region_areas_m2(
    candidates: Candidates,
    scenes: Mapping[str, Scene],
    places: NDArray[np.intp] | None = None,
) -> NDArray[np.float64]:
    """Ground area of each candidate's pool pixels in square metres; NaN in local scenes.

    With `places`, only these candidates are computed; the others are NaN.
    """
    areas = np.full(len(candidates), np.nan)
    for scene_id, all_inside in by_scene(candidates):
        inside = all_inside if places is None else np.intersect1d(all_inside, places)
        cells = cell_areas_m2(scenes[scene_id], [candidates.window(int(i)) for i in inside])
        if cells is not None:
            whole = candidates.cell_height[inside] * candidates.cell_width[inside]
            areas[inside] = cells * candidates.pixels[inside] / whole
    return areas


def region_costs(
    candidates: Candidates,
    budget: Budget,
    *,
    config: CostConfig,
    areas_m2: NDArray[np.float64] | None = None,
    overlap: float = 0.0,
) -> NDArray[np.float64]:
    """Cost of each candidate in the unit of `budget`.

    Args:
        candidates: the pool.
        budget: tells the unit.
        config: prices of a reviewer's time.
        areas_m2: ground area of each candidate; needed for area budgets only.
        overlap: share of the regions that two people will review; costs time, nothing else.

    Raises:
        BudgetError: an area budget where regions have no area, or a cost that is not above 0.
    """
    if budget.unit == "m2" and (areas_m2 is None or not np.isfinite(areas_m2).all()):
        raise BudgetError(
            f"budget {budget.text}: scenes without a position on Earth have no area; "
            "give regions, px or %"
        )
    if budget.unit == "m2" and areas_m2 is not None:
        costs = areas_m2.astype(np.float64)
    elif budget.unit == "pixels":
        costs = candidates.pixels.astype(np.float64)
    elif budget.unit == "seconds":
        costs = cost_seconds(candidates.answers, config) * (1 + overlap)
    else:
        costs = np.ones(len(candidates))
    if (costs <= 0).any():
        raise BudgetError(
            f"budget {budget.text}: a region would cost nothing; set cost.seconds_per_region or "
            "cost.seconds_per_answer above 0"
        )
    return costs


def cost_text(cost: float, unit: BudgetUnit) -> str:
    """A cost in the words in which a budget is given, rounded up: that budget covers it."""
    word, size, digits = _WORDS[unit]
    steps = math.ceil(cost / size * 10**digits)
    while steps / 10**digits * size < cost:  # the division fell short by a rounding
        steps += 1
    number = f"{steps / 10**digits:.{digits}f}"
    return (number.rstrip("0").rstrip(".") if digits else number) + word
