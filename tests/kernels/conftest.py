"""Problems for the PLAR operators."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from plar_cases import Problem, make_problem
from torch import Tensor

from geohsal.kernels.knn import KnnOperands, class_weights

ProblemFactory = Callable[..., Problem]


@pytest.fixture(name="make_problem")
def _make_problem() -> ProblemFactory:
    return make_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnProblem:
    """Operands with features and pseudo-labels to score."""

    operands: KnnOperands
    features: Tensor
    pseudo: Tensor


@pytest.fixture
def make_knn_problem() -> Callable[..., KnnProblem]:
    return _knn_problem


def _knn_problem(
    pixels: int = 300,
    *,
    bank: int = 400,
    classes: int = 5,
    dim: int = 8,
    channels: int = 12,
    neighbours: int = 16,
    offset: float = 0.0,
    seed: int = 0,
    **changes: Tensor,
) -> KnnProblem:
    """Classes that overlap, in a bank of unequal shares."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    center, means = normal(channels) + offset, normal(classes, channels)
    projection = (normal(dim, channels) / channels**0.5).float()

    def draw(count: int) -> tuple[Tensor, Tensor]:
        share = torch.rand(count, generator=generator)
        label = (share.square() * classes).long()  # low ids have many pixels
        return center + means[label] + 0.8 * normal(count, channels), label

    labelled, bank_label = draw(bank)
    features, pseudo = draw(pixels)
    values = {
        "gate": torch.full((classes,), 0.5 * dim),
        "gated": torch.arange(classes) % 4 != 3,
        "margin": torch.full((classes,), 2.0),
        "support": torch.ones(classes, dtype=torch.bool),
        "abstain": torch.zeros(classes, dtype=torch.bool),
        "class_weight": class_weights(bank_label, num_classes=classes),
        "bank": ((labelled - center.float()) @ projection.double().T).float(),
        "bank_label": bank_label,
    }
    operands = KnnOperands(
        center=center.float(),
        projection=projection,
        scale=1.0,
        neighbours=neighbours,
        **(values | changes),  # type: ignore[arg-type]
    )
    return KnnProblem(operands=operands, features=features.float(), pseudo=pseudo)
