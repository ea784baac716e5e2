"""How much withheld pixels prove: Wilson bounds and ranking quality."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

_Z = 1.959964  # two-sided 95 %


def wilson_lower(right: Any, total: Any) -> NDArray[np.float64]:
    """Lower end of Wilson's 95 % interval of a share; 0 where nothing was counted."""
    return _wilson(right, total, sign=-1.0)


def wilson_upper(right: Any, total: Any) -> NDArray[np.float64]:
    """Upper end of Wilson's 95 % interval of a share; 1 where nothing was counted."""
    return _wilson(right, total, sign=1.0)


def _wilson(right: Any, total: Any, *, sign: float) -> NDArray[np.float64]:
    count = np.asarray(total, dtype=np.float64)
    share = np.asarray(right, dtype=np.float64) / np.maximum(count, 1)
    square = _Z**2
    half = _Z * np.sqrt(share * (1 - share) * count + square / 4)
    bound = (share * count + square / 2 + sign * half) / (count + square)
    return np.asarray(np.clip(bound, 0.0, 1.0))


def least_precise_cut(
    score: NDArray[np.floating], right: NDArray[np.bool_], *, precision: float
) -> float | None:
    """Smallest cut whose pixels (score >= cut) have a Wilson lower bound >= `precision`."""
    if len(score) == 0:
        return None
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    total = np.arange(1, len(score) + 1)
    bound = wilson_lower(np.cumsum(right[order]), total)
    last = np.append(ranked[1:] != ranked[:-1], True)  # equal scores are cut together
    reached = np.flatnonzero(last & (bound >= precision))
    return float(ranked[reached[-1]]) if len(reached) else None


def auroc(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve; None unless both outcomes occur."""
    if not positive.any() or positive.all():
        return None
    return float(roc_auc_score(positive, score))


def aupr(score: NDArray[np.floating], positive: NDArray[np.bool_]) -> float | None:
    """Average precision; None unless both outcomes occur."""
    if not positive.any() or positive.all():
        return None
    return float(average_precision_score(positive, score))


def calibration_error(
    probability: NDArray[np.floating], positive: NDArray[np.bool_], *, bins: int = 15
) -> float | None:
    """Expected calibration error over equal-width bins; None without pixels."""
    if len(probability) == 0:
        return None
    cell = np.minimum((probability * bins).astype(np.int64), bins - 1)
    stated = np.bincount(cell, weights=probability, minlength=bins)
    found = np.bincount(cell, weights=positive, minlength=bins)
    return float(np.abs(stated - found).sum() / len(probability))
