"""Ground area of any pixel of a scene, interpolated: for sums over very many of them."""

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import map_coordinates

from geohsal.geo.areas import cell_areas_m2
from geohsal.geo.coverage import PixelWeight
from geohsal.geo.scene import Scene

KNOTS = 17
"""Per axis. Areas of pixels change so smoothly that fewer would do: the error is below 1e-6."""


def pixel_areas(scene: Scene) -> PixelWeight | None:
    """Square metres of the pixel at (row, column); None for local scenes.

    Raises:
        GeoreferenceError: the scene lies outside the area where its CRS is defined.
    """
    rows, cols = (np.linspace(0, size - 1, min(KNOTS, size)) for size in scene.shape)
    cells = [Window(float(col), float(row), 1, 1) for row in rows for col in cols]
    areas = cell_areas_m2(scene, cells)
    if areas is None:
        return None
    knots = areas.reshape(rows.size, cols.size)
    steps = [max(size - 1, 1) / max(axis.size - 1, 1) for size, axis in zip(
        scene.shape, (rows, cols), strict=True
    )]  # fmt: skip

    def area(row: NDArray[np.float64], col: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = map_coordinates(
            knots, [row / steps[0], col / steps[1]], order=1, mode="nearest"
        )
        return found

    return area
