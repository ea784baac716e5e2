"""The chunked operator against the float64 reference, and its behaviour as a torch op."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from geohsal.kernels.plar import (
    NO_CLASS,
    Decision,
    Kernel,
    PlarScores,
    Rule,
    plar_scores,
    prepare,
    reference_scores,
)
from geohsal.kernels.plar.decision import Settings
from geohsal.kernels.plar.op import CPU_HALVES, plar_scores_op
from geohsal.kernels.plar.torch_path import chunked_scores

# largest error relative to 1 + value, by offset of the features in standard deviations
TOLERANCE = {0.0: 2e-5, 10.0: 2e-5}
KERNELS = [Kernel.TORCH, Kernel.TORCH_HALF] if CPU_HALVES else [Kernel.TORCH]
SHAPES = [  # pixels, classes, prototypes, dim, channels
    (1, 1, 1, 1, 1),
    (37, 2, 1, 3, 5),
    (123, 5, 3, 7, 19),
    (1000, 20, 1, 32, 64),
    (300, 254, 1, 6, 16),
]


def vars_of(problem):
    return problem.features, problem.pseudo, problem.operands


def _close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    finite = torch.isfinite(wanted)
    assert torch.equal(finite, torch.isfinite(found))
    error = (found - wanted)[finite].abs() / (1 + wanted[finite].abs())
    assert error.numel() == 0 or error.max() < tolerance


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("offset", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES)
def test_chunked_path_meets_the_reference(make_problem, shape, offset, rule):
    pixels, classes, prototypes, dim, channels = shape
    problem = make_problem(
        pixels,
        classes=classes,
        prototypes=prototypes,
        dim=dim,
        channels=channels,
        offset=offset,
    )
    inputs = (problem.features, problem.pseudo, problem.operands)
    wanted = reference_scores(*inputs, rule=rule, agreement=True)
    found = plar_scores(*inputs, rule=rule, agreement=True, chunk_pixels=100)
    for name in ("euclid", "q", "mahalanobis"):
        _close(getattr(found, name), getattr(wanted, name), TOLERANCE[offset])
    assert torch.equal(found.code, wanted.code)  # near ties are scored again in float64
    assert torch.equal(found.chosen, wanted.chosen)
    assert torch.equal(found.q_class[:, 0], wanted.q_class[:, 0])


def test_float32_alone_differs_only_where_it_says_so(make_problem):
    gate = torch.full((6,), 14.0)
    problem = make_problem(20_000, dim=16, channels=32, offset=10.0, gate=gate)
    inputs = (problem.features, problem.pseudo, problem.operands)
    wanted = reference_scores(*inputs)
    settings = Settings(Rule.ROBUST, agreement=False, tie=0.0)  # nothing is scored again
    plain = chunked_scores(*inputs, settings=settings, chunk_pixels=4096)
    differs = (plain.code != wanted.code) | (plain.chosen != wanted.chosen)
    assert not (differs & ~wanted.near_tie).any()
    assert wanted.near_tie.float().mean() < 0.01
    assert len(set(wanted.code.tolist())) == 4  # the problem visits every outcome


def test_features_of_a_large_mean_lose_no_decision(make_problem):
    problem = make_problem(2000, offset=1000.0)
    inputs = (problem.features, problem.pseudo, problem.operands)
    assert torch.equal(plar_scores(*inputs).code, reference_scores(*inputs).code)


def test_chunks_and_order_change_nothing(make_problem):
    problem = make_problem(1001)
    order = torch.randperm(1001, generator=torch.Generator().manual_seed(1))
    whole = plar_scores(problem.features, problem.pseudo, problem.operands, chunk_pixels=1001)
    cut = plar_scores(problem.features, problem.pseudo, problem.operands, chunk_pixels=64)
    mixed = plar_scores(problem.features[order], problem.pseudo[order], problem.operands)
    for name in ("code", "chosen", "q_class", "euclid_class"):
        assert torch.equal(getattr(whole, name), getattr(cut, name)), name
        assert torch.equal(getattr(whole, name)[order], getattr(mixed, name)), name


@pytest.mark.parametrize("score", [plar_scores, reference_scores])
def test_impossible_rows_are_invalid_and_disturb_no_other(make_problem, score):
    problem = make_problem(50)
    broken = problem.features.clone()
    broken[3, 0], broken[7, 2], broken[9, 1], broken[11] = torch.nan, torch.inf, -torch.inf, 7e4
    clean = score(problem.features, problem.pseudo, problem.operands)
    scores = score(broken, problem.pseudo, problem.operands)
    bad = torch.zeros(50, dtype=torch.bool)
    bad[[3, 7, 9, 11]] = True
    assert torch.equal(scores.code == Decision.INVALID, bad)
    assert (scores.q_class[bad] == NO_CLASS).all()
    assert (scores.chosen[bad] == NO_CLASS).all()
    assert torch.isinf(scores.q[bad]).all()
    assert not scores.near_tie[bad].any()
    assert torch.equal(scores.code[~bad], clean.code[~bad])
    assert not torch.isnan(scores.mahalanobis).any()


def test_ties_go_to_the_lowest_class_in_every_path(make_problem):
    problem = make_problem(400, classes=3)
    copies = [0, 1, 2, 0, 1, 2]  # classes 3 to 5 repeat 0 to 2
    doubled = {
        name: tensor[copies]
        for name, tensor in problem.operands.tensors().items()
        if name not in ("center", "projection")
    }
    operands = replace(problem.operands, **doubled)
    for score in (plar_scores, reference_scores):
        scores = score(problem.features, problem.pseudo, operands)
        assert (scores.q_class[:, 0] < 3).all()
        assert torch.equal(scores.q_class[:, 1], scores.q_class[:, 0] + 3)
        assert (scores.euclid_class[:, 0] < 3).all()
        assert scores.near_tie.all()
        assert not (scores.code == Decision.CORRECTED).any()  # no lead, no decision


def test_relabelled_classes_give_relabelled_decisions(make_problem):
    problem = make_problem(500)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    moved = {
        name: tensor[order]
        for name, tensor in problem.operands.tensors().items()
        if name not in ("center", "projection")
    }
    new_id = torch.argsort(order)
    old = plar_scores(problem.features, problem.pseudo, problem.operands)
    new = plar_scores(problem.features, new_id[problem.pseudo], replace(problem.operands, **moved))
    assert torch.equal(old.code, new.code)
    assert torch.equal(new_id[old.chosen.long()], new.chosen.long())


def test_empty_input_and_half_precision_are_taken(make_problem):
    problem = make_problem(40)
    empty = plar_scores(problem.features[:0], problem.pseudo[:0], problem.operands)
    assert [len(column) for column in empty] == [0] * 8
    half = problem.features.bfloat16()
    scores = plar_scores(half, problem.pseudo, problem.operands)
    assert torch.equal(scores.code, reference_scores(half, problem.pseudo, problem.operands).code)


def test_autocast_does_not_reach_the_distances(make_problem):
    problem = make_problem(200)
    inputs = (problem.features, problem.pseudo, problem.operands)
    plain = plar_scores(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = plar_scores(*inputs)
    assert torch.equal(plain.q, cast.q)


def test_a_lower_matmul_precision_is_overruled_and_left_as_it_was(make_problem):
    problem = make_problem(200)
    inputs = (problem.features, problem.pseudo, problem.operands)
    plain = plar_scores(*inputs)
    asked = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        fast = plar_scores(*inputs)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(asked)
    assert torch.equal(plain.q, fast.q)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_operator_is_well_formed(make_problem, kernel):
    problem = make_problem(20)
    prepared = prepare(problem.operands, kernel)
    arguments = (
        problem.features,
        problem.pseudo,
        *problem.operands.tensors().values(),
        prepared.tensors,
        problem.operands.scale,
        prepared.scale,
        int(Rule.ROBUST),
        True,
        1e-4,
        8,
        prepared.kernel.value,
    )
    torch.library.opcheck(plar_scores_op, arguments)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_operator_compiles_without_a_graph_break(make_problem, kernel):
    problem = make_problem(20)
    prepared = prepare(problem.operands, kernel)

    def scored(features: Tensor) -> PlarScores:
        return plar_scores(features * 1.0, problem.pseudo, problem.operands, prepared=prepared)

    compiled = torch.compile(scored, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(compiled(problem.features), scored(problem.features), strict=True):
        assert torch.equal(found, wanted)


def test_the_automatic_kernel_compiles_too(make_problem):
    problem = make_problem(20)
    compiled = torch.compile(plar_scores, fullgraph=True, backend="aot_eager")
    found = compiled(problem.features, problem.pseudo, problem.operands)
    assert torch.equal(found.code, plar_scores(*vars_of(problem)).code)
