"""What a round of a run learns from: labelled regions, the withheld fold, the pool."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from geohsal.data.index import LabelledPixels, LabelledRegion, find_regions, withheld_keys
from geohsal.data.sources import SceneCrops
from geohsal.errors import LabelError
from geohsal.geo.patches import pad_window
from geohsal.geo.states import IGNORE_INDEX
from geohsal.refine.sampling import border_depth, interior
from geohsal.training.crops import RoundData
from geohsal.training.inference import chunks
from geohsal.workflows.answered import answered_rounds
from geohsal.workflows.context import RunContext
from geohsal.workflows.replayed import track_record

EROSION_PX = 1
"""Labelled pixels this near to a border are not evidence for class statistics."""

WINDOW_PX = 1024
"""Side of the windows in which labels are read."""


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
        fewest=context.config.train.heldout_fewest,
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
    pixels, depth = _labelled_pixels(scene)
    inner = interior(pixels.classes, pixels.numbers, depth, distance_px=EROSION_PX)
    counts_everything = find_regions(scene.scene.scene_id, pixels, seed=seed)
    eroded = find_regions(scene.scene.scene_id, pixels.where(inner), seed=seed)
    sampled = {region.number: region for region in eroded}
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


def _labelled_pixels(scene: SceneCrops) -> tuple[LabelledPixels, NDArray[np.uint8]]:
    """The train pixels of a scene that have a label, and their depth up to `EROSION_PX` + 1.

    Window by window: scenes may be far larger than what is labelled in them.
    """
    grid, found, depths = scene.scene, [], []
    for window in chunks(grid.height, grid.width, size=WINDOW_PX):
        wide = pad_window(window, EROSION_PX, grid)
        labels, numbers = scene.labels(wide)
        labels = np.where(scene.trainable(wide), labels, np.uint8(IGNORE_INDEX))
        depth = border_depth(labels, at_most=EROSION_PX + 1)
        row, col = int(window.row_off), int(window.col_off)
        top, left = row - int(wide.row_off), col - int(wide.col_off)
        inside = (slice(top, top + int(window.height)), slice(left, left + int(window.width)))
        pixels = LabelledPixels.of(labels[inside], numbers[inside], row=row, col=col)
        found.append(pixels)
        depths.append(depth[inside][pixels.rows - row, pixels.cols - col])
    return LabelledPixels.joined(found), np.concatenate(depths)
