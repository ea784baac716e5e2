"""The linear probe: fixed features, regularised discriminants, an honest temperature."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.transform import from_origin
from safetensors.torch import save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn
from torch.nn import functional as F

from geohsal.config import config_from_dict
from geohsal.data.dataset import BandScale
from geohsal.data.index import LabelledRegion
from geohsal.models.segmenter import build_segmenter
from geohsal.refine.statistics import LabelledPixels
from geohsal.training.forest import WINDOWS, window_features
from geohsal.training.probe import (
    SHRINKAGE,
    TEMPERATURES,
    Discriminants,
    LinearProbe,
    ProbeSamples,
    Tutor,
    _ahead,
    _discriminants,
    _spread_out,
    _temperature,
    fit_probe,
    fixed_features,
    pretrained_encoder,
    probe_loss,
)

BANDS, CLASSES, SIDE = 2, 4, 160
CPU = torch.device("cpu")
SCALE = BandScale(mean=(0.0,) * BANDS, std=(1.0,) * BANDS)


class Scene:
    """Class 0 in the left half, 1 in the right one, told by the first band."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.truth = np.zeros((SIDE, SIDE), np.uint8)
        self.truth[:, SIDE // 2 :] = 1
        self.image = rng.normal(size=(BANDS, SIDE, SIDE)).astype(np.float32)
        self.image[0] += 3.0 * self.truth
        self.scene: Any = type("Grid", (), {"crs": None, "transform": from_origin(0, 0, 1, 1)})

    def _cut(self, plane: NDArray[Any], window: Any, fill: float) -> NDArray[Any]:
        grid = np.full((int(window.height), int(window.width)), fill, plane.dtype)
        rows = np.arange(int(window.height)) + int(window.row_off)
        cols = np.arange(int(window.width)) + int(window.col_off)
        down, right = (rows >= 0) & (rows < SIDE), (cols >= 0) & (cols < SIDE)
        grid[np.ix_(down, right)] = plane[np.ix_(rows[down], cols[right])]
        return grid

    def read(self, window: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        valid = self._cut(np.ones((SIDE, SIDE), np.bool_), window, False)
        return np.stack([self._cut(band, window, 0.0) for band in self.image]), valid

    def labels(self, window: Any) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        shape = (int(window.height), int(window.width))
        return np.full(shape, 255, np.uint8), np.zeros(shape, np.int32)

    def trainable(self, window: Any) -> NDArray[np.bool_]:
        return np.ones((int(window.height), int(window.width)), np.bool_)


def regions_of(scene: Scene, seed: int = 3, count: int = 12) -> list[LabelledRegion]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(1, count + 1):
        half = number % 2
        top, left = rng.integers(0, SIDE - 8), half * SIDE // 2 + rng.integers(0, SIDE // 2 - 8)
        rows, cols = np.mgrid[top : top + 8, left : left + 8].reshape(2, -1)
        classes = scene.truth[rows, cols]
        found.append(
            LabelledRegion(
                key=f"s#{number}",
                scene_id="s",
                number=number,
                counts={half: 64},
                pixels=np.stack([rows, cols], axis=1).astype(np.int32),
                classes=classes,
            )
        )
    return found


def fitted(
    regions: list[LabelledRegion],
    scene: Scene,
    *,
    withheld: frozenset[str] = frozenset(),
    encoder: nn.Module | None = None,
) -> LinearProbe | None:
    tutor = tutor_of(regions, scene, withheld=withheld, encoder=encoder)
    return None if tutor is None else tutor.probe


def tutor_of(
    regions: list[LabelledRegion],
    scene: Scene,
    *,
    withheld: frozenset[str] = frozenset(),
    encoder: nn.Module | None = None,
) -> Tutor | None:
    return fit_probe(
        regions,
        withheld=withheld,
        open_source=lambda _: scene,
        scale=SCALE,
        encoder=encoder,
        num_classes=CLASSES,
        seed=0,
        device=CPU,
    )


def some_encoder() -> nn.Module:
    torch.manual_seed(0)
    settings = {"arch": "unet", "encoder": "tu-resnet10t", "encoder_depth": 3}
    model = config_from_dict({"model": settings}, where="test").model
    return build_segmenter(model, in_channels=BANDS, classes=2).encoder.eval()


def test_it_maps_a_scene_from_a_few_regions() -> None:
    scene = Scene()
    for encoder in (None, some_encoder()):
        probe = fitted(regions_of(scene), scene, encoder=encoder)
        assert probe is not None
        image = torch.from_numpy(scene.image)[None]
        found = probe(image, torch.ones(1, SIDE, SIDE, dtype=torch.bool))[0]
        assert torch.allclose(found.sum(dim=0), torch.ones(()), atol=1e-5)
        assert (found.argmax(dim=0).numpy() == scene.truth).mean() > 0.95
        assert not found[2:].any()  # classes without labels


def test_windows_are_those_of_the_forest() -> None:
    scene, margin = Scene(), max(WINDOWS)
    valid = np.ones((SIDE, SIDE), np.bool_)
    valid[60:90, 40:50] = False
    image = np.where(valid, scene.image, 0).astype(np.float32)
    (found,) = fixed_features(None, torch.from_numpy(image)[None], torch.from_numpy(valid)[None])
    inside = np.zeros_like(valid)
    inside[margin:-margin, margin:-margin] = True
    known = inside & valid
    expected = window_features(image, valid)[:, known]
    assert np.allclose(found[0].numpy()[:, known], expected, atol=1e-3)


def test_interpolating_class_maps_equals_interpolating_features() -> None:
    encoder = some_encoder()
    image = torch.randn(2, BANDS, 32, 48)
    valid = torch.ones(2, 32, 48, dtype=torch.bool)
    groups = fixed_features(encoder, image, valid)
    assert len(groups) > 2
    whole = torch.cat(
        [F.interpolate(g, size=(32, 48), mode="bilinear", align_corners=False) for g in groups], 1
    )
    size, rng = whole.shape[1], np.random.default_rng(0)
    made = Discriminants(
        mean=rng.normal(size=size) / 8,
        spread=rng.uniform(8, 9, size),  # nothing is cut
        weight=rng.normal(size=(CLASSES, size)),
        bias=rng.normal(size=CLASSES),
    )
    pixels = whole.permute(0, 2, 3, 1).reshape(-1, size)
    expected = torch.from_numpy(made(pixels.detach().numpy()) / 2.0).softmax(dim=1).float()
    found = LinearProbe(encoder, made, temperature=2.0)(image, valid).permute(0, 2, 3, 1)
    assert torch.allclose(found.reshape(-1, CLASSES), expected, atol=1e-4)


def test_discriminants_are_those_of_the_library() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 3], (50, 30, 20))
    features = rng.normal(size=(100, 6)) * [1, 2, 5, 0.1, 1, 1] + classes[:, None] * 0.4
    pixels = np.array([10.0, 30.0, 0.0, 60.0])  # not the shares of the sample
    logits = _discriminants(features, classes, pixels)(features)
    assert np.isneginf(logits[:, 2]).all()
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-3)
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=[0.1, 0.3, 0.6])
    expected = peer.fit(scaled, classes).predict_proba(scaled)
    found = torch.from_numpy(logits).softmax(dim=1).numpy()
    assert np.allclose(found[:, [0, 1, 3]], expected, atol=1e-6)


