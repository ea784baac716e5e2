"""Rules that need a map: agreement of neighbours, and caps on how much a scene may change.

Arrays are (row, col). The spatial rule reads two pixels around each pixel, so chunks with a halo
of two give the same result as the whole scene. Caps are judged on whole scenes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geohsal.geo.states import PixelState

HALO_PX = 2
"""Pixels around a chunk that the spatial rule reads."""

_SIDE = 2 * HALO_PX + 1


def spatial_rule(
    plar_class: NDArray[np.uint8], accepted: NDArray[np.bool_], *, share: float
) -> NDArray[np.bool_]:
    """Accepted pixels whose 5x5 neighbourhood agrees with them.

    Kept where at least `share` of the accepted pixels of the neighbourhood, the pixel itself
    included, have its class. Beyond the array's edge nothing is accepted.
    """
    around = _count(accepted)
    kept = np.zeros(accepted.shape, dtype=np.bool_)
    for number in np.unique(plar_class[accepted]):
        mine = accepted & (plar_class == number)
        kept |= mine & (_count(mine) >= share * around)
    return kept


def apply_spatial_rule(
    states: NDArray[np.uint8], plar_class: NDArray[np.uint8], *, share: float
) -> NDArray[np.uint8]:
    """States in which CONFIRMED and CORRECTED pixels that neighbours contradict are AMBIGUOUS."""
    accepted = np.isin(states, (int(PixelState.CONFIRMED), int(PixelState.CORRECTED)))
    kept = spatial_rule(plar_class, accepted, share=share)
    return np.where(accepted & ~kept, np.uint8(PixelState.AMBIGUOUS), states)


def _count(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Members in the 5x5 neighbourhood; integers, so chunks cannot differ by rounding."""
    ones = np.ones(_SIDE, dtype=np.int32)
    rows = ndimage.convolve1d(mask.astype(np.int32), ones, axis=0, mode="constant")
    counted: NDArray[np.int32] = ndimage.convolve1d(rows, ones, axis=1, mode="constant")
    return counted


def cap_corrections(
    states: NDArray[np.uint8],
    teacher: NDArray[np.uint8],
    plar_class: NDArray[np.uint8],
    margin: NDArray[np.float32],
    *,
    corrected_cap: float,
    flow_cap: float,
) -> NDArray[np.uint8]:
    """States with at most the allowed corrections of a scene; what is over becomes AMBIGUOUS.

    Corrections of the largest margins stay, equal margins by pixel index. At most `corrected_cap`
    of the unlabelled pixels are CORRECTED, and no class gains or loses more than `flow_cap` of
    the unlabelled pixels that the teacher gave it, net.
    """
    unlabelled = ~np.isin(states, (int(PixelState.NODATA), int(PixelState.LABELLED)))
    flips = np.flatnonzero(states == int(PixelState.CORRECTED))
    ranked = flips[np.lexsort((flips, -margin.ravel()[flips]))]
    allowed = int(np.floor(corrected_cap * int(unlabelled.sum()) + 1e-9))
    kept = np.zeros(len(ranked), dtype=np.bool_)
    kept[:allowed] = True
    sizes = np.bincount(teacher[unlabelled], minlength=256)
    limits = np.floor(flow_cap * sizes + 1e-9).astype(np.int64)
    kept = _limit_flow(teacher.ravel()[ranked], plar_class.ravel()[ranked], kept, limits)
    capped = states.copy()
    capped.ravel()[ranked[~kept]] = int(PixelState.AMBIGUOUS)
    return capped


def _limit_flow(
    source: NDArray[np.uint8],
    target: NDArray[np.uint8],
    kept: NDArray[np.bool_],
    limits: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Drops the last flips of the class furthest over its limit until none is; ends: flips fall."""
    while True:
        net = np.bincount(target[kept], minlength=256) - np.bincount(source[kept], minlength=256)
        excess = np.abs(net) - limits
        worst = int(excess.argmax())
        if excess[worst] <= 0:
            return kept
        side = target if net[worst] > 0 else source
        candidates = np.flatnonzero(kept & (side == worst))
        kept = kept.copy()
        kept[candidates[-int(excess[worst]) :]] = False
