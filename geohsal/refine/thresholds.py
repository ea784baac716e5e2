"""Thresholds of a round: each with its value, where it came from, and why."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from geohsal.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A number, `calibrated` on withheld regions or from a named fallback.

    An infinite value is never reached; JSON has none, so it is written as null.
    """

    value: float
    source: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        value = self.value if math.isfinite(self.value) else None
        return {"value": value, "source": self.source, "reason": self.reason}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        value = math.inf if values["value"] is None else float(values["value"])
        return cls(value=value, source=str(values["source"]), reason=str(values["reason"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Whether a class is switched off, and why."""

    on: bool
    source: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCalibration:
    """Piecewise linear map of a raw error score to a probability; knots rise in x."""

    x: tuple[float, ...] = (0.0, 1.0)
    y: tuple[float, ...] = (0.0, 1.0)
    source: str = "identity"
    reason: str = "not calibrated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorHealth:
    """How well the error mask finds the teacher's errors on withheld pixels; None: no evidence."""

    pixels: int
    regions: int
    errors: int
    error_regions: int
    auroc: float | None
    aupr: float | None
    auroc_confident: float | None  # among pixels of confidence >= 0.9
    confident_errors: int
    ece: float | None  # of the score in use, before calibration
    ece_calibrated: float | None  # cross-fitted over folds of regions
    recall: float | None  # of errors, at the suspect threshold
    suspect_share: float | None


GATE_AGREEMENT = "agreement"
"""Source of a gate that does not exist: all three rankings must agree instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """All thresholds of C classes."""

    gate: tuple[Threshold, ...]  # kappa, on the squared Mahalanobis distance
    margin: tuple[Threshold, ...]  # delta, on Q of the second class minus Q of the best
    confidence: tuple[Threshold, ...]  # tau_c, on the teacher's probability
    abstain: tuple[Switch, ...]  # do-no-harm
    suspect: Threshold  # tau_e, on the calibrated error probability
    temperature: Threshold  # of Q as log odds
    error_source: str  # emd, or confidence where the EMD is off or no better than chance
    error_reason: str
    calibration: ErrorCalibration
    health: ErrorHealth

    @property
    def num_classes(self) -> int:
        return len(self.gate)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json and model.json."""
        return {
            "gate": [threshold.to_dict() for threshold in self.gate],
            "margin": [threshold.to_dict() for threshold in self.margin],
            "confidence": [threshold.to_dict() for threshold in self.confidence],
            "abstain": [asdict(switch) for switch in self.abstain],
            "suspect": self.suspect.to_dict(),
            "temperature": self.temperature.to_dict(),
            "error_source": self.error_source,
            "error_reason": self.error_reason,
            "calibration": {
                **asdict(self.calibration),
                "x": list(self.calibration.x),
                "y": list(self.calibration.y),
            },
            "health": asdict(self.health),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Thresholds from `to_dict` output.

        Raises:
            ModelError: a key is missing or has the wrong form.
        """
        try:
            return cls(
                gate=tuple(Threshold.from_dict(item) for item in values["gate"]),
                margin=tuple(Threshold.from_dict(item) for item in values["margin"]),
                confidence=tuple(Threshold.from_dict(item) for item in values["confidence"]),
                abstain=tuple(Switch(**item) for item in values["abstain"]),
                suspect=Threshold.from_dict(values["suspect"]),
                temperature=Threshold.from_dict(values["temperature"]),
                error_source=str(values["error_source"]),
                error_reason=str(values["error_reason"]),
                calibration=_calibration(values["calibration"]),
                health=ErrorHealth(
                    **{f.name: values["health"][f.name] for f in fields(ErrorHealth)}
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"thresholds: {type(error).__name__} at {error}; the model folder is damaged or of "
                "another version, train again"
            ) from None

    def to_tensors(self) -> dict[str, Tensor]:
        """Per class [C]: `gate`, `gated`, `margin`, `confidence`, `abstain`; [1]: `suspect`."""
        return {
            "gate": torch.tensor([t.value for t in self.gate], dtype=torch.float32),
            "gated": torch.tensor([t.source != GATE_AGREEMENT for t in self.gate]),
            "margin": torch.tensor([t.value for t in self.margin], dtype=torch.float32),
            "confidence": torch.tensor([t.value for t in self.confidence], dtype=torch.float32),
            "abstain": torch.tensor([switch.on for switch in self.abstain]),
            "suspect": torch.tensor([self.suspect.value], dtype=torch.float32),
        }


def _calibration(values: Mapping[str, Any]) -> ErrorCalibration:
    return ErrorCalibration(
        x=tuple(float(x) for x in values["x"]),
        y=tuple(float(y) for y in values["y"]),
        source=str(values["source"]),
        reason=str(values["reason"]),
    )
