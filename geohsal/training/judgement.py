"""EMD and PLAR on one batch or chunk: pseudo-labels in, refined labels and states out."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geohsal.config import Config
from geohsal.kernels.knn import KnnOperands
from geohsal.kernels.plar import PlarOperands, Prepared
from geohsal.models.error_mask import disagreement
from geohsal.models.tsf import TsfOutput
from geohsal.refine.calibration import calibrate, weigh_classes
from geohsal.refine.error_mask import error_probability
from geohsal.refine.plar import operands_of, prepare_operands, refine
from geohsal.refine.statistics import ClassStatistics, LabelledPixels, fit_statistics
from geohsal.refine.thresholds import Thresholds
from geohsal.refine.track_record import TrackRecord
from geohsal.training.inference import ChunkOutput

_Operands = tuple[PlarOperands | KnnOperands, Prepared | None]


class RefineState:
    """Class statistics and thresholds of one refresh, with PLAR's constants per device."""

    def __init__(self, statistics: ClassStatistics, thresholds: Thresholds) -> None:
        self.statistics = statistics
        self.thresholds = thresholds
        self.confidence_thresholds = thresholds.to_tensors()["confidence"]
        self._operands: dict[torch.device, _Operands] = {}

    def operands(self, config: Config, device: torch.device) -> _Operands:
        """PLAR's constants on a device, also in the form of its kernel; made once.

        Raises:
            KernelError: the kernel that the settings name cannot run there.
        """
        if device not in self._operands:
            made = operands_of(self.statistics, self.thresholds, config.plar).to(device)
            self._operands[device] = made, prepare_operands(made, config.plar)
        return self._operands[device]

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors for safetensors and plain values for JSON."""
        return self.statistics.to_tensors(), self.thresholds.to_dict()

    @classmethod
    def from_parts(cls, tensors: dict[str, Tensor], thresholds: dict[str, Any]) -> Self:
        """Undo `to_parts`."""
        return cls(ClassStatistics.from_tensors(tensors), Thresholds.from_dict(thresholds))

    def to_state(self) -> dict[str, Any]:
        """One plain mapping for a training checkpoint."""
        tensors, thresholds = self.to_parts()
        return {"tensors": tensors, "thresholds": thresholds}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Undo `to_state`."""
        return cls.from_parts(state["tensors"], state["thresholds"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is believed of each pixel; all tensors have the shape that was asked about.

    `labels` refined class ids, `state` PixelState codes of valid unlabelled pixels, `error` the
    calibrated probability that the teacher is wrong, `confidence` of the teacher, `plar_class`
    255 and `margin` 0 where PLAR did not look; `teacher` class ids, `disagree` where the friend
    names another (all False without a friend).
    """

    labels: Tensor
    state: Tensor
    error: Tensor
    confidence: Tensor
    plar_class: Tensor
    margin: Tensor
    teacher: Tensor
    disagree: Tensor


def fit_refine_state(
    pixels: LabelledPixels,
    *,
    num_classes: int,
    config: Config,
    log_share: NDArray[np.float64] | None = None,
    earlier: TrackRecord | None = None,
) -> RefineState:
    """Statistics of all labelled regions, thresholds from the withheld ones.

    `log_share` [C] are logarithms of the pool's class shares, by which PLAR weighs classes; without
    them all are alike. `earlier` is what earlier rounds' answers say of PLAR.

    Raises:
        LabelError: no labelled pixel has finite features.
    """
    statistics = fit_statistics(
        pixels, num_classes=num_classes, config=config.plar, seed=config.seed
    )
    if log_share is not None:
        statistics = weigh_classes(
            statistics, pixels, log_share, config=config.plar, seed=config.seed
        )
    thresholds = calibrate(
        pixels,
        statistics,
        num_classes=num_classes,
        plar=config.plar,
        ssl=config.ssl,
        emd=config.emd,
        seed=config.seed,
        earlier=earlier,
    )
    return RefineState(statistics, thresholds)


def judge(
    *,
    features: Tensor,
    teacher: Tensor,
    confidence: Tensor,
    error_logits: Tensor,
    disagree: Tensor | None,
    state: RefineState,
    config: Config,
) -> Judgement:
    """Judge pixels: features (..., channel), everything else (...).

    Spatial rule and caps are not applied: they belong to whole maps.
    """
    shape = teacher.shape
    flat = teacher.reshape(-1)
    error = error_probability(
        error_logits.float().sigmoid(), confidence, disagree, thresholds=state.thresholds
    ).reshape(-1)
    operands, prepared = state.operands(config, features.device)
    found = refine(
        features.reshape(flat.numel(), -1).float(),
        flat,
        error >= state.thresholds.suspect.value,
        state.statistics,
        state.thresholds,
        config.plar,
        operands=operands,
        prepared=prepared,
    )
    return Judgement(
        labels=found.labels.reshape(shape),
        state=found.states.reshape(shape),
        error=error.reshape(shape),
        confidence=confidence,
        plar_class=found.plar_class.reshape(shape),
        margin=found.margin.reshape(shape),
        teacher=teacher,
        disagree=torch.zeros_like(teacher, dtype=torch.bool) if disagree is None else disagree,
    )


def judge_batch(output: TsfOutput, *, state: RefineState, config: Config) -> Judgement:
    """Judge a batch of crops in training."""
    confidence, teacher = output.logits.float().softmax(dim=1).max(dim=1)
    differ = None
    if output.friend_logits is not None:
        differ = disagreement(output.logits, output.friend_logits) > 0
    return judge(
        features=output.features.permute(0, 2, 3, 1),
        teacher=teacher,
        confidence=confidence,
        error_logits=output.error_logits,
        disagree=differ,
        state=state,
        config=config,
    )


def judge_chunk(output: ChunkOutput, *, state: RefineState, config: Config) -> Judgement:
    """Judge a chunk of a scene."""
    return judge(
        features=output.features.permute(1, 2, 0),
        teacher=output.teacher,
        confidence=output.confidence,
        error_logits=output.error_logits,
        disagree=None if output.friend is None else output.disagree,
        state=state,
        config=config,
    )
