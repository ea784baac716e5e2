"""PLAR operands in half precision, with a bound on what the rounding does to each distance.

Features are centred and scaled by a power of two before they are rounded, the bias is computed
in float64 from the rounded matrix, and the Euclidean part is split in two halves (three products
of them keep 22 bits). What remains is the rounding of the features, relative to each of them, and
of the matrix, relative to the distance from the prototype:

    z~ - z = W (x~ - x) + (W~ - W)(x - mu),   |z~ - z|^2 ~ t = u^2 (sum_j V_cj x_j^2 + v_c)

in the mean over the signs of the rounding errors. The squared distance then errs by
2 z (z~ - z) + |z~ - z|^2, for which the radius 2 e sqrt(D_M) + e^2 with e = 3 sqrt(t) stands: 5.2
standard deviations where all errors point along z. It is a statistical bound: it assumes that the
errors of different features are independent, and bit-identical channels would break that. Pixels
of which any comparison lies within the radii are scored again in float64.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from geohsal.kernels.plar.operands import PlarOperands

_UNIT = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Largest relative rounding error of each half precision."""

ERROR_REACH = 3.0
"""Largest |z~ - z| that is reckoned with, in units of sqrt(t)."""

_UNDERFLOW = {torch.float16: 2.0**-25, torch.bfloat16: 0.0}
"""Largest absolute rounding error of a small number."""


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
    of_prototypes = 2 * (of_matrix[:, None] * prototypes.square()).sum(2).amax(1)
    of_small = 2 * _UNDERFLOW[dtype] ** 2 * stacked[1:].square().sum((1, 2))
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
        variance_offset=(of_prototypes + of_small).float(),
        scale=scale,
    )


def _powers(largest: Tensor) -> Tensor:
    """Least powers of two that bound the values; 1 for zeros."""
    safe = torch.where(largest > 0, largest, 1.0)
    return torch.exp2(safe.log2().ceil())
