"""Sums of features over region cells, on the device where the features are.

Only the sums reach the host: one number per feature and cell.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geohsal.query.cell_sums import STEP

_BAND_VALUES = 1 << 22
"""Most features summed at a time: 32 MiB in float64."""


def sum_features(
    features: Tensor, pool: NDArray[np.bool_], *, row0: int, col0: int, region_px: int
) -> NDArray[np.float64]:
    """Sums (feature, cell row, cell column) over the pool pixels of the cells that a window meets.

    Values are rounded to multiples of 2^-24 first, which float64 adds exactly in any order.

    Args:
        features: (feature, row, col) on any device.
        pool: (row, col) pixels that count.
        row0: first row of the window in the scene.
        col0: first column of the window in the scene.
        region_px: side of a cell.
    """
    count, height, width = features.shape
    where = torch.from_numpy(pool).to(features.device)
    cell_rows = (torch.arange(height) + row0) // region_px - row0 // region_px
    cell_cols = (torch.arange(width) + col0) // region_px - col0 // region_px
    cell_cols = cell_cols.to(features.device)
    sums = features.new_zeros(
        (count, int(cell_rows[-1]) + 1, int(cell_cols[-1]) + 1), dtype=torch.float64
    )
    step = max(1, _BAND_VALUES // max(1, count * width))
    for top in range(0, height, step):
        rows = slice(top, top + step)
        exact = features[:, rows].double().masked_fill(~where[rows], 0.0).div_(STEP).round_()
        by_column = exact.new_zeros((count, exact.shape[1], sums.shape[2]))
        by_column.index_add_(2, cell_cols, exact)
        sums.index_add_(1, cell_rows[rows].to(features.device), by_column)
    return np.asarray((sums * STEP).cpu().numpy(), dtype=np.float64)
