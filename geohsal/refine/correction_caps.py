"""Caps on how much of a scene may be corrected, from counts alone: no whole map is needed.

Chunks count their corrections by pair of classes and by level of their margin; the counts of a
scene say which levels stay. A level stays or falls whole, so the cut into chunks changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geohsal.geo.states import PixelState

LEVELS = 1 << 16
"""Levels of a margin: margins have no bound, so each factor of two is cut into 256 levels."""

CODES = 256
"""Class codes, 255 included."""

_DROPPED_BITS = 15
"""Of a positive float32: what is left is its exponent and eight bits of its fraction."""


def margin_levels(margin: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Level of each margin; a larger margin is never on a lower level."""
    positive = np.maximum(margin.astype(np.float32, copy=False), np.float32(0)) + np.float32(0)
    return (positive.view(np.uint32) >> _DROPPED_BITS).astype(np.uint16)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corrections:
    """Corrections of a part of a scene, counted.

    `codes` (n) rise: (teacher's class x 256 + PLAR's class) x LEVELS + level; `pixels` (n) says
    how many are so; `unlabelled` (256) counts the unlabelled pixels by the teacher's class.
    """

    codes: NDArray[np.int64]
    pixels: NDArray[np.int64]
    unlabelled: NDArray[np.int64]


def count_corrections(
    states: NDArray[np.uint8],
    teacher: NDArray[np.uint8],
    plar_class: NDArray[np.uint8],
    margin: NDArray[np.float32],
) -> Corrections:
    """Count what the caps need to know of some pixels (row, col)."""
    unlabelled = ~np.isin(states, (int(PixelState.NODATA), int(PixelState.LABELLED)))
    flips = states == int(PixelState.CORRECTED)
    pairs = teacher[flips].astype(np.int64) * CODES + plar_class[flips]
    codes, pixels = np.unique(pairs * LEVELS + margin_levels(margin[flips]), return_counts=True)
    sizes = np.bincount(teacher[unlabelled], minlength=CODES)
    return Corrections(
        codes=codes.astype(np.int64), pixels=pixels.astype(np.int64), unlabelled=sizes
    )


def merge_corrections(parts: Sequence[Corrections]) -> Corrections:
    """The counts of all parts together; their order changes nothing."""
    codes, place = np.unique(np.concatenate([part.codes for part in parts]), return_inverse=True)
    pixels = np.zeros(len(codes), dtype=np.int64)
    np.add.at(pixels, place.reshape(-1), np.concatenate([part.pixels for part in parts]))
    sizes = np.stack([part.unlabelled for part in parts]).sum(axis=0)
    return Corrections(codes=codes, pixels=pixels, unlabelled=sizes)


def correction_floor(
    corrections: Corrections, *, corrected_cap: float, flow_cap: float
) -> NDArray[np.int32]:
    """Lowest level (teacher's class, PLAR's class) whose corrections stay; LEVELS where none do.

    Corrections of the highest levels stay. At most `corrected_cap` of the unlabelled pixels are
    corrected, and no class gains or loses more than `flow_cap` of the unlabelled pixels that the
    teacher gave it, net. A level that would be too much falls whole; of equal levels the pair of
    the lower class ids stays first.
    """
    pair, level = corrections.codes // LEVELS, corrections.codes % LEVELS
    order = np.lexsort((pair, -level))
    pair, level, pixels = pair[order], level[order], corrections.pixels[order]
    allowed = np.floor(corrected_cap * int(corrections.unlabelled.sum()) + 1e-9)
    kept = np.cumsum(pixels) <= allowed
    limits = np.floor(flow_cap * corrections.unlabelled + 1e-9).astype(np.int64)
    kept = _limit_flow(pair // CODES, pair % CODES, pixels, kept, limits)
    floor = np.full(CODES * CODES, LEVELS, dtype=np.int32)
    np.minimum.at(floor, pair[kept], level[kept].astype(np.int32))
    return floor.reshape(CODES, CODES)


def _limit_flow(
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    pixels: NDArray[np.int64],
    kept: NDArray[np.bool_],
    limits: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Drops the last entries of the class furthest over its limit until none is; ends: they fall.

    All arrays but `limits` (256) have one entry per pair and level, the highest level first.
    """
    kept = kept.copy()
    while True:
        net = _count(target, pixels, kept) - _count(source, pixels, kept)
        excess = np.abs(net) - limits
        worst = int(excess.argmax())
        if excess[worst] <= 0:
            return kept
        side = target if net[worst] > 0 else source
        last = np.flatnonzero(kept & (side == worst))[::-1]
        enough = int(np.searchsorted(np.cumsum(pixels[last]), excess[worst])) + 1
        kept[last[:enough]] = False


def _count(
    classes: NDArray[np.int64], pixels: NDArray[np.int64], kept: NDArray[np.bool_]
) -> NDArray[np.int64]:
    counts = np.bincount(classes[kept], weights=pixels[kept], minlength=CODES)
    return np.rint(counts).astype(np.int64)


def cap_corrections(
    states: NDArray[np.uint8],
    teacher: NDArray[np.uint8],
    plar_class: NDArray[np.uint8],
    margin: NDArray[np.float32],
    *,
    floor: NDArray[np.int32],
) -> NDArray[np.uint8]:
    """States (row, col) in which corrections below the floor are AMBIGUOUS.

    `floor` is `correction_floor` of the whole scene, of which these pixels may be any part.
    """
    flips = np.flatnonzero(states == int(PixelState.CORRECTED))
    lowest = floor[teacher.ravel()[flips], plar_class.ravel()[flips]]
    falls = margin_levels(margin.ravel()[flips]) < lowest
    capped = states.copy()
    capped.ravel()[flips[falls]] = int(PixelState.AMBIGUOUS)
    return capped
