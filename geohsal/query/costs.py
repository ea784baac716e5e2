"""What a region costs, in the unit of the budget."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geohsal.config import CostConfig
from geohsal.errors import BudgetError
from geohsal.geo.areas import cell_areas_m2
from geohsal.geo.budget import Budget, BudgetUnit
from geohsal.geo.scene import Scene
from geohsal.query.regions import Candidates

_WORDS: Mapping[BudgetUnit, tuple[str, float, int]] = {
    "regions": ("regions", 1.0, 0),
    "pixels": ("px", 1.0, 0),
    "m2": ("ha", 1e4, 6),
    "seconds": ("min", 60.0, 2),
}
"""Unit of a budget's text, its size in the budget's unit, and decimals worth showing."""


def cost_seconds(answers: NDArray[np.integer], config: CostConfig) -> NDArray[np.float64]:
    """Seconds of a reviewer per region, from its expected number of answer polygons."""
    seconds: NDArray[np.float64] = (
        config.seconds_per_region + config.seconds_per_answer * answers.astype(np.float64)
    )
    return seconds


def region_areas_m2(candidates: Candidates, scenes: Mapping[str, Scene]) -> NDArray[np.float64]:
    """Ground area of each candidate's pool pixels in square metres; NaN in local scenes."""
    areas = np.full(len(candidates), np.nan)
    for code, scene_id in enumerate(candidates.scene_ids):
        inside = np.flatnonzero(candidates.scene == code)
        cells = cell_areas_m2(scenes[scene_id], [candidates.window(int(i)) for i in inside])
        if inside.size and cells is not None:
            whole = candidates.cell_height[inside] * candidates.cell_width[inside]
            areas[inside] = cells * candidates.pixels[inside] / whole
    return areas


def region_costs(
    candidates: Candidates,
    budget: Budget,
    *,
    config: CostConfig,
    areas_m2: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Cost of each candidate in the unit of `budget`; `areas_m2` is needed for areas only.

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
        costs = cost_seconds(candidates.answers, config)
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
