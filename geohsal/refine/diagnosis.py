"""How good a round's maps were, where it is known what is true: error mask, PLAR, teacher.

Counts are whole numbers and are added up piece by piece in any grouping with the same result. They
are for reporting; no threshold is ever set by them.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.geo.states import PixelState
from geohsal.refine.region_share import RegionShare, region_share

CONFIDENT = 0.9
"""Confidence from which an error counts as a confident one."""

RANKS = 4096
"""Bins of the error probability that AUROC and AUPR are taken from.

Pixels of one bin count as equal. With p_b and n_b the shares of wrong and of right pixels in bin b,
the AUROC is off by at most sum(p_b n_b) / 2: below 0.5 / 4096 where either kind is spread evenly.
"""

RELIABILITY_BINS = 15
_STEPS = 1 << 20  # probabilities are summed as whole steps, so that sums do not depend on order
_UNITS = (
    "pixels",
    "teacher_right",
    "refined_right",
    "corrected",
    "corrected_right",
    "confirmed",
    "confirmed_right",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedPixels:
    """What a round said of n pixels, and what is true of them; arrays [n].

    `teacher`, `refined` and `reference` hold class ids (255 unknown), `state` `PixelState` codes,
    `error` the probability that the teacher is wrong. `region` numbers the region of a pixel; all
    pixels of a region belong in one object. `disagree` is True where teacher and friend differ,
    None where that is not known.
    """

    teacher: NDArray[np.uint8]
    refined: NDArray[np.uint8]
    state: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    error: NDArray[np.float32]
    reference: NDArray[np.uint8]
    region: NDArray[np.integer]
    disagree: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DiagnosisCounts:
    """Counts behind a `RoundDiagnosis`; int64 arrays.

    Axis `sure` is 0 below the confidence `CONFIDENT` and 1 from it on, axis `wrong` is 1 where the
    teacher errs. `ranks` (sure, wrong, RANKS), `reliability` (sure, wrong, RELIABILITY_BINS) and
    `stated` (sure, RELIABILITY_BINS), sums of probabilities in steps. `flips` (right, wrong,
    neutral; class) counts CORRECTED pixels by their new class, `confirmed` (right, wrong; class).
    `states` counts pixels by code, `friend` is (known, differing), `regions` (region, count).
    """

    ranks: NDArray[np.int64]
    reliability: NDArray[np.int64]
    stated: NDArray[np.int64]
    flips: NDArray[np.int64]
    confirmed: NDArray[np.int64]
    states: NDArray[np.int64]
    friend: NDArray[np.int64]
    regions: NDArray[np.int64]

    def merge(self, other: "DiagnosisCounts") -> "DiagnosisCounts":
        """Counts of both, which hold different regions."""
        merged: dict[str, Any] = {
            name: getattr(self, name) + getattr(other, name)
            for name in (field.name for field in fields(self))
            if name != "regions"
        }
        return DiagnosisCounts(regions=np.concatenate([self.regions, other.regions]), **merged)


def no_counts(num_classes: int) -> DiagnosisCounts:
    """Counts of nothing: what merging starts from."""
    return DiagnosisCounts(
        ranks=np.zeros((2, 2, RANKS), np.int64),
        reliability=np.zeros((2, 2, RELIABILITY_BINS), np.int64),
        stated=np.zeros((2, RELIABILITY_BINS), np.int64),
        flips=np.zeros((3, num_classes), np.int64),
        confirmed=np.zeros((2, num_classes), np.int64),
        states=np.zeros(len(PixelState), np.int64),
        friend=np.zeros(2, np.int64),
        regions=np.zeros((0, len(_UNITS)), np.int64),
    )


def count_pixels(pixels: JudgedPixels, *, num_classes: int) -> DiagnosisCounts:
    """Counts of pixels whose truth is known and that nobody had labelled before.

    NODATA, LABELLED and a reference outside 0..C-1 are left out.
    """
    seen = _judged(pixels, num_classes)
    right = seen.teacher == seen.reference
    sure, wrong = (seen.confidence >= CONFIDENT).astype(np.int64), (~right).astype(np.int64)
    probability = np.clip(seen.error.astype(np.float64), 0.0, 1.0)
    bins = _cell(probability, RELIABILITY_BINS)
    steps = np.rint(probability * _STEPS)
    corrected = (seen.state == PixelState.CORRECTED) & (seen.refined != seen.teacher)
    confirmed = seen.state == PixelState.CONFIRMED
    found = seen.refined == seen.reference
    flips = [corrected & found, corrected & right, corrected & ~found & ~right]
    checked = [confirmed & found, confirmed & ~found]

    def classes(masks: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
        return np.stack([np.bincount(seen.refined[m], minlength=num_classes) for m in masks])

    stated = np.bincount(
        sure * RELIABILITY_BINS + bins, weights=steps, minlength=2 * RELIABILITY_BINS
    )
    known = np.zeros(0, np.bool_) if seen.disagree is None else seen.disagree
    return DiagnosisCounts(
        ranks=_table(2 * sure + wrong, _cell(probability, RANKS), RANKS),
        reliability=_table(2 * sure + wrong, bins, RELIABILITY_BINS),
        stated=stated.astype(np.int64).reshape(2, RELIABILITY_BINS),
        flips=classes(flips),
        confirmed=classes(checked),
        states=np.bincount(seen.state, minlength=len(PixelState)).astype(np.int64),
        friend=np.array([len(known), int(known.sum())], np.int64),
        regions=_by_region(
            seen.region,
            [right, found, corrected, corrected & found, confirmed, confirmed & found],
        ),
    )


def _judged(pixels: JudgedPixels, num_classes: int) -> JudgedPixels:
    """The pixels that count."""
    known = (pixels.reference < num_classes) & (pixels.teacher < num_classes)
    known &= (pixels.state != PixelState.NODATA) & (pixels.state != PixelState.LABELLED)
    return JudgedPixels(
        teacher=pixels.teacher[known],
        refined=pixels.refined[known],
        state=pixels.state[known],
        confidence=pixels.confidence[known],
        error=pixels.error[known],
        reference=pixels.reference[known],
        region=pixels.region[known],
        disagree=None if pixels.disagree is None else pixels.disagree[known],
    )


def _cell(probability: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    return np.minimum((probability * bins).astype(np.int64), bins - 1)


def _table(kind: NDArray[np.int64], cell: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    counts = np.bincount(kind * bins + cell, minlength=4 * bins)
    return counts.astype(np.int64).reshape(2, 2, bins)


def _by_region(region: NDArray[np.integer], masks: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Pixels of each region, and those of each mask; (region, count)."""
    numbers, index = np.unique(region, return_inverse=True)
    columns = [np.bincount(index[mask], minlength=len(numbers)) for mask in masks]
    pixels = np.bincount(index, minlength=len(numbers))
    return np.stack([pixels, *columns], axis=1).astype(np.int64)


