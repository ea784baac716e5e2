"""mIoU on the manifest's labels in val cores, by which the checkpoint is chosen."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torchmetrics.classification import MulticlassConfusionMatrix

from geohsal.data.sources import SceneCrops
from geohsal.geo.states import IGNORE_INDEX, Split
from geohsal.io.label_store import LabelReader, read_label_raster
from geohsal.io.run_tables import heldout_labels
from geohsal.models.tsf import InferenceNetworks
from geohsal.training.collect import chunk_px
from geohsal.training.inference import Predictor, chunks
from geohsal.training.metrics import accuracy_from_confusion, confusion_counter, update_counter
from geohsal.training.model_io import window_grid
from geohsal.training.module import Validate
from geohsal.training.ranks import ALONE, Ranks
from geohsal.workflows.context import RunContext

SEARCH_PX = 1024
"""Side of the windows in which labelled val pixels are looked for."""


def validator(context: RunContext, device: torch.device, ranks: Ranks = ALONE) -> Validate | None:
    """What gives the mIoU of frozen networks on the manifest's labels in val cores, if there are.

    Processes share the chunks out; pixels are counted, so that the sum of their counts is what one
    process would have counted.
    """
    scenes = [scene_id for scene_id in context.scenes_with("val") if _has_val(context, scene_id)]
    names = context.manifest.class_names

    def validate(frozen: InferenceNetworks) -> float | None:
        predictor = Predictor(
            frozen, scale=context.scale, grid=window_grid(context.config), device=device
        )
        matrix = count_val(context, scenes, predictor, ranks)
        return accuracy_from_confusion(matrix, names).miou if matrix.any() else None

    return validate if scenes else None


def count_val(
    context: RunContext, scenes: Sequence[str], predictor: Predictor, ranks: Ranks
) -> NDArray[np.int64]:
    """Pixels (truth, map) of the val cores, over all processes."""
    work = [
        (scene_id, chunk)
        for scene_id in scenes
        for chunk in chunks(
            context.scenes[scene_id].height,
            context.scenes[scene_id].width,
            size=chunk_px(predictor),
        )
    ]
    counter = confusion_counter(context.manifest.num_classes)
    for scene_id, group in groupby(ranks.share(work), key=lambda item: item[0]):
        with context.open(scene_id) as scene:
            labels = heldout_labels(context.run, scene_id)
            for _, chunk in group:
                _count_val(predictor, scene, labels, chunk, counter)
    own: NDArray[np.int64] = counter.confmat.numpy()
    return np.asarray(np.sum(ranks.gather(own), axis=0), dtype=np.int64)


def _has_val(context: RunContext, scene_id: str) -> bool:
    """Whether the manifest labels any pixel of the scene's val cores."""
    path = heldout_labels(context.run, scene_id)
    if not path.exists():
        return False
    grid = context.scenes[scene_id]
    with context.open(scene_id) as scene, LabelReader(path) as held:
        for window in chunks(grid.height, grid.width, size=SEARCH_PX):
            known = held.read(window).classes != IGNORE_INDEX
            if (known & (scene.splits(window) == Split.VAL)).any():
                return True
    return False


def _count_val(
    predictor: Predictor,
    scene: SceneCrops,
    labels: Path,
    chunk: Window,
    counter: MulticlassConfusionMatrix,
) -> None:
    known = read_label_raster(labels, chunk).classes
    known = np.where(scene.splits(chunk) == Split.VAL, known, np.uint8(IGNORE_INDEX))
    if (known == IGNORE_INDEX).all():
        return
    output = predictor.predict(scene, chunk)
    truth = torch.from_numpy(known.astype(np.int64))
    truth[~output.valid.cpu()] = IGNORE_INDEX
    update_counter(counter, output.teacher, truth)
