"""Class statistics: invariance, shrinkage, degenerate data, storage."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from geohsal.config import PlarConfig
from geohsal.errors import LabelError, ModelError
from geohsal.refine.statistics import (
    ClassStatistics,
    LabelledPixels,
    fit_statistics,
    ledoit_wolf,
)

CONFIG = PlarConfig()


def _pixels(features, label, region) -> LabelledPixels:
    count = len(label)
    return LabelledPixels(
        features=np.asarray(features, dtype=np.float32),
        label=np.asarray(label),
        region=np.asarray(region),
        withheld=np.zeros(count, dtype=bool),
        teacher=np.asarray(label),
        confidence=np.ones(count),
        error=np.zeros(count),
    )


def test_mahalanobis_and_q_rankings_ignore_affine_maps_and_euclid_does_not():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 4))
    features = np.concatenate(
        [m + rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) for m in means]
    )
    label, region = np.repeat(np.arange(3), 200), np.repeat(np.arange(60), 10)
    mixing = rng.normal(size=(4, 4)) * [0.1, 1, 5, 20]
    bare = PlarConfig(shrink_regions=0.0, eps=1e-12)
    fits = []
    for rows in (features, features @ mixing.T + 7):
        pixels = _pixels(rows, label, region)
        statistics = fit_statistics(pixels, num_classes=3, config=bare, seed=0)
        points = statistics.project(pixels.features)[:, None]
        euclid = ((points - statistics.feature_means[:, 0] @ statistics.projection.T) ** 2).sum(2)
        fits.append((statistics.mahalanobis(pixels.features), statistics.logdet, euclid))
    (m_a, logdet_a, e_a), (m_b, logdet_b, e_b) = fits
    np.testing.assert_allclose(m_a, m_b, rtol=1e-3, atol=1e-3)
    assert (m_a.argmin(1) == m_b.argmin(1)).mean() > 0.998
    assert ((m_a + logdet_a).argmin(1) == (m_b + logdet_b).argmin(1)).mean() > 0.998
    np.testing.assert_allclose(np.diff(logdet_a), np.diff(logdet_b), atol=1e-3)
    assert (e_a.argmin(1) == e_b.argmin(1)).mean() < 0.95


def test_statistics_do_not_depend_on_the_order_of_pixels(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=6, per_region=10)
    order = np.random.default_rng(1).permutation(len(pixels))
    a = fit_statistics(pixels, num_classes=3, config=CONFIG, seed=0)
    b = fit_statistics(pixels.take(order), num_classes=3, config=CONFIG, seed=0)
    np.testing.assert_allclose(
        a.mahalanobis(pixels.features), b.mahalanobis(pixels.features), rtol=1e-7
    )


def test_shrinkage_follows_the_formula(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=15, per_region=10)
    fitted = fit_statistics(pixels, num_classes=3, config=CONFIG, seed=0)
    z = fitted.project(pixels.features)
    dim = fitted.dim
    centred = np.concatenate(
        [z[pixels.label == c] - z[pixels.label == c].mean(0) for c in range(3)]
    )
    pooled = centred.T @ centred / len(centred)
    weight = ledoit_wolf_shrinkage(centred, assume_centered=True)
    assert ledoit_wolf(centred) == pytest.approx(weight, rel=1e-9)
    unit = np.trace(pooled) / dim
    star = (1 - weight) * pooled + weight * unit * np.eye(dim)
    for c in range(3):
        own = np.cov(z[pixels.label == c].T, bias=True)
        share = 15 / (15 + 10.0)
        sigma = share * own + (1 - share) * star + 1e-4 * unit * np.eye(dim)
        white = fitted.whitening[c]
        np.testing.assert_allclose(white @ sigma @ white.T, np.eye(dim), atol=1e-8)
        assert np.allclose(white, np.tril(white))
        assert fitted.logdet[c] == pytest.approx(np.linalg.slogdet(sigma)[1])
    assert fitted.dim == 32
    assert fitted.regions.tolist() == [15, 15, 15]


def test_dimension_is_the_numerical_rank():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(3, 10))
    features = rng.normal(size=(200, 3)) @ basis + 5
    features[:, 4] = 17.3  # a constant band
    pixels = _pixels(features, np.arange(200) % 2, np.arange(200) // 10)
    fitted = fit_statistics(pixels, num_classes=2, config=CONFIG, seed=0)
    assert fitted.dim == 3
    assert not fitted.projection[:, 4].any()
    narrow = fit_statistics(pixels, num_classes=2, config=replace(CONFIG, dim=2), seed=0)
    assert narrow.dim == 2


DEGENERATE = {
    "one pixel": (np.ones((1, 4)), [0], [1]),
    "one pixel per class": (np.eye(3, 4), [0, 1, 2], [1, 2, 3]),
    "all the same": (np.full((40, 4), 3.3), np.arange(40) % 2, np.arange(40) // 4),
    "classes of duplicates": (np.eye(4)[np.arange(40) % 2], np.arange(40) % 2, np.arange(40)),
    "fewer pixels than channels": (
        np.random.default_rng(0).normal(size=(4, 64)),
        [0, 0, 1, 1],
        [1, 2, 3, 4],
    ),
}


@pytest.mark.parametrize("case", list(DEGENERATE))
def test_degenerate_data_gives_finite_statistics_without_support(case):
    fitted = fit_statistics(_pixels(*DEGENERATE[case]), num_classes=4, config=CONFIG, seed=0)
    for name, tensor in fitted.to_tensors().items():
        assert tensor.isfinite().all(), name
    assert not fitted.supported(CONFIG.min_regions).any()
    distances = fitted.mahalanobis(np.ones((2, fitted.center.shape[0])))
    assert not np.isnan(distances).any()
    assert np.isinf(distances[:, 3]).all()  # class 3 has no labels


def test_non_finite_features_are_left_out_and_no_labels_are_an_error():
    features = np.ones((3, 2))
    features[0, 0], features[1, 1] = np.nan, np.inf
    pixels = _pixels(features, [0, 0, 1], [1, 2, 3])
    fitted = fit_statistics(pixels, num_classes=2, config=CONFIG, seed=0)
    assert fitted.regions.tolist() == [0, 1]
    with pytest.raises(LabelError, match="no labelled pixel with finite features; label at least"):
        fit_statistics(pixels.take(np.array([0])), num_classes=2, config=CONFIG, seed=0)


def test_tensors_restore_the_statistics_and_damage_is_named(make_world, label_world):
    pixels = label_world(make_world(), known=3, regions=6, per_region=10)
    fitted = fit_statistics(pixels, num_classes=255, config=CONFIG, seed=0)
    tensors = fitted.to_tensors()
    restored = ClassStatistics.from_tensors(tensors)
    points = pixels.features[:20]
    np.testing.assert_array_equal(fitted.mahalanobis(points), restored.mahalanobis(points))
    assert restored.present.sum() == 3
    with pytest.raises(ModelError, match="class statistics: center missing; the model folder"):
        ClassStatistics.from_tensors({k: v for k, v in tensors.items() if k != "center"})
    with pytest.raises(ModelError, match=r"whitening has shape \(3, 32, 32\), expected \(255,"):
        ClassStatistics.from_tensors(tensors | {"whitening": tensors["whitening"][:3]})


def test_regions_per_class_are_capped(make_world, label_world):
    pixels = label_world(make_world(), known=2, regions=12, per_region=10)
    config = replace(CONFIG, max_regions_per_class=5, pixels_per_region=4)
    fitted = fit_statistics(pixels, num_classes=2, config=config, seed=0)
    assert fitted.regions.tolist() == [5, 5]
    assert fitted.pixels.tolist() == [20, 20]
