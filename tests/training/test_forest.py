"""The forest's features by definition, its draw of pixels, and that pieces change nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import LabelError
from geohsal.training import forest as room
from geohsal.training.forest import (
    Samples,
    count_errors,
    draw_pixels,
    fit_forest,
    pixel_features,
    window_features,
)


class Scene:
    """Stands in for an open scene: two bands, some pixels without data."""

    def __init__(self, height: int, width: int) -> None:
        rng = np.random.default_rng([1, height, width])
        self.image = rng.normal(100, 20, (2, height, width)).astype(np.float32)
        self.valid = rng.random((height, width)) > 0.1
        self.image[:, ~self.valid] = np.nan
        self.bands, self.shape, self.height, self.width = ("a", "b"), (height, width), height, width
        self.scene = self

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        top, left = int(window.row_off), int(window.col_off)
        area = (slice(top, top + int(window.height)), slice(left, left + int(window.width)))
        return self.image[(slice(None), *area)], self.valid[area]

    def splits(self, window: Window) -> NDArray[np.uint8]:
        codes = np.full((int(window.height), int(window.width)), 3, np.uint8)
        codes[:, : max(0, 10 - int(window.col_off))] = 1
        return codes


def test_features_are_values_means_and_deviations_of_valid_pixels_in_windows() -> None:
    scene = Scene(31, 29)
    found = window_features(scene.image, scene.valid)
    assert found.shape == (10, 31, 29)
    row, col, half = 15, 14, 2
    assert scene.valid[row, col]
    area = (slice(row - half, row + half + 1), slice(col - half, col + half + 1))
    around = scene.image[1][area][scene.valid[area]].astype(np.float64)
    assert found[1, row, col] == pytest.approx(scene.image[1, row, col])
    assert found[3, row, col] == pytest.approx(around.mean(), rel=1e-5)
    assert found[5, row, col] == pytest.approx(around.std(), rel=1e-4)
    assert np.isfinite(found).all()


def test_pieces_give_the_features_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(70, 45)
    wanted = scene.valid & (np.random.default_rng(0).random((70, 45)) > 0.5)
    whole = window_features(scene.image, scene.valid)[:, wanted].T
    monkeypatch.setattr(room, "CHUNK_PX", 16)
    np.testing.assert_allclose(pixel_features(scene, wanted), whole, rtol=1e-4, atol=1e-3)


def test_all_pixels_are_taken_below_the_limit_and_equal_shares_of_classes_above() -> None:
    labels = {"one": np.full((40, 50), 255, np.uint8), "two": np.zeros((40, 50), np.uint8)}
    labels["one"][:10] = 1
    everything = draw_pixels(labels, seed=0)
    assert [int(found.sum()) for found in everything.values()] == [500, 2000]
    drawn = draw_pixels(labels, seed=0, limit=250)
    assert [int(found.sum()) for found in drawn.values()] == [50, 200]
    assert not drawn["one"][10:].any()
    again, other = draw_pixels(labels, seed=0, limit=250), draw_pixels(labels, seed=1, limit=250)
    assert all(np.array_equal(drawn[name], again[name]) for name in labels)
    assert not np.array_equal(drawn["two"], other["two"])


def test_errors_are_counted_on_valid_test_pixels_with_a_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "TREES", 5)
    monkeypatch.setattr(room, "CHUNK_PX", 16)
    scene = Scene(40, 40)
    truth = (np.where(scene.valid, scene.image[0], 0) > 100).astype(np.uint8)
    samples = Samples(features=pixel_features(scene, scene.valid), classes=truth[scene.valid])
    forest = fit_forest([samples], seed=0, jobs=1)
    truth[:5] = 255
    matrix = count_errors(forest, scene, reference=truth, num_classes=3)
    assert matrix.sum() == scene.valid[5:, 10:].sum()
    assert np.trace(matrix) > 0.95 * matrix.sum()
    assert matrix[2].sum() == 0


def test_a_forest_needs_labels() -> None:
    nothing = Samples(features=np.empty((0, 3), np.float32), classes=np.empty(0, np.uint8))
    with pytest.raises(LabelError, match="no train pixel is labelled"):
        fit_forest([nothing], seed=0, jobs=1)
