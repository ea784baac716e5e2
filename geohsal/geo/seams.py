"""Joins the patches of strips, from top to bottom, into those of the whole raster.

Where a patch goes on below a strip, its rings are cut open along the seam and joined with those of
the next strip once the patch is complete. No geometry is compared: pixels on both sides of a seam
say which patches are one, and the ends of cut rings meet in the same vertex.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from geohsal.geo.rings import Rings, cycles, gather, in_order, neighbours
from geohsal.geo.tracing import OUTSIDE, Codes, StripPatches


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Patches of one strip: rows `top` to `bottom` of the whole, cut off at its edges.

    `sums` (patch, quantity) are what adds up over the parts of a patch, such as pixels.
    """

    top: int
    codes: Codes
    patches: StripPatches
    rings: Rings
    sums: NDArray[np.float64]

    @property
    def bottom(self) -> int:
        """Row after the last."""
        return self.top + len(self.codes)

    @property
    def first_row(self) -> Codes:
        """Codes of the uppermost pixels."""
        row: Codes = self.codes[0]
        return row

    @property
    def last_row(self) -> Codes:
        """Codes of the lowermost pixels."""
        row: Codes = self.codes[-1]
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Polygons that no later strip touches: shells first, then holes, of each patch in turn.

    `rings.patch` counts the rows of `codes` and `sums`.
    """

    codes: Codes
    sums: NDArray[np.float64]
    rings: Rings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chains:
    """Vertex lists: whole rings, or open chains of which `end` is the vertex after the last.

    `starts_below` and `ends_below`: the patch lies below that vertex, where it may meet itself at a
    corner; `loose` marks first vertices that only a seam needs.
    """

    points: NDArray[np.int32]
    offsets: NDArray[np.int64]
    patch: NDArray[np.int64]
    whole: NDArray[np.bool_]
    end: NDArray[np.int32]
    starts_below: NDArray[np.bool_]
    ends_below: NDArray[np.bool_]
    loose: NDArray[np.bool_]


@dataclass(slots=True)
class SeamJoiner:
    """Takes strips in their order and gives back what is complete."""

    _codes: Codes | None = None
    _sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    _below: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _row: Codes | None = None
    _pending: list[_Chains] = field(default_factory=list)

    def add(self, pieces: Pieces, *, after: Codes | None) -> Complete:
        """Join one more strip; `after` is the row of codes that follows it, None at the end."""
        open_count = 0 if self._codes is None else self._codes.size
        codes, sums = pieces.patches.codes, pieces.sums
        if self._codes is not None:
            codes, sums = np.append(self._codes, codes), np.concatenate([self._sums, sums])
        patch = self._merge(pieces, open_count, codes.size)
        merged = int(patch.max(initial=-1)) + 1
        chains = _cut(pieces, above=self._row, after=after)
        self._pending.append(_renumbered(chains, patch[open_count:]))
        if open_count:
            for index, block in enumerate(self._pending[:-1]):
                self._pending[index] = _renumbered(block, patch)
        below = patch[open_count + pieces.patches.below.astype(np.int64)]
        going_on = np.zeros(merged, dtype=np.bool_)
        if after is not None:
            going_on[below] = True
        firsts = _firsts(patch, merged)
        columns = [np.bincount(patch, column, merged) for column in sums.T]
        totals = np.stack(columns, axis=1).astype(np.float64)
        complete = self._release(codes[firsts], totals, going_on)
        number = np.cumsum(going_on) - 1
        self._codes, self._sums = codes[firsts][going_on], totals[going_on]
        self._below, self._row = number[below], pieces.last_row.copy()
        return complete

    def _merge(self, pieces: Pieces, open_count: int, count: int) -> NDArray[np.int64]:
        """The new number of every patch, open ones first: the same for parts of one."""
        if self._row is None:
            return np.arange(count)
        same = (self._row == pieces.first_row) & (self._row != OUTSIDE)
        one, other = self._below[same], open_count + pieces.patches.above[same].astype(np.int64)
        graph = csr_array((np.ones(one.size, dtype=np.bool_), (one, other)), shape=(count, count))
        found, label = connected_components(graph, directed=False)
        firsts = _firsts(label, found)
        order = np.empty(found, dtype=np.int64)
        order[np.argsort(firsts)] = np.arange(found)
        number: NDArray[np.int64] = order[label]
        return number

    def _release(
        self, codes: Codes, sums: NDArray[np.float64], going_on: NDArray[np.bool_]
    ) -> Complete:
        done = ~going_on & (codes != OUTSIDE)
        number = np.where(done, np.cumsum(done) - 1, np.cumsum(going_on) - 1)
        ready: list[_Chains] = []
        kept: list[_Chains] = []
        for block in self._pending:
            chosen = done[block.patch]
            renumbered = _renumbered(block, number)
            if chosen.any():
                ready.append(_take(renumbered, chosen))
            rest = going_on[block.patch]
            if rest.any():
                kept.append(renumbered if rest.all() else _take(renumbered, rest))
        self._pending = kept
        return Complete(codes=codes[done], sums=sums[done], rings=_rings(ready))


def _firsts(label: NDArray[Any], count: int) -> NDArray[np.int64]:
    first = np.empty(count, dtype=np.int64)
    first[label[::-1]] = np.arange(label.size)[::-1]  # the last to be written is the smallest
    return first


def _cut(pieces: Pieces, *, above: Codes | None, after: Codes | None) -> _Chains:
    """The rings of a strip, opened where their patch goes on beyond a seam."""
    rings = pieces.rings
    sizes = np.diff(rings.offsets)
    ring = np.repeat(np.arange(sizes.size), sizes)
    following, before = neighbours(rings.offsets)
    split, lower = _at_corners(pieces, ring, above=above, after=after)
    dropped, loose = np.zeros((2, ring.size), dtype=np.bool_)
    column, line = rings.points.T
    seams = ((pieces.top, above, pieces.first_row), (pieces.bottom, pieces.last_row, after))
    for row, over, under in seams:
        if over is None or under is None:
            continue
        there = np.flatnonzero(line == row)
        x, next_x = column[there], column[following[there]]
        along = line[following[there]] == row
        dropped[there[along]] = (over == under)[np.minimum(x, next_x)[along]]
        crossing, straight = _at_seam(over, under)
        split[there], loose[there] = crossing[x], straight[x]
        lower[there] = row == pieces.top
    begins = ~dropped & (dropped[before] | split)
    cut = np.zeros(sizes.size, dtype=np.bool_)
    cut[ring[begins]] = True
    begins[rings.offsets[:-1][~cut]] = True
    order = _turned(rings.offsets, ring, begins)
    order = order[~dropped[order]]
    offsets = np.append(np.flatnonzero(begins[order]), order.size)
    first, end = order[offsets[:-1]], following[order[offsets[1:] - 1]]
    return _Chains(
        points=rings.points[order],
        offsets=offsets,
        patch=rings.patch[ring[first]],
        whole=~cut[ring[first]],
        end=rings.points[end],
        starts_below=lower[first],
        ends_below=lower[end],
        loose=loose[first],
    )


def _at_corners(
    pieces: Pieces, ring: NDArray[np.int64], *, above: Codes | None, after: Codes | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Vertices where two patches meet at a corner only and may be one beyond a seam.

    Returns:
        Whether each vertex is such, and whether its ring's patch then lies below it.
    """
    patches, codes = pieces.patches, pieces.codes
    beyond = np.zeros(patches.codes.size, dtype=np.bool_)
    if above is not None:
        beyond[patches.above] = True
    if after is not None:
        beyond[patches.below] = True
    split, lower = np.zeros((2, ring.size), dtype=np.bool_)
    meet = np.zeros((codes.shape[0] + 1, codes.shape[1] + 1), dtype=np.bool_)
    north_west, north_east = codes[:-1, :-1], codes[:-1, 1:]
    south_west, south_east = codes[1:, :-1], codes[1:, 1:]
    meet[1:-1, 1:-1] = (north_west == south_east) | (north_east == south_west)
    meet[1:-1, 1:-1] &= (north_west != north_east) & (south_west != south_east)
    meet[1:-1, 1:-1] &= (north_west != south_west) & (north_east != south_east)
    col, row = pieces.rings.points[:, 0], pieces.rings.points[:, 1] - pieces.top
    at = np.flatnonzero(meet[row, col])
    own = pieces.rings.patch[ring[at]]
    at, own = at[beyond[own]], own[beyond[own]]
    col, row = col[at], row[at]
    image = patches.image
    around = image[row - 1, col - 1], image[row - 1, col], image[row, col - 1], image[row, col]
    for index, mine in enumerate(around):
        here, opposite = mine == own, around[3 - index]
        split[at] |= here & (opposite != own) & (patches.codes[opposite] == patches.codes[own])
        lower[at] |= here & (index > 1)
    return split, lower


