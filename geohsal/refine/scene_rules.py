"""The rule that needs a map: agreement of neighbours.

Arrays are (row, col). The spatial rule reads two pixels around each pixel, so chunks with a halo
of two give the same result as the whole scene.
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
