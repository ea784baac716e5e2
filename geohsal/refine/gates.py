"""Distance gates: how far a pixel may lie from a class and still belong to it.

Pixels of one region resemble each other, so a gate from random pixels (or from chi-square)
rejects most pixels of new regions. Gates come from regions that the statistics did not see.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from geohsal.config import PlarConfig
from geohsal.refine.sampling import count_regions, region_folds
from geohsal.refine.statistics import ClassStatistics, LabelledPixels, fit_statistics
from geohsal.refine.thresholds import GATE_AGREEMENT, Threshold

_ENOUGH_WITHHELD = 5  # withheld regions of a class from which they alone set its gate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Scores of labelled pixels under statistics that did not see their region.

    Rows that could not be judged (a single region, another number of components) are inf.
    """

    mahalanobis: NDArray[np.float64]  # [n, C] squared distances
    q: NDArray[np.float64]  # [n, C]


def held_out_scores(
    pixels: LabelledPixels, *, statistics: ClassStatistics, config: PlarConfig, seed: int
) -> HeldOut:
    """Scores of each pixel under statistics of the other folds of regions."""
    rng = np.random.default_rng(seed)
    fold = region_folds(pixels.label, pixels.region, folds=config.folds, rng=rng)
    shape = (len(pixels), statistics.num_classes)
    distances, q = np.full(shape, np.inf), np.full(shape, np.inf)
    for number in range(config.folds):
        test = np.flatnonzero(fold == number)
        if len(test) in (0, len(pixels)):
            continue
        rest = fit_statistics(
            pixels.take(np.flatnonzero(fold != number)),
            num_classes=statistics.num_classes,
            config=config,
            seed=seed,
        )
        if rest.dim == statistics.dim:  # another dimension has another scale of distances
            distances[test] = rest.mahalanobis(pixels.features[test])
            q[test] = distances[test] + rest.logdet
    return HeldOut(mahalanobis=distances, q=q)


def calibrate_gates(
    pixels: LabelledPixels,
    folded: HeldOut,
    *,
    seen: ClassStatistics | None,
    statistics: ClassStatistics,
    config: PlarConfig,
) -> tuple[Threshold, ...]:
    """Gate (kappa) of each class.

    A class with enough withheld regions is judged on them, others by folds of all regions.

    Args:
        pixels: all labelled pixels.
        folded: their `held_out_scores`.
        seen: statistics of the regions that are not withheld, if there are any.
        statistics: of all labelled pixels; gives dimension and region counts.
        config: PLAR settings.
    """
    num_classes = statistics.num_classes
    outside = pixels.take(np.flatnonzero(pixels.withheld))
    withheld = count_regions(outside.label, outside.region, num_classes=num_classes)
    by_fold = folded.mahalanobis[np.arange(len(pixels)), pixels.label]
    gates = []
    for number in range(num_classes):
        sets = {}
        if seen is not None and withheld[number] >= _ENOUGH_WITHHELD:
            mine = outside.features[outside.label == number]
            sets[f"{withheld[number]} withheld regions"] = seen.mahalanobis(mine)[:, number]
        if statistics.regions[number] >= config.folds:
            name = f"{config.folds} folds of {statistics.regions[number]} regions"
            sets[name] = by_fold[pixels.label == number]
        gates.append(_gate(number, sets, statistics=statistics, config=config))
    return tuple(gates)


def _gate(
    number: int,
    sets: dict[str, NDArray[np.float64]],
    *,
    statistics: ClassStatistics,
    config: PlarConfig,
) -> Threshold:
    alpha, regions, dim = config.gate_alpha, int(statistics.regions[number]), statistics.dim
    for name, distances in sets.items():
        finite = distances[np.isfinite(distances)]
        if len(finite):
            return Threshold(
                value=float(np.quantile(finite, 1 - alpha, method="higher")),
                source="calibrated",
                reason=f"{1 - alpha:.0%} quantile of {len(finite)} pixels of {name}",
            )
    if regions > dim:
        factor = dim * (regions + 1) * (regions - 1) / (regions * (regions - dim))
        return Threshold(
            value=float(factor * stats.f.ppf(1 - alpha, dim, regions - dim)),
            source="f-distribution",
            reason=f"{regions} regions, too few for {config.folds} folds",
        )
    return Threshold(
        value=float("inf"),
        source=GATE_AGREEMENT,
        reason=f"{regions} regions do not make a gate in {dim} dimensions; all three rankings "
        "must agree",
    )
