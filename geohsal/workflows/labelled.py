"""What a round of a run learns from: labelled regions, the withheld fold, the pool."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from geohsal.data.index import LabelledRegion, find_regions, withheld_keys
from geohsal.data.sources import SceneCrops
from geohsal.errors import LabelError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.refine.sampling import interior_mask
from geohsal.training.crops import RoundData
from geohsal.workflows.answered import answered_rounds
from geohsal.workflows.context import RunContext
from geohsal.workflows.replayed import track_record

EROSION_PX = 1
"""Labelled pixels this near to a border are not evidence for class statistics."""


def round_data(context: RunContext, round_index: int, *, device: torch.device) -> RoundData:
    """Labelled regions, the withheld fold and the pool of a round.

    Raises:
        LabelError: no train pixel is labelled.
    """
    regions, withheld = labelled_regions(context, round_index)
    answered = answered_rounds(context, round_index)
    return RoundData(
        opener=context.opener,
        scale=context.scale,
        regions=regions,
        withheld=withheld,
        areas=context.train_areas(),
        class_names=context.manifest.class_names,
        answered=answered,
        track_record=track_record(
            context, regions, before=round_index, answered=answered, device=device
        ),
    )


def labelled_regions(
    context: RunContext, round_index: int
) -> tuple[list[LabelledRegion], frozenset[str]]:
    """All labelled regions, and the keys of those that a round withholds from learning.

    Raises:
        LabelError: no train pixel is labelled.
    """
    regions: list[LabelledRegion] = []
    for scene_id in context.scenes_with("train"):
        with context.open(scene_id) as scene:
            regions += _scene_regions(scene, seed=context.config.seed)
    if not regions:
        raise LabelError(
            f"{context.run.path}: no train pixel is labelled; give `labels:` to a train scene in "
            "the manifest and run geohsal tile again"
        )
    withheld = withheld_keys(
        regions,
        share=context.config.train.heldout_share,
        round_index=round_index,
        seed=context.config.seed,
    )
    return regions, withheld


def pixels_by_class(
    regions: Iterable[LabelledRegion], class_names: Sequence[str]
) -> dict[str, int]:
    """Labelled train pixels of regions by the name of their class."""
    counts = dict.fromkeys(class_names, 0)
    for region in regions:
        for class_id, count in region.counts.items():
            counts[class_names[class_id]] += count
    return counts


def _scene_regions(scene: SceneCrops, *, seed: int) -> list[LabelledRegion]:
    """Labelled regions of a scene with sampled pixels away from label borders."""
    extent = scene.scene.extent
    labels, numbers = scene.labels(extent)
    usable = (labels != IGNORE_INDEX) & scene.trainable(extent)
    labels = np.where(usable, labels, np.uint8(IGNORE_INDEX))
    counts_everything = find_regions(scene.scene.scene_id, [(0, labels, numbers)], seed=seed)
    inner = interior_mask(labels, numbers, distance_px=EROSION_PX)
    eroded = np.where(inner, labels, np.uint8(IGNORE_INDEX))
    sampled = {
        region.number: region
        for region in find_regions(scene.scene.scene_id, [(0, eroded, numbers)], seed=seed)
    }
    return [
        LabelledRegion(
            key=region.key,
            scene_id=region.scene_id,
            number=region.number,
            counts=region.counts,
            pixels=sampled[region.number].pixels,
            classes=sampled[region.number].classes,
        )
        for region in counts_everything
    ]
