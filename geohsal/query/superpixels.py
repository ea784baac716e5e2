"""Superpixels by SLIC (Achanta et al. 2012), one tile core at a time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

from geohsal.geo.patches import slices
from geohsal.query.layout import Layout

COMPACTNESS = 0.3
"""Weight of distance in space against distance in one band, whose values in a core span 1.

At 0.1, noise tears superpixels up and what is put together again is up to five times too large; at
1 they are squares.
"""


def superpixels(
    image: NDArray[np.float32], valid: NDArray[np.bool_], *, region_px: int
) -> NDArray[np.int32]:
    """Numbers (row, col) from 1, about `region_px` squared pixels each; 0 where invalid.

    Args:
        image: (band, row, col) normalised bands, 0 where invalid.
        valid: (row, col).
        region_px: side of a square of the size wanted.
    """
    from skimage.segmentation import slic  # slow to import, and needed for superpixels alone

    if not valid.any():
        return np.zeros(valid.shape, dtype=np.int32)
    wanted = max(1, round(valid.size / region_px**2))
    found = slic(
        np.moveaxis(image.astype(np.float64), 0, -1),
        n_segments=wanted,
        compactness=COMPACTNESS * float(np.sqrt(len(image))),
        channel_axis=-1,
        convert2lab=False,
        enforce_connectivity=True,
        start_label=1,
    )
    numbers = np.zeros(valid.shape, dtype=np.int32)
    numbers[valid] = np.unique(found[valid], return_inverse=True)[1].reshape(-1) + 1
    return numbers


def superpixel_layout(
    numbers: NDArray[np.int32], cores: Sequence[Window], *, region_px: int
) -> Layout:
    """The layout of a scene whose superpixels are numbered on from core to core.

    Args:
        numbers: (row, col) of the scene, 0 where there is none.
        cores: tile cores in the order in which they were numbered.
        region_px: side of a square of the size wanted.
    """
    boxes = ndimage.find_objects(numbers)
    bounds = np.array(
        [(r.start, c.start, r.stop - r.start, c.stop - c.start) for r, c in boxes], dtype=np.int32
    ).reshape(-1, 4)
    last = [int(numbers[slices(core)].max(initial=0)) for core in cores]
    owner = np.searchsorted(np.maximum.accumulate(last), np.arange(1, len(bounds) + 1))
    first = np.concatenate([[0], np.maximum.accumulate(last)])[owner] if len(bounds) else owner
    corners = np.array([(core.row_off, core.col_off) for core in cores], dtype=np.int32)
    return Layout(
        unit="superpixel",
        region_px=region_px,
        shape=numbers.shape,
        atoms=len(bounds),
        row=corners[owner, 0],
        col=corners[owner, 1],
        number=(np.arange(1, len(bounds) + 1) - first).astype(np.int32),
        top=bounds[:, 0],
        left=bounds[:, 1],
        height=bounds[:, 2],
        width=bounds[:, 3],
        size=np.bincount(numbers.ravel(), minlength=len(bounds) + 1)[1:].astype(np.int64),
        parts=np.arange(len(bounds), dtype=np.intp)[None],
    )
