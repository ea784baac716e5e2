"""A strip of codes as polygons that fit: patches and their rings, in whole pixel coordinates.

Rings run along pixel edges with the patch on their left (shells counter-clockwise where row 0 is on
top). A vertex stands wherever any outline bends or three patches meet, in the rings of all patches
there, so that neighbours share their vertices; on the strip's upper and lower edge one stands also
where an outline crosses.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from geohsal.geo.rings import Rings, cycles

OUTSIDE = 0
"""Code of pixels that take no part."""

_EAST, _NORTH, _WEST, _SOUTH = range(4)

Codes = NDArray[Any]
"""(row, col) of an unsigned integer type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Runs of equal codes along rows; run `i` begins at flat pixel `starts[i]` of its strip."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    patch: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StripPatches:
    """4-connected patches of a strip, numbered from 0 by their first pixel; OUTSIDE is patched too.

    `codes` by patch; `above` and `below` are the patches of the first and the last row of pixels.
    """

    codes: Codes
    runs: Runs
    above: NDArray[np.int32]
    below: NDArray[np.int32]
    image: NDArray[np.int32]


def label_patches(codes: Codes) -> StripPatches:
    """Number the 4-connected patches of equal codes."""
    height, width = codes.shape
    fresh = np.ones((height, width), dtype=np.bool_)
    np.not_equal(codes[:, 1:], codes[:, :-1], out=fresh[:, 1:])
    starts = np.flatnonzero(fresh)
    run = np.cumsum(fresh.ravel(), dtype=np.int32).reshape(height, width) - np.int32(1)
    # two runs meet where equal codes lie above each other and either run begins
    meet = codes[1:] == codes[:-1]
    meet &= fresh[1:] | fresh[:-1]
    upper, lower = run[:-1][meet], run[1:][meet]
    count, patch = _components(upper, lower, starts.size)
    first = np.empty(count, dtype=np.int64)
    first[patch[::-1]] = np.arange(starts.size)[::-1]  # the last to be written is the smallest
    order = np.empty(count, dtype=np.int32)
    order[np.argsort(first)] = np.arange(count, dtype=np.int32)
    patch = order[patch]
    image = patch[run]
    return StripPatches(
        codes=codes.ravel()[starts[np.sort(first)]],
        runs=Runs(starts=starts, lengths=np.diff(starts, append=codes.size), patch=patch),
        above=image[0],
        below=image[-1],
        image=image,
    )


def _components(
    one: NDArray[np.int32], other: NDArray[np.int32], count: int
) -> tuple[int, NDArray[np.int32]]:
    graph = csr_array((np.ones(one.size, dtype=np.bool_), (one, other)), shape=(count, count))
    found, labels = connected_components(graph, directed=False)
    return int(found), labels


def trace(
    found: StripPatches,
    codes: Codes,
    *,
    above: Codes,
    below: Codes,
    top: int,
    outside: bool = False,
) -> Rings:
    """Rings of every patch of a strip; `patch` numbers them as in `found`.

    Args:
        found: patches of `codes`.
        codes: the strip's pixels.
        above: the row of codes before the strip (OUTSIDE where there is none).
        below: the row of codes after it.
        top: row of the strip's first pixels in the whole, whose coordinates the rings are given in.
        outside: trace the patches of OUTSIDE too.
    """
    row, col, around = _vertices(found, codes, above, below)
    traced = np.append(found.codes != OUTSIDE, False)
    traced[:-1] |= outside
    outgoing, patch, edge_vertex, edge_way = _half_edges(traced, around)
    follower = _followers(row, col, outgoing, around, patch, edge_vertex, edge_way)
    order, offsets = cycles(follower)
    at = edge_vertex[order]
    points = np.empty((order.size, 2), dtype=np.int32)
    points[:, 0] = col[at]
    points[:, 1] = row[at] + np.int32(top)
    return Rings(points=points, offsets=offsets, patch=patch[order[offsets[:-1]]].astype(np.int64))


