"""What a round knows of each pixel when it scores what an answer would be worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASS_WEIGHT_RANGE = (0.5, 4.0)
"""Bounds of om_c (method 3.6): a rare class counts at most eight times a frequent one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelEvidence:
    """What a round knows of each pixel of a window of a scene; all maps are (row, col).

    `teacher` holds class ids (255 where nodata), `state` `PixelState` codes; `confidence`,
    `entropy` (divided by log of the number of classes), `top2_margin` (difference of the two
    largest probabilities) and `error` lie in [0, 1]; `disagree` is teacher != friend (all False
    without a friend). `information` is the mutual information of prediction and weights (divided
    like the entropy), None unless the acquisition needs it. `class_weight` is om, one number per
    class. `seed` belongs to run and round.
    """

    scene_id: str
    seed: int
    teacher: NDArray[np.uint8]
    state: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    entropy: NDArray[np.float32]
    top2_margin: NDArray[np.float32]
    error: NDArray[np.float32]
    disagree: NDArray[np.bool_]
    information: NDArray[np.float32] | None
    class_weight: NDArray[np.float64]


def class_weights(labelled_pixels: NDArray[np.integer]) -> NDArray[np.float64]:
    """om_c = clip(sqrt(median(n) / n_c), 0.5, 4) from the labelled pixels of each class.

    The median is over classes that have labels; a class without any takes the upper bound, and
    without any label at all every class weighs 1 (source: method 3.6).
    """
    counts = labelled_pixels.astype(np.float64)
    seen = counts > 0
    if not seen.any():
        return np.ones_like(counts)
    low, high = CLASS_WEIGHT_RANGE
    weights = np.full_like(counts, high)
    weights[seen] = np.sqrt(np.median(counts[seen]) / counts[seen])
    return np.clip(weights, low, high)