def test_a_class_of_one_pixel_and_features_without_spread() -> None:
    features = np.zeros((9, 3))
    features[:8, 0] = np.repeat([0.0, 1.0], 4)
    features[8, 0] = 2.0
    classes = np.array([0] * 4 + [1] * 4 + [2])
    found = _discriminants(features, classes, np.ones(3))
    assert np.isfinite(found.weight).all()
    assert (found(features).argmax(axis=1) == classes).all()


def test_a_feature_that_was_silent_at_the_labels_does_not_decide_alone() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 200)
    features = np.stack([rng.normal(size=400) + 3.0 * classes, np.zeros(400)], axis=1)
    features[:3, 1] = 0.05
    found = _discriminants(features, classes, np.ones(2))
    elsewhere = features[200:].copy()
    elsewhere[:, 1] = 3.0
    assert (found(elsewhere).argmax(axis=1) == 1).mean() > 0.6  # without the cut: nowhere


def test_many_regions_give_as_many_pixels_as_one_can_hold() -> None:
    for count, most in ((64, 64), (64, 3), (7, 2), (1, 1), (64, 50)):
        places = _spread_out(count, most)
        assert 1 <= len(places) <= most
        assert len(set(np.diff(places))) <= 1
        assert max(places) < count


def test_regions_that_differ_make_it_less_sure() -> None:
    """Overconfidence is measured on regions that the classifier has not seen."""

    def samples(between: float) -> ProbeSamples:
        rng = np.random.default_rng(1)
        region = np.repeat(np.arange(20), 32)
        place = rng.normal(size=(20, 8)) * between
        features = place[region] + rng.normal(size=(640, 8))
        classes = (region % 2).astype(np.int64)
        features[:, 0] += 2.0 * classes
        return ProbeSamples(
            features=features.astype(np.float32),
            classes=classes,
            folds=(region // 2) % 5,
            regions=region,
        )

    alike = _temperature(samples(0.0), np.array([1.0, 1.0]))
    apart = _temperature(samples(2.0), np.array([1.0, 1.0]))
    assert alike is not None
    assert apart is not None
    assert alike < 1.5
    assert apart > 2 * alike
    assert apart < TEMPERATURES[-1]


def test_withheld_regions_stay_unseen() -> None:
    scene = Scene()
    regions = regions_of(scene)
    withheld = frozenset({"s#1", "s#2"})
    first = fitted(regions, scene, withheld=withheld)
    assert first is not None
    others = [
        replace(region, classes=np.full_like(region.classes, 3), counts={3: 64})
        if region.key in withheld
        else region
        for region in regions
    ]
    again = fitted(others, scene, withheld=withheld)
    assert again is not None
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.mean, again.mean)
    assert first.temperature == again.temperature
    seen = fitted(others, scene)
    assert seen is not None
    assert torch.isfinite(seen.bias[3])


