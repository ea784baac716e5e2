"""Margins: by how much the best class must lead before PLAR assigns it.

Two demands, the stricter holds. Precision: where PLAR names another class than the teacher, on
withheld suspects and on the suspects of earlier rounds that people answered afterwards, the leads
above the margin are right. Absence: each labelled class in turn plays a class without
labels; few of its pixels may be absorbed by the others. Precision alone lets a third to a half of
the pixels of an unlabelled class through, because classes that are easy to tell apart need no
margin among themselves.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from geohsal.config import PlarConfig
from geohsal.refine.class_scores import class_scores
from geohsal.refine.evidence import least_precise_cut, wilson_upper
from geohsal.refine.gates import HeldOut
from geohsal.refine.statistics import ClassStatistics, LabelledPixels
from geohsal.refine.thresholds import Threshold, Thresholds
from geohsal.refine.track_record import TrackRecord

_FEWEST_REGIONS = 3  # withheld regions below which precision is not estimated
_HOTTEST = 100.0
_ABSORBED = 0.05  # share of a left-out class that the others may accept
_KEPT = 0.5  # share of right leads that the demand on absence leaves in any case


def fit_temperature(
    outside: LabelledPixels, seen: ClassStatistics | None, config: PlarConfig
) -> Threshold:
    """T such that softmax(-Q / 2T) is calibrated on withheld pixels; never below 1.

    Args:
        outside: withheld pixels.
        seen: statistics of the others.
        config: PLAR settings.
    """
    regions = len(np.unique(outside.region))
    if seen is None or regions < _FEWEST_REGIONS:
        reason = f"{regions} withheld regions, {_FEWEST_REGIONS} needed"
        return Threshold(value=1.0, source="fallback", reason=reason)
    known = outside.take(np.flatnonzero(seen.present[outside.label]))
    q = class_scores(seen, known.features, config).q[:, seen.present]
    if len(q) == 0 or q.shape[1] < 2:
        return Threshold(value=1.0, source="fallback", reason="fewer than two known classes")
    own = q[np.arange(len(q)), (np.cumsum(seen.present) - 1)[known.label]]

    def loss(log_temperature: float) -> float:
        heat = 2 * np.exp(log_temperature)
        return float((own / heat + logsumexp(-q / heat, axis=1)).mean())

    best = minimize_scalar(loss, bounds=(0.0, np.log(_HOTTEST)), method="bounded")
    reason = f"{len(q)} pixels of {regions} withheld regions"
    return Threshold(value=float(np.exp(best.x)), source="calibrated", reason=reason)


def calibrate_margins(
    draft: Thresholds,
    record: TrackRecord,
    *,
    pixels: LabelledPixels,
    folded: HeldOut,
    config: PlarConfig,
) -> tuple[Threshold, ...]:
    """Margin (delta) of each class.

    Args:
        draft: thresholds with gates and temperature; margins zero, nothing abstaining.
        record: suspects that neither statistics nor network had seen.
        pixels: all labelled pixels.
        folded: their `held_out_scores`.
        config: PLAR settings.
    """
    if config.rule == "faithful":
        unused = Threshold(value=0.0, source="unused", reason="the faithful rule has no margin")
        return (unused,) * draft.num_classes
    fallback = config.margin_fallback * draft.temperature.value
    flips = record.flips()
    lead = flips.lead * draft.temperature.value
    right = flips.chosen == flips.label
    absent = _absence_margins(pixels, folded, draft)
    margins = []
    for number in range(draft.num_classes):
        mine = flips.chosen == number
        precise = _precision_margin(
            lead[mine], right[mine], flips.region[mine], config=config, fallback=fallback
        )
        margins.append(_stricter(precise, absent[number]))
    return tuple(margins)


def _precision_margin(
    lead: NDArray[np.floating],
    right: NDArray[np.bool_],
    region: NDArray[np.integer],
    *,
    config: PlarConfig,
    fallback: float,
) -> Threshold:
    found = f"{len(lead)} unseen flips in {len(np.unique(region))} regions"
    cut = least_precise_cut(lead, right, precision=config.margin_precision)
    if cut is not None and len(np.unique(region[lead >= cut])) >= _FEWEST_REGIONS:
        goal = f"precision {config.margin_precision:.2f} of {found}"
        return Threshold(value=cut, source="calibrated", reason=goal)
    kept = lead >= fallback
    best = float(wilson_upper(right[kept].sum(), kept.sum()))
    if best < config.margin_precision and len(np.unique(region[kept])) >= _FEWEST_REGIONS:
        reason = f"precision at most {best:.2f} at margin {fallback:.1f} of {found}"
        return Threshold(value=float("inf"), source="unreachable", reason=reason)
    reason = f"{found} prove no margin; {config.margin_fallback:g} times the temperature"
    return Threshold(value=fallback, source="fallback", reason=reason)


def _absence_margins(
    pixels: LabelledPixels, folded: HeldOut, draft: Thresholds
) -> list[float | None]:
    """Lead [C] that few pixels of left-out classes reach, but most right ones of the class do."""
    rows = np.arange(len(pixels))
    known, alone = folded.scores, folded.without_own
    judged = np.isfinite(known.q[rows, pixels.label])
    gate = np.array([threshold.value for threshold in draft.gate])
    stranger, strange_lead = _lead(alone.q)
    winner, own_lead = _lead(known.q)
    strange_lead[alone.distance[rows, stranger] > gate[stranger]] = 0.0
    right = judged & (winner == pixels.label) & np.isfinite(own_lead)
    right &= known.distance[rows, winner] <= gate[winner]
    absorbed = judged & np.isfinite(strange_lead)
    margins: list[float | None] = []
    for number in range(draft.num_classes):
        wrong = strange_lead[absorbed & (stranger == number)]
        own = own_lead[right & (pixels.label == number)]
        if len(wrong) == 0 or len(own) == 0:
            margins.append(None)
            continue
        least = float(np.quantile(wrong, 1 - _ABSORBED, method="higher"))
        margins.append(min(least, float(np.quantile(own, 1 - _KEPT, method="lower"))))
    return margins


def _lead(q: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Best class [n] and its lead over the second; inf where there is no second."""
    if q.shape[1] < 2:
        return np.zeros(len(q), dtype=np.int64), np.full(len(q), np.inf)
    lowest = np.partition(q, 1, axis=1)[:, :2]
    lead = np.full(len(q), np.inf)
    finite = np.isfinite(lowest).all(axis=1)
    lead[finite] = lowest[finite, 1] - lowest[finite, 0]
    return q.argmin(axis=1).astype(np.int64), lead


def _stricter(precise: Threshold, absent: float | None) -> Threshold:
    if absent is None or absent <= precise.value:
        return precise
    reason = f"a left-out class is absorbed; {precise.value:.1f} would do for {precise.reason}"
    return Threshold(value=absent, source="left-out class", reason=reason)
