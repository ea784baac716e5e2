"""What k-nearest-neighbour scores are computed from, and the form in which they come back.

A bank of labelled pixels lies in the pooled-whitened space, in float32. A pixel is projected there
in float64 and rounded to float32 once; every path then measures between the same numbers.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from geohsal.kernels.plar.operands import NO_CLASS


class KnnScores(NamedTuple):
    """Scores of N pixels; column 0 is the best class, column 1 the second.

    Where there is no such class (an invalid row, fewer than two known classes) the class is
    `NO_CLASS` and the score infinite.
    """

    q_class: Tensor  # [N, 2] uint8
    q: Tensor  # [N, 2] float32, -2 log of the class's share of the votes
    chosen: Tensor  # [N] uint8, the class that the votes argue for
    nearest: Tensor  # [N] float32, squared distance to the nearest bank pixel of that class
    code: Tensor  # [N] uint8, Decision
    near_tie: Tensor  # [N] bool, a comparison was closer than the tie tolerance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnnOperands:
    """Constants of the operator: C classes, M bank pixels of D components, F features.

    A class without bank pixels has weight zero and takes part in nothing. `gated` false: the class
    has no distance gate, and the nearest bank pixel must be of the class instead.
    """

    center: Tensor  # [F] float32, subtracted from features
    projection: Tensor  # [D, F] float32, into the space of the bank
    bank: Tensor  # [M, D] float32
    bank_label: Tensor  # [M] int64
    class_weight: Tensor  # [C] float32, of a vote; only ratios count
    gate: Tensor  # [C] float32, kappa
    gated: Tensor  # [C] bool
    margin: Tensor  # [C] float32, delta
    support: Tensor  # [C] bool, enough labelled regions to be assigned
    abstain: Tensor  # [C] bool, switched off by do-no-harm
    scale: float  # one scalar that brings centred features to unit size
    neighbours: int  # k

    def __post_init__(self) -> None:
        size, dim = self.bank.shape
        wanted = {"projection": (dim, self.center.shape[0]), "bank_label": (size,)}
        for field in ("gate", "gated", "margin", "support", "abstain"):
            wanted[field] = tuple(self.class_weight.shape)
        for name, shape in wanted.items():
            assert tuple(getattr(self, name).shape) == shape, (name, shape)
        assert size > 0, "a bank holds at least one pixel"
        assert self.neighbours > 0, "k is at least one"
        assert self.num_classes <= NO_CLASS, "class ids fit uint8, 255 is no class"

    @property
    def num_classes(self) -> int:
        return self.class_weight.shape[0]

    @property
    def present(self) -> Tensor:
        """[C] bool: classes that have bank pixels."""
        return self.class_weight > 0

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by field name, in the operator's order."""
        scalars = ("scale", "neighbours")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in scalars}

    def to(self, device: torch.device | str) -> Self:
        """The same operands on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]


def class_weights(bank_label: Tensor, *, num_classes: int) -> Tensor:
    """[C] float32: one over a class's bank pixels, so that labelling more of it favours it not."""
    count = torch.bincount(bank_label, minlength=num_classes)
    return torch.where(count > 0, 1.0 / count.clamp_min(1), 0.0).float()