# --- what the counts say -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Pixels whose stated error probability lies in a bin; `stated` and `found` are means."""

    low: float
    high: float
    pixels: int
    stated: float
    found: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMaskQuality:
    """How well the error probability finds the teacher's errors; None where nothing can tell.

    `reliability` lists the bins that hold pixels.
    """

    pixels: int
    errors: int
    auroc: float | None
    aupr: float | None
    ece: float | None
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlarQuality:
    """What refinement did; tuples hold one count per class, the one that it decided for.

    A flip is right where it is true, wrong where the teacher was right, neutral where both are
    wrong. `corrected` and `confirmed` are shares of true decisions.
    """

    right: tuple[int, ...]
    wrong: tuple[int, ...]
    neutral: tuple[int, ...]
    confirmed_right: tuple[int, ...]
    confirmed_wrong: tuple[int, ...]
    net_gain: int
    corrected: RegionShare | None
    confirmed: RegionShare | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundDiagnosis:
    """Maps held against what is true; shares are None where no pixel tells.

    `confident` is of pixels from the confidence `CONFIDENT` on. `states` are shares of the judged
    pixels by name of the state; `friend_disagreement` is of those where it is known.
    """

    pixels: int
    regions: int
    teacher: RegionShare | None
    refined: RegionShare | None
    error_mask: ErrorMaskQuality
    confident: ErrorMaskQuality
    plar: PlarQuality
    states: dict[str, float | None]
    friend_disagreement: float | None

    @property
    def error_rate(self) -> float | None:
        """Share of pixels in which the teacher is wrong."""
        return None if self.teacher is None else 1.0 - self.teacher.share


