"""Accuracy and area from a stratified probability sample, after Olofsson et al. (2014).

Good practices for estimating area and assessing accuracy of land change, Remote Sensing of
Environment 148, 42-57; equation numbers below are theirs. Strata are the classes of a map. Points
are drawn with replacement, so no finite population correction enters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.96
"""Standard errors that half a 95 % confidence interval is wide; the paper's figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with half the width of its 95 % confidence interval."""

    value: float
    half_width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEstimate:
    """One class: None where the sample says nothing (class not mapped, or in no reference).

    `mapped_share` and `area_share` are of the whole area: what the map says, and the estimate.
    """

    users_accuracy: Estimate | None
    producers_accuracy: Estimate | None
    mapped_share: float
    area_share: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleEstimate:
    """Overall accuracy, classes in the order of their ids, shares (map class, reference class)."""

    overall_accuracy: Estimate
    classes: tuple[ClassEstimate, ...]
    proportions: NDArray[np.float64]


def estimate(counts: NDArray[np.int64], areas: NDArray[np.float64]) -> SampleEstimate:
    """Estimates from a sample.

    Args:
        counts: (map class, reference class) points.
        areas: (map class,) mapped area, in any unit; 0 where a class is not mapped.

    Raises:
        ValueError: shapes differ, nothing is mapped, a mapped class has fewer than two points
            (its variance cannot be estimated), or a class without area has points.
    """
    points = counts.sum(axis=1)
    if counts.shape != (len(areas), len(areas)) or areas.sum() <= 0:
        raise ValueError(f"counts of shape {counts.shape} over {len(areas)} areas")
    if ((points < 2) & (areas > 0)).any() or ((points > 0) & (areas <= 0)).any():
        raise ValueError("each mapped class, and no other, needs two points or more")
    weight = areas / areas.sum()
    share = counts / np.maximum(points, 1)[:, None]
    # of the mean of an indicator in a stratum; 0 where nothing is mapped
    variance = share * (1 - share) / np.maximum(points - 1, 1)[:, None]
    proportions = weight[:, None] * share
    correct = np.diag(share)
    overall = _estimate(np.diag(proportions).sum(), (weight**2 * np.diag(variance)).sum())  # 1, 5
    found = [
        ClassEstimate(
            users_accuracy=_estimate(correct[c], variance[c, c]) if areas[c] > 0 else None,  # 2, 6
            producers_accuracy=_producers(c, weight, share, variance),
            mapped_share=float(weight[c]),
            area_share=_estimate(proportions[:, c].sum(), (weight**2 * variance[:, c]).sum()),
        )
        for c in range(len(areas))
    ]  # area: equations 8 to 11
    return SampleEstimate(overall_accuracy=overall, classes=tuple(found), proportions=proportions)


def _producers(
    c: int, weight: NDArray[np.float64], share: NDArray[np.float64], variance: NDArray[np.float64]
) -> Estimate | None:
    """Producer's accuracy: equations 3 and 7."""
    total = float((weight * share[:, c]).sum())
    if total <= 0:
        return None
    value = float(weight[c] * share[c, c]) / total
    others = np.delete(weight**2 * variance[:, c], c).sum()
    own = weight[c] ** 2 * (1 - value) ** 2 * variance[c, c]
    return _estimate(value, (own + value**2 * others) / total**2)


def _estimate(value: float, variance: float) -> Estimate:
    return Estimate(value=float(value), half_width=Z_95 * math.sqrt(float(variance)))


def sample_size(
    shares: Sequence[float], expected: Sequence[float], *, standard_error: float
) -> int:
    """Points for a standard error of overall accuracy: equation 13, for a large area.

    Args:
        shares: mapped share of each class.
        expected: conjectured user's accuracy of each class.
        standard_error: wanted of overall accuracy, above 0.
    """
    pairs = zip(shares, expected, strict=True)
    spread = sum(share * math.sqrt(accuracy * (1 - accuracy)) for share, accuracy in pairs)
    return max(2, math.ceil((spread / standard_error) ** 2 - 1e-9))


def allocate(total: int, shares: Sequence[float], *, minimum: int) -> list[int]:
    """Points per class: `minimum` where its share of the points would be less, else by share.

    Classes that are not mapped (share 0) get none. Where `total` is too small for the minimum of
    all, it is dealt out evenly, two at least: the sum may then exceed `total`.
    """
    mapped = [number for number, share in enumerate(shares) if share > 0]
    found = [0] * len(shares)
    if total < minimum * len(mapped):
        for place, number in enumerate(mapped):
            found[number] = max(2, total // len(mapped) + (place < total % len(mapped)))
        return found
    small: set[int] = set()
    while True:
        left = total - minimum * len(small)
        large = [number for number in mapped if number not in small]
        weight = sum(shares[number] for number in large)
        short = {number for number in large if left * shares[number] / weight < minimum}
        if not short:
            break
        small |= short
    for number in small:
        found[number] = minimum
    exact = {number: left * shares[number] / weight for number in large}
    for number, value in exact.items():
        found[number] = int(value)
    rest = total - sum(found)
    for number in sorted(large, key=lambda n: (int(exact[n]) - exact[n], n))[:rest]:
        found[number] += 1
    return found
