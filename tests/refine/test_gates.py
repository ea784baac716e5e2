"""The gate must be judged by held-out regions, not by held-out pixels."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from geohsal.config import PlarConfig
from geohsal.refine.gates import calibrate_gates, held_out_scores
from geohsal.refine.statistics import fit_statistics

CONFIG = PlarConfig(gate_alpha=0.01)


def _gates(pixels, num_classes, config=CONFIG):
    statistics = fit_statistics(pixels, num_classes=num_classes, config=config, seed=0)
    folded = held_out_scores(pixels, statistics=statistics, config=config, seed=0)
    gates = calibrate_gates(pixels, folded, seen=None, statistics=statistics, config=config)
    return statistics, gates


def test_pixel_gates_reject_new_regions_where_region_gates_hold(make_world, label_world):
    """The direction of the specification's table: 30 regions, 70 % of variance between them."""
    world = make_world(3, classes=2, between=0.7, tails=1e6)
    pixels = label_world(world, known=2, regions=30, per_region=60, withheld=0.0)
    statistics, gates = _gates(pixels, 2)
    alone = replace(pixels, region=np.arange(len(pixels)))  # pretends that pixels are evidence
    believing, naive = _gates(alone, 2, replace(CONFIG, max_regions_per_class=1800))
    new = world.draw(0, regions=300, per_region=20)
    distance = statistics.mahalanobis(new)[:, 0]
    by_region = (distance > gates[0].value).mean()
    believed = believing.mahalanobis(new)[:, 0]
    by_pixel = (believed > naive[0].value).mean()
    by_chi2 = (believed > stats.chi2.ppf(0.99, statistics.dim)).mean()
    assert by_region < 0.03
    assert by_pixel > 0.3
    assert by_chi2 > 0.3
    assert gates[0].source == "calibrated"
    assert gates[0].reason.startswith("99% quantile of 1800 pixels of 5 folds of 30 regions")


def test_withheld_regions_set_the_gate_where_there_are_five(make_world, label_world):
    pixels = label_world(make_world(), known=2, regions=40, per_region=10, withheld=0.2)
    statistics = fit_statistics(pixels, num_classes=2, config=CONFIG, seed=0)
    inside = pixels.take(np.flatnonzero(~pixels.withheld))
    seen = fit_statistics(inside, num_classes=2, config=CONFIG, seed=0)
    folded = held_out_scores(pixels, statistics=statistics, config=CONFIG, seed=0)
    gates = calibrate_gates(pixels, folded, seen=seen, statistics=statistics, config=CONFIG)
    mine = pixels.features[pixels.withheld & (pixels.label == 1)]
    wanted = np.quantile(seen.mahalanobis(mine)[:, 1], 0.99, method="higher")
    assert gates[1].value == wanted
    assert gates[1].reason == "99% quantile of 80 pixels of 8 withheld regions"


def test_few_regions_fall_back_to_f_and_then_to_agreement(make_world, label_world):
    pixels = label_world(make_world(), known=2, regions=4, per_region=20, withheld=0.0)
    _, wide = _gates(pixels, 3)
    assert [gate.source for gate in wide] == ["agreement"] * 3
    assert np.isinf(wide[0].value)
    assert wide[0].reason.startswith("4 regions do not make a gate in 32 dimensions")
    _, narrow = _gates(pixels, 3, replace(CONFIG, dim=2))
    factor = 2 * 5 * 3 / (4 * 2)
    assert narrow[0].source == "f-distribution"
    assert narrow[0].value == pytest.approx(factor * stats.f.ppf(0.99, 2, 2))
    assert narrow[2].source == "agreement"  # a class without labels
