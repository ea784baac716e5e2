"""From distances to classes and decision codes; the logic that all paths share.

Suffixes: N pixels, C classes. Equal scores go to the lowest class id on every backend.
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


class _Ranking(NamedTuple):
    best: Tensor  # [N] int64
    second: Tensor  # [N] int64
    scores: Tensor  # [N, 2]


def decide(
    euclid_NC: Tensor,
    mahalanobis_NC: Tensor,
    *,
    pseudo: Tensor,
    valid: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> PlarScores:
    """Scores and codes from squared distances; rows that are not `valid` say so."""
    dtype = mahalanobis_NC.dtype
    absent = ~operands.present
    offset = (operands.logdet - 2 * operands.log_prior).to(dtype)
    q_NC = (mahalanobis_NC + offset).masked_fill(absent, torch.inf)
    euclid_NC = euclid_NC.masked_fill(absent, torch.inf)
    mahalanobis_NC = mahalanobis_NC.masked_fill(absent, torch.inf)
    by_q, by_e, by_m = _rank(q_NC), _rank(euclid_NC), _rank(mahalanobis_NC)
    chosen = by_q.best if settings.rule is Rule.ROBUST else by_e.best
    code = _code(mahalanobis_NC, by_q, by_e, by_m, chosen, pseudo, operands, settings)
    near = _near_tie(
        euclid_NC, mahalanobis_NC, by_q, by_e, by_m, chosen, offset, operands, settings
    )
    return PlarScores(
        euclid_class=_classes(by_e, valid),
        euclid=_blank(by_e.scores, valid),
        q_class=_classes(by_q, valid),
        q=_blank(by_q.scores, valid),
        chosen=_class_codes(chosen, valid & operands.present.any()),
        mahalanobis=_blank(_at(mahalanobis_NC, chosen), valid),
        code=torch.where(valid, code, int(Decision.INVALID)).to(torch.uint8),
        near_tie=near & valid,
    )


def _rank(score_NC: Tensor) -> _Ranking:
    """Two lowest scores; argmin and topk leave the order of ties to the backend, this does not."""
    ids = torch.arange(score_NC.shape[1], device=score_NC.device)
    last = score_NC.shape[1] - 1
    lowest = score_NC.amin(1)
    best = torch.where(score_NC == lowest[:, None], ids, last).amin(1)
    rest = score_NC.scatter(1, best[:, None], torch.inf)
    next_lowest = rest.amin(1)
    free = ids != best[:, None]
    second = torch.where((rest == next_lowest[:, None]) & free, ids, last).amin(1)
    return _Ranking(best, second, torch.stack([lowest, next_lowest], 1))


def _code(
    mahalanobis_NC: Tensor,
    by_q: _Ranking,
    by_e: _Ranking,
    by_m: _Ranking,
    chosen: Tensor,
    pseudo: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> Tensor:
    inside_NC = (mahalanobis_NC <= operands.gate) & operands.gated & operands.present
    gated = operands.gated[chosen]
    all_agree = (by_q.best == chosen) & (by_e.best == chosen) & (by_m.best == chosen)
    accepted = torch.where(gated, _at(inside_NC, chosen), all_agree)
    if settings.rule is Rule.ROBUST:
        lead = by_q.scores[:, 1] - by_q.scores[:, 0]
        accepted &= lead >= operands.margin[chosen]
        if settings.agreement:
            accepted &= (by_e.best == chosen) | (by_e.second == chosen)
    else:
        accepted &= by_m.best == chosen
    accepted &= operands.support[chosen] & ~operands.abstain[chosen]
    # one known class wins every comparison: that is no evidence
    accepted &= operands.present.sum() >= 2
    novel = gated & ~inside_NC.any(1)
    undecided = torch.where(novel, int(Decision.NOVEL), int(Decision.AMBIGUOUS))
    same = chosen == pseudo.to(chosen.dtype)
    decided = torch.where(same, int(Decision.CONFIRMED), int(Decision.CORRECTED))
    return torch.where(accepted, decided, undecided)


def _near_tie(
    euclid_NC: Tensor,
    mahalanobis_NC: Tensor,
    by_q: _Ranking,
    by_e: _Ranking,
    by_m: _Ranking,
    chosen: Tensor,
    offset: Tensor,
    operands: PlarOperands,
    settings: Settings,
) -> Tensor:
    """Comparisons that a lower precision could turn; tolerances are relative to the operands."""
    size = mahalanobis_NC.gather(1, torch.stack([by_q.best, by_q.second], 1)).sum(1)
    size = 1 + size + offset[by_q.best].abs() + offset[by_q.second].abs()
    lead = by_q.scores[:, 1] - by_q.scores[:, 0]
    near = _within(lead, settings.tie * size)
    near |= _within(lead - operands.margin[chosen], settings.tie * size)
    for ranking in (by_e, by_m):
        first, second = ranking.scores.unbind(1)
        near |= _within(second - first, settings.tie * (1 + first + second))
    gate = operands.gate
    room = _within(mahalanobis_NC - gate, settings.tie * (1 + mahalanobis_NC + gate))
    near |= (room & operands.gated & operands.present).any(1)
    if settings.agreement:
        own = _at(euclid_NC, chosen)[:, None]
        close = _within(euclid_NC - own, settings.tie * (1 + euclid_NC + own))
        near |= close.sum(1) > 1  # the class itself is always one
    return near


def _within(difference: Tensor, tolerance: Tensor) -> Tensor:
    """Infinite scores (absent classes) are near nothing."""
    return torch.isfinite(difference) & (difference.abs() <= tolerance)


def _at(value_NC: Tensor, index: Tensor) -> Tensor:
    return value_NC.gather(1, index[:, None])[:, 0]


def _blank(score: Tensor, valid: Tensor) -> Tensor:
    keep = valid if score.ndim == 1 else valid[:, None]
    return score.masked_fill(~keep, torch.inf).float()


def _class_codes(index: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, index, NO_CLASS).to(torch.uint8)


def _classes(ranking: _Ranking, valid: Tensor) -> Tensor:
    known = torch.isfinite(ranking.scores) & valid[:, None]
    return _class_codes(torch.stack([ranking.best, ranking.second], 1), known)
