"""Votes by hand, the operator against the reference, and its behaviour as a torch op."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from geohsal.errors import KernelError
from geohsal.kernels.knn import (
    KnnOperands,
    KnnScores,
    class_scores,
    knn_scores,
    reference_scores,
    require_backend,
)
from geohsal.kernels.knn.op import knn_scores_op
from geohsal.kernels.plar import NO_CLASS, Decision

SHAPES = [  # pixels, bank, neighbours, classes, dim, channels
    (1, 1, 16, 1, 1, 1),
    (37, 5, 16, 3, 3, 5),
    (123, 129, 1, 7, 7, 19),
    (123, 2500, 16, 20, 64, 64),
    (37, 5000, 200, 5, 32, 40),
]


def _same(found: KnnScores, wanted: KnnScores, *, atol: float = 1e-5) -> None:
    for name in ("q_class", "chosen", "code"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    for name in ("q", "nearest"):
        torch.testing.assert_close(
            getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=atol
        )


def _line(bank: list[float], label: list[int], classes: int = 2, **changes: object) -> KnnOperands:
    """A bank on a line; every class has weight one and gates are open."""
    values = {
        "center": torch.zeros(1),
        "projection": torch.ones(1, 1),
        "bank": torch.tensor(bank)[:, None],
        "bank_label": torch.tensor(label),
        "class_weight": torch.ones(classes),
        "gate": torch.full((classes,), 100.0),
        "gated": torch.ones(classes, dtype=torch.bool),
        "margin": torch.zeros(classes),
        "support": torch.ones(classes, dtype=torch.bool),
        "abstain": torch.zeros(classes, dtype=torch.bool),
        "scale": 1.0,
        "neighbours": 3,
    }
    return KnnOperands(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [knn_scores, reference_scores])
def test_votes_by_hand(score):
    operands = _line([0.0, 1.0, -2.0, 5.0], [0, 1, 0, 1])
    found = score(torch.zeros(1, 1), torch.tensor([0]), operands)
    ballots = [2 / (1 + 0), 2 / (1 + 1 / 4), 2 / (1 + 4 / 4)]  # squared distances 0, 1, 4
    total = sum(ballots)
    zero = (ballots[0] + ballots[2] + 0.5) / (total + 1)
    one = (ballots[1] + 0.5) / (total + 1)
    assert found.q[0].tolist() == pytest.approx([-2 * math.log(zero), -2 * math.log(one)])
    assert found.q_class[0].tolist() == [0, 1]
    assert found.nearest.item() == 0
    assert found.code.item() == Decision.CONFIRMED


def test_weights_turn_votes_and_unanimity_means_the_same_for_every_class():
    operands = _line([0.0, 1.0, -2.0, 5.0], [0, 1, 0, 1])
    pixel, pseudo = torch.zeros(1, 1), torch.tensor([0])
    rare = replace(operands, class_weight=torch.tensor([0.01, 1.0]))
    assert knn_scores(pixel, pseudo, rare).chosen.item() == 1
    leads = []
    for weight in (0.01, 1.0):
        alone = _line([0.0, 1.0, 2.0, 99.0], [0, 0, 0, 1], class_weight=torch.tensor([weight, 1.0]))
        q = knn_scores(pixel, pseudo, alone).q[0]
        leads.append((q[1] - q[0]).item())
    assert leads[0] == pytest.approx(leads[1])


@pytest.mark.parametrize("score", [knn_scores, reference_scores])
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, Decision.CORRECTED),
        ({"gate": torch.tensor([0.5, 100.0])}, Decision.AMBIGUOUS),  # class 1 is inside its gate
        ({"gate": torch.tensor([0.5, 0.5])}, Decision.NOVEL),
        ({"margin": torch.tensor([9.0, 0.0])}, Decision.AMBIGUOUS),
        ({"support": torch.tensor([False, True])}, Decision.AMBIGUOUS),
        ({"abstain": torch.tensor([True, False])}, Decision.AMBIGUOUS),
        ({"gated": torch.tensor([False, True])}, Decision.CORRECTED),
        ({"gated": torch.tensor([False, True]), "bank_label": torch.tensor([1, 0, 0, 1])},
         Decision.AMBIGUOUS),  # without a gate the nearest pixel must agree
        ({"class_weight": torch.tensor([1.0, 0.0]), "bank_label": torch.zeros(4).long()},
         Decision.AMBIGUOUS),  # one known class
    ],
)  # fmt: skip
def test_each_demand_has_its_decision(score, changes, code):
    operands = _line([1.0, 1.5, -1.4, 9.0], [0, 0, 1, 1], **changes)
    found = score(torch.zeros(1, 1), torch.tensor([1]), operands)
    assert found.chosen.item() == 0
    assert found.code.item() == code


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_operator_meets_the_reference(make_knn_problem, shape, offset):
    pixels, bank, neighbours, classes, dim, channels = shape
    problem = make_knn_problem(
        pixels, bank=bank, neighbours=neighbours, classes=classes, dim=dim, channels=channels,
        offset=offset,
    )  # fmt: skip
    inputs = (problem.features, problem.pseudo, problem.operands)
    _same(knn_scores(*inputs, chunk_pixels=50), reference_scores(*inputs))


def test_every_outcome_occurs(make_knn_problem):
    problem = make_knn_problem(2000, gate=torch.full((5,), 1.0))
    found = knn_scores(problem.features, problem.pseudo.flip(0), problem.operands)
    assert set(found.code.tolist()) == {1, 2, 3, 4}
    assert found.near_tie.float().mean() < 0.01


def test_chunks_and_order_change_nothing(make_knn_problem):
    problem = make_knn_problem(1001, bank=3000)
    order = torch.randperm(1001, generator=torch.Generator().manual_seed(1))
    whole = knn_scores(problem.features, problem.pseudo, problem.operands, chunk_pixels=2000)
    cut = knn_scores(problem.features, problem.pseudo, problem.operands, chunk_pixels=64)
    mixed = knn_scores(problem.features[order], problem.pseudo[order], problem.operands)
    _same(whole, cut)
    _same(KnnScores(*(column[order] for column in whole)), mixed)


@pytest.mark.parametrize("score", [knn_scores, reference_scores])
def test_impossible_rows_are_invalid_and_disturb_no_other(make_knn_problem, score):
    problem = make_knn_problem(50)
    broken = problem.features.clone()
    broken[3, 0], broken[7, 2], broken[9, 1], broken[11] = torch.nan, torch.inf, -torch.inf, 7e4
    clean = score(problem.features, problem.pseudo, problem.operands)
    found = score(broken, problem.pseudo, problem.operands)
    bad = torch.zeros(50, dtype=torch.bool)
    bad[[3, 7, 9, 11]] = True
    assert (found.code[bad] == Decision.INVALID).all()
    assert (found.q_class[bad] == NO_CLASS).all()
    assert (found.chosen[bad] == NO_CLASS).all()
    assert torch.isinf(found.q[bad]).all()
    assert torch.isinf(found.nearest[bad]).all()
    _same(*(KnnScores(*(column[~bad] for column in s)) for s in (found, clean)))


def test_empty_input_and_half_precision_are_taken(make_knn_problem):
    problem = make_knn_problem(40)
    empty = knn_scores(problem.features[:0], problem.pseudo[:0], problem.operands)
    assert [len(column) for column in empty] == [0] * 6
    half = problem.features.bfloat16()
    inputs = (half, problem.pseudo, problem.operands)
    _same(knn_scores(*inputs), reference_scores(*inputs))


def test_autocast_and_a_lower_precision_do_not_reach_the_distances(make_knn_problem):
    problem = make_knn_problem(100, bank=3000)
    inputs = (problem.features, problem.pseudo, problem.operands)
    plain = knn_scores(*inputs)
    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast = knn_scores(*inputs)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(asked)
    assert torch.equal(plain.q, fast.q)


def test_scores_of_all_classes_are_those_of_the_best(make_knn_problem):
    problem = make_knn_problem(60)
    found = class_scores(problem.features, problem.operands)
    wanted = knn_scores(problem.features, problem.pseudo, problem.operands)
    assert torch.equal(found.q.argmin(1), wanted.chosen.long())
    torch.testing.assert_close(found.q.amin(1).float(), wanted.q[:, 0])
    assert torch.isinf(found.distance).any()  # a class without a neighbour
    broken = problem.features.clone()
    broken[7, 0] = 7e4
    again = class_scores(broken, problem.operands)
    assert torch.isinf(again.distance[7]).all()
    assert (again.q[7] == again.q[7, 0]).all()
    assert torch.equal(again.q[8:], found.q[8:])


def test_faiss_decides_alike(make_knn_problem):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed: pip install geohsal[faiss]")
    for shape in ({"bank": 3}, {"bank": 4000, "dim": 32, "offset": 50.0}):
        problem = make_knn_problem(200, **shape)
        inputs = (problem.features, problem.pseudo, problem.operands)
        _same(knn_scores(*inputs, backend="faiss"), reference_scores(*inputs))


def test_a_missing_faiss_is_one_clear_line(make_knn_problem, monkeypatch):
    problem = make_knn_problem(4)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(KernelError, match=r"faiss is not installed; pip install geohsal\[faiss\]"):
        knn_scores(problem.features, problem.pseudo, problem.operands, backend="faiss")
    require_backend("torch", torch.device("cpu"))
    with pytest.raises(KernelError, match="the features are on meta"):
        require_backend("faiss", torch.device("meta"))


def test_the_operator_is_well_formed(make_knn_problem):
    problem = make_knn_problem(20)
    tensors = problem.operands.tensors().values()
    arguments = (problem.features, problem.pseudo, *tensors, 1.0, 16, "torch", 1e-6, 8)
    torch.library.opcheck(knn_scores_op, arguments)


def test_the_operator_compiles_without_a_graph_break(make_knn_problem):
    problem = make_knn_problem(20)

    def scored(features: Tensor) -> KnnScores:
        return knn_scores(features * 1.0, problem.pseudo, problem.operands)

    compiled = torch.compile(scored, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(compiled(problem.features), scored(problem.features), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("bank", [5, 3000, 200_000])
def test_the_operator_meets_the_reference_on_cuda(make_knn_problem, bank):
    problem = make_knn_problem(777, bank=bank, dim=48, channels=64, offset=10.0)
    wanted = reference_scores(problem.features, problem.pseudo, problem.operands)
    found = knn_scores(problem.features.cuda(), problem.pseudo.cuda(), problem.operands.to("cuda"))
    _same(KnnScores(*(column.cpu() for column in found)), wanted, atol=1e-4)
