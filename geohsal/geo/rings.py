"""Rings as flat arrays: many polygons in a few arrays, worked on all at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Rings:
    """Rings as one list of vertices: ring `i` is `points[offsets[i]:offsets[i + 1]]`, not closed.

    `points` are int32 (column, row); `patch` numbers the polygon that each ring bounds.
    """

    points: NDArray[np.int32]
    offsets: NDArray[np.int64]
    patch: NDArray[np.int64]


def gather(
    values: NDArray[Any], offsets: NDArray[np.int64], rows: NDArray[np.integer[Any]]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Some of the lists `values[offsets[i]:offsets[i + 1]]`, one after the other."""
    sizes = np.diff(offsets)[rows]
    ends = np.cumsum(sizes)
    shift = np.repeat(offsets[rows] - ends + sizes, sizes)
    return values[shift + np.arange(shift.size)], np.concatenate([[0], ends])


def neighbours(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(next, previous) vertex along each ring."""
    after = np.arange(1, offsets[-1] + 1)
    before = after - 2
    after[offsets[1:] - 1], before[offsets[:-1]] = offsets[:-1], offsets[1:] - 1
    return after, before


def doubled_areas(points: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Twice the signed area of each ring: below 0 for shells, whose inside is on the left."""
    after, _ = neighbours(offsets)
    x, y = points.astype(np.int64).T
    crossed = x * y[after] - x[after] * y
    areas: NDArray[np.int64] = np.add.reduceat(crossed, offsets[:-1])
    return areas


def in_order(rings: Rings) -> Rings:
    """Rings sorted by patch, of each the shell before the holes."""
    order = np.lexsort((doubled_areas(rings.points, rings.offsets) > 0, rings.patch))
    points, offsets = gather(rings.points, rings.offsets, order)
    return Rings(points=points, offsets=offsets, patch=rings.patch[order])


def cycles(follower: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(elements in the order of their cycles, offsets of the cycles) of a permutation.

    Cycles come in the order of their smallest element, which begins them.
    """
    count = follower.size
    if not count:
        return follower, np.zeros(1, dtype=np.int64)
    number = np.arange(count + 1, dtype=np.int32)
    links = np.ones(count, dtype=np.bool_)
    graph = csr_array((links, follower, number), shape=(count, count))
    found, label = connected_components(graph, directed=False)
    first = np.full(found, count, dtype=np.int64)
    first[label[::-1]] = number[:count][::-1]  # the last to be written is the smallest
    sizes = np.bincount(label, minlength=found)
    by_first = np.argsort(first)
    first, sizes = first[by_first], sizes[by_first]
    # cut every cycle before its first element and hang the next one on: one path through all
    before = np.empty(count, dtype=np.int32)
    before[follower] = number[:count]
    chain = follower.copy()
    chain[before[first[:-1]]] = first[1:]
    chain[before[first[-1]]] = before[first[-1]]
    path = csr_array((links, chain, number), shape=(count, count))
    order = depth_first_order(path, int(first[0]), return_predecessors=False)
    return order.astype(np.int32), np.concatenate([[0], np.cumsum(sizes)])