def seen_by(teacher: NDArray[np.int64], regions: list[LabelledRegion]) -> LabelledPixels:
    """Pixels of regions that all have 64, of which the labelling network says `teacher`."""
    return LabelledPixels(
        features=np.zeros((len(teacher), 1), np.float32),
        label=np.concatenate([region.classes for region in regions]).astype(np.int64),
        region=np.repeat(np.arange(len(regions)), 64),
        withheld=np.ones(len(teacher), np.bool_),
        teacher=teacher,
        confidence=np.ones(len(teacher)),
        error=np.zeros(len(teacher)),
    )


def test_a_network_that_is_better_on_withheld_regions_is_not_tutored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    regions = regions_of(scene, count=20)
    for region in regions[:4]:
        region.classes[:32] = 2  # what no other region holds: the probe must err there
    withheld = frozenset(region.key for region in regions[:6])
    tutor = tutor_of(regions, scene, withheld=withheld)
    assert tutor is not None
    assert sorted(tutor.right) == [0, 1, 2, 3, 4, 5]
    assert all(tutor.right[place] <= 0.5 for place in range(4))
    truth = np.concatenate([region.classes for region in regions]).astype(np.int64)
    worse = seen_by(np.full_like(truth, 3), regions)
    perfect = seen_by(truth, regions)
    with caplog.at_level(logging.INFO):
        for pixels, on in ((worse, True), (perfect, False), (worse, True), (worse, True)):
            tutor.see(pixels)
            assert tutor.on == on
    assert caplog.text.count("no longer learned from") == 1
    assert caplog.text.count("learned from again") == 1


@pytest.mark.parametrize(
    ("leads", "ahead"),
    [
        ([], False),
        ([0.9, 0.9, 0.9, 0.9], False),  # too few
        ([0.0] * 5, False),
        ([0.1] * 5, True),
        ([0.5, -0.4, 0.0, 0.1, -0.1], False),
        ([0.5, 0.4, 0.0, 0.3, 0.2], True),
    ],
)
def test_a_lead_counts_above_two_standard_errors(leads: list[float], ahead: bool) -> None:
    assert _ahead(leads) is ahead


def test_without_withheld_regions_it_is_always_learned_from() -> None:
    scene = Scene()
    regions = regions_of(scene)
    tutor = tutor_of(regions, scene)
    assert tutor is not None
    assert not tutor.right
    tutor.see(seen_by(np.concatenate([r.classes for r in regions]).astype(np.int64), regions))
    assert tutor.on


def test_one_class_tells_nothing_apart(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    regions = [region for region in regions_of(scene) if region.main_class == 0]
    with caplog.at_level(logging.INFO):
        assert fitted(regions, scene) is None
        assert fitted(regions[:1], scene) is None
        assert fitted([], scene) is None
    assert caplog.text.count("no linear probe") == 3


def test_the_encoder_is_the_one_of_the_weights_or_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given, path = some_encoder(), tmp_path / "weights.safetensors"
    save_file(given.state_dict(), path)
    settings = {"arch": "unet", "encoder": "tu-resnet10t", "encoder_depth": 3}
    model = config_from_dict({"model": settings | {"weights": str(path)}}, where="test").model
    torch.manual_seed(7)
    found = pretrained_encoder(model, bands=BANDS, device=CPU)
    assert found is not None
    assert not found.training
    for name, value in given.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    without = config_from_dict({"model": settings}, where="test").model
    with caplog.at_level(logging.WARNING):
        assert pretrained_encoder(without, bands=BANDS, device=CPU) is None
    assert "ssl.probe_weight without model.weights" in caplog.text


@given(seed=st.integers(0, 50))
def test_the_loss_is_least_at_the_target(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    target = logits.detach().softmax(dim=1)
    counted = torch.rand(2, 4, 4, generator=generator) > 0.3
    probe_loss(logits, target, counted).backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.zeros(()), atol=1e-6)
    other = torch.randn(2, 3, 4, 4, generator=generator)
    assert probe_loss(other, target, counted) >= probe_loss(logits, target, counted)


def test_the_loss_of_certain_targets_is_cross_entropy() -> None:
    logits, label = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target = F.one_hot(label, 3).permute(0, 3, 1, 2).float()
    everywhere = torch.ones(2, 4, 4, dtype=torch.bool)
    assert torch.isclose(probe_loss(logits, target, everywhere), F.cross_entropy(logits, label))
    assert probe_loss(logits, target, ~everywhere) == 0
    halved = probe_loss(logits, target, everywhere, count=torch.tensor(64.0))
    assert torch.isclose(halved, F.cross_entropy(logits, label) / 2)
