"""What a page draws: pixels, read small and packed into a data URI, and outlines."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from geohsal.errors import DataError
from geohsal.io.gdal import GDAL_ERRORS, quiet, reason

QUALITY = 80


def small_shape(height: int, width: int, *, longest: int) -> tuple[int, int]:
    """(rows, columns) of a picture whose long side is at most `longest`; never enlarged."""
    shrink = max(height / longest, width / longest, 1.0)
    return max(1, round(height / shrink)), max(1, round(width / shrink))


def read_small(
    path: Path,
    *,
    longest: int,
    bands: Sequence[int] | None = None,
    window: Window | None = None,
    average: bool = False,
) -> NDArray[Any]:
    """Bands (band, row, col) of a raster or window, from its overviews where it is large.

    Args:
        path: the raster.
        longest: most pixels of the long side of the result.
        bands: numbers from 1; None for all.
        window: None for the whole raster.
        average: of a quantity; else the nearest pixel's value.

    Raises:
        DataError: the raster is missing or damaged.
    """
    try:
        with quiet(), rasterio.open(path) as source:
            area = window or Window(0, 0, source.width, source.height)
            indexes = list(bands or source.indexes)
            shape = small_shape(int(area.height), int(area.width), longest=longest)
            found: NDArray[Any] = source.read(
                indexes,
                window=area,
                out_shape=(len(indexes), *shape),
                resampling=Resampling.average if average else Resampling.nearest,
            )
    except GDAL_ERRORS as error:
        raise DataError(
            f"{path}: cannot be read ({reason(error)}); run geohsal query --overwrite"
        ) from None
    return found


def webp_uri(pixels: NDArray[np.uint8], *, lossless: bool) -> str:
    """RGBA pixels (row, col, 4) as a data URI."""
    stream = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if lossless:
        picture.save(stream, "WEBP", lossless=True, quality=60, method=3)
    else:
        picture.save(stream, "WEBP", quality=QUALITY, method=3)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def svg_path(geometry: BaseGeometry) -> str:
    """Rings of polygons as the text of an SVG path."""
    rings = [
        ring
        for polygon in shapely.get_parts(geometry)
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    return "".join(
        "M" + "L".join(f"{x:g} {y:g}" for x, y in ring.coords[:-1]) + "Z" for ring in rings
    )
