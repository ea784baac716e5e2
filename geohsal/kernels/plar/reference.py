"""PLAR scores in float64, one class at a time: the definition that every other path must meet.

    D_E,c = min_k |P x - m_ck|^2        D_M,c = min_k |W~_c x - b_ck|^2
    Q_c   = D_M,c + log det Sigma_c - 2 log pi_c          (x centred on the operands' center)

Robust: c* = argmin Q, accepted where D_M,c* <= kappa_c* and Q_(2) - Q_(1) >= delta_c*.
Faithful: c* = argmin D_E, accepted where argmin D_M = c* and D_M,c* <= kappa_c*.
Both need support, no abstention and a second known class.
"""

import torch
from torch import Tensor

from geohsal.kernels.plar.decision import Distances, Settings, decide
from geohsal.kernels.plar.operands import LARGEST_FEATURE, PlarOperands, PlarScores, Rule

DEFAULT_TIE = 1e-4
"""Relative width of the band around each comparison that float32 could turn."""


def reference_scores(
    features: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    *,
    rule: Rule = Rule.ROBUST,
    agreement: bool = False,
    tie: float = DEFAULT_TIE,
) -> PlarScores:
    """Scores of features [N, F] with pseudo-labels [N]; memory grows with N times C."""
    centred, valid = centre(features, operands, dtype=torch.float64)
    euclid, mahalanobis = [], []
    flat = centred @ operands.projection.double().T
    for number in range(operands.num_classes):
        euclid.append(_nearest(flat, operands.means[number]))
        white = centred @ operands.whitening[number].double().T
        mahalanobis.append(_nearest(white, operands.bias[number]))
    return decide(
        Distances(
            *with_radius(torch.stack(euclid), tie), *with_radius(torch.stack(mahalanobis), tie)
        ),
        pseudo=pseudo,
        valid=valid,
        operands=operands,
        settings=Settings(rule, agreement, tie),
    )


def centre(
    features: Tensor, operands: PlarOperands, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Centred features (0 in invalid rows) and validity: finite, and small enough once scaled."""
    centred = features.to(dtype) - operands.center.to(dtype)
    largest = centred.abs().amax(1)
    valid = largest * operands.scale <= LARGEST_FEATURE  # false for NaN
    return centred.masked_fill(~valid[:, None], 0.0), valid


def with_radius(distance: Tensor, tie: float) -> tuple[Tensor, Tensor]:
    """Squared distances and the radii of a relative error."""
    return distance, tie * (1 + distance)


def _nearest(points: Tensor, prototypes: Tensor) -> Tensor:
    gaps = [(points - prototype.double()).square().sum(1) for prototype in prototypes]
    return torch.stack(gaps).amin(0)
