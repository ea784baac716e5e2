"""Pixels to polygons and back: exact on pixel edges, burnt by pixel centre.

All raster work happens in pixel coordinates (column, row) and the affine transform is applied to
the vertices, so rotated and south-up grids behave like any other.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from rasterio import features
from rasterio.crs import CRS
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry

from geohsal.errors import GeoreferenceError

Geometry = TypeVar("Geometry", bound=BaseGeometry)


def polygonize(
    codes: NDArray[np.uint8] | NDArray[np.int32],
    *,
    transform: Affine,
    mask: NDArray[np.bool_] | None = None,
    sieve_px: int = 0,
) -> list[tuple[int, Polygon]]:
    """One valid polygon per 4-connected patch of equal codes, along pixel edges.

    Args:
        codes: (row, col) values.
        transform: of pixel (0, 0) of `codes`.
        mask: True where pixels take part; None for all.
        sieve_px: patches smaller than this many pixels first join their largest neighbour.

    Returns:
        (code, polygon) by position of the patch's first pixel, row by row.
    """
    if codes.size == 0 or (mask is not None and not mask.any()):
        return []
    source = sieve(codes, mask=mask, size_px=sieve_px)
    found = [
        (int(code), shape(geometry))
        for geometry, code in features.shapes(source, mask=mask, connectivity=4)
    ]
    polygons = to_map([_valid(polygon) for _, polygon in found], transform)
    return [(code, polygon) for (code, _), polygon in zip(found, polygons, strict=True)]


def sieve(
    codes: NDArray[Any],
    *,
    mask: NDArray[np.bool_] | None,
    size_px: int,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Codes whose patches below `size_px` pixels joined their largest neighbour (4-connected).

    A patch without a neighbour of at least that size stays. Arrays may be memory-mapped files: a
    few rows are worked on at a time. `out`, if given, takes the result.
    """
    if size_px <= 1 or codes.size <= 1:
        return codes
    sieved: NDArray[Any] = features.sieve(
        codes, size=min(size_px, codes.size - 1), out=out, mask=mask, connectivity=4
    )
    return sieved


def _valid(outline: BaseGeometry) -> Polygon:
    repaired = outline
    if not outline.is_valid:
        repaired = shapely.make_valid(outline, method="structure", keep_collapsed=False)
    assert isinstance(repaired, Polygon), "a 4-connected patch is one polygon"
    return repaired


def mask_to_multipolygon(mask: NDArray[np.bool_], *, transform: Affine) -> MultiPolygon:
    """All True pixels as one valid multipolygon along pixel edges (empty where none is True).

    Patches that touch only at a corner stay separate members.
    """
    parts = polygonize(mask.astype(np.uint8), transform=transform, mask=mask)
    return MultiPolygon([polygon for _, polygon in parts])


def burn(
    shapes: Iterable[tuple[BaseGeometry, int]],
    *,
    transform: Affine,
    shape: tuple[int, int],
    fill: int,
    dtype: DTypeLike = np.int32,
) -> NDArray[Any]:
    """Raster of the values of polygons that hold a pixel's centre; later shapes win.

    Args:
        shapes: (geometry, value) in the coordinates of `transform`; empty geometries are skipped.
        transform: of pixel (0, 0) of the result.
        shape: (rows, columns) of the result.
        fill: value of pixels in no shape.
        dtype: of the result; must hold `fill` and all values.
    """
    pairs = [(geometry, value) for geometry, value in shapes if not geometry.is_empty]
    if not pairs or 0 in shape:
        return np.full(shape, fill, dtype=dtype)
    pixel = to_map([geometry for geometry, _ in pairs], ~transform)
    burnt: NDArray[Any] = features.rasterize(
        zip(pixel, (int(value) for _, value in pairs), strict=True),
        out_shape=shape,
        fill=fill,
        dtype=np.dtype(dtype),
        all_touched=False,
    )
    return burnt


def to_map(geometries: list[Geometry], transform: Affine) -> list[Geometry]:
    """Geometries in (column, row) moved to map coordinates (or back, with `~transform`)."""

    def apply(points: NDArray[np.float64]) -> NDArray[np.float64]:
        col, row = points[:, 0], points[:, 1]
        x = transform.a * col + transform.b * row + transform.c
        y = transform.d * col + transform.e * row + transform.f
        return np.column_stack([x, y])

    return list(shapely.transform(np.array(geometries, dtype=object), apply))


def densify(geometry: Geometry, step: float) -> Geometry:
    """The same shape with no segment longer than `step` (units of its own coordinates)."""
    return shapely.segmentize(geometry, max_segment_length=step)


def reproject(geometry: Geometry, src_crs: CRS, dst_crs: CRS) -> Geometry:
    """The geometry's vertices in another CRS, (x, y) order; z is dropped.

    Only vertices move: `densify` first where long edges must stay on the same ground.

    Raises:
        GeoreferenceError: a vertex has no finite position in `dst_crs`.
    """
    if src_crs == dst_crs:
        return geometry
    transformer = transformer_between(src_crs, dst_crs)

    def apply(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transformer.transform(points[:, 0], points[:, 1])
        return np.column_stack([x, y])

    moved = shapely.transform(geometry, apply)
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise GeoreferenceError(
            f"a geometry with bounds {geometry.bounds} in {src_crs.to_string()} has no position in "
            f"{dst_crs.to_string()}; check its CRS"
        )
    return moved


def transformer_between(src_crs: CRS, dst_crs: CRS) -> pyproj.Transformer:
    """Cached transformer between two rasterio CRS, (x, y) order.

    Raises:
        GeoreferenceError: there is no operation between them.
    """
    return _transformer(src_crs.to_wkt(version="WKT2_2019"), dst_crs.to_wkt(version="WKT2_2019"))


@lru_cache(maxsize=64)
def _transformer(src_wkt: str, dst_wkt: str) -> pyproj.Transformer:
    try:
        return pyproj.Transformer.from_crs(src_wkt, dst_wkt, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise GeoreferenceError(f"no way between two CRS: {' '.join(str(error).split())}") from None
