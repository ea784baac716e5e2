"""Superpixels of a scene on disk: one number per pixel, the same for every round of a run."""

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import DataError
from geohsal.geo.scene import Scene
from geohsal.io.cog import write_cog
from geohsal.io.gdal import GDAL_ERRORS, quiet, reason


def write_superpixels(path: Path, numbers: NDArray[np.int32], *, scene: Scene) -> None:
    """Write numbers (row, col) of a scene, 0 where there is none, whole or not at all.

    Raises:
        DataError: the folder cannot be written.
    """
    write_cog(path, numbers, scene=scene, nodata=0, band_names=("superpixel",))


def read_superpixels(path: Path, window: Window | None = None) -> NDArray[np.int32]:
    """Numbers (row, col) of a window inside the scene (None: of the scene).

    Raises:
        DataError: the raster cannot be read.
    """
    try:
        with quiet(), rasterio.open(path) as source:
            numbers: NDArray[np.int32] = source.read(1, window=window)
    except GDAL_ERRORS as error:
        raise DataError(
            f"{path}: cannot be read ({reason(error)}); delete it and query again"
        ) from None
    return numbers
