"""mIoU on the manifest's labels in val cores, by which the checkpoint is chosen."""

from pathlib import Path

import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from geohsal.data.sources import SceneCrops
from geohsal.geo.states import IGNORE_INDEX, Split
from geohsal.io.label_store import read_label_raster
from geohsal.io.run_tables import heldout_labels
from geohsal.models.tsf import InferenceNetworks
from geohsal.training.collect import chunk_px
from geohsal.training.inference import Predictor, chunks
from geohsal.training.metrics import accuracy_from_confusion, confusion_counter, update_counter
from geohsal.training.model_io import window_grid
from geohsal.training.module import Validate
from geohsal.workflows.context import RunContext


def validator(context: RunContext, device: torch.device) -> Validate:
    """MIoU of frozen networks on the manifest's labels in val cores; None where there are none."""
    scenes = [scene_id for scene_id in context.scenes_with("val") if _has_val(context, scene_id)]

    def validate(frozen: InferenceNetworks) -> float | None:
        predictor = Predictor(
            frozen, scale=context.scale, grid=window_grid(context.config), device=device
        )
        counter = confusion_counter(context.manifest.num_classes)
        for scene_id in scenes:
            with context.open(scene_id) as scene:
                _count_val(predictor, scene, heldout_labels(context.run, scene_id), counter)
        matrix = counter.compute().numpy()
        if matrix.sum() == 0:
            return None
        return accuracy_from_confusion(matrix, context.manifest.class_names).miou

    return validate if scenes else _no_validation


def _has_val(context: RunContext, scene_id: str) -> bool:
    """Whether the manifest labels any pixel of the scene's val cores."""
    path = heldout_labels(context.run, scene_id)
    if not path.exists():
        return False
    with context.open(scene_id) as scene:
        known = read_label_raster(path).classes != IGNORE_INDEX
        return bool((known & (scene.splits(scene.scene.extent) == Split.VAL)).any())


def _no_validation(_: InferenceNetworks) -> float | None:
    return None


def _count_val(
    predictor: Predictor, scene: SceneCrops, labels: Path, counter: MulticlassConfusionMatrix
) -> None:
    for chunk in chunks(scene.scene.height, scene.scene.width, size=chunk_px(predictor)):
        known = read_label_raster(labels, chunk).classes
        known = np.where(scene.splits(chunk) == Split.VAL, known, np.uint8(IGNORE_INDEX))
        if (known == IGNORE_INDEX).all():
            continue
        output = predictor.predict(scene, chunk)
        truth = torch.from_numpy(known.astype(np.int64))
        truth[~output.valid.cpu()] = IGNORE_INDEX
        update_counter(counter, output.teacher, truth)
