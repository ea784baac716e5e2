"""Tiles as small GeoTIFFs of their own (`tile --patches`), for other programs to train on."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.geo.scene import Scene
from geohsal.io.atomic import replacing
from geohsal.io.gdal import new_raster


def write_tile_image(
    path: Path,
    pixels: NDArray[np.float32],
    valid: NDArray[np.bool_],
    *,
    scene: Scene,
    window: Window,
) -> None:
    """Write the pixels of one window, georeferenced, with validity as an internal mask.

    Args:
        path: of the .tif.
        pixels: (band, row, col), 0 where invalid.
        valid: (row, col).
        scene: gives CRS, transform and band names.
        window: where the pixels lie in the scene.

    Raises:
        DataError: the folder cannot be written.
    """
    with (
        replacing(path) as part,
        rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_TIFF_INTERNAL_MASK="YES"),
        new_raster(
            part,
            path,
            driver="GTiff",
            dtype="float32",
            count=len(scene.bands),
            height=pixels.shape[1],
            width=pixels.shape[2],
            crs=scene.crs,
            transform=window_transform(scene, window),
            compress="deflate",
            predictor=3,
        ) as target,
    ):
        target.descriptions = scene.bands
        target.write(pixels)
        target.write_mask(valid)


def window_transform(scene: Scene, window: Window) -> Affine:
    """The transform of a window's own first pixel."""
    grid, col, row = scene.transform, window.col_off, window.row_off
    return Affine(
        grid.a,
        grid.b,
        grid.a * col + grid.b * row + grid.c,
        grid.d,
        grid.e,
        grid.d * col + grid.e * row + grid.f,
    )
