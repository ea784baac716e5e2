"""What the answered rounds say about the pool's class shares (refine.priors)."""

import logging

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import DataError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.label_store import read_label_raster
from geohsal.refine.priors import AnsweredRound
from geohsal.training.inference import chunks
from geohsal.workflows.context import RunContext
from geohsal.workflows.round_rasters import read_teacher

logger = logging.getLogger(__name__)

_STRIP_PX = 2048


def answered_rounds(context: RunContext, before: int) -> list[AnsweredRound]:
    """Answers of each round before one, beside the teacher's classes when it was queried.

    A round whose rasters were deleted is left out, with a warning; a scene that was added to the
    run after a round says nothing of it. Without `prior.source=answers` nothing is read.
    """
    if context.config.prior.source != "answers":
        return []
    found = []
    for index in range(before):
        try:
            counted = _answered_round(context, index)
        except DataError as error:
            logger.warning("round %d tells nothing of the pool's class shares: %s", index, error)
            continue
        if counted.regions:
            found.append(counted)
    return found


def _answered_round(context: RunContext, index: int) -> AnsweredRound:
    classes = context.manifest.num_classes
    predicted = np.zeros(classes, dtype=np.int64)
    answered = np.zeros((classes, classes), dtype=np.int64)
    regions = 0
    round_ = context.run.round(index)
    scenes = [
        scene_id
        for scene_id in context.scenes_with("train")
        if round_.raster(scene_id, "class").exists()
    ]
    if not scenes:
        raise DataError(f"{round_.rasters}: holds no map of a train scene")
    for scene_id in scenes:
        numbers: list[NDArray[np.int32]] = []
        with context.open(scene_id) as source:
            scene = source.scene
            for window in chunks(scene.height, scene.width, size=_STRIP_PX):
                teacher = read_teacher(round_, scene, window)
                train = source.trainable(window) & (teacher < classes)
                predicted += np.bincount(teacher[train], minlength=classes)
                labels = read_label_raster(context.run.labels(scene_id), window)
                known = train & (labels.rounds == index) & (labels.classes != IGNORE_INDEX)
                pairs = teacher[known].astype(np.int64) * classes + labels.classes[known]
                answered += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
                numbers.append(np.unique(labels.regions[known]))
        regions += len(np.unique(np.concatenate(numbers)))
    return AnsweredRound(predicted=predicted, answered=answered, regions=regions)
