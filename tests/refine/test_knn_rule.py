"""Rule knn: the bank, its calibration by regions, and what it accepts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geohsal.config import EmdConfig, PlarConfig, SslConfig
from geohsal.errors import ModelError
from geohsal.geo.states import PixelState
from geohsal.kernels.knn import KnnOperands
from geohsal.refine.calibration import calibrate
from geohsal.refine.class_scores import class_scores, scores_without_own
from geohsal.refine.gates import held_out_scores
from geohsal.refine.plar import operands_of, refine
from geohsal.refine.statistics import ClassStatistics, fit_statistics
from geohsal.refine.thresholds import Thresholds

KNN = PlarConfig(rule="knn")


def _fit(pixels, *, num_classes, plar=KNN):
    statistics = fit_statistics(pixels, num_classes=num_classes, config=plar, seed=0)
    thresholds = calibrate(
        pixels,
        statistics,
        num_classes=num_classes,
        plar=plar,
        ssl=SslConfig(),
        emd=EmdConfig(),
        seed=0,
    )
    return statistics, thresholds


def _refined(features, pseudo, statistics, thresholds, config=KNN):
    pseudo = torch.as_tensor(pseudo)
    suspect = torch.ones(len(pseudo), dtype=torch.bool)
    return refine(torch.as_tensor(features), pseudo, suspect, statistics, thresholds, config)


def _accepted(refinement):
    accepted = (int(PixelState.CONFIRMED), int(PixelState.CORRECTED))
    return np.isin(refinement.states.numpy(), accepted)


@pytest.mark.parametrize("seed", range(3))
def test_a_class_without_labels_is_mostly_not_absorbed(make_world, label_world, seed):
    world = make_world(seed)
    statistics, thresholds = _fit(label_world(world, known=5), num_classes=6)
    absent = world.draw(5, regions=60, per_region=20)
    rejected = _refined(absent, np.zeros(len(absent), dtype=int), statistics, thresholds)
    known = np.concatenate([world.draw(c, regions=20, per_region=20) for c in range(5)])
    truth = np.repeat(np.arange(5), 400)
    kept = _refined(known, (truth + 1) % 5, statistics, thresholds)
    assert _accepted(rejected).mean() < 0.15
    assert _accepted(kept).mean() > 0.4
    assert (kept.labels.numpy() == truth)[_accepted(kept)].mean() > 0.95
    assert not (kept.plar_class == 5).any()
    assert thresholds.abstain[5].on
    assert {gate.source for gate in thresholds.gate[:5]} == {"calibrated"}


def test_oracle_errors_and_good_features_improve_on_the_teacher(make_world, label_world):
    world = make_world(0, classes=4)
    statistics, thresholds = _fit(label_world(world, known=4), num_classes=4)
    features = np.concatenate([world.draw(c, regions=20, per_region=20) for c in range(4)])
    truth = np.repeat(np.arange(4), 400)
    wrong = world.rng.random(1600) < 0.3
    teacher = np.where(wrong, (truth + 1) % 4, truth)
    refinement = refine(
        torch.from_numpy(features),
        torch.from_numpy(teacher),
        torch.from_numpy(wrong),
        statistics,
        thresholds,
        KNN,
    )
    assert (refinement.labels.numpy() == truth).mean() > (teacher == truth).mean() + 0.1
    trusted = refinement.states == int(PixelState.TRUSTED)
    assert torch.equal(trusted, torch.from_numpy(~wrong))


def test_random_features_switch_it_off_and_leave_the_map_unchanged(make_world, label_world):
    pixels = label_world(make_world(1), known=4, regions=20, per_region=20)
    noise = np.random.default_rng(5).normal(size=pixels.features.shape).astype(np.float32)
    pixels = replace(pixels, features=noise)
    statistics, thresholds = _fit(pixels, num_classes=4)
    assert all(switch.on for switch in thresholds.abstain)
    refinement = _refined(noise, pixels.teacher, statistics, thresholds)
    assert np.array_equal(refinement.labels.numpy(), pixels.teacher)
    assert not _accepted(refinement).any()


def test_a_pixel_never_finds_its_own_region(make_world, label_world):
    """Regions that are points: a bank with the own region in it would give distances of zero."""
    world = make_world(0, classes=2, between=1.0)
    pixels = label_world(world, known=2, regions=10, per_region=8)
    statistics = fit_statistics(pixels, num_classes=2, config=KNN, seed=0)
    rows = np.arange(len(pixels))
    inside = class_scores(statistics, pixels.features, KNN).distance[rows, pixels.label]
    assert inside.max() < 1e-6
    folded = held_out_scores(pixels, statistics=statistics, config=KNN, seed=0)
    own = folded.scores.distance[rows, pixels.label]
    assert own.min() > 1


def test_without_the_own_class_others_take_the_places(make_world, label_world):
    pixels = label_world(make_world(2), known=3, regions=10, per_region=10)
    statistics = fit_statistics(pixels, num_classes=4, config=KNN, seed=0)
    found = class_scores(statistics, pixels.features, KNN)
    alone = scores_without_own(statistics, pixels.features, pixels.label, found, KNN)
    rows = np.arange(len(pixels))
    assert np.isinf(alone.q[rows, pixels.label]).all()
    assert np.isinf(alone.q[:, 3]).all()
    assert np.isfinite(alone.distance).any(1).all()
    others = np.isfinite(found.distance)
    others[rows, pixels.label] = False
    np.testing.assert_allclose(alone.distance[others], found.distance[others])
    robust = PlarConfig()
    plain = class_scores(statistics, pixels.features, robust)
    left = scores_without_own(statistics, pixels.features, pixels.label, plain, robust)
    keep = np.ones_like(plain.q, dtype=bool)
    keep[rows, pixels.label] = False
    np.testing.assert_array_equal(left.q[keep], plain.q[keep])


def test_few_regions_ask_the_nearest_pixel_to_agree(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=4, per_region=10, withheld=0.0)
    _, thresholds = _fit(pixels, num_classes=3)
    assert {gate.source for gate in thresholds.gate} == {"agreement"}
    assert thresholds.gate[0].reason == (
        "4 regions, too few for 5 folds; the nearest labelled pixel must agree with the votes"
    )


@pytest.mark.parametrize("case", ["one pixel", "one per class", "duplicates", "constant band"])
def test_degenerate_labels_abstain(make_world, label_world, case):
    config = replace(KNN, do_no_harm=False)
    label, region = {
        "one pixel": ([0], [1]),
        "one per class": ([0, 1, 2], [1, 2, 3]),
        "duplicates": (np.arange(30) % 3, np.arange(30)),
        "constant band": (np.arange(30) % 3, np.arange(30)),
    }[case]
    label, region = np.asarray(label), np.asarray(region)
    spread = 0.0 if case == "constant band" else 1.0
    features = 7 + spread * np.eye(6)[label]
    pixels = label_world(make_world(), known=3, regions=10, per_region=1).take(
        np.arange(len(label))
    )
    pixels = replace(
        pixels,
        features=features.astype(np.float32),
        label=label,
        region=region,
        withheld=region % 4 == 0,
        teacher=(label + 1) % 3,
    )
    statistics, thresholds = _fit(pixels, num_classes=3, plar=config)
    points = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    found = _refined(points, np.zeros(20, dtype=int), statistics, thresholds, config)
    undecided = {int(PixelState.AMBIGUOUS), int(PixelState.NOVEL)}
    assert set(found.states.tolist()) <= undecided
    assert torch.isfinite(found.margin).all()


def test_a_stored_bank_refines_to_the_same_bits(make_world, label_world):
    pixels = label_world(make_world(), known=4, regions=10, per_region=20)
    statistics, thresholds = _fit(pixels, num_classes=4)
    assert statistics.bank.shape == (len(pixels), statistics.dim)
    loaded = ClassStatistics.from_tensors(statistics.to_tensors())
    stored = Thresholds.from_dict(thresholds.to_dict())
    features, pseudo = torch.from_numpy(pixels.features), torch.from_numpy(pixels.teacher)
    a = _refined(features, pseudo, statistics, thresholds)
    b = _refined(features, pseudo, loaded, stored)
    assert torch.equal(a.margin, b.margin)
    assert torch.equal(a.states, b.states)
    tensors = statistics.to_tensors()
    with pytest.raises(ModelError, match=r"bank has shape \(800, 32\), expected \(5, 32\)"):
        ClassStatistics.from_tensors(tensors | {"bank_label": tensors["bank_label"][:5]})


def test_a_model_folder_without_a_bank_still_loads_and_rules_do_not_mix(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=10, per_region=10)
    robust = PlarConfig()
    statistics, thresholds = _fit(pixels, num_classes=3, plar=robust)
    tensors = statistics.to_tensors()
    old = {name: tensor for name, tensor in tensors.items() if not name.startswith("bank")}
    loaded = ClassStatistics.from_tensors(old)
    assert len(loaded.bank) == 0
    assert not isinstance(operands_of(loaded, thresholds, robust), KnnOperands)
    with pytest.raises(ModelError, match=r"no labelled pixels are stored, so plar\.rule=knn"):
        operands_of(loaded, thresholds, KNN)
    statistics, thresholds = _fit(pixels, num_classes=3)
    with pytest.raises(ModelError, match=r"made for plar\.rule=knn, whose thresholds mean nothing"):
        operands_of(statistics, thresholds, robust)
