"""The random forest beside a run: on the labels of a round, measured where `evaluate` measures."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import LabelError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.label_store import read_label_raster
from geohsal.training.forest import (
    Samples,
    count_errors,
    draw_pixels,
    fit_forest,
    pixel_features,
)
from geohsal.training.metrics import Accuracy, accuracy_from_confusion
from geohsal.workflows.context import RunContext, open_context
from geohsal.workflows.evaluate import reference_map, references


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestResult:
    """Accuracy of a forest, how many labelled pixels there were, and seconds to learn from them."""

    accuracy: Accuracy
    labelled_pixels: int
    seconds: float


def measure_forest(run_dir: Path, *, round_index: int, seed: int, jobs: int) -> ForestResult:
    """Grow a forest on the labels that training of a round had, and measure it on test cores.

    Raises:
        LabelError: no train pixel is labelled, or no test core has truth or labels.
    """
    context = open_context(run_dir)
    sources = references(context)
    if not sources:
        raise LabelError(f"{run_dir}: no test core has truth or labels")
    labels = {name: _labels(context, name, round_index) for name in context.scenes_with("train")}
    began = time.monotonic()
    samples = []
    for scene_id, wanted in draw_pixels(labels, seed=seed).items():
        with context.open(scene_id) as scene:
            features = pixel_features(scene, wanted)
        samples.append(Samples(features=features, classes=labels[scene_id][wanted]))
    forest = fit_forest(samples, seed=seed, jobs=jobs)
    seconds = time.monotonic() - began
    count = context.manifest.num_classes
    matrix = np.zeros((count, count), dtype=np.int64)
    for scene_id in sources:
        reference = reference_map(context, scene_id)
        with context.open(scene_id) as scene:
            matrix += count_errors(forest, scene, reference=reference, num_classes=count)
    if not matrix.sum():
        raise LabelError(f"{run_dir}: truth and labels of the test cores hold no labelled pixel")
    return ForestResult(
        accuracy=accuracy_from_confusion(matrix, context.manifest.class_names),
        labelled_pixels=sum(int((found != IGNORE_INDEX).sum()) for found in labels.values()),
        seconds=seconds,
    )


def _labels(context: RunContext, scene_id: str, round_index: int) -> NDArray[np.uint8]:
    """Train labels (row, col) of a scene before the answers of a round, 255 where there are none.

    Answers of later rounds may be in the raster already: its third band says which.
    """
    found = read_label_raster(context.run.labels(scene_id))
    with context.open(scene_id) as scene:
        usable = scene.trainable(scene.scene.extent) & (found.rounds < round_index)
    return np.where(usable, found.classes, np.uint8(IGNORE_INDEX))
