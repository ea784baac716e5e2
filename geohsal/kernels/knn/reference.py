"""k-nearest-neighbour scores in float64, against the whole bank: the definition.

    d2_i  = |z - b_i|^2                             z = P x, b_i in the bank
    v_i   = 2 / (1 + d2_i / d2_k)                   for the k least d2, equal ones by bank index
    s_c   = (V_c + 1/2) / (V + C/2)                 V_c: class-weighted votes, scaled so that
    q_c   = -2 log s_c                              they add up to V = sum v_i

c* = argmin q, accepted where the nearest pixel of c* has d2 <= kappa_c* and q_(2) - q_(1) >=
delta_c*, with support, no abstention and a second known class.
"""

import torch
from torch import Tensor

from geohsal.kernels.knn.decision import Neighbours, decide, project, wanted
from geohsal.kernels.knn.operands import KnnOperands, KnnScores

DEFAULT_TIE = 1e-6
"""Relative width of the band around each comparison that the order of float64 sums, or one rounding
of the projected pixel, could turn."""

_BLOCK_VALUES = 1 << 23
"""Most float64 differences at a time: 64 MiB."""


def reference_scores(
    features: Tensor, pseudo: Tensor, operands: KnnOperands, *, tie: float = DEFAULT_TIE
) -> KnnScores:
    """Scores of features [N, F] with pseudo-labels [N]; time grows with N times the bank."""
    points, valid = project(features, operands)
    found = nearest_by_definition(points, operands.bank, wanted(operands))
    return decide(found, pseudo=pseudo, valid=valid, operands=operands, tie=tie)


def nearest_by_definition(points: Tensor, bank: Tensor, count: int) -> Neighbours:
    """The `count` nearest bank pixels of points [N, D], by a full sort of float64 distances."""
    step = max(1, min(256, _BLOCK_VALUES // len(bank)))
    found = [_nearest(rows, bank, count) for rows in torch.split(points, step)]
    return Neighbours(*(torch.cat(column) for column in zip(*found, strict=True)))


def _nearest(points: Tensor, bank: Tensor, count: int) -> Neighbours:
    step = max(1, _BLOCK_VALUES // max(1, points.numel()))
    rows = points.double()[:, None]
    gaps = [(rows - part.double()).square().sum(2) for part in torch.split(bank, step)]
    distance, index = torch.cat(gaps, 1).sort(dim=1, stable=True)
    return Neighbours(distance[:, :count], index[:, :count])
