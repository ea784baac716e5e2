"""Half precision: the radii hold, near ties are scored again, trapezoids skip only zeros."""

import pytest
import torch
from plar_cases import TOLERANCES, largest_error, wrong_decisions

from geohsal.kernels.plar import Kernel, Rule, plar_scores, prepare, reference_scores
from geohsal.kernels.plar.op import CPU_HALVES
from geohsal.kernels.plar.reference import centre
from geohsal.kernels.plar.rounding import error_factor, round_operands

needs_halves = pytest.mark.skipif(not CPU_HALVES, reason="no bfloat16 instructions")
SIZES = [(8, 12), (32, 64), (128, 128), (256, 256)]


def correlated(make_problem, dim: int, channels: int, *, offset: float = 10.0):
    """Features whose directions differ 20-fold in spread, as those behind a rectifier do."""
    generator = torch.Generator().manual_seed(dim)
    turn = torch.linalg.qr(
        torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    )[0]
    spread = turn * torch.logspace(0, -1.3, channels, dtype=torch.float64)
    project = torch.randn(dim, channels, generator=generator, dtype=torch.float64)
    return make_problem(
        20_000,
        dim=dim,
        channels=channels,
        offset=offset,
        projection=project @ torch.linalg.pinv(spread) / channels**0.5,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("dim", "channels"), SIZES)
def test_no_rounding_error_leaves_its_radius(make_problem, dim, channels, dtype):
    problem = correlated(make_problem, dim, channels)
    operands = problem.operands
    rounded = round_operands(operands, dtype)
    x, _ = centre(problem.features, operands, dtype=torch.float64)
    halves = (x.float() * rounded.scale).to(dtype).double()
    for c in range(operands.num_classes):
        exact = (x @ operands.whitening[c].double().T - operands.bias[c, 0]).square().sum(1)
        matrix = rounded.matrices[c + 1].double() * rounded.factor[c + 1]
        found = (halves @ matrix.T - rounded.bias[c + 1, 0]).square().sum(1)
        t = (x * rounded.scale).square() @ rounded.variance[c].double()
        t += rounded.variance_offset[c]
        radius = error_factor(dim) * (exact * t).sqrt() + 4 * t
        assert ((found - exact).abs() <= radius).all()
        assert (radius / (1 + exact)).median() < (0.05 if dtype is torch.bfloat16 else 0.01)


@needs_halves
@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize(("dim", "channels"), SIZES)
def test_half_precision_turns_no_decision(make_problem, dim, channels, rule):
    problem = correlated(make_problem, dim, channels)
    inputs = (problem.features, problem.pseudo, problem.operands)
    wanted = reference_scores(*inputs, rule=rule, agreement=True)
    found = plar_scores(*inputs, rule=rule, agreement=True, kernel=Kernel.TORCH_HALF)
    assert not wrong_decisions(found, wanted).any()
    assert largest_error(found.mahalanobis, wanted.mahalanobis) < TOLERANCES["torch-half"][0]
    assert largest_error(found.euclid, wanted.euclid) < TOLERANCES["torch-half"].euclid


@needs_halves
def test_half_precision_with_prototypes_and_any_chunk(make_problem):
    problem = make_problem(3001, classes=5, prototypes=3, dim=64, channels=80, offset=5.0)
    inputs = (problem.features, problem.pseudo, problem.operands)
    wanted = reference_scores(*inputs)
    for chunk_pixels in (100, 5000):
        found = plar_scores(*inputs, kernel=Kernel.TORCH_HALF, chunk_pixels=chunk_pixels)
        assert not wrong_decisions(found, wanted).any()


@needs_halves
def test_large_shapes_take_halves_by_themselves(make_problem):
    assert prepare(make_problem(1, dim=32, channels=64).operands).kernel is Kernel.TORCH
    assert prepare(make_problem(1, dim=128, channels=128).operands).kernel is Kernel.TORCH_HALF


@pytest.mark.parametrize(("dim", "channels"), [(3, 3), (64, 64), (128, 140), (200, 200)])
def test_whitening_is_a_trapezoid_of_the_same_metric(make_problem, dim, channels):
    problem = make_problem(50, dim=dim, channels=channels)
    matrix = problem.operands.whitening
    allowed = torch.ones(dim, channels, dtype=torch.bool).tril(channels - dim)
    assert (matrix[:, ~allowed] == 0).all()
    found = plar_scores(problem.features, problem.pseudo, problem.operands, kernel=Kernel.TORCH)
    wanted = reference_scores(problem.features, problem.pseudo, problem.operands)
    assert torch.allclose(found.q, wanted.q, rtol=2e-5, atol=1e-3)
