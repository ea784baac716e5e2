"""Learning curves in figures: area under them, labels needed for an aim, spread over seeds.

Pure functions of numbers: a curve is label shares (rising) with the accuracy reached at each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation (0 for one value) of `count` repetitions."""

    mean: float
    std: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """How far one group of repetitions lies above another.

    `pooled_std` is their common spread, None where no group has two repetitions.
    """

    difference: float
    pooled_std: float | None


def area_under_curve(shares: Sequence[float], values: Sequence[float]) -> float:
    """Mean height of a curve: its area by trapezoids over the range of its shares.

    A curve of one point, or without a range, has the mean of its values.

    Raises:
        ValueError: no point, lists of different lengths, or shares that fall.
    """
    x, y = _curve(shares, values)
    if x[-1] == x[0]:
        return float(y.mean())
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))


def share_reaching(
    shares: Sequence[float], values: Sequence[float], *, target: float
) -> float | None:
    """The first share at which a curve is at `target` or above, between its points by a line.

    None where it never is.

    Raises:
        ValueError: no point, lists of different lengths, or shares that fall.
    """
    x, y = _curve(shares, values)
    above = np.flatnonzero(y >= target)
    if not above.size:
        return None
    first = int(above[0])
    if first == 0:
        return float(x[0])
    part = (target - y[first - 1]) / (y[first] - y[first - 1])
    return float(x[first - 1] + part * (x[first] - x[first - 1]))


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of repetitions.

    Raises:
        ValueError: there is none.
    """
    if not values:
        raise ValueError("no repetition")
    found = np.asarray(values, dtype=np.float64)
    std = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return Spread(mean=float(found.mean()), std=std, count=len(found))


def gain(ours: Sequence[float], theirs: Sequence[float]) -> Gain:
    """Difference of two means beside the pooled standard deviation of both groups."""
    a, b = spread(ours), spread(theirs)
    freedom = a.count + b.count - 2
    squares = (a.count - 1) * a.std**2 + (b.count - 1) * b.std**2
    pooled = float(np.sqrt(squares / freedom)) if freedom > 0 else None
    return Gain(difference=a.mean - b.mean, pooled_std=pooled)


def _curve(shares: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(shares, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.size == 0 or x.shape != y.shape or (np.diff(x) < 0).any():
        raise ValueError("a curve needs as many values as shares, and shares that do not fall")
    return x, y
