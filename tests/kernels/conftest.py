"""Operands of the PLAR operators, and pixels between their classes."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from geohsal.kernels.knn import KnnOperands, class_weights
from geohsal.kernels.plar import PlarOperands, fold_operands


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Operands with features and pseudo-labels to score."""

    operands: PlarOperands
    features: Tensor
    pseudo: Tensor


ProblemFactory = Callable[..., Problem]


@pytest.fixture
def make_problem() -> ProblemFactory:
    return _problem


def _problem(
    pixels: int = 500,
    *,
    classes: int = 6,
    prototypes: int = 1,
    dim: int = 8,
    channels: int = 12,
    offset: float = 0.0,
    seed: int = 0,
    **changes: Tensor,
) -> Problem:
    """Mixed pixels between prototypes: decisions are close, as on real borders."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    center = normal(channels) + offset
    means = normal(classes, prototypes, channels)
    factors = torch.linalg.cholesky(
        torch.stack([_covariance(normal(dim, 3 * dim)) for _ in range(classes)])
    )
    identity = torch.eye(dim, dtype=torch.float64)
    values = {
        "center": center,
        "projection": normal(dim, channels) / channels**0.5,
        "feature_means": means,
        "whitening": torch.stack(
            [torch.linalg.solve_triangular(f, identity, upper=False) for f in factors]
        ),
        "euclid": identity,
        "logdet": 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1),
        "log_prior": torch.zeros(classes, dtype=torch.float64),
        "gate": torch.full((classes,), 3.0 * dim),
        "gated": torch.ones(classes, dtype=torch.bool),
        "margin": torch.full((classes,), 2.0),
        "support": torch.ones(classes, dtype=torch.bool),
        "abstain": torch.zeros(classes, dtype=torch.bool),
    }
    operands = fold_operands(**(values | changes), scale=1.0)  # type: ignore[arg-type]
    first = torch.randint(classes, (pixels,), generator=generator)
    other = torch.randint(classes, (pixels,), generator=generator)
    share = torch.rand(pixels, 1, generator=generator, dtype=torch.float64)
    features = center + share * means[first, 0] + (1 - share) * means[other, 0]
    features = features + 0.3 * normal(pixels, channels)
    return Problem(operands=operands, features=features.float(), pseudo=first)


def _covariance(rows: Tensor) -> Tensor:
    return rows @ rows.T / rows.shape[1] + 0.02 * torch.eye(len(rows), dtype=rows.dtype)


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
