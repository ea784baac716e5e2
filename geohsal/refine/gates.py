"""Distance gates: how far a pixel may lie from a class and still belong to it.

Pixels of one region resemble each other, so a gate from random pixels (or from chi-square)
rejects most pixels of new regions. Gates come from regions that the statistics did not see.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from geohsal.config import PlarConfig
from geohsal.refine.class_scores import ClassScores, class_scores, scores_without_own
from geohsal.refine.sampling import count_regions, region_folds
from geohsal.refine.statistics import ClassStatistics, LabelledPixels, fit_statistics
from geohsal.refine.thresholds import GATE_AGREEMENT, Threshold

_ENOUGH_WITHHELD = 5  # withheld regions of a class from which they alone set its gate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Scores of labelled pixels under statistics that did not see their region.

    Rows that could not be judged (a single region, another number of components) are inf.
    """

    scores: ClassScores
    without_own: ClassScores  # as if the pixel's own class had no labels


def held_out_scores(
    pixels: LabelledPixels, *, statistics: ClassStatistics, config: PlarConfig, seed: int
) -> HeldOut:
    """Scores of each pixel under statistics of the other folds of regions."""
    rng = np.random.default_rng(seed)
    fold = region_folds(pixels.label, pixels.region, folds=config.folds, rng=rng)
    shape = (2, len(pixels), statistics.num_classes)
    scores, alone = ClassScores(*np.full(shape, np.inf)), ClassScores(*np.full(shape, np.inf))
    for number in range(config.folds):
        test = np.flatnonzero(fold == number)
        if len(test) in (0, len(pixels)):
            continue
        rest = fit_statistics(
            pixels.take(np.flatnonzero(fold != number)),
            num_classes=statistics.num_classes,
            config=config,
            seed=seed,
            log_prior=statistics.log_prior,
        )
        if rest.dim == statistics.dim:  # another dimension has another scale of distances
            features, label = pixels.features[test], pixels.label[test]
            found = class_scores(rest, features, config)
            others = scores_without_own(rest, features, label, found, config)
            scores.distance[test], scores.q[test] = found
            alone.distance[test], alone.q[test] = others
    return HeldOut(scores=scores, without_own=alone)


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
    by_fold = folded.scores.distance[np.arange(len(pixels)), pixels.label]
    gates = []
    for number in range(num_classes):
        sets = {}
        if seen is not None and withheld[number] >= _ENOUGH_WITHHELD:
            mine = outside.features[outside.label == number]
            scores = class_scores(seen, mine, config)
            sets[f"{withheld[number]} withheld regions"] = scores.distance[:, number]
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
    return _fallback(regions, dim, config)


def _fallback(regions: int, dim: int, config: PlarConfig) -> Threshold:
    if config.rule == "knn":  # distances to single pixels follow no known law
        return Threshold(
            value=float("inf"),
            source=GATE_AGREEMENT,
            reason=f"{regions} regions, too few for {config.folds} folds; the nearest labelled "
            "pixel must agree with the votes",
        )
    if regions > dim:
        factor = dim * (regions + 1) * (regions - 1) / (regions * (regions - dim))
        return Threshold(
            value=float(factor * stats.f.ppf(1 - config.gate_alpha, dim, regions - dim)),
            source="f-distribution",
            reason=f"{regions} regions, too few for {config.folds} folds",
        )
    return Threshold(
        value=float("inf"),
        source=GATE_AGREEMENT,
        reason=f"{regions} regions do not make a gate in {dim} dimensions; all three rankings "
        "must agree",
    )