def _vertices(
    found: StripPatches, codes: Codes, above: Codes, below: Codes
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """(row, column, patches around it as (4, vertex): NW, NE, SW, SE) of each kept vertex.

    -1 stands for what is outside the strip.
    """
    height, width = codes.shape
    padded = np.full((height + 2, width + 2), OUTSIDE, dtype=codes.dtype)
    padded[1:-1, 1:-1], padded[0, 1:-1], padded[-1, 1:-1] = codes, above, below
    across = padded[:, 1:] != padded[:, :-1]  # (height + 2, width + 1): an edge runs north-south
    along = padded[1:] != padded[:-1]  # (height + 1, width + 2): an edge runs east-west
    keep = across[1:] != across[:-1]
    keep |= along[:, 1:] != along[:, :-1]
    # four edges meet and no two neighbours are equal: a bend for all, and none of the above
    keep |= across[1:] & along[:, 1:]
    keep[0] |= across[0] | across[1]
    keep[-1] |= across[-1] | across[-2]
    keep[0, [0, -1]] = keep[-1, [0, -1]] = True
    row, col = (index.astype(np.int32) for index in np.nonzero(keep))
    image = np.full((height + 2, width + 2), -1, dtype=np.int32)
    image[1:-1, 1:-1] = found.image
    flat, step = image.ravel(), width + 2
    corner = row.astype(np.int64) * step + col
    around = np.stack(
        [flat[corner], flat[corner + 1], flat[corner + step], flat[corner + step + 1]]
    )
    return row, col, around


def _half_edges(
    traced: NDArray[np.bool_], around: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
    """((4, vertex) numbers of the half-edges that leave, or -1; their patch, vertex and way).

    `traced` by patch; its last entry stands for patch -1, what is outside the strip.
    """
    north_west, north_east, south_west, south_east = around
    # what lies on the left of a half-edge is its own, what lies on the right is not
    left = (north_east, north_west, south_west, south_east)
    right = (south_east, north_east, north_west, south_west)
    outgoing = np.full(around.shape, -1, dtype=np.int32)
    parts = []
    count = 0
    for way in range(4):
        leaves = np.flatnonzero((left[way] != right[way]) & traced[left[way]])
        outgoing[way, leaves] = np.arange(count, count + leaves.size, dtype=np.int32)
        parts.append((left[way][leaves], leaves.astype(np.int32)))
        count += leaves.size
    patch: NDArray[np.int32] = np.concatenate([part[0] for part in parts])
    vertex: NDArray[np.int32] = np.concatenate([part[1] for part in parts])
    ways = np.repeat(np.arange(4, dtype=np.int8), [part[0].size for part in parts])
    return outgoing, patch, vertex, ways


def _followers(
    row: NDArray[np.int32],
    col: NDArray[np.int32],
    outgoing: NDArray[np.int32],
    around: NDArray[np.int32],
    patch: NDArray[np.int32],
    vertex: NDArray[np.int32],
    way: NDArray[np.int8],
) -> NDArray[np.int32]:
    """The half-edge after each one along its ring: right where the patch goes on there, else on.

    Turning right first keeps rings apart where a patch touches itself at a corner.
    """
    narrow = col.astype(np.uint16) if col.size and col.max() < 2**16 else col
    by_column = np.argsort(narrow, kind="stable").astype(np.int32)
    place = np.empty_like(by_column)
    place[by_column] = np.arange(by_column.size, dtype=np.int32)
    follower = np.empty(vertex.size, dtype=np.int32)
    north_west, north_east, south_west, south_east = around
    ahead = {  # of a half-edge that arrives: (pixel ahead on the right, ahead on the left)
        _EAST: (south_east, north_east),
        _NORTH: (north_east, north_west),
        _WEST: (north_west, south_west),
        _SOUTH: (south_west, south_east),
    }
    for towards, (on_right, on_left) in ahead.items():
        mine = np.flatnonzero(way == towards)
        start, own = vertex[mine], patch[mine]
        if towards == _EAST:
            end = start + 1
        elif towards == _WEST:
            end = start - 1
        else:
            end = by_column[place[start] + (1 if towards == _SOUTH else -1)]
        turn = np.where(on_right[end] == own, -1, np.where(on_left[end] == own, 0, 1))
        follower[mine] = outgoing[(towards + turn) % 4, end]
    return follower
