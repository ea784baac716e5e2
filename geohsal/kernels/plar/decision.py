"""From distances to classes and decision codes; the logic that all paths share.

Every score is an interval: its value and a radius that holds what the path's precision may have
changed. A pixel is a near tie where any comparison that its decision rests on could turn within
the intervals. Suffixes: C classes, N pixels. Equal scores go to the lowest class id everywhere.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geohsal.kernels.plar.operands import NO_CLASS, Decision, PlarOperands, PlarScores, Rule


class Settings(NamedTuple):
    """Scalars of the operator."""

    rule: Rule
    agreement: bool
    tie: float


class Distances(NamedTuple):
    """Squared distances of N pixels to C classes and the radii of their errors."""

    euclid_CN: Tensor
    euclid_radius_CN: Tensor
    mahalanobis_CN: Tensor
    mahalanobis_radius_CN: Tensor


class _Ranking(NamedTuple):
    best: Tensor  # [N] int64
    second: Tensor  # [N] int64
    scores: Tensor  # [2, N]
    lower: Tensor  # [3, N] least lower bounds, ascending
    upper: Tensor  # [2, N] least upper bounds


def decide(
    distances: Distances,
    *,
    pseudo: Tensor,
    valid: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> PlarScores:
    """Scores and codes from squared distances; rows that are not `valid` say so."""
    mahalanobis_CN = distances.mahalanobis_CN
    present = operands.present[:, None]
    offset = (operands.logdet - 2 * operands.log_prior).to(mahalanobis_CN.dtype)[:, None]
    offset = offset.masked_fill(~present, 0.0)
    radius_CN = distances.mahalanobis_radius_CN
    by_q = _rank(mahalanobis_CN + offset, radius_CN + settings.tie * offset.abs(), present)
    by_e = _rank(distances.euclid_CN, distances.euclid_radius_CN, present)
    by_m = _rank(mahalanobis_CN, radius_CN, present)
    chosen = by_q.best if settings.rule is Rule.ROBUST else by_e.best
    code = _code(mahalanobis_CN, by_q, by_e, by_m, chosen, pseudo, operands, settings)
    near = _near_tie(mahalanobis_CN, radius_CN, by_q, by_e, by_m, chosen, operands, settings)
    own = _at(mahalanobis_CN, chosen).masked_fill(~operands.present[chosen], torch.inf)
    return PlarScores(
        euclid_class=_classes(by_e, valid),
        euclid=_blank(by_e.scores.T, valid),
        q_class=_classes(by_q, valid),
        q=_blank(by_q.scores.T, valid),
        chosen=_class_codes(chosen, valid & operands.present.any()),
        mahalanobis=_blank(own, valid),
        code=torch.where(valid, code, int(Decision.INVALID)).to(torch.uint8),
        near_tie=near & valid,
    )


def _rank(score_CN: Tensor, radius_CN: Tensor, present: Tensor) -> _Ranking:
    """Two lowest scores and the least bounds, class by class as the fused kernel goes.

    argmin and topk leave the order of ties to the backend, and reduce over classes slowly.
    """
    score_CN = score_CN.masked_fill(~present, torch.inf)
    lower_CN, upper_CN = score_CN - radius_CN, score_CN + radius_CN
    first = torch.full_like(score_CN[0], torch.inf)
    second, low1, low2, low3, high1, high2 = (first for _ in range(6))
    best = torch.zeros_like(first, dtype=torch.int64)
    runner = best
    for number, (score, lower, upper) in enumerate(zip(score_CN, lower_CN, upper_CN, strict=True)):
        wins = score < first
        runner = torch.where(wins, best, torch.where(score < second, number, runner))
        best = torch.where(wins, number, best)
        second = torch.minimum(second, torch.maximum(first, score))
        first = torch.minimum(first, score)
        low3 = torch.minimum(low3, torch.maximum(low2, lower))
        low2 = torch.minimum(low2, torch.maximum(low1, lower))
        low1 = torch.minimum(low1, lower)
        high2 = torch.minimum(high2, torch.maximum(high1, upper))
        high1 = torch.minimum(high1, upper)
    return _Ranking(
        best,
        runner,
        torch.stack([first, second]),
        torch.stack([low1, low2, low3]),
        torch.stack([high1, high2]),
    )


def _code(
    mahalanobis_CN: Tensor,
    by_q: _Ranking,
    by_e: _Ranking,
    by_m: _Ranking,
    chosen: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> Tensor:
    gated_C1 = (operands.gated & operands.present)[:, None]
    inside_CN = (mahalanobis_CN <= operands.gate[:, None]) & gated_C1
    gated = operands.gated[chosen]
    all_agree = (by_q.best == chosen) & (by_e.best == chosen) & (by_m.best == chosen)
    accepted = torch.where(gated, _at(inside_CN, chosen), all_agree)
    if settings.rule is Rule.ROBUST:
        lead = by_q.scores[1] - by_q.scores[0]
        accepted &= lead >= operands.margin[chosen]
        if settings.agreement:
            accepted &= (by_e.best == chosen) | (by_e.second == chosen)
    else:
        accepted &= by_m.best == chosen
    accepted &= operands.support[chosen] & ~operands.abstain[chosen]
    # one known class wins every comparison: that is no evidence
    accepted &= operands.present.sum() >= 2
    novel = gated & ~inside_CN.any(0)
    undecided = torch.where(novel, int(Decision.NOVEL), int(Decision.AMBIGUOUS))
    same = chosen == pseudo.to(chosen.dtype)
    decided = torch.where(same, int(Decision.CONFIRMED), int(Decision.CORRECTED))
    return torch.where(accepted, decided, undecided)


def _near_tie(
    mahalanobis_CN: Tensor,
    radius_CN: Tensor,
    by_q: _Ranking,
    by_e: _Ranking,
    by_m: _Ranking,
    chosen: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> Tensor:
    """Comparisons that the radii could turn. Absent classes are infinite and near nothing."""
    near = _overlap(by_q) | _overlap(by_e)
    gated = operands.gated[chosen]
    if settings.rule is Rule.ROBUST:
        margin = operands.margin[chosen]
        least_lead = by_q.lower[1] - by_q.upper[0]
        most_lead = by_q.upper[1] - by_q.lower[0]
        near |= (least_lead < margin) & (margin <= most_lead) & torch.isfinite(by_q.upper[1])
        near |= _overlap(by_m) & ~gated
        if settings.agreement:
            near |= (by_e.lower[2] <= by_e.upper[1]) & torch.isfinite(by_e.lower[2])
    else:
        near |= _overlap(by_m)
    gate = operands.gate[:, None]
    radius_CN = radius_CN + settings.tie * gate.masked_fill(torch.isinf(gate), 0.0)
    counts = (operands.gated & operands.present)[:, None]
    maybe = ((mahalanobis_CN - gate).abs() <= radius_CN) & counts
    certain = (mahalanobis_CN + radius_CN < gate) & counts
    near |= _at(maybe, chosen)
    return near | (maybe.any(0) & ~certain.any(0))


def _overlap(ranking: _Ranking) -> Tensor:
    """Another class could be the best."""
    return (ranking.lower[1] <= ranking.upper[0]) & torch.isfinite(ranking.lower[1])


def _at(value_CN: Tensor, index: Tensor) -> Tensor:
    return value_CN.gather(0, index[None])[0]


def _blank(score: Tensor, valid: Tensor) -> Tensor:
    keep = valid if score.ndim == 1 else valid[:, None]
    return score.masked_fill(~keep, torch.inf).float()


def _class_codes(index: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, index, NO_CLASS).to(torch.uint8)


def _classes(ranking: _Ranking, valid: Tensor) -> Tensor:
    known = torch.isfinite(ranking.scores.T) & valid[:, None]
    return _class_codes(torch.stack([ranking.best, ranking.second], 1), known)
