"""What PLAR scores are computed from, and the form in which they come back.

Folding: the projection P of the features (standardise + PCA) and the whitening W_c of each class
are multiplied once into W~_c = W_c P, so that the operator takes raw features and one matrix
product gives all whitened differences. A rotation from the left changes no distance, so each
matrix is kept as a lower trapezoid, whose zeros the torch path skips. The bias is computed in
float64 from the *rounded* W~_c: W~_c x - b then has no error from rounding W~_c except a fixed,
tiny change of the metric. The float32 operands are the definition; every path evaluates them.
"""

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import NamedTuple, Self

import torch
from torch import Tensor

NO_CLASS = 255
"""Class code where there is no such class: invalid pixels, no second class."""

LARGEST_FEATURE = 6e4
"""Centred and scaled features beyond this are invalid: half precision ends at 65504."""


class Decision(IntEnum):
    """What the operator says about a pixel."""

    INVALID = 0
    CONFIRMED = 1
    CORRECTED = 2
    AMBIGUOUS = 3
    NOVEL = 4


class Rule(IntEnum):
    """Decision rule: `ROBUST` ranks by Q, `FAITHFUL` asks both distances to agree."""

    ROBUST = 0
    FAITHFUL = 1


class PlarScores(NamedTuple):
    """Scores of N pixels; column 0 is the best class, column 1 the second.

    Where there is no such class (an invalid row, fewer than two known classes) the class is
    `NO_CLASS` and the score infinite.
    """

    euclid_class: Tensor  # [N, 2] uint8
    euclid: Tensor  # [N, 2] float32, squared distance in the projected space
    q_class: Tensor  # [N, 2] uint8
    q: Tensor  # [N, 2] float32, squared Mahalanobis distance + log det - 2 log prior
    chosen: Tensor  # [N] uint8, the class that the rule argues for
    mahalanobis: Tensor  # [N] float32, squared Mahalanobis distance to the chosen class
    code: Tensor  # [N] uint8, Decision
    near_tie: Tensor  # [N] bool, a comparison was closer than the tie tolerance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlarOperands:
    """Constants of the operator for C classes with K prototypes, D components and F features.

    A class without labels has prior zero (`log_prior` -inf) and takes part in nothing. Classes
    with fewer than K prototypes repeat their first. `gated` false: the class has no distance
    gate, and all three rankings must agree instead.
    """

    center: Tensor  # [F] float32, subtracted from features
    projection: Tensor  # [D, F] float32 trapezoid, into the space of the Euclidean distance
    means: Tensor  # [C, K, D] float32, prototypes in that space
    prototypes: Tensor  # [C, K, F] float32, centred prototypes in feature space
    whitening: Tensor  # [C, D, F] float32, W~_c: zero right of the diagonal that ends in a corner
    bias: Tensor  # [C, K, D] float32, W~_c times the centred prototype
    logdet: Tensor  # [C] float32
    log_prior: Tensor  # [C] float32
    gate: Tensor  # [C] float32, kappa
    gated: Tensor  # [C] bool
    margin: Tensor  # [C] float32, delta
    support: Tensor  # [C] bool, enough labelled regions to be assigned
    abstain: Tensor  # [C] bool, switched off by do-no-harm
    scale: float  # one scalar that brings centred features to unit size

    def __post_init__(self) -> None:
        classes, prototypes, dim = self.bias.shape
        channels = self.center.shape[0]
        wanted = {
            "projection": (dim, channels),
            "means": (classes, prototypes, dim),
            "prototypes": (classes, prototypes, channels),
            "whitening": (classes, dim, channels),
        }
        for field in ("logdet", "log_prior", "gate", "gated", "margin", "support", "abstain"):
            wanted[field] = (classes,)
        for name, shape in wanted.items():
            assert tuple(getattr(self, name).shape) == shape, (name, shape)
        assert classes <= NO_CLASS, "class ids fit uint8, 255 is no class"

    @property
    def num_classes(self) -> int:
        return self.bias.shape[0]

    @property
    def present(self) -> Tensor:
        """[C] bool: classes that have labels."""
        return torch.isfinite(self.log_prior)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by field name, in the operator's order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scale"}

    def to(self, device: torch.device | str) -> Self:
        """The same operands on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]


def fold_operands(
    *,
    center: Tensor,
    projection: Tensor,
    feature_means: Tensor,
    whitening: Tensor,
    euclid: Tensor,
    logdet: Tensor,
    log_prior: Tensor,
    gate: Tensor,
    gated: Tensor,
    margin: Tensor,
    support: Tensor,
    abstain: Tensor,
    scale: float,
) -> PlarOperands:
    """Float32 operands from float64 statistics; the biases fit the rounded matrices.

    Args:
        center: [F] point of the feature space that everything is centred on.
        projection: [D, F] P, standardise + PCA.
        feature_means: [C, K, F] prototypes in feature space, minus `center`.
        whitening: [C, D, D] inverse Cholesky factors of the class covariances.
        euclid: [D, D] further linear map of the Euclidean space (identity, or pooled whitening).
        logdet: [C] log determinants of the class covariances.
        log_prior: [C] log class priors; -inf where a class has no labels.
        gate: [C] kappa.
        gated: [C] whether the gate exists.
        margin: [C] delta.
        support: [C] whether the class may be assigned.
        abstain: [C] whether do-no-harm switched the class off.
        scale: one scalar for the range check of features.
    """
    rounded_center = center.float()
    prototypes = (feature_means + (center - rounded_center.double())).float()
    folded = _trapezoid(torch.matmul(whitening, projection)).float()
    flat = _trapezoid((euclid @ projection)[None])[0].float()
    return PlarOperands(
        center=rounded_center,
        projection=flat,
        means=(prototypes.double() @ flat.double().T).float(),
        prototypes=prototypes,
        whitening=folded,
        bias=torch.matmul(prototypes.double(), folded.double().transpose(1, 2)).float(),
        logdet=logdet.float(),
        log_prior=log_prior.float(),
        gate=gate.float(),
        gated=gated,
        margin=margin.float(),
        support=support,
        abstain=abstain,
        scale=float(scale),
    )


def _trapezoid(matrices: Tensor) -> Tensor:
    """Q^T W of matrices [C, D, F] with zeros right of the last row's diagonal; one by one.

    The orthogonal Q comes from a QR decomposition of the reversed matrix; it changes no norm.
    More components than features have no such form and stay as they are.
    """
    dim, channels = matrices.shape[1:]
    if dim > channels:
        return matrices
    keep = torch.ones(dim, channels, dtype=torch.bool, device=matrices.device)
    keep = keep.tril(channels - dim)
    rotated = [torch.linalg.qr(matrix.flip(0, 1), mode="r").R.flip(0, 1) for matrix in matrices]
    return torch.stack(rotated).masked_fill(~keep, 0.0)
