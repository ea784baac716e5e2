"""From the error decoder's raw score to a calibrated probability, a suspect threshold, its health.

A decoder that ranks errors no better than chance on withheld regions is not used: the teacher's
own doubt, averaged with its disagreement with the friend, takes its place, and the report says so.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from geohsal.config import EmdConfig
from geohsal.refine.evidence import aupr, auroc, calibration_error
from geohsal.refine.sampling import region_folds
from geohsal.refine.statistics import LabelledPixels
from geohsal.refine.thresholds import ErrorCalibration, ErrorHealth, Threshold, Thresholds

CONFIDENT = 0.9
"""Confidence from which an error counts as a confident one."""

_SURE = 1e-3  # isotonic steps end at 0 and 1, which no sample proves
_FOLDS = 2
_LEAST_ERRORS = 20  # below this nothing is fitted at all


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMask:
    """What `fit_error_mask` found."""

    source: str
    reason: str
    calibration: ErrorCalibration
    suspect: Threshold
    health: ErrorHealth


def error_probability(
    raw: Tensor, confidence: Tensor, disagreement: Tensor | None, *, thresholds: Thresholds
) -> Tensor:
    """Calibrated probability that the pseudo-label is wrong; tensors of one shape.

    Args:
        raw: sigmoid of the EMD.
        confidence: the teacher's largest probability.
        disagreement: teacher and friend differ; None where there is no friend.
        thresholds: of the round.
    """
    score = error_score(raw, confidence, disagreement, source=thresholds.error_source)
    return interpolate(score, thresholds.calibration)


def error_score(
    raw: Tensor, confidence: Tensor, disagreement: Tensor | None, *, source: str
) -> Tensor:
    """Raw error score in use: the decoder's, or the teacher's doubt."""
    if source == "emd":
        return raw.float()
    doubt = 1 - confidence.float()
    return doubt if disagreement is None else (doubt + disagreement.float()) / 2


def interpolate(score: Tensor, calibration: ErrorCalibration) -> Tensor:
    """The calibration's value at each score; constant beyond its first and last knot."""
    x = torch.tensor(calibration.x, dtype=torch.float32, device=score.device)
    y = torch.tensor(calibration.y, dtype=torch.float32, device=score.device)
    right = torch.searchsorted(x, score.contiguous(), right=True).clamp(1, len(x) - 1)
    width = (x[right] - x[right - 1]).clamp_min(torch.finfo(torch.float32).tiny)
    share = ((score - x[right - 1]) / width).clamp(0, 1)
    return y[right - 1] + share * (y[right] - y[right - 1])


def fit_error_mask(pixels: LabelledPixels, *, config: EmdConfig, seed: int) -> ErrorMask:
    """Score, calibration and suspect threshold from withheld pixels (`pixels` holds only them)."""
    wrong = pixels.teacher != pixels.label
    emd_auroc = auroc(pixels.error, wrong)
    source, reason = _source(emd_auroc, config)
    score = _score(pixels, source)
    calibration = _calibrate(score, wrong, pixels.region, config)
    probability = interpolate(score, calibration).numpy()
    suspect = _suspect_threshold(probability, wrong, pixels.region, config)
    confident = pixels.confidence >= CONFIDENT
    suspects = probability >= np.float32(suspect.value)
    health = ErrorHealth(
        pixels=len(pixels),
        regions=len(np.unique(pixels.region)),
        errors=int(wrong.sum()),
        error_regions=len(np.unique(pixels.region[wrong])),
        auroc=emd_auroc,
        aupr=aupr(pixels.error, wrong),
        auroc_confident=auroc(pixels.error[confident], wrong[confident]),
        confident_errors=int((wrong & confident).sum()),
        ece=calibration_error(score.numpy(), wrong),
        ece_calibrated=_cross_fitted_error(pixels, score, wrong, config, seed),
        recall=float(suspects[wrong].mean()) if wrong.any() else None,
        suspect_share=float(suspects.mean()) if len(pixels) else None,
    )
    return ErrorMask(
        source=source, reason=reason, calibration=calibration, suspect=suspect, health=health
    )


def _source(emd_auroc: float | None, config: EmdConfig) -> tuple[str, str]:
    if not config.enabled:
        return "confidence", "the error decoder is switched off"
    if emd_auroc is None:
        return "confidence", "withheld regions hold no errors to test the error decoder on"
    if emd_auroc < config.min_auroc:
        return "confidence", (
            f"the error decoder's AUROC {emd_auroc:.2f} on withheld regions is below "
            f"{config.min_auroc:.2f}"
        )
    return "emd", f"AUROC {emd_auroc:.2f} on withheld regions"


