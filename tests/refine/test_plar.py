"""What refinement makes of suspects, pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geohsal.config import EmdConfig, PlarConfig, SslConfig
from geohsal.geo.states import PixelState
from geohsal.refine.calibration import calibrate
from geohsal.refine.plar import plar_operands, refine
from geohsal.refine.statistics import ClassStatistics, LabelledPixels, fit_statistics
from geohsal.refine.thresholds import Thresholds


def _round(pixels, config, num_classes=4):
    statistics = fit_statistics(pixels, num_classes=num_classes, config=config, seed=0)
    thresholds = calibrate(
        pixels,
        statistics,
        num_classes=num_classes,
        plar=config,
        ssl=SslConfig(),
        emd=EmdConfig(),
        seed=0,
    )
    return statistics, thresholds


def test_rule_none_refines_nothing(make_world, label_world):
    config = PlarConfig(rule="none")
    pixels = label_world(make_world(), known=4, regions=8, per_region=10)
    statistics, thresholds = _round(pixels, config)
    suspect = torch.arange(len(pixels)) % 3 == 0
    pseudo = torch.from_numpy(pixels.teacher).to(torch.uint8)
    found = refine(
        torch.from_numpy(pixels.features), pseudo, suspect, statistics, thresholds, config
    )
    assert torch.equal(found.labels, pseudo)
    assert found.labels.dtype == torch.uint8
    assert (found.states[suspect] == int(PixelState.AMBIGUOUS)).all()
    assert (found.states[~suspect] == int(PixelState.TRUSTED)).all()
    assert (found.plar_class == 255).all()


def test_every_pixel_has_one_state_and_only_corrections_change_labels(make_world, label_world):
    config = PlarConfig()
    world = make_world()
    pixels = label_world(world, known=4)
    statistics, thresholds = _round(pixels, config)
    features = np.concatenate([pixels.features[:500], world.draw(5, regions=5, per_region=20)])
    features[0, 3] = np.nan
    pseudo = torch.arange(len(features)) % 4
    suspect = torch.arange(len(features)) % 5 > 0
    suspect[0] = True
    found = refine(torch.from_numpy(features), pseudo, suspect, statistics, thresholds, config)
    legal = {int(s) for s in PixelState} - {int(PixelState.NODATA), int(PixelState.LABELLED)}
    assert set(found.states.tolist()) <= legal
    assert found.states[0] == int(PixelState.NOVEL)  # invalid features of a valid pixel
    assert (found.plar_class[0], found.margin[0]) == (255, 0)
    changed = found.labels != pseudo
    assert torch.equal(changed, found.states == int(PixelState.CORRECTED))
    assert torch.equal(found.labels[changed], found.plar_class[changed].long())
    assert (found.states[~suspect] == int(PixelState.TRUSTED)).all()
    assert torch.isfinite(found.margin).all()
    made = plar_operands(statistics, thresholds, config)
    again = refine(
        torch.from_numpy(features), pseudo, suspect, statistics, thresholds, config, operands=made
    )
    assert torch.equal(again.states, found.states)


def test_a_stored_round_refines_to_the_same_bits(make_world, label_world):
    config = PlarConfig()
    pixels = label_world(make_world(), known=4, regions=10, per_region=20)
    statistics, thresholds = _round(pixels, config)
    loaded = ClassStatistics.from_tensors(statistics.to_tensors())
    stored = Thresholds.from_dict(thresholds.to_dict())
    features, pseudo = torch.from_numpy(pixels.features), torch.from_numpy(pixels.teacher)
    suspect = torch.ones(len(pixels), dtype=torch.bool)
    a = refine(features, pseudo, suspect, statistics, thresholds, config)
    b = refine(features, pseudo, suspect, loaded, stored, config)
    assert torch.equal(a.margin, b.margin)
    assert torch.equal(a.states, b.states)


@pytest.mark.parametrize("rule", ["robust", "faithful"])
@pytest.mark.parametrize("case", ["one pixel", "one per class", "duplicates", "constant band"])
def test_degenerate_labels_abstain(case, rule):
    config = replace(PlarConfig(), rule=rule, do_no_harm=False)
    rng = np.random.default_rng(0)
    features, label, region = {
        "one pixel": (rng.normal(size=(1, 6)), [0], [1]),
        "one per class": (rng.normal(size=(3, 6)), [0, 1, 2], [1, 2, 3]),
        "duplicates": (np.eye(6)[np.arange(30) % 3], np.arange(30) % 3, np.arange(30)),
        "constant band": (np.full((30, 6), 7.0), np.arange(30) % 3, np.arange(30)),
    }[case]
    pixels = LabelledPixels(
        features=features.astype(np.float32),
        label=np.asarray(label),
        region=np.asarray(region),
        withheld=np.asarray(region) % 4 == 0,
        teacher=(np.asarray(label) + 1) % 3,
        confidence=np.full(len(label), 0.6),
        error=np.full(len(label), 0.5),
    )
    statistics, thresholds = _round(pixels, config)
    points = np.concatenate([features, rng.normal(size=(20, 6)) * 5]).astype(np.float32)
    pseudo = torch.zeros(len(points), dtype=torch.int64)
    suspect = torch.ones(len(points), dtype=torch.bool)
    found = refine(torch.from_numpy(points), pseudo, suspect, statistics, thresholds, config)
    undecided = {int(PixelState.AMBIGUOUS), int(PixelState.NOVEL)}
    assert set(found.states.tolist()) <= undecided
    assert torch.isfinite(found.margin).all()


def test_half_precision_changes_neither_states_nor_margins_of_corrections(
    make_world, label_world, monkeypatch
):
    monkeypatch.setattr("geohsal.kernels.plar.op.CPU_HALVES", True)  # slow without instructions
    config = PlarConfig(do_no_harm=False)
    pixels = label_world(make_world(), known=4)
    statistics, thresholds = _round(pixels, config)
    features = torch.from_numpy(pixels.features)
    pseudo = torch.from_numpy(pixels.teacher)
    found = [
        refine(
            features,
            pseudo,
            torch.ones(len(pixels), dtype=torch.bool),
            statistics,
            thresholds,
            replace(config, kernel=kernel),
        )
        for kernel in ("torch", "torch-half")
    ]
    assert torch.equal(found[0].states, found[1].states)
    assert torch.equal(found[0].labels, found[1].labels)
    corrected = found[0].states == int(PixelState.CORRECTED)
    assert corrected.sum() > 100
    assert torch.equal(found[0].margin[corrected], found[1].margin[corrected])
    assert not torch.equal(found[0].margin, found[1].margin)
