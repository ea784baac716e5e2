"""The specification's table in small: gates from random pixels against gates from regions.

Share of new in-class pixels that a gate rejects; nominal is 5 %. Pixels of a region share a shift
that makes up `rho` of the variance, so pixels held out at random have been seen, nearly.
"""

import numpy as np
import pytest

from geohsal.config import PlarConfig
from geohsal.refine.gates import calibrate_gates, held_out_scores
from geohsal.refine.statistics import fit_statistics

CONFIG = PlarConfig(gate_alpha=0.05)
FOLDS = 5


def by_region(pixels, num_classes):
    """The project's own gates, and the statistics that they belong to."""
    statistics = fit_statistics(pixels, num_classes=num_classes, config=CONFIG, seed=0)
    folded = held_out_scores(pixels, statistics=statistics, config=CONFIG, seed=0)
    gates = calibrate_gates(pixels, folded, seen=None, statistics=statistics, config=CONFIG)
    assert {gate.source for gate in gates} == {"calibrated"}
    return statistics, [gate.value for gate in gates]


def by_pixel(pixels, num_classes, rng):
    """Quantile of distances under statistics of other pixels, drawn without regard to regions."""
    fold = rng.permutation(len(pixels)) % FOLDS
    distance = np.zeros(len(pixels))
    for number in range(FOLDS):
        rest = fit_statistics(
            pixels.take(np.flatnonzero(fold != number)),
            num_classes=num_classes,
            config=CONFIG,
            seed=0,
        )
        test = np.flatnonzero(fold == number)
        found = rest.mahalanobis(pixels.features[test])
        distance[test] = found[np.arange(len(test)), pixels.label[test]]
    return [
        float(np.quantile(distance[pixels.label == c], 1 - CONFIG.gate_alpha, method="higher"))
        for c in range(num_classes)
    ]


def rejected(world, pixels, gates, statistics):
    """Share of pixels of 200 new regions per class beyond the class's gate."""
    shares = []
    for number, gate in enumerate(gates):
        new = world.draw(number, regions=200, per_region=10)
        shares.append(float((statistics.mahalanobis(new)[:, number] > gate).mean()))
    return float(np.mean(shares))


@pytest.mark.parametrize(
    ("regions", "rho", "naive"), [(10, 0.3, 0.14), (10, 0.7, 0.8), (30, 0.3, 0.09), (30, 0.7, 0.4)]
)
def test_only_gates_held_out_by_region_hold_for_new_regions(
    make_world, label_world, regions, rho, naive
):
    world = make_world(11, classes=2, between=rho, tails=1e6)
    pixels = label_world(world, known=2, regions=regions, per_region=60, withheld=0.0)
    statistics, own = by_region(pixels, 2)
    alone = by_pixel(pixels, 2, np.random.default_rng(5))
    region_rate = rejected(world, pixels, own, statistics)
    pixel_rate = rejected(world, pixels, alone, statistics)
    assert region_rate < 0.08
    assert pixel_rate > naive
    assert pixel_rate > 2 * region_rate