def _at_seam(upper: Codes, lower: Codes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """By column of vertices: whether four outlines meet; whether nothing but one crosses."""
    up, down = (np.pad(row, 1, constant_values=OUTSIDE) for row in (upper, lower))
    across = (up[1:] != up[:-1]) & (down[1:] != down[:-1])
    along = up != down
    return across & along[1:] & along[:-1], ~along[1:] & ~along[:-1]


def _turned(
    offsets: NDArray[np.int64], ring: NDArray[np.int64], begins: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Vertices ring by ring, each ring from the first vertex where a chain begins."""
    at = np.flatnonzero(begins)[::-1]
    first = np.zeros(offsets.size - 1, dtype=np.int64)
    first[ring[at]] = at - offsets[ring[at]]
    size = np.diff(offsets)[ring]
    place = np.arange(ring.size) - offsets[ring] + first[ring]
    turned: NDArray[np.int64] = offsets[ring] + np.where(place >= size, place - size, place)
    return turned


def _take(chains: _Chains, chosen: NDArray[np.bool_]) -> _Chains:
    rows = np.flatnonzero(chosen)
    points, offsets = gather(chains.points, chains.offsets, rows)
    return _Chains(
        points=points,
        offsets=offsets,
        patch=chains.patch[rows],
        whole=chains.whole[rows],
        end=chains.end[rows],
        starts_below=chains.starts_below[rows],
        ends_below=chains.ends_below[rows],
        loose=chains.loose[rows],
    )


def _renumbered(chains: _Chains, number: NDArray[np.int64]) -> _Chains:
    return _Chains(
        points=chains.points,
        offsets=chains.offsets,
        patch=number[chains.patch],
        whole=chains.whole,
        end=chains.end,
        starts_below=chains.starts_below,
        ends_below=chains.ends_below,
        loose=chains.loose,
    )


def _rings(blocks: list[_Chains]) -> Rings:
    """Chains joined into rings, sorted by patch, the shell before the holes."""
    if not blocks:
        nothing = np.zeros(0, dtype=np.int64)
        return Rings(
            points=np.zeros((0, 2), dtype=np.int32), offsets=np.zeros(1, np.int64), patch=nothing
        )
    parts = list(_joined(blocks))
    points = np.concatenate([part.points for part in parts])
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    patch = np.concatenate([part.patch for part in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return in_order(Rings(points=points, offsets=offsets, patch=patch))


def _joined(blocks: list[_Chains]) -> Iterator[Rings]:
    for block in blocks:
        whole = _take(block, block.whole)
        yield Rings(points=whole.points, offsets=whole.offsets, patch=whole.patch)
    cut = [_take(block, ~block.whole) for block in blocks if not block.whole.all()]
    if cut:
        yield _closed(cut)


def _closed(blocks: list[_Chains]) -> Rings:
    """Rings out of open chains: each goes on where another of its patch begins."""
    points = np.concatenate([block.points for block in blocks])
    sizes = np.concatenate([np.diff(block.offsets) for block in blocks])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    patch = np.concatenate([block.patch for block in blocks])
    start, end = points[offsets[:-1]], np.concatenate([block.end for block in blocks])
    # where a patch meets itself at a corner, a chain from above goes on below, and back
    goes = np.concatenate([~block.ends_below for block in blocks])
    comes = np.concatenate([block.starts_below for block in blocks])
    follower = np.empty(patch.size, dtype=np.int32)
    leaving = np.lexsort((comes, start[:, 0], start[:, 1], patch))
    follower[np.lexsort((goes, end[:, 0], end[:, 1], patch))] = leaving
    order, ring_offsets = cycles(follower)
    loose = np.zeros(points.shape[0], dtype=np.bool_)
    loose[offsets[:-1]] = np.concatenate([block.loose for block in blocks])
    joined, chain_offsets = gather(points, offsets, order)
    loose, _ = gather(loose, offsets, order)
    return _without_seam_vertices(
        Rings(
            points=joined,
            offsets=chain_offsets[ring_offsets],
            patch=patch[order[ring_offsets[:-1]]],
        ),
        loose,
    )


def _without_seam_vertices(rings: Rings, loose: NDArray[np.bool_]) -> Rings:
    """Rings without the loose vertices that lie on a straight line."""
    points = rings.points.astype(np.int64)
    after, before = neighbours(rings.offsets)
    one, two = points - points[before], points[after] - points
    bends = one[:, 0] * two[:, 1] != one[:, 1] * two[:, 0]
    keep = bends | ~loose
    counts = np.add.reduceat(keep, rings.offsets[:-1], dtype=np.int64)
    return Rings(
        points=rings.points[keep],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        patch=rings.patch,
    )
