"""Which labelled regions exist, where to cut crops around them, and which are withheld."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPixels:
    """The labelled pixels of a scene or a window [N]: row, col, class id, number of the region."""

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    classes: NDArray[np.uint8]
    numbers: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        classes: NDArray[np.uint8],
        numbers: NDArray[np.int32],
        *,
        row: int = 0,
        col: int = 0,
    ) -> Self:
        """Those of a window whose upper left pixel is (row, col); 255 may not train."""
        rows, cols = np.nonzero((classes != IGNORE_INDEX) & (numbers > 0))
        return cls(
            rows=(rows + row).astype(np.int32),
            cols=(cols + col).astype(np.int32),
            classes=classes[rows, cols],
            numbers=numbers[rows, cols],
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Those of several windows, at least one."""
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in cls.__slots__
            }
        )

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Some of them."""
        return dataclasses.replace(
            self, **{name: getattr(self, name)[chosen] for name in self.__slots__}
        )


def find_regions(scene_id: str, pixels: LabelledPixels, *, seed: int) -> list[LabelledRegion]:
    """The labelled regions of one scene, sorted by number.

    Args:
        scene_id: names the scene in the regions' keys.
        pixels: all that may train, in any order.
        seed: which pixels of a large region are kept.
    """
    order = np.lexsort((pixels.cols, pixels.rows, pixels.numbers))
    own = pixels.where(order)
    row, col, label, number = own.rows, own.cols, own.classes, own.numbers
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
    row: NDArray[np.int32],
    col: NDArray[np.int32],
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
    regions: Sequence[LabelledRegion],
    *,
    share: float,
    round_index: int,
    seed: int,
    fewest: int = 0,
) -> frozenset[str]:
    """Regions withheld from the supervised loss in a round: another fold each round.

    Folds are drawn within each main class by a hash of the region, so a region keeps its fold
    when labels are added. A class is never withheld whole. Nothing is withheld where `share` of the
    regions is less than `fewest` of them: the same in each round, unlike the size of a fold.
    """
    if share <= 0 or share * len(regions) < fewest:
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
