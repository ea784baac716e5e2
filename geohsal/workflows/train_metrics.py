"""metrics.json of a round: what was learned from, thresholds with their sources, guards."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.config import FORMAT_VERSION
from geohsal.training.crops import RoundData
from geohsal.training.fit import FitResult
from geohsal.workflows.context import RunContext
from geohsal.workflows.labelled import pixels_by_class


def metrics_of(
    context: RunContext, data: RoundData, result: FitResult, *, seconds: float
) -> dict[str, Any]:
    """metrics.json: what was learned from, thresholds with their sources, guards, history."""
    names = context.manifest.class_names
    counts = pixels_by_class(data.regions, names)
    thresholds = result.refine_state.thresholds.to_dict()
    return {
        "format_version": FORMAT_VERSION,
        "steps": int(result.history[-1]["step"]) if result.history else 0,
        "regions": len(data.regions),
        "withheld_regions": len(data.withheld),
        "labelled_pixels": counts,
        "classes_missing": [name for name, count in counts.items() if count == 0],
        "val_miou": result.best_val_miou,
        "chosen_by": "val" if result.best_val_miou is not None else "last step",
        "thresholds": thresholds,
        "priors": _priors(result, names),
        "fallbacks": fallbacks(thresholds, names),
        "error_mask": thresholds["health"],
        "guards": result.guards,
        "history": result.history,
        "seconds": round(seconds, 3),
    }


def _priors(result: FitResult, names: tuple[str, ...]) -> dict[str, Any]:
    """The pool's class shares, where they come from, and what was added to the logits."""
    found = result.priors
    share = found.priors.share
    return {
        "source": found.priors.source,
        "reason": found.priors.reason,
        "share": None if share is None else _by_name(share, names),
        "shift": _by_name(found.shift, names),
    }


def _by_name(values: NDArray[np.float64], names: tuple[str, ...]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, values, strict=True)}


PROVEN = ("calibrated", "isotonic", "left-out class")
"""Sources of thresholds that rest on withheld regions."""

NOT_IN_USE = ("unused", "off")
"""Sources of thresholds that the settings switch off."""


def fallbacks(thresholds: dict[str, Any], names: tuple[str, ...]) -> list[dict[str, str]]:
    """Every class and threshold that does not run on withheld evidence, and why."""
    found = []
    for kind in ("gate", "margin", "confidence", "abstain"):
        for number, entry in enumerate(thresholds[kind]):
            if entry["source"] not in PROVEN + NOT_IN_USE:
                found.append(
                    {
                        "threshold": f"{kind} of {names[number]}",
                        "class": names[number],
                        "source": entry["source"],
                        "reason": entry["reason"],
                    }
                )
    for kind in ("suspect", "temperature", "calibration"):
        entry = thresholds[kind]
        if entry["source"] not in PROVEN + NOT_IN_USE:
            found.append({"threshold": kind, "source": entry["source"], "reason": entry["reason"]})
    if thresholds["error_source"] != "emd":
        found.append(
            {
                "threshold": "error mask",
                "source": thresholds["error_source"],
                "reason": thresholds["error_reason"],
            }
        )
    return found
