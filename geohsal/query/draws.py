"""Random draws that belong to a place: a cell draws the same number in any order or share."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_ROW = np.uint64(0x9E3779B97F4A7C15)
_COL = np.uint64(0xC2B2AE3D27D4EB4F)


def cell_draws(
    scene_id: str,
    rows: NDArray[np.integer],
    *,
    cols: NDArray[np.integer],
    seed: int,
    purpose: str,
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for cells of one scene; `rows` and `cols` broadcast.

    A draw depends on seed, purpose, scene and cell alone (SplitMix64 finaliser over a BLAKE2
    key), so no order, chunk or share of the work can change it.
    """
    digest = blake2b(f"{seed}\0{purpose}\0{scene_id}".encode(), digest_size=8).digest()
    key = np.array([int.from_bytes(digest, "little")], dtype=np.uint64)
    by_row = _mix(key + rows.astype(np.uint64) * _ROW)
    mixed = _mix(by_row + cols.astype(np.uint64) * _COL)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
