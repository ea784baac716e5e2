"""Every branch of both rules, against a plain loop over pixels and hand-made cases."""

import math
from dataclasses import replace

import pytest
import torch

from geohsal.kernels.plar import NO_CLASS, Decision, PlarOperands, Rule, plar_scores
from geohsal.kernels.plar.reference import centre


def _by_hand(row: int, problem, rule: Rule, agreement: bool) -> Decision:
    """One pixel in float64 Python, straight from the definition."""
    operands: PlarOperands = problem.operands
    x, _ = centre(problem.features[row : row + 1], operands, dtype=torch.float64)
    m, q, e = {}, {}, {}
    for c in range(operands.num_classes):
        if not math.isfinite(operands.log_prior[c]):
            continue
        white = x[0] @ operands.whitening[c].double().T
        flat = x[0] @ operands.projection.double().T
        m[c] = min(float((white - b.double()).square().sum()) for b in operands.bias[c])
        e[c] = min(float((flat - p.double()).square().sum()) for p in operands.means[c])
        q[c] = m[c] + float(operands.logdet[c]) - 2 * float(operands.log_prior[c])

    def ranked(score: dict[int, float]) -> list[int]:
        return sorted(score, key=lambda c: (score[c], c))

    best = ranked(q)[0] if rule is Rule.ROBUST else ranked(e)[0]
    passes = {c: m[c] <= float(operands.gate[c]) for c in m if operands.gated[c]}
    agree = ranked(q)[0] == ranked(e)[0] == ranked(m)[0] == best
    accept = passes.get(best, agree)
    accept = accept and bool(operands.support[best]) and not bool(operands.abstain[best])
    if rule is Rule.ROBUST:
        accept = accept and q[ranked(q)[1]] - q[best] >= float(operands.margin[best])
        accept = accept and (not agreement or best in ranked(e)[:2])
    else:
        accept = accept and ranked(m)[0] == best
    if accept:
        return Decision.CONFIRMED if best == int(problem.pseudo[row]) else Decision.CORRECTED
    return Decision.NOVEL if best in passes and not any(passes.values()) else Decision.AMBIGUOUS


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("agreement", [False, True])
def test_decisions_follow_the_definition(make_problem, rule, agreement):
    flags = torch.ones(6, dtype=torch.bool)
    problem = make_problem(
        300,
        prototypes=2,
        gate=torch.tensor([4.0, 8, 12, 16, 20, 24]),
        gated=flags.clone().index_fill(0, torch.tensor([1]), False),
        margin=torch.tensor([0.0, 1, 2, 3, 4, 5]),
        support=flags.clone().index_fill(0, torch.tensor([2]), False),
        abstain=~flags.clone().index_fill(0, torch.tensor([3]), False),
        log_prior=torch.tensor([0.0, 0, 0, 0, 0, -torch.inf], dtype=torch.float64),
    )
    scores = plar_scores(
        problem.features, problem.pseudo, problem.operands, rule=rule, agreement=agreement
    )
    wanted = [int(_by_hand(row, problem, rule, agreement)) for row in range(300)]
    assert scores.code.tolist() == wanted
    assert set(wanted) == {1, 2, 3, 4}


def test_a_class_without_labels_is_never_first_or_second(make_problem):
    prior = torch.tensor([-torch.inf, 0, -torch.inf, 0, 0], dtype=torch.float64)
    problem = make_problem(300, classes=5, log_prior=prior)
    for rule in Rule:
        scores = plar_scores(problem.features, problem.pseudo, problem.operands, rule=rule)
        seen = set(scores.q_class.flatten().tolist()) | set(scores.euclid_class.flatten().tolist())
        assert seen == {1, 3, 4}


@pytest.mark.parametrize("known", [0, 1])
def test_fewer_than_two_known_classes_decide_nothing(make_problem, known):
    prior = torch.full((3,), -torch.inf, dtype=torch.float64)
    prior[:known] = 0.0
    problem = make_problem(100, classes=3, log_prior=prior)
    for rule in Rule:
        scores = plar_scores(problem.features, problem.pseudo, problem.operands, rule=rule)
        assert not torch.isin(scores.code, torch.tensor([1, 2], dtype=torch.uint8)).any()
        assert (scores.q_class[:, known:] == NO_CLASS).all()
        assert not torch.isnan(scores.q).any()
        assert (scores.chosen == (0 if known else NO_CLASS)).all()


def test_an_unreachable_margin_and_an_infinite_gate_are_plain_numbers(make_problem):
    problem = make_problem(200)
    never = replace(problem.operands, margin=torch.full((6,), torch.inf))
    codes = plar_scores(problem.features, problem.pseudo, never).code
    assert set(codes.tolist()) <= {int(Decision.AMBIGUOUS), int(Decision.NOVEL)}
    open_gate = replace(problem.operands, gate=torch.full((6,), torch.inf))
    codes = plar_scores(problem.features, problem.pseudo, open_gate).code
    assert not (codes == Decision.NOVEL).any()


def test_operands_of_wrong_shape_are_our_own_mistake(make_problem):
    operands = make_problem(1).operands
    with pytest.raises(AssertionError, match="projection"):
        replace(operands, projection=operands.projection[:, :-1])
