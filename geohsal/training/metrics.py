"""Accuracy from a confusion matrix: rows are truth, columns are the map."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from geohsal.geo.states import IGNORE_INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Figures of one map against one truth; per class None where a class is absent.

    `miou` and `macro_f1` are means over the classes present in the truth; `absent` names the
    others.
    """

    pixels: int
    oa: float
    miou: float
    macro_f1: float
    kappa: float
    per_class: dict[str, dict[str, float | int | None]]
    absent: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def confusion_counter(num_classes: int) -> MulticlassConfusionMatrix:
    """A streamed confusion matrix of this process alone that leaves 255 out."""
    return MulticlassConfusionMatrix(
        num_classes=max(num_classes, 2),
        ignore_index=IGNORE_INDEX,
        validate_args=False,
        sync_on_compute=False,  # else it would wait for other processes
    )


def accuracy_from_confusion(matrix: NDArray[np.int64], names: tuple[str, ...]) -> Accuracy:
    """All figures of a (truth, map) matrix of pixel counts with at least one pixel."""
    matrix = matrix[: len(names), : len(names)].astype(np.int64)
    total = int(matrix.sum())
    hit, truth, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    present = truth > 0
    iou = hit / np.maximum(truth + said - hit, 1)
    f1 = 2 * hit / np.maximum(truth + said, 1)
    oa = float(hit.sum() / total)
    chance = float((truth / total) @ (said / total))
    per_class: dict[str, dict[str, float | int | None]] = {}
    for number, name in enumerate(names):
        there = bool(present[number])
        per_class[name] = {
            "pixels": int(truth[number]),
            "iou": float(iou[number]) if there else None,
            "f1": float(f1[number]) if there else None,
            "users_accuracy": float(hit[number] / said[number]) if said[number] else None,
            "producers_accuracy": float(hit[number] / truth[number]) if there else None,
        }
    return Accuracy(
        pixels=total,
        oa=oa,
        miou=float(iou[present].mean()),
        macro_f1=float(f1[present].mean()),
        kappa=(oa - chance) / (1 - chance) if chance < 1 else 1.0,
        per_class=per_class,
        absent=tuple(name for number, name in enumerate(names) if not present[number]),
        confusion=tuple(tuple(int(v) for v in row) for row in matrix),
    )


def update_counter(
    counter: MulticlassConfusionMatrix, predicted: torch.Tensor, truth: torch.Tensor
) -> None:
    """Add one window: class ids (row, col), truth 255 where it does not count."""
    counter.update(predicted.flatten().cpu(), truth.flatten().cpu())
