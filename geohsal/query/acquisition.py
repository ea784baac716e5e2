"""Acquisition maps a(u): how much a pixel's answer is worth, by strategy, behind one signature."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from geohsal.config import QueryConfig
from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.query.draws import cell_draws

CLASS_WEIGHT_RANGE = (0.5, 4.0)
"""Bounds of om_c (method 3.6): a rare class counts at most eight times a frequent one."""

_UNASKED = (PixelState.NODATA, PixelState.LABELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelEvidence:
    """What a round knows of each pixel of one window; all maps are (row, col).

    `teacher` holds class ids (255 where nodata), `state` `PixelState` codes; `confidence`,
    `entropy` (divided by log of the number of classes), `top2_margin` (difference of the two
    largest probabilities) and `error` lie in [0, 1]; `disagree` is teacher != friend (all False
    without a friend). `class_weight` is om, one number per class. `row0` and `col0` place the
    window on the grid of the scene, `seed` belongs to run and round.
    """

    scene_id: str
    row0: int
    col0: int
    seed: int
    teacher: NDArray[np.uint8]
    state: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    entropy: NDArray[np.float32]
    top2_margin: NDArray[np.float32]
    error: NDArray[np.float32]
    disagree: NDArray[np.bool_]
    class_weight: NDArray[np.float64]


AcquisitionFunction = Callable[[PixelEvidence, QueryConfig], NDArray[np.float32]]


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


def plar(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Undecided map q (1[AMBIGUOUS] + nu 1[NOVEL]) om_yhat + eta 1[TRUSTED] 1[T != F]."""
    weight_of = np.ones(IGNORE_INDEX + 1, dtype=np.float32)
    weight_of[: len(evidence.class_weight)] = evidence.class_weight
    kind = np.zeros(IGNORE_INDEX + 1, dtype=np.float32)
    kind[PixelState.AMBIGUOUS] = 1.0
    kind[PixelState.NOVEL] = config.novel_weight
    undecided = evidence.error * kind[evidence.state] * weight_of[evidence.teacher]
    trusted = (evidence.state == PixelState.TRUSTED) & evidence.disagree
    score: NDArray[np.float32] = undecided + np.float32(config.disagree_weight) * trusted
    return score.astype(np.float32, copy=False)


def random(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """One uniform draw per region cell, from seed, scene and cell."""
    height, width = evidence.state.shape
    rows = (np.arange(height) + evidence.row0) // config.region_px
    cols = (np.arange(width) + evidence.col0) // config.region_px
    draws = cell_draws(
        evidence.scene_id, rows[:, None], cols=cols[None, :], seed=evidence.seed, purpose="random"
    )
    return _where_asked(draws.astype(np.float32), evidence)


def entropy(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Normalised entropy of the teacher's probabilities."""
    return _where_asked(evidence.entropy, evidence)


def margin(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """1 - (difference of the two largest probabilities)."""
    return _where_asked(1 - evidence.top2_margin, evidence)


def least_confidence(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """1 - the largest probability."""
    return _where_asked(1 - evidence.confidence, evidence)


def emd(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Predicted error alone, before any refinement."""
    return _where_asked(evidence.error, evidence)


def _where_asked(values: NDArray[np.float32], evidence: PixelEvidence) -> NDArray[np.float32]:
    asked = ~np.isin(evidence.state, _UNASKED)
    return np.where(asked, values, np.float32(0))


ACQUISITION_FUNCTIONS: Mapping[str, AcquisitionFunction] = MappingProxyType(
    {
        "plar": plar,
        "random": random,
        "entropy": entropy,
        "margin": margin,
        "least_confidence": least_confidence,
        "emd": emd,
    }
)
"""By the name in `query.strategy`; higher is more worth asking, 0 where nothing can be asked."""
