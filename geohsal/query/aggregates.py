"""From pixels to regions: the worth of a region, from its score map and its cost."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from geohsal.query.regions import Candidates

Aggregate = Callable[[Candidates, NDArray[np.float64]], NDArray[np.float64]]
"""Worth of each candidate, from the table and the costs in the budget's unit."""


def sum_per_cost(candidates: Candidates, costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of a(u) over the region's pool pixels, per unit of the budget (method 3.6)."""
    scores: NDArray[np.float64] = candidates.score_sum / costs
    return scores


def mean(candidates: Candidates, costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of a(u) over the region's pool pixels, whatever the region costs."""
    scores: NDArray[np.float64] = candidates.score_sum / candidates.pixels
    return scores


AGGREGATES: Mapping[str, Aggregate] = MappingProxyType({"sum": sum_per_cost, "mean": mean})
"""By the name in `query.aggregate`."""
