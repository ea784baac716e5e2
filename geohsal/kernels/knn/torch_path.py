"""First pass in float32 by torch: group minima of one product per bank tile, on any device.

Only the least score of each group is kept: the k nearest lie in the k groups of least minima. Group
g of G members interleaves: with L = `LANES`, its members are rows (g // L) L G + j L + g % L, so
that a minimum runs over whole rows of lanes and needs no shuffling.
"""

import torch
from torch import Tensor

from geohsal.kernels.knn.search import UNIT, Shortlist

LANES = 128
"""Groups that are interleaved."""

_GROUPS = {2_048: 1, 32_768: 4, 262_144: 8}
"""Members of a group in a bank of less than so many pixels; more in larger ones."""

_LARGEST_GROUP = 16
_SPAN_TILES = 64  # tiles whose minima are ranked together
_SPARE = 4  # groups beyond those asked for: room for rounding between them


class TorchPass:
    """Scores |b|^2 - 2 z.b of a bank in float32."""

    block_pixels = 512

    def __init__(self, bank: Tensor, *, group: int | None = None) -> None:
        self._group = group or _group(len(bank))
        self._dim = bank.shape[1]
        size = self._group * LANES
        self._tiles = [padded(rows, multiple=size) for rows in torch.split(bank, size)]

    def shortlist(self, points: Tensor, count: int) -> Shortlist:
        best = Running(count + _SPARE)
        doubled = -2 * points
        for start in range(0, len(self._tiles), _SPAN_TILES):
            minima = [
                torch.addmm(norm, doubled, rows.T).view(-1, self._group, LANES).amin(1)
                for rows, norm in self._tiles[start : start + _SPAN_TILES]
            ]
            best.add(torch.cat(minima, 1), first_group=start * LANES)
        return best.shortlist(group=self._group, lanes=LANES)

    def error(self, size: Tensor, reach: Tensor) -> Tensor:
        return (self._dim + 4) * UNIT * (reach.square() + 2 * size * reach)


def _group(bank_pixels: int) -> int:
    for limit, group in _GROUPS.items():
        if bank_pixels < limit:
            return group
    return _LARGEST_GROUP


class Running:
    """The groups of least minima so far, one more than asked for."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._value: Tensor | None = None
        self._index: Tensor | None = None

    def add(self, minima: Tensor, *, first_group: int) -> None:
        """Take in the minima [n, groups] of the next groups."""
        best = minima.topk(min(self._keep + 1, minima.shape[1]), dim=1, largest=False)
        value, index = best.values, best.indices + first_group
        if self._value is not None and self._index is not None:
            value = torch.cat([self._value, value], 1)
            best = value.topk(min(self._keep + 1, value.shape[1]), dim=1, largest=False)
            value, index = best.values, torch.cat([self._index, index], 1).gather(1, best.indices)
        self._value, self._index = value, index

    def shortlist(self, *, group: int, lanes: int) -> Shortlist:
        """Members of the kept groups, and the least minimum that was left out."""
        assert self._value is not None
        assert self._index is not None
        kept, limit = self._index[:, : self._keep], torch.full_like(self._value[:, 0], torch.inf)
        if self._value.shape[1] > self._keep:
            limit = self._value[:, self._keep]
        first = kept // lanes * (lanes * group) + kept % lanes
        step = torch.arange(0, lanes * group, lanes, device=kept.device)
        return Shortlist((first[:, :, None] + step).flatten(1), limit)


def padded(bank: Tensor, *, multiple: int) -> tuple[Tensor, Tensor]:
    """Bank and squared norms in float32, filled up with rows that are infinitely far away."""
    missing = -len(bank) % multiple
    if missing == 0:
        return bank, squares(bank)
    return (
        torch.nn.functional.pad(bank, (0, 0, 0, missing)),
        torch.nn.functional.pad(squares(bank), (0, missing), value=torch.inf),
    )


def squares(rows: Tensor) -> Tensor:
    """Squared norms, rounded to float32 once."""
    parts = [part.double().square().sum(1).float() for part in torch.split(rows, 4096)]
    return torch.cat(parts)
