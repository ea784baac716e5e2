"""Rasters of codes as seamless polygons, strip by strip: memory for a strip and open patches.

The polygons of a raster cover it without gaps and overlaps, simplified or not. Simplifying moves no
vertex and keeps those on the lines between strips, so that strips still meet.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely import GeometryType

from geohsal.geo.rings import Rings, doubled_areas, gather, in_order
from geohsal.geo.seams import Complete, Pieces, SeamJoiner
from geohsal.geo.tracing import OUTSIDE, Codes, StripPatches, label_patches, trace

Polygons = NDArray[Any]
"""Object array of shapely polygons."""

Move = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From (point, 2) coordinates to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Rows of codes from row `top` on, with the row before and the row after, if there are any.

    Summed over each patch: `values` (row, col) each; how often each of `kinds` values, from 0,
    occurs in `kind` (row, col).
    """

    top: int
    codes: Codes
    before: Codes | None = None
    after: Codes | None = None
    values: Sequence[NDArray[Any]] = ()
    kind: NDArray[np.uint8] | None = None
    kinds: int = 0


PixelWeight = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""From rows and columns (of pixel centres, 0 at the first) to a quantity per pixel."""


def cover(
    strips: Iterable[Strip], *, weight: PixelWeight, simplify_px: float = 0.0
) -> Iterator[Complete]:
    """Patches of equal codes (4-connected, without OUTSIDE) as soon as each is complete.

    Args:
        strips: all rows of a raster, from top to bottom; at least one.
        weight: of a pixel, such as its area; taken in the middle of runs along a row.
        simplify_px: tolerance of gap-free simplification in pixels: the side of a square that is
            as large as the bends that vanish.

    Yields:
        Polygons with the sums of pixels, weights, `values` and kinds, in this order.
    """
    joiner = SeamJoiner()
    for strip in strips:
        complete = joiner.add(_pieces(strip, weight, simplify_px), after=strip.after)
        assert simplify_px > 0 or _as_large_as_its_pixels(complete), "a ring was joined wrongly"
        yield complete


def _as_large_as_its_pixels(complete: Complete) -> bool:
    rings = complete.rings
    if not complete.codes.size:
        return True
    doubled = np.bincount(rings.patch, doubled_areas(rings.points, rings.offsets))
    return np.array_equal(-doubled, 2 * complete.sums[:, 0])


def _pieces(strip: Strip, weight: PixelWeight, simplify_px: float) -> Pieces:
    codes = strip.codes
    patches = label_patches(codes)
    nothing = np.full_like(codes[0], OUTSIDE)
    rings = trace(
        patches,
        codes,
        above=nothing if strip.before is None else strip.before,
        below=nothing if strip.after is None else strip.after,
        top=strip.top,
        outside=simplify_px > 0,
    )
    if simplify_px > 0:
        rings = _simplified(rings, simplify_px)
        rings = _inside(rings, patches.codes)
    return Pieces(
        top=strip.top,
        codes=codes,
        patches=patches,
        rings=rings,
        sums=_sums(strip, patches, weight),
    )


def _sums(strip: Strip, patches: StripPatches, weight: PixelWeight) -> NDArray[np.float64]:
    runs, count = patches.runs, patches.codes.size
    row, col = np.divmod(runs.starts, strip.codes.shape[1])
    each = weight((row + strip.top).astype(np.float64), col + (runs.lengths - 1) / 2)
    of_runs = [runs.lengths, each * runs.lengths]
    of_runs += [
        np.add.reduceat(layer.ravel(), runs.starts, dtype=np.float64) for layer in strip.values
    ]
    columns = [np.bincount(runs.patch, values, count) for values in of_runs]
    if strip.kind is not None:
        pairs = patches.image.ravel() * np.int64(strip.kinds) + strip.kind.ravel()
        counts = np.bincount(pairs, minlength=count * strip.kinds)
        columns += list(counts.reshape(count, strip.kinds).T)
    return np.stack(columns, axis=1).astype(np.float64)


def _simplified(rings: Rings, tolerance: float) -> Rings:
    polygons = to_polygons(in_order(rings))
    smooth = shapely.coverage_simplify(polygons, tolerance, simplify_boundary=False)
    _, flat, (ring_ends, polygon_ends) = shapely.to_ragged_array(smooth)
    last = np.zeros(len(flat), dtype=np.bool_)
    last[ring_ends[1:] - 1] = True  # rings are not closed here
    offsets = ring_ends.astype(np.int64) - np.arange(ring_ends.size)
    patch = np.repeat(np.unique(rings.patch), np.diff(polygon_ends))
    hole = np.ones(patch.size, dtype=np.bool_)
    hole[polygon_ends[:-1]] = False
    points = flat[~last].astype(np.int32)
    against = (doubled_areas(points, offsets) > 0) != hole  # GEOS may turn a ring around
    return Rings(points=_turned(points, offsets, against), offsets=offsets, patch=patch)


def _turned(
    points: NDArray[np.int32], offsets: NDArray[np.int64], rings: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """The points with some rings in the other direction."""
    sizes = np.diff(offsets)
    index = np.arange(offsets[-1])
    mirrored = np.repeat(offsets[:-1] + offsets[1:] - 1, sizes) - index
    return points[np.where(np.repeat(rings, sizes), mirrored, index)]


def _inside(rings: Rings, codes: Codes) -> Rings:
    wanted = np.flatnonzero(codes[rings.patch] != OUTSIDE)
    points, offsets = gather(rings.points, rings.offsets, wanted)
    return Rings(points=points, offsets=offsets, patch=rings.patch[wanted])


def to_polygons(
    rings: Rings, *, move: Move | None = None, step_px: float | None = None
) -> Polygons:
    """A polygon per patch out of rings that are sorted by patch, the shell first.

    Args:
        rings: in pixel coordinates.
        move: from (column, row) to where the polygons are wanted; None: they stay.
        step_px: no segment is longer than that; both neighbours get the same vertices.
    """
    points, offsets = _closed(rings)
    coordinates = points.astype(np.float64)
    if step_px is not None:
        coordinates, offsets = _densified(coordinates, offsets, step_px)
    if move is not None:
        coordinates = move(coordinates)
    fresh = np.flatnonzero(np.diff(rings.patch, prepend=-1))
    ends = np.append(fresh, rings.patch.size)
    found: Polygons = shapely.from_ragged_array(GeometryType.POLYGON, coordinates, (offsets, ends))
    return found


def affine_move(transform: Affine) -> Move:
    """From (column, row) to the coordinates of a transform."""

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        col, row = points.T
        x = transform.a * col + transform.b * row + transform.c
        y = transform.d * col + transform.e * row + transform.f
        return np.column_stack([x, y])

    return move


def _closed(rings: Rings) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Points and offsets of rings whose last vertex is the first again."""
    sizes = np.diff(rings.offsets)
    offsets = rings.offsets + np.arange(rings.offsets.size)
    index = np.arange(offsets[-1]) - np.repeat(np.arange(sizes.size), sizes + 1)
    index[offsets[1:] - 1] = rings.offsets[:-1]
    return rings.points[index], offsets


def _densified(
    points: NDArray[np.float64], offsets: NDArray[np.int64], step: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Closed rings with vertices added at equal distances, the same from either end."""
    start, end = points[:-1], points[1:]
    pieces = np.ceil(np.hypot(*(end - start).T) / step).astype(np.int64)
    pieces[offsets[1:-1] - 1] = 1  # from one ring to the next
    segment = np.repeat(np.arange(pieces.size), pieces)
    number = np.arange(segment.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    turned = (start > end)[:, 0] | ((start == end)[:, 0] & (start > end)[:, 1])
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    share = np.where(turned[segment], pieces[segment] - number, number) / pieces[segment]
    dense = low[segment] + (high - low)[segment] * share[:, None]
    kept = np.concatenate([[0], np.cumsum(pieces)])
    return np.concatenate([dense, points[-1:]]), np.append(kept[offsets[:-1]], segment.size + 1)
