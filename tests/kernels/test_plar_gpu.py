"""Every kernel on a GPU against the float64 reference; runs only where there is one."""

import pytest
import torch
from plar_cases import (
    TOLERANCES,
    Problem,
    largest_error,
    make_problem,
    pairwise_cases,
    wrong_decisions,
)

from geohsal.kernels.plar import (
    Kernel,
    PlarScores,
    plar_scores,
    prepare,
    reference_scores,
    triton_path,
)
from geohsal.kernels.plar.op import plar_scores_op
from geohsal.kernels.plar.operands import Decision

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
KERNELS = [Kernel.TORCH, Kernel.TORCH_HALF, Kernel.TRITON]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs start full of wrong values: whatever a kernel leaves out shows."""
    empty = triton_path._empty_scores

    def poisoned(pixels: int, device: torch.device) -> PlarScores:
        scores = empty(pixels, device)
        for column in scores:
            column.fill_(77 if column.dtype is torch.uint8 else True)
        return scores

    monkeypatch.setattr(triton_path, "_empty_scores", poisoned)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", pairwise_cases(), ids=str)
def test_every_kernel_meets_the_reference(case, kernel):
    _compare(case.make().to("cuda"), kernel, rule=case.rule, agreement=case.agreement)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("dim", "channels"), [(32, 64), (32, 256), (64, 64), (256, 256), (32, 512)]
)
def test_many_pixels_meet_the_reference(dim, channels, kernel):
    problem = make_problem(300_001, classes=20, dim=dim, channels=channels, offset=10.0, seed=dim)
    _compare(problem.to("cuda"), kernel)


def _compare(problem: Problem, kernel: Kernel, **options: object) -> None:
    inputs = (problem.features, problem.pseudo, problem.operands)
    wanted = reference_scores(*inputs, **options)
    found = plar_scores(*inputs, kernel=kernel, **options)
    assert not wrong_decisions(found, wanted).any()
    name = "torch-half cuda" if kernel is Kernel.TORCH_HALF else kernel.value
    far = wanted.mahalanobis > 0.1 * problem.operands.bias.shape[2]
    error = largest_error(found.mahalanobis[far], wanted.mahalanobis[far])
    assert error <= TOLERANCES[name].mahalanobis
    assert largest_error(found.euclid, wanted.euclid) <= TOLERANCES[name].euclid


@pytest.mark.parametrize("kernel", KERNELS)
def test_impossible_rows_are_invalid(kernel):
    problem = make_problem(500).to("cuda")
    broken = problem.features.clone()
    broken[3, 0], broken[7, 2], broken[9, 1], broken[11] = torch.nan, torch.inf, -torch.inf, 7e4
    scores = plar_scores(broken, problem.pseudo, problem.operands, kernel=kernel)
    invalid = (scores.code == int(Decision.INVALID)).nonzero()[:, 0]
    assert invalid.tolist() == [3, 7, 9, 11]


def test_the_fused_kernel_is_what_a_gpu_takes_by_itself():
    problem = make_problem(10, dim=32, channels=64).to("cuda")
    assert prepare(problem.operands).kernel is Kernel.TRITON
    wide = make_problem(10, dim=32, channels=600).to("cuda")
    assert prepare(wide.operands).kernel is Kernel.TORCH_HALF


def test_memory_does_not_grow_with_the_pixels():
    peaks = []
    for pixels in (1 << 19, 1 << 21):
        problem = make_problem(pixels, classes=6, dim=32, channels=64).to("cuda")
        prepared = prepare(problem.operands)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        scores = plar_scores(problem.features, problem.pseudo, problem.operands, prepared=prepared)
        outputs = sum(column.numel() * column.element_size() for column in scores)
        peaks.append(torch.cuda.max_memory_allocated() - before - outputs)
    assert max(peaks) <= 96 << 20


def test_rows_need_not_lie_together():
    problem = make_problem(1000, dim=32, channels=64).to("cuda")
    inputs = (problem.pseudo, problem.operands)
    apart = problem.features.T.contiguous().T
    assert torch.equal(
        plar_scores(apart, *inputs).code, plar_scores(problem.features, *inputs).code
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_operator_is_well_formed_on_a_gpu(kernel):
    problem = make_problem(20).to("cuda")
    prepared = prepare(problem.operands, kernel)
    arguments = (
        problem.features,
        problem.pseudo,
        *problem.operands.tensors().values(),
        prepared.tensors,
        problem.operands.scale,
        prepared.scale,
        0,
        True,
        1e-4,
        8,
        prepared.kernel.value,
    )
    torch.library.opcheck(plar_scores_op, arguments)