def _score(pixels: LabelledPixels, source: str) -> Tensor:
    differ = pixels.disagreement
    return error_score(
        torch.from_numpy(np.asarray(pixels.error, dtype=np.float32)),
        torch.from_numpy(np.asarray(pixels.confidence, dtype=np.float32)),
        None if differ is None else torch.from_numpy(np.asarray(differ, dtype=np.bool_)),
        source=source,
    )


def _calibrate(
    score: Tensor, wrong: NDArray[np.bool_], region: NDArray[np.integer], config: EmdConfig
) -> ErrorCalibration:
    errors, regions = int(wrong.sum()), len(np.unique(region[wrong]))
    found = f"{errors} withheld error pixels in {regions} regions"
    if min(errors, len(wrong) - errors) < _LEAST_ERRORS or regions < 2:
        return ErrorCalibration(reason=f"only {found}")
    if errors >= config.min_error_pixels and regions >= config.min_error_regions:
        return _isotonic(score.numpy(), wrong, reason=found)
    return _temperature(score.numpy(), wrong, reason=f"only {found}")


def _isotonic(
    score: NDArray[np.float32], wrong: NDArray[np.bool_], *, reason: str
) -> ErrorCalibration:
    fit = IsotonicRegression(y_min=_SURE, y_max=1 - _SURE).fit(score, wrong)
    x, y = fit.X_thresholds_.tolist(), fit.y_thresholds_.tolist()
    if len(x) == 1:  # all scores are equal
        x, y = [x[0], x[0] + 1.0], [y[0], y[0]]
    return ErrorCalibration(x=tuple(x), y=tuple(y), source="isotonic", reason=reason)


def _temperature(
    score: NDArray[np.float32], wrong: NDArray[np.bool_], *, reason: str
) -> ErrorCalibration:
    """One number divides the log odds: all that few errors can support."""
    logit = _logit(score.astype(np.float64))

    def loss(log_temperature: float) -> float:
        scaled = logit * np.exp(-log_temperature)
        return float(np.logaddexp(0, np.where(wrong, -scaled, scaled)).mean())

    best = float(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)
    x = np.linspace(0, 1, 101)
    y = 1 / (1 + np.exp(-_logit(x) * np.exp(-best)))
    return ErrorCalibration(
        x=tuple(x.tolist()),
        y=tuple(y.tolist()),
        source="temperature",
        reason=f"{reason}; temperature {np.exp(best):.2f}",
    )


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    inner = np.clip(probability, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(inner / (1 - inner)))


def _suspect_threshold(
    probability: NDArray[np.float32],
    wrong: NDArray[np.bool_],
    region: NDArray[np.integer],
    config: EmdConfig,
) -> Threshold:
    """Largest cut that still finds the wanted share of the withheld errors."""
    errors, regions = int(wrong.sum()), len(np.unique(region[wrong]))
    found = f"{errors} withheld error pixels in {regions} regions"
    if errors < config.min_error_pixels or regions < config.min_error_regions:
        return Threshold(
            value=config.threshold_fallback,
            source="fallback",
            reason=f"only {found}, {config.min_error_pixels} in {config.min_error_regions} needed",
        )
    ranked = np.sort(probability[wrong])[::-1]
    needed = max(1, int(np.ceil(config.recall * errors - 1e-9)))
    return Threshold(
        value=float(ranked[needed - 1]),
        source="calibrated",
        reason=f"recall {config.recall:.2f} of {found}",
    )


def _cross_fitted_error(
    pixels: LabelledPixels,
    score: Tensor,
    wrong: NDArray[np.bool_],
    config: EmdConfig,
    seed: int,
) -> float | None:
    """Calibration error of calibrations fitted on other regions than they are judged on."""
    if len(pixels) == 0:
        return None
    fold = region_folds(pixels.label, pixels.region, folds=_FOLDS, rng=np.random.default_rng(seed))
    probability = np.zeros(len(pixels), dtype=np.float32)
    for number in range(_FOLDS):
        test = fold == number
        fit = _calibrate(score[~test], wrong[~test], pixels.region[~test], config)
        probability[test] = interpolate(score[test], fit).numpy()
    return calibration_error(probability, wrong)
