"""A random forest on the same labels: the classic baseline of land-cover mapping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier

from geohsal.data.sources import SceneCrops
from geohsal.errors import LabelError
from geohsal.geo.patches import slices
from geohsal.geo.states import IGNORE_INDEX, Split

TREES = 300
WINDOWS = (5, 13)
"""Sides of the windows whose means and standard deviations are features, in pixels."""
MAX_PIXELS = 200_000
"""Pixels that a forest learns from at most."""
CHUNK_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Pixels to learn from: `features` (pixel, feature), `classes` (pixel,)."""

    features: NDArray[np.float32]
    classes: NDArray[np.uint8]


def window_features(image: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(band, row, col) to (feature, row, col): bands, local means, local standard deviations.

    Windows take valid pixels only; at the edges of the image they are mirrored.
    """
    known = np.where(valid, image, 0).astype(np.float64)
    parts = [known]
    for size in WINDOWS:
        weight = np.maximum(uniform_filter(valid.astype(np.float64), size), 1e-9)
        mean = np.stack([uniform_filter(band, size) for band in known]) / weight
        square = np.stack([uniform_filter(band * band, size) for band in known]) / weight
        parts += [mean, np.sqrt(np.maximum(square - mean * mean, 0.0))]
    return np.concatenate(parts).astype(np.float32)


def pixel_features(scene: SceneCrops, wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Features (pixel, feature) of the wanted pixels (row, col) of a scene, in raster order.

    The scene is read in pieces with a margin, so that no whole image is held.
    """
    height, width = scene.scene.shape
    count = len(scene.scene.bands) * (1 + 2 * len(WINDOWS))
    found = np.empty((int(wanted.sum()), count), dtype=np.float32)
    order = np.full((height, width), -1, dtype=np.int64)
    order[wanted] = np.arange(len(found))
    for top in range(0, height, CHUNK_PX):
        for left in range(0, width, CHUNK_PX):
            area = (slice(top, top + CHUNK_PX), slice(left, left + CHUNK_PX))
            inside = wanted[area]
            if inside.any():
                found[order[area][inside]] = _read(scene, top, left, inside)
    return found


def _read(scene: SceneCrops, top: int, left: int, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Features (pixel, feature) of the pixels `inside` the piece that begins at (top, left)."""
    margin = max(WINDOWS) // 2
    height, width = inside.shape
    row0, col0 = max(top - margin, 0), max(left - margin, 0)
    row1 = min(top + height + margin, scene.scene.height)
    col1 = min(left + width + margin, scene.scene.width)
    image, valid = scene.read(Window(col0, row0, col1 - col0, row1 - row0))
    features = window_features(image, valid)
    core = features[:, top - row0 : top - row0 + height, left - col0 : left - col0 + width]
    return np.ascontiguousarray(core[:, inside].T)


def draw_pixels(
    labels: Mapping[str, NDArray[np.uint8]], *, seed: int, limit: int = MAX_PIXELS
) -> dict[str, NDArray[np.bool_]]:
    """Labelled pixels of each scene to learn from; above `limit` the same share of every class.

    Args:
        labels: class ids (row, col) by scene, 255 where unlabelled.
        seed: of the draw.
        limit: pixels in all, up to one more per class.
    """
    total = sum(int((classes != IGNORE_INDEX).sum()) for classes in labels.values())
    if total <= limit:
        return {name: classes != IGNORE_INDEX for name, classes in labels.items()}
    chosen = {name: np.zeros(classes.shape, dtype=np.bool_) for name, classes in labels.items()}
    present = sorted({int(i) for classes in labels.values() for i in np.unique(classes)})
    for class_id in present:
        if class_id == IGNORE_INDEX:
            continue
        places = {name: np.flatnonzero(classes == class_id) for name, classes in labels.items()}
        count = sum(map(len, places.values()))
        draw = np.zeros(count, dtype=np.bool_)
        rng = np.random.default_rng([seed, class_id])
        draw[rng.choice(count, size=-(-count * limit // total), replace=False)] = True
        start = 0
        for name, own in places.items():
            chosen[name].ravel()[own[draw[start : start + len(own)]]] = True
            start += len(own)
    return chosen


def fit_forest(samples: Sequence[Samples], *, seed: int, jobs: int) -> RandomForestClassifier:
    """A forest of 300 trees, the same for the same samples and seed.

    Raises:
        LabelError: there is no pixel to learn from.
    """
    if not any(len(item.classes) for item in samples):
        raise LabelError("no train pixel is labelled, so there is nothing to grow a forest from")
    forest = RandomForestClassifier(TREES, n_jobs=jobs, random_state=seed)
    forest.fit(
        np.concatenate([item.features for item in samples]),
        np.concatenate([item.classes for item in samples]),
    )
    return forest


def count_errors(
    forest: RandomForestClassifier,
    scene: SceneCrops,
    *,
    reference: NDArray[np.uint8],
    num_classes: int,
) -> NDArray[np.int64]:
    """Pixels by (truth, map) on valid test pixels of a scene whose reference is known."""
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    for top in range(0, scene.scene.height, CHUNK_PX):
        for left in range(0, scene.scene.width, CHUNK_PX):
            width = min(CHUNK_PX, scene.scene.width - left)
            window = Window(left, top, width, min(CHUNK_PX, scene.scene.height - top))
            truth = reference[slices(window)]
            asked = (truth != IGNORE_INDEX) & (scene.splits(window) == Split.TEST)
            if asked.any():
                asked &= scene.read(window)[1]
            if asked.any():
                said = forest.predict(_read(scene, top, left, asked))
                pairs = truth[asked].astype(np.int64) * num_classes + said
                matrix += np.bincount(pairs, minlength=num_classes**2).reshape(matrix.shape)
    return matrix
