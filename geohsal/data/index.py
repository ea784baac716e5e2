"""Which labelled regions exist, where to cut crops around them, and which are withheld."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geohsal.geo.states import IGNORE_INDEX

PIXELS_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRegion:
    """One labelled feature or answered region: the unit of evidence (design: definitions).

    `pixels` holds up to 64 (row, col) of the region with their classes; `counts` the labelled
    train pixels per class.
    """

    key: str
    scene_id: str
    number: int
    counts: dict[int, int]
    pixels: NDArray[np.int32]
    classes: NDArray[np.uint8]

    @property
    def main_class(self) -> int:
        """The class with most pixels; the smaller id wins a tie."""
        return min(self.counts, key=lambda class_id: (-self.counts[class_id], class_id))


def find_regions(
    scene_id: str,
    strips: Iterable[tuple[int, NDArray[np.uint8], NDArray[np.int32]]],
    *,
    seed: int,
) -> list[LabelledRegion]:
    """The labelled regions of one scene, sorted by number.

    Args:
        scene_id: names the scene in the regions' keys.
        strips: (first row, classes, region numbers) of full-width strips; pixels that may not
            train are 255 in `classes`.
        seed: which pixels of a large region are kept does not depend on the strips' height.
    """
    rows, cols, classes, numbers = [], [], [], []
    for first, labels, regions in strips:
        row, col = np.nonzero((labels != IGNORE_INDEX) & (regions > 0))
        rows.append(row + first)
        cols.append(col)
        classes.append(labels[row, col])
        numbers.append(regions[row, col])
    if not rows:
        return []
    row, col = np.concatenate(rows), np.concatenate(cols)
    label, number = np.concatenate(classes), np.concatenate(numbers)
    order = np.lexsort((col, row, number))
    row, col, label, number = row[order], col[order], label[order], number[order]
    found = []
    if not number.size:
        return []
    starts = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
    for start, stop in zip(starts, [*starts[1:], number.size], strict=True):
        found.append(
            _region(
                scene_id,
                int(number[start]),
                row[start:stop],
                col[start:stop],
                label[start:stop],
                seed=seed,
            )
        )
    return found


def _region(
    scene_id: str,
    number: int,
    row: NDArray[np.int64],
    col: NDArray[np.int64],
    label: NDArray[np.uint8],
    *,
    seed: int,
) -> LabelledRegion:
    key = f"{scene_id}#{number}"
    ids, counts = np.unique(label, return_counts=True)
    draw = np.random.default_rng(stable_hash(f"{seed}:{key}"))
    kept: list[NDArray[np.int64]] = []
    for class_id in ids:
        own = np.flatnonzero(label == class_id)
        kept.append(np.sort(draw.permutation(own)[:PIXELS_KEPT]))
    index = np.concatenate(kept)
    return LabelledRegion(
        key=key,
        scene_id=scene_id,
        number=number,
        counts={int(i): int(n) for i, n in zip(ids, counts, strict=True)},
        pixels=np.stack([row[index], col[index]], axis=1).astype(np.int32),
        classes=label[index],
    )


def stable_hash(text: str) -> int:
    """A 64-bit number from text that is the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def withheld_keys(
    regions: Sequence[LabelledRegion], *, share: float, round_index: int, seed: int
) -> frozenset[str]:
    """Regions withheld from the supervised loss in a round: another fold each round.

    Folds are drawn within each main class by a hash of the region, so a region keeps its fold
    when labels are added. A class is never withheld whole.
    """
    if share <= 0:
        return frozenset()
    folds = max(2, round(1 / share))
    chosen: set[str] = set()
    by_class: dict[int, list[LabelledRegion]] = {}
    for region in regions:
        by_class.setdefault(region.main_class, []).append(region)
    for members in by_class.values():
        ranked = sorted(
            members, key=lambda region: (stable_hash(f"{seed}:{region.key}"), region.key)
        )
        fold = round_index % folds
        own = [region.key for rank, region in enumerate(ranked) if rank % folds == fold]
        if len(own) < len(ranked):
            chosen.update(own)
    return frozenset(chosen)


def error_keys(withheld: frozenset[str], *, seed: int) -> frozenset[str]:
    """The half of the withheld regions that the error-mask decoder learns from.

    The other half calibrates it: there, teacher and decoder are both out of sample.
    """
    ranked = sorted(withheld, key=lambda key: (stable_hash(f"{seed}:emd:{key}"), key))
    return frozenset(ranked[::2])
