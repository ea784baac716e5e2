"""Problems for the PLAR operator, the tolerance of every kernel, and a pairwise choice of cases."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geohsal.kernels.plar import PlarOperands, PlarScores, Rule, fold_operands


class Tolerance(NamedTuple):
    """Largest error relative to 1 + the value: of D_M and Q, and of D_E."""

    mahalanobis: float
    euclid: float


TOLERANCES = {  # of features up to 10 standard deviations from zero
    "reference": Tolerance(0.0, 0.0),  # float64, the definition
    "torch": Tolerance(2e-5, 3e-4),  # float32, centred; Euclid in the expanded form
    "torch-half": Tolerance(1.2e-1, 3e-4),  # bfloat16 on a CPU; Euclid stays in float32
    # Euclid is ranked by split halves; |P x|^2, common to all classes, is rounded
    "torch-half cuda": Tolerance(1e-2, 1e-2),  # float16
    "triton": Tolerance(1e-2, 1e-2),  # float16
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Operands with features and pseudo-labels to score."""

    operands: PlarOperands
    features: Tensor
    pseudo: Tensor

    def to(self, device: torch.device | str) -> "Problem":
        return Problem(
            operands=self.operands.to(device),
            features=self.features.to(device),
            pseudo=self.pseudo.to(device),
        )


class Case(NamedTuple):
    """One choice of everything that a kernel's code path depends on."""

    pixels: int
    classes: int
    prototypes: int
    dim: int
    extra: int  # features beyond the components
    dtype: torch.dtype
    offset: float
    rule: Rule
    agreement: bool

    def make(self) -> Problem:
        problem = make_problem(
            self.pixels,
            classes=self.classes,
            prototypes=self.prototypes,
            dim=self.dim,
            channels=self.dim + self.extra,
            offset=self.offset,
            gate=torch.full((self.classes,), float(self.dim)),
            margin=torch.full((self.classes,), 0.1 * self.dim),
        )
        return Problem(
            operands=problem.operands,
            features=problem.features.to(self.dtype),
            pseudo=problem.pseudo,
        )


LEVELS = (
    (1, 37, 123),
    (1, 2, 5, 20),
    (1, 3),
    (8, 32, 64, 100, 256),
    (0, 11),
    (torch.float32, torch.float16, torch.bfloat16),
    (0.0, 10.0),
    (Rule.ROBUST, Rule.FAITHFUL),
    (False, True),
)


def pairwise_cases() -> list[Case]:
    """Few cases such that any two levels of two factors meet in one of them; greedy."""
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(range(len(LEVELS)), 2)
        for x in range(len(LEVELS[a]))
        for y in range(len(LEVELS[b]))
    }
    cases = []
    while missing:
        seed = min(missing)
        chosen = dict(seed)
        for factor in range(len(LEVELS)):
            if factor not in chosen:
                chosen[factor] = max(
                    range(len(LEVELS[factor])),
                    key=lambda level: sum(
                        tuple(sorted([(factor, level), known])) in missing
                        for known in chosen.items()
                    ),
                )
        cases.append(Case(*(LEVELS[factor][chosen[factor]] for factor in range(len(LEVELS)))))
        missing -= set(itertools.combinations(sorted(chosen.items()), 2))
    return cases


def largest_error(found: Tensor, wanted: Tensor) -> float:
    """Relative to 1 + value; infinite where one is finite and the other is not."""
    finite = torch.isfinite(wanted)
    if not torch.equal(finite, torch.isfinite(found)):
        return float("inf")
    error = (found - wanted)[finite].abs() / (1 + wanted[finite].abs())
    return float(error.max()) if error.numel() else 0.0


def wrong_decisions(found: PlarScores, wanted: PlarScores) -> Tensor:
    """[N] bool: code or chosen class differ."""
    return (found.code != wanted.code) | (found.chosen != wanted.chosen)


def make_problem(
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
