"""A simulated reviewer: what someone who knows the truth would answer, with chosen faults."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geohsal.geo.scene import QueryRegion
from geohsal.geo.states import IGNORE_INDEX

SLOP_NODES = 4
"""Knots per side of the random field that moves a sloppy reviewer's borders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleNoise:
    """Faults: `label` share of patches named wrongly, `skip` share of regions skipped.

    `slop_px` moves borders between classes by up to that many pixels.
    """

    label: float = 0.0
    skip: float = 0.0
    slop_px: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.label <= 1 and 0 <= self.skip <= 1 and self.slop_px >= 0):
            raise ValueError(
                f"noise must be shares in [0, 1] and pixels from 0, not {self.label}, "
                f"{self.skip}, {self.slop_px}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleAnswer:
    """The answer to one region: `classes` (row, col) of its cell, 255 where it stays unknown."""

    status: Literal["done", "unsure", "skipped"]
    classes: NDArray[np.uint8]


def answer_region(
    region: QueryRegion,
    truth: NDArray[np.uint8],
    *,
    num_classes: int,
    noise: OracleNoise,
    rng: np.random.Generator,
) -> OracleAnswer:
    """Answer a region from the truth in its cell.

    Args:
        region: what is asked.
        truth: (row, col) class ids of the cell, 255 where the truth is silent.
        num_classes: classes that a wrong name is drawn from.
        noise: faults.
        rng: a generator of this region alone, so that the order of regions changes nothing.

    Returns:
        `unsure` where the truth says nothing about any of its pixels.
    """
    nothing = np.full(truth.shape, IGNORE_INDEX, dtype=np.uint8)
    skipped = rng.random() < noise.skip
    if skipped:
        return OracleAnswer(status="skipped", classes=nothing)
    classes = np.where(region.mask, _sloppy(truth, noise.slop_px, rng), IGNORE_INDEX)
    if not (classes != IGNORE_INDEX).any():
        return OracleAnswer(status="unsure", classes=nothing)
    renamed = _misnamed(classes.astype(np.uint8), noise.label, num_classes, rng)
    return OracleAnswer(status="done", classes=renamed)


def _sloppy(
    truth: NDArray[np.uint8], slop_px: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Truth read a little beside each pixel, by a smooth random field; gaps stay where they are."""
    if slop_px == 0:
        return truth
    height, width = truth.shape
    zoom = (height / SLOP_NODES, width / SLOP_NODES)
    moved = []
    for axis, size in enumerate(truth.shape):
        knots = rng.uniform(-slop_px, slop_px, (SLOP_NODES, SLOP_NODES))
        shift = ndimage.zoom(knots, zoom, order=1, mode="nearest", grid_mode=True)
        own = np.arange(size).reshape((-1, 1) if axis == 0 else (1, -1))
        moved.append(np.clip(np.rint(own + shift[:height, :width]), 0, size - 1).astype(np.intp))
    beside = truth[moved[0], moved[1]]
    known = (beside != IGNORE_INDEX) & (truth != IGNORE_INDEX)
    return np.where(known, beside, truth).astype(np.uint8)


def _misnamed(
    classes: NDArray[np.uint8], share: float, num_classes: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Each patch of one class gets another name with probability `share`."""
    if share == 0 or num_classes < 2:
        return classes
    renamed = classes.copy()
    for class_id in np.unique(classes[classes != IGNORE_INDEX]).tolist():
        patches, count = ndimage.label(classes == class_id)
        for number in range(1, count + 1):
            if rng.random() < share:
                other = (class_id + rng.integers(1, num_classes)) % num_classes
                renamed[patches == number] = other
    return renamed
