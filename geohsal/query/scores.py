"""Pixel scores a(u): how much a pixel's answer is worth, by strategy, behind one signature."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geohsal.config import QueryConfig
from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.query.evidence import PixelEvidence

PixelScore = Callable[[PixelEvidence, QueryConfig], NDArray[np.float32]]
"""Higher is more worth asking; at least 0, and 0 where nothing can be asked."""

STEP = 2.0**-24
"""Entropies are summed in multiples of this."""

_UNASKED = (PixelState.NODATA, PixelState.LABELLED)


def undecided(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Undecided map q (1[AMBIGUOUS] + nu 1[NOVEL]) om_yhat + eta 1[TRUSTED] 1[T != F]."""
    weight_of = np.ones(IGNORE_INDEX + 1, dtype=np.float32)
    weight_of[: len(evidence.class_weight)] = evidence.class_weight
    kind = np.zeros(IGNORE_INDEX + 1, dtype=np.float32)
    kind[PixelState.AMBIGUOUS] = 1.0
    kind[PixelState.NOVEL] = config.novel_weight
    score = evidence.error * kind[evidence.state] * weight_of[evidence.teacher]
    trusted = (evidence.state == PixelState.TRUSTED) & evidence.disagree
    result: NDArray[np.float32] = score + np.float32(config.disagree_weight) * trusted
    return result.astype(np.float32, copy=False)


def alike(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """1 wherever something can be asked: for strategies whose choice does not go by pixels."""
    return _where_asked(np.ones(evidence.state.shape, dtype=np.float32), evidence)


def entropy(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Normalised entropy of the teacher's probabilities."""
    return _where_asked(evidence.entropy, evidence)


def margin(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """1 - (difference of the two largest probabilities)."""
    return _where_asked(1 - evidence.top2_margin, evidence)


def least_confidence(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """1 - the largest probability."""
    return _where_asked(1 - evidence.confidence, evidence)


def predicted_error(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Predicted error alone, before any refinement."""
    return _where_asked(evidence.error, evidence)


def information(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Mutual information of prediction and weights (BALD, Gal et al. 2017).

    Raises:
        ValueError: the evidence holds none; the acquisition must say that it needs it.
    """
    if evidence.information is None:
        raise ValueError("mutual information is scored, but the acquisition does not need it")
    return _where_asked(evidence.information, evidence)


def impurity_times_entropy(evidence: PixelEvidence, config: QueryConfig) -> NDArray[np.float32]:
    """Impurity of the classes around a pixel times their mean entropy (RIPU, Xie et al. 2022).

    Both are over the valid pixels of a window of `ripu_px` around the pixel, clipped to the
    scene. The impurity is the entropy of the shares of the predicted classes, divided like the
    other entropies by the log of the number of classes.
    """
    side, classes = config.ripu_px, len(evidence.class_weight)
    valid = evidence.teacher != IGNORE_INDEX
    total = np.maximum(_window_sum(valid, side), 1)
    impurity = np.zeros(valid.shape, dtype=np.float32)
    for class_id in range(classes):
        share = (_window_sum(evidence.teacher == class_id, side) / total).astype(np.float32)
        impurity -= share * np.log(np.where(share > 0, share, 1), dtype=np.float32)
    steps = np.rint(np.where(valid, evidence.entropy, np.float32(0)).astype(np.float64) / STEP)
    doubt = (_window_sum(steps, side) * STEP / total).astype(np.float32)
    score = np.clip(impurity / np.log(max(classes, 2)) * doubt, 0, None)
    return _where_asked(score.astype(np.float32), evidence)


def _window_sum(values: NDArray[np.generic], side: int) -> NDArray[np.int64]:
    """Sums over a square window around each pixel; nothing lies outside the scene.

    Integers, so that no sum depends on where the array begins.
    """
    ones = np.ones(side, dtype=np.int64)
    rows = ndimage.convolve1d(values.astype(np.int64), ones, axis=0, mode="constant")
    sums: NDArray[np.int64] = ndimage.convolve1d(rows, ones, axis=1, mode="constant")
    return sums


def _where_asked(values: NDArray[np.float32], evidence: PixelEvidence) -> NDArray[np.float32]:
    asked = ~np.isin(evidence.state, _UNASKED)
    return np.where(asked, values, np.float32(0))