def diagnosis(counts: DiagnosisCounts) -> RoundDiagnosis:
    """What counts say."""
    column = dict(zip(_UNITS, counts.regions.T, strict=True))
    pixels = int(column["pixels"].sum())
    right, wrong, neutral = (tuple(row) for row in counts.flips.tolist())
    confirmed_right, confirmed_wrong = (tuple(row) for row in counts.confirmed.tolist())
    seen, differ = counts.friend.tolist()
    return RoundDiagnosis(
        pixels=pixels,
        regions=len(counts.regions),
        teacher=region_share(column["teacher_right"], column["pixels"]),
        refined=region_share(column["refined_right"], column["pixels"]),
        error_mask=_quality(counts.ranks.sum(0), counts.reliability.sum(0), counts.stated.sum(0)),
        confident=_quality(counts.ranks[1], counts.reliability[1], counts.stated[1]),
        plar=PlarQuality(
            right=right,
            wrong=wrong,
            neutral=neutral,
            confirmed_right=confirmed_right,
            confirmed_wrong=confirmed_wrong,
            net_gain=sum(right) - sum(wrong),
            corrected=region_share(column["corrected_right"], column["corrected"]),
            confirmed=region_share(column["confirmed_right"], column["confirmed"]),
        ),
        states={
            state.name: int(counts.states[state]) / pixels if pixels else None
            for state in PixelState
            if state not in (PixelState.NODATA, PixelState.LABELLED)
        },
        friend_disagreement=differ / seen if seen else None,
    )


def _quality(
    ranks: NDArray[np.int64], reliability: NDArray[np.int64], stated: NDArray[np.int64]
) -> ErrorMaskQuality:
    """Of (wrong, RANKS), (wrong, bins) and (bins)."""
    inside = reliability.sum(0)
    pixels = int(inside.sum())
    sums = stated / _STEPS
    gap = float(np.abs(sums - reliability[1]).sum())
    return ErrorMaskQuality(
        pixels=pixels,
        errors=int(ranks[1].sum()),
        auroc=binned_auroc(ranks[1], ranks[0]),
        aupr=binned_aupr(ranks[1], ranks[0]),
        ece=gap / pixels if pixels else None,
        reliability=tuple(
            ReliabilityBin(
                low=number / RELIABILITY_BINS,
                high=(number + 1) / RELIABILITY_BINS,
                pixels=int(inside[number]),
                stated=float(sums[number] / inside[number]),
                found=float(reliability[1, number] / inside[number]),
            )
            for number in np.flatnonzero(inside).tolist()
        ),
    )


def binned_auroc(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> float | None:
    """Area under the ROC curve from counts per rising bin; None unless both kinds occur."""
    hits, rest = positive.astype(np.float64), negative.astype(np.float64)
    if hits.sum() == 0 or rest.sum() == 0:
        return None
    below = np.cumsum(rest) - rest
    return float((hits * (below + rest / 2)).sum() / (hits.sum() * rest.sum()))


def binned_aupr(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> float | None:
    """Average precision from counts per rising bin; None unless both kinds occur."""
    if positive.sum() == 0 or negative.sum() == 0:
        return None
    hits = positive[::-1].astype(np.float64)
    flagged = np.cumsum(hits + negative[::-1])
    precision = np.cumsum(hits) / np.maximum(flagged, 1)
    return float((hits * precision).sum() / hits.sum())
