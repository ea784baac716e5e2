"""Exact neighbours from an inexact first pass, with a proof per pixel.

A first pass computes |b|^2 - 2 z.b in low precision and keeps a shortlist of bank pixels. The
shortlist is measured again, by differences, at last in float64. Every bank pixel within the k-th
distance r of a pixel z has |b| <= |z| + r, so the error that the first pass may have made on it is
bounded; where the first pass left nothing below the k-th score plus that bound, the neighbours are
proven. Pixels without a proof go to the next pass, in the end to the definition.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from geohsal.kernels.knn.decision import Neighbours
from geohsal.kernels.knn.reference import nearest_by_definition

UNIT = 2.0**-24
"""Unit roundoff of float32."""

_SPARE = 4  # candidates beyond those asked for: room for rounding between them
_BLOCK_VALUES = {False: 1 << 18, True: 1 << 28}  # gathered at a time, on CUDA or not; 1 MiB fits L2


class Shortlist(NamedTuple):
    """Bank pixels that may be the nearest of n pixels."""

    row: Tensor  # [n, c] int64, into the bank; rows beyond it stand for nothing
    limit: Tensor  # [n] least |b|^2 - 2 z.b, as computed, of any bank pixel left out


class FirstPass(Protocol):
    """A cheap, inexact search of a bank."""

    block_pixels: int  # pixels searched at a time

    def shortlist(self, points: Tensor, count: int) -> Shortlist:
        """Candidates among which the `count` nearest of points [n, D] most likely are."""
        ...

    def error(self, size: Tensor, reach: Tensor) -> Tensor:
        """Largest error [n] of a score |b|^2 - 2 z.b, given |z| = size and |b| <= reach."""
        ...


def nearest(
    points: Tensor, bank: Tensor, count: int, passes: Sequence[Callable[[Tensor], FirstPass]]
) -> Neighbours:
    """The `count` nearest bank pixels of points [N, D]; `passes` are tried in their order."""
    shape = (len(points), count)
    distance = torch.empty(shape, dtype=torch.float64, device=points.device)
    found = Neighbours(distance, torch.zeros(shape, dtype=torch.int64, device=points.device))
    left = torch.arange(len(points), device=points.device)
    for make in passes:
        if len(left) == 0:
            return found
        first, unproven = make(bank), []
        for rows in torch.split(left, first.block_pixels):
            block, proven = _search(points[rows], bank, count, first)
            found.distance[rows], found.row[rows] = block
            unproven.append(rows[~proven])
        left = torch.cat(unproven)
    if len(left):
        found.distance[left], found.row[left] = nearest_by_definition(points[left], bank, count)
    return found


def _search(
    points: Tensor, bank: Tensor, count: int, first: FirstPass
) -> tuple[Neighbours, Tensor]:
    """Neighbours by one pass, and for which rows they are proven."""
    shortlist = first.shortlist(points, count)
    step = max(1, _BLOCK_VALUES[points.is_cuda] // (shortlist.row.shape[1] * bank.shape[1]))
    parts = [
        _rank(rows, bank, candidates, count)
        for rows, candidates in zip(
            torch.split(points, step), torch.split(shortlist.row, step), strict=True
        )
    ]
    distance, index, bound = (torch.cat(column) for column in zip(*parts, strict=True))
    farthest, size = distance[:, -1], points.double().square().sum(1).sqrt()
    slack = first.error(size, size + farthest.sqrt())
    proven = shortlist.limit.double() > farthest - size.square() + slack
    return Neighbours(distance, index), proven & (bound > farthest)


def _rank(points: Tensor, bank: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best of few candidates, and below what no other candidate can lie.

    Float32 differences sieve, float64 differences rank, equal distances stay in order of index.
    """
    bound = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    keep = count + _SPARE
    if index.shape[1] > keep:
        best = _gaps(points, bank, index).topk(keep + 1, dim=1, largest=False)
        bound = best.values[:, keep].double() * (1 - 4 * bank.shape[1] * UNIT)
        index = index.gather(1, best.indices[:, :keep])
    index = index.sort(dim=1).values
    distance, order = _gaps(points.double(), bank, index).sort(dim=1, stable=True)
    return distance[:, :count], index.gather(1, order)[:, :count], bound


def _gaps(points: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """Squared distances [n, c] to bank pixels in the precision of the points; inf beyond it."""
    outside = index >= len(bank)
    gaps = torch.nn.functional.embedding(index.masked_fill(outside, 0), bank).to(points.dtype)
    gaps -= points[:, None]
    squares: Tensor = torch.linalg.vecdot(gaps, gaps)
    return squares.masked_fill_(outside, torch.inf)
