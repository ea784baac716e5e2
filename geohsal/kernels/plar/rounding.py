"""PLAR operands in half precision, with a bound on what the rounding does to each distance.

Features are centred and scaled by a power of two before they are rounded, the bias is computed
in float64 from the rounded matrix, and the Euclidean part is split in two halves (three products
of them keep 22 bits). What remains is the rounding of the features, relative to each of them, and
of the matrix, relative to the distance from the prototype:

    z~ - z = W (x~ - x) + (W~ - W)(x - mu),   |z~ - z|^2 <= t = u^2 (sum_j V_cj x_j^2 + v_c)

in the mean over signs. The squared distance then errs by 2 z (z~ - z) + |z~ - z|^2, for which a
radius of `error_factor` sqrt(D_M t) + 4 t stands. Pixels of which any comparison lies within the
radii are scored again in float32.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from geohsal.kernels.plar.operands import PlarOperands

_UNIT = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Largest relative rounding error of each half precision."""

_SAFETY = 20.0
"""Twice the standard errors that a radius spans; up to 1.3 times 5 were seen in 1e6 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedOperands:
    """Half-precision twins of `PlarOperands`; matrix 0 is the projection, c + 1 that of class c.

    x = (features - center) * scale is rounded to `matrices.dtype`; then z = product * factor - b.
    """

    matrices: Tensor  # [C + 1, D, F] half, each scaled to at most 1
    factor: Tensor  # [C + 1] float32, undoes the scales of matrix and features
    bias: Tensor  # [C + 1, K, D] float32, of the rounded matrix; zero for the projection
    linear_high: Tensor  # [C, K, F] half, prototypes of the Euclidean space as covectors
    linear_low: Tensor  # [C, K, F] half, what `linear_high` leaves over
    linear_factor: Tensor  # [C, K] float32
    linear_norm: Tensor  # [C, K] float32, length of the covector for scaled features
    square: Tensor  # [C, K] float32, squared length of each prototype in the Euclidean space
    variance: Tensor  # [C, F] bfloat16, u^2 V: squared error of z per squared scaled feature
    variance_offset: Tensor  # [C] float32, u^2 v
    scale: float  # power of two

    @property
    def dtype(self) -> torch.dtype:
        return self.matrices.dtype

    @property
    def error_factor(self) -> float:
        """What sqrt(D_M t) is multiplied by."""
        return error_factor(self.matrices.shape[1])

    def tensors(self) -> list[Tensor]:
        """All tensors in the order of the fields."""
        return [getattr(self, f.name) for f in fields(self) if f.name != "scale"]

    @classmethod
    def of(cls, tensors: list[Tensor], *, scale: float) -> Self:
        """Undo `tensors`."""
        names = [f.name for f in fields(cls) if f.name != "scale"]
        return cls(**dict(zip(names, tensors, strict=True)), scale=scale)


def round_operands(operands: PlarOperands, dtype: torch.dtype) -> RoundedOperands:
    """Half-precision operands; everything but the stored halves is computed in float64."""
    scale = 2.0 ** math.floor(math.log2(operands.scale))  # valid features stay in range
    stacked = torch.cat([operands.projection[None], operands.whitening]).double() / scale
    shrink = _powers(stacked.abs().amax((1, 2)))
    matrices = (stacked / shrink[:, None, None]).to(dtype)
    exact = matrices.double() * shrink[:, None, None]
    prototypes = operands.prototypes.double() * scale
    bias = torch.matmul(prototypes, exact[1:].transpose(1, 2))
    linear = operands.means.double() @ operands.projection.double() / scale
    linear_shrink = _powers(linear.abs().amax(2))
    scaled = linear / linear_shrink[..., None]
    high = scaled.to(dtype)
    unit = _UNIT[dtype]
    of_matrix = (exact[1:] - stacked[1:]).square().sum(1)
    of_features = stacked[1:].square().sum(1) * unit**2
    return RoundedOperands(
        matrices=matrices,
        factor=shrink.float(),
        bias=torch.cat([torch.zeros_like(bias[:1]), bias]).float(),
        linear_high=high,
        linear_low=(scaled - high.double()).to(dtype),
        linear_factor=linear_shrink.float(),
        linear_norm=linear.square().sum(2).sqrt().float(),
        square=operands.means.double().square().sum(2).float(),
        variance=(2 * of_matrix + of_features).bfloat16(),
        variance_offset=2 * (of_matrix[:, None] * prototypes.square()).sum(2).amax(1).float(),
        scale=scale,
    )


def error_factor(dim: int) -> float:
    """What sqrt(D_M t) is multiplied by: the error's share along z falls with sqrt(D).

    4 is twice the bound of Cauchy and Schwarz: t is a mean.
    """
    return min(4.0, _SAFETY / math.sqrt(dim))


def _powers(largest: Tensor) -> Tensor:
    """Least powers of two that bound the values; 1 for zeros."""
    safe = torch.where(largest > 0, largest, 1.0)
    return torch.exp2(safe.log2().ceil())
