"""From neighbours to votes, classes and decision codes; the logic that all paths share.

Everything is float64: after the search, a pixel has k neighbours and little is left to compute.
Suffixes: N pixels, C classes. Equal scores go to the lowest class id on every backend.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geohsal.kernels.knn.operands import KnnOperands, KnnScores
from geohsal.kernels.plar.operands import LARGEST_FEATURE, NO_CLASS, Decision

_UNSEEN = 0.5  # votes that every class is given: no finite number of neighbours proves certainty


class Neighbours(NamedTuple):
    """Bank pixels nearest to N pixels: distances rise, equal ones by bank index."""

    distance: Tensor  # [N, count] float64, squared
    row: Tensor  # [N, count] int64, into the bank


class ClassScores(NamedTuple):
    """Scores of N pixels for every class."""

    distance: Tensor  # [N, C] float64, squared, to the nearest neighbour of the class; inf: none
    q: Tensor  # [N, C] float64; inf for classes without bank pixels


def project(features: Tensor, operands: KnnOperands) -> tuple[Tensor, Tensor]:
    """Points [N, D] float32 of features [N, F] and validity: finite, and small once scaled."""
    centred = features.double() - operands.center.double()
    valid = ((centred * operands.scale).abs() <= LARGEST_FEATURE).all(1)  # false for NaN
    centred = centred.masked_fill(~valid[:, None], 0.0)
    return (centred @ operands.projection.double().T).float(), valid


def wanted(operands: KnnOperands) -> int:
    """Neighbours to look for: k and the one after, which tells how close the choice was."""
    return min(operands.neighbours + 1, len(operands.bank))


def vote(found: Neighbours, operands: KnnOperands) -> ClassScores:
    """Distances and scores of all classes.

    The k-th neighbour has one vote and one at distance zero two: 2 / (1 + d2_i / d2_k). Votes are
    weighted by class and scaled back to their unweighted total, so that unanimity means the same
    for every class; q = -2 log share, whose differences are twice log odds.
    """
    count = min(operands.neighbours, found.distance.shape[1])
    distance, reach = found.distance[:, :count], found.distance[:, count - 1 : count]
    label = operands.bank_label[found.row[:, :count]]
    ballots = 2 / (1 + torch.where(reach > 0, distance / reach, 0.0))
    weighted = ballots * operands.class_weight.double()[label]
    shape = (len(distance), operands.num_classes)
    votes, nearest = distance.new_zeros(shape), distance.new_full(shape, torch.inf)
    for rank in reversed(range(count)):  # one per row at a time: the same order on every device
        place = label[:, rank : rank + 1]
        votes.scatter_add_(1, place, weighted[:, rank : rank + 1])
        nearest.scatter_(1, place, distance[:, rank : rank + 1])
    total, known = ballots.sum(1, keepdim=True), operands.present.sum()
    votes = votes * (total / votes.sum(1, keepdim=True))
    share = (votes + _UNSEEN) / (total + known * _UNSEEN)
    return ClassScores(nearest, (-2 * share.log()).masked_fill(~operands.present, torch.inf))


def decide(
    found: Neighbours, *, pseudo: Tensor, valid: Tensor, operands: KnnOperands, tie: float
) -> KnnScores:
    """Scores and codes; rows that are not `valid` say so."""
    nearest, q_NC = vote(found, operands)
    ranked, order = q_NC.sort(dim=1, stable=True)
    if q_NC.shape[1] == 1:
        ranked = torch.cat([ranked, torch.full_like(ranked, torch.inf)], 1)
        order = torch.cat([order, order], 1)
    chosen, lead = order[:, 0], ranked[:, 1] - ranked[:, 0]
    code = _code(nearest, chosen, lead, found, pseudo, operands)
    known = torch.isfinite(ranked[:, :2]) & valid[:, None]
    own = nearest.gather(1, chosen[:, None])[:, 0]
    return KnnScores(
        q_class=torch.where(known, order[:, :2], NO_CLASS).to(torch.uint8),
        q=ranked[:, :2].masked_fill(~valid[:, None], torch.inf).float(),
        chosen=torch.where(valid, chosen, NO_CLASS).to(torch.uint8),
        nearest=own.masked_fill(~valid, torch.inf).float(),
        code=torch.where(valid, code, int(Decision.INVALID)).to(torch.uint8),
        near_tie=_near_tie(nearest, chosen, lead, found, operands, tie) & valid,
    )


def _code(
    nearest: Tensor,
    chosen: Tensor,
    lead: Tensor,
    found: Neighbours,
    pseudo: Tensor,
    operands: KnnOperands,
) -> Tensor:
    inside_NC = (nearest <= operands.gate) & torch.isfinite(nearest) & operands.gated
    gated = operands.gated[chosen]
    closest = operands.bank_label[found.row[:, 0]]
    accepted = torch.where(gated, inside_NC.gather(1, chosen[:, None])[:, 0], closest == chosen)
    accepted &= lead >= operands.margin[chosen]
    accepted &= operands.support[chosen] & ~operands.abstain[chosen]
    # one known class wins every vote: that is no evidence
    accepted &= operands.present.sum() >= 2
    novel = gated & ~inside_NC.any(1)
    undecided = torch.where(novel, int(Decision.NOVEL), int(Decision.AMBIGUOUS))
    same = chosen == pseudo.to(chosen.dtype)
    decided = torch.where(same, int(Decision.CONFIRMED), int(Decision.CORRECTED))
    return torch.where(accepted, decided, undecided)


def _near_tie(
    nearest: Tensor,
    chosen: Tensor,
    lead: Tensor,
    found: Neighbours,
    operands: KnnOperands,
    tie: float,
) -> Tensor:
    """Comparisons that another order of the same sums could turn."""
    band = tie * (1 + lead)
    near = torch.isfinite(lead) & (lead <= band)
    near |= torch.isfinite(lead) & ((lead - operands.margin[chosen]).abs() <= band)
    room = (nearest - operands.gate).abs() <= tie * (1 + operands.gate)
    near |= (room & operands.gated & torch.isfinite(nearest)).any(1)
    label = operands.bank_label[found.row]
    for first in (0, operands.neighbours - 1):  # who is nearest, and who is among the k
        if first + 1 < label.shape[1]:
            here, after = found.distance[:, first], found.distance[:, first + 1]
            near |= (after - here <= tie * after) & (label[:, first] != label[:, first + 1])
    return near
