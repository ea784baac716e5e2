"""How far two reviewers of the same pixels agree: Cohen's kappa and the confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from geohsal.geo.states import IGNORE_INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two reviews of the same regions.

    `confusion` (class, class) counts pixels that both gave a class: rows are the first reviewer's
    words, columns the second's. `kappa` is 1 for full agreement and 0 for what chance gives; None
    where both used one and the same class, or no pixel was answered by both.
    """

    first: str
    second: str
    regions: int
    pixels: int
    agreed: int
    kappa: float | None
    confusion: tuple[tuple[int, ...], ...]


def agreement(
    first: str,
    second: str,
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    *,
    num_classes: int,
) -> Agreement:
    """Agreement over regions that both reviewers did; pixels that one left unknown do not count.

    Args:
        first: name of the first review.
        second: name of the second.
        pairs: per region the class ids (row, col) of both, 255 unknown.
        num_classes: classes of the manifest.
    """
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for one, other in pairs:
        known = (one != IGNORE_INDEX) & (other != IGNORE_INDEX)
        np.add.at(counts, (one[known], other[known]), 1)
    return Agreement(
        first=first,
        second=second,
        regions=len(pairs),
        pixels=int(counts.sum()),
        agreed=int(np.trace(counts)),
        kappa=_kappa(counts),
        confusion=tuple(tuple(int(value) for value in row) for row in counts),
    )


def _kappa(counts: NDArray[np.int64]) -> float | None:
    one, other = np.nonzero(counts)
    if len(np.union1d(one, other)) < 2:
        return None
    return float(cohen_kappa_score(one, other, sample_weight=counts[one, other]))
