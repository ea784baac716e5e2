"""Thresholds of a round: where they come from, and what they keep PLAR from doing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from geohsal.config import EmdConfig, PlarConfig, SslConfig
from geohsal.errors import ModelError
from geohsal.geo.states import PixelState
from geohsal.refine.calibration import calibrate
from geohsal.refine.error_mask import error_probability
from geohsal.refine.plar import refine
from geohsal.refine.statistics import LabelledPixels, fit_statistics
from geohsal.refine.thresholds import Thresholds

PLAR = PlarConfig()


def _fit(pixels, *, num_classes, plar=PLAR, emd=None):
    statistics = fit_statistics(pixels, num_classes=num_classes, config=plar, seed=0)
    thresholds = calibrate(
        pixels,
        statistics,
        num_classes=num_classes,
        plar=plar,
        ssl=SslConfig(),
        emd=emd or EmdConfig(),
        seed=0,
    )
    return statistics, thresholds


def _refined(features, pseudo, statistics, thresholds, config=PLAR):
    pseudo = torch.as_tensor(pseudo)
    suspect = torch.ones(len(pseudo), dtype=torch.bool)
    return refine(torch.as_tensor(features), pseudo, suspect, statistics, thresholds, config)


def _accepted(refinement):
    accepted = (int(PixelState.CONFIRMED), int(PixelState.CORRECTED))
    return np.isin(refinement.states.numpy(), accepted)


@pytest.mark.parametrize("seed", range(4))
def test_a_class_without_labels_is_mostly_not_absorbed(make_world, label_world, seed):
    world = make_world(seed)
    statistics, thresholds = _fit(label_world(world, known=5), num_classes=6)
    absent = world.draw(5, regions=60, per_region=20)
    rejected = _refined(absent, np.zeros(len(absent), dtype=int), statistics, thresholds)
    known = np.concatenate([world.draw(c, regions=20, per_region=20) for c in range(5)])
    truth = np.repeat(np.arange(5), 400)
    kept = _refined(known, (truth + 1) % 5, statistics, thresholds)
    assert _accepted(rejected).mean() < 0.15
    assert _accepted(kept).mean() > 0.5
    assert (kept.labels.numpy() == truth)[_accepted(kept)].mean() > 0.95
    assert not (kept.plar_class == 5).any()
    assert thresholds.abstain[5].on
    assert thresholds.margin[0].source in ("left-out class", "calibrated")


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
        PLAR,
    )
    assert (refinement.labels.numpy() == truth).mean() > (teacher == truth).mean() + 0.1
    trusted = refinement.states == int(PixelState.TRUSTED)
    assert torch.equal(trusted, torch.from_numpy(~wrong))
    assert torch.equal(refinement.labels[trusted], torch.from_numpy(teacher)[trusted])


@pytest.mark.parametrize("rule", ["robust", "faithful"])
def test_random_features_switch_plar_off_and_leave_the_map_unchanged(make_world, label_world, rule):
    config = replace(PLAR, rule=rule)
    pixels = label_world(make_world(1), known=4, regions=20, per_region=20)
    noise = np.random.default_rng(5).normal(size=pixels.features.shape).astype(np.float32)
    pixels = replace(pixels, features=noise)
    statistics, thresholds = _fit(pixels, num_classes=4, plar=config)
    assert all(switch.on for switch in thresholds.abstain)
    refinement = _refined(noise, pixels.teacher, statistics, thresholds, config)
    assert np.array_equal(refinement.labels.numpy(), pixels.teacher)
    assert not _accepted(refinement).any()


def test_without_withheld_regions_every_threshold_names_its_fallback(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=4, per_region=10, withheld=0.0)
    _, thresholds = _fit(pixels, num_classes=3)
    assert {t.source for t in thresholds.gate} == {"agreement"}
    assert {t.value for t in thresholds.confidence} == {0.95}
    assert thresholds.confidence[0].reason == "only 0 withheld regions"
    assert thresholds.suspect.value == 0.5
    assert thresholds.suspect.reason == (
        "only 0 withheld error pixels in 0 regions, 200 in 5 needed"
    )
    assert all(t.value >= 5.9 for t in thresholds.margin)
    assert all(switch.source == "no evidence" for switch in thresholds.abstain)
    assert thresholds.error_source == "confidence"
    assert thresholds.health.auroc is None


def test_confidence_is_calibrated_where_precision_can_be_proven(make_world, label_world):
    pixels = label_world(make_world(), known=3, per_region=60, wrong=0.1)
    _, thresholds = _fit(pixels, num_classes=3)
    for number, threshold in enumerate(thresholds.confidence):
        assert threshold.source == "calibrated"
        said = pixels.withheld & (pixels.teacher == number)
        kept = said & (pixels.confidence >= threshold.value)
        assert (pixels.teacher == pixels.label)[kept].mean() > 0.9
        assert threshold.value < 0.95


def test_a_useful_error_mask_is_used_and_a_useless_one_is_not(make_world, label_world):
    good = label_world(make_world(), known=4)
    _, thresholds = _fit(good, num_classes=4)
    health = thresholds.health
    assert thresholds.error_source == "emd"
    assert health.auroc > 0.85
    assert 0.79 <= health.recall < 0.9
    assert health.ece_calibrated < 0.1 < health.ece
    assert thresholds.calibration.source == "isotonic"
    bad = label_world(make_world(), known=4, good_errors=False)
    _, thresholds = _fit(bad, num_classes=4)
    assert thresholds.error_source == "confidence"
    assert "AUROC" in thresholds.error_reason
    assert "below 0.60" in thresholds.error_reason
    raw, confidence = torch.tensor([0.9, 0.9]), torch.tensor([0.99, 0.5])
    low, high = error_probability(raw, confidence, None, thresholds=thresholds)
    assert low < high
    _, off = _fit(good, num_classes=4, emd=EmdConfig(enabled=False))
    assert off.error_reason == "the error decoder is switched off"


def test_disagreement_is_averaged_into_the_teachers_doubt(make_world, label_world):
    pixels = label_world(make_world(), known=4, good_errors=False)
    pixels = replace(pixels, disagreement=pixels.teacher != pixels.label)
    _, thresholds = _fit(pixels, num_classes=4)
    both = torch.tensor([0.7, 0.7])
    agree, differ = error_probability(
        both, both, torch.tensor([False, True]), thresholds=thresholds
    )
    assert differ > agree + 0.5


def test_few_errors_are_scaled_by_a_temperature(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=10, per_region=20, wrong=0.4)
    _, thresholds = _fit(pixels, num_classes=3)
    assert thresholds.health.errors < 200
    assert thresholds.calibration.source == "temperature"
    assert thresholds.suspect.source == "fallback"
    y = np.array(thresholds.calibration.y)
    assert (np.diff(y) >= 0).all()
    assert y[50] == pytest.approx(0.5)


def test_thresholds_survive_json_and_damage_is_named(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=10, per_region=10)
    _, thresholds = _fit(pixels, num_classes=5)
    text = json.dumps(thresholds.to_dict(), allow_nan=False)
    restored = Thresholds.from_dict(json.loads(text))
    assert restored == thresholds
    tensors = restored.to_tensors()
    assert tensors["gated"].tolist() == [True, True, True, False, False]
    assert torch.isinf(tensors["gate"][3:]).all()
    broken = json.loads(text)
    del broken["margin"]
    with pytest.raises(ModelError, match="thresholds: KeyError at 'margin'; the model folder"):
        Thresholds.from_dict(broken)


def test_calibration_repeats_by_seed(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=10, per_region=10)
    assert _fit(pixels, num_classes=3)[1] == _fit(pixels, num_classes=3)[1]


def test_the_error_mask_is_calibrated_where_the_decoder_did_not_learn() -> None:
    """Scores that are perfect on regions it learned from, and worthless elsewhere."""
    rng = np.random.default_rng(0)
    count, regions = 4000, 40
    region = np.repeat(np.arange(regions), count // regions)
    label = (region % 2).astype(np.int64)
    wrong = rng.random(count) < 0.3
    learned = region % 4 < 2
    pixels = LabelledPixels(
        features=rng.normal(size=(count, 4)).astype(np.float32) + label[:, None],
        label=label,
        region=region,
        withheld=np.ones(count, dtype=np.bool_) & (region >= 2),
        teacher=np.where(wrong, 1 - label, label),
        confidence=np.full(count, 0.8),
        error=np.where(learned, wrong, rng.random(count)).astype(np.float64),
    )
    options = {"num_classes": 2, "plar": PlarConfig(), "ssl": SslConfig(), "emd": EmdConfig()}
    statistics = fit_statistics(pixels, num_classes=2, config=PlarConfig(), seed=0)
    naive = calibrate(pixels, statistics, seed=0, **options)
    honest = calibrate(replace(pixels, error_seen=learned), statistics, seed=0, **options)
    assert naive.error_source == "emd"
    assert honest.error_source == "confidence"
    assert honest.health.pixels < naive.health.pixels
