"""Class statistics: where each class lies in feature space, judged from labelled regions.

The unit of evidence is the labelled region, not the pixel: pixels of one region resemble each
other, so a class covariance counts by its regions and is drawn towards the pooled one.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from torch import Tensor

from geohsal.config import PlarConfig
from geohsal.errors import LabelError, ModelError
from geohsal.refine.moments import Moments
from geohsal.refine.sampling import count_regions, draw_pixels

_Array = NDArray[np.float64]
_LARGEST_EPS = 1e-1
_RANK_TOLERANCE = 1e-8  # of the largest eigenvalue of the correlation matrix
_NO_SPREAD = 1e-12  # of the overall variance: what float32 rounding leaves of none
_CONSTANT = 1e-6  # standard deviation over mean at which a float32 feature carries nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledPixels:
    """n sampled labelled pixels with what the teacher said about them.

    `withheld` pixels belong to regions that the supervised loss of this round did not see.
    """

    features: NDArray[np.float32]  # [n, F], teacher's decoder output
    label: NDArray[np.integer]  # [n], human class id
    region: NDArray[np.integer]  # [n], unique over all scenes
    withheld: NDArray[np.bool_]  # [n]
    teacher: NDArray[np.integer]  # [n], predicted class id
    confidence: NDArray[np.floating]  # [n], largest probability of the teacher
    error: NDArray[np.floating]  # [n], raw error probability of the EMD
    disagreement: NDArray[np.bool_] | None = None  # [n], teacher and friend differ
    error_seen: NDArray[np.bool_] | None = None  # [n], the EMD learned from the region
    probabilities: NDArray[np.float32] | None = None  # [n, C] of the teacher
    weight: NDArray[np.float64] | None = None  # [n], labelled pixels that a sampled one stands for

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            values = getattr(self, name)
            assert values is None or len(values) == len(self.features), name

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """The pixels at an index or mask."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[rows] for k, v in values.items() if v is not None})

    def finite(self) -> Self:
        """Only pixels whose features are finite."""
        return self.take(np.flatnonzero(np.isfinite(self.features).all(axis=1)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassStatistics:
    """Frozen statistics of C classes, K prototypes each, in D of F feature dimensions."""

    center: _Array  # [F], mean of the labelled features
    projection: _Array  # [D, F], standardise + PCA
    feature_means: _Array  # [C, K, F], prototypes minus center
    whitening: _Array  # [C, D, D], inverse lower Cholesky factors; zero without labels
    pooled_whitening: _Array  # [D, D], of the shrunk pooled covariance
    logdet: _Array  # [C]
    regions: NDArray[np.int64]  # [C], labelled regions containing the class
    pixels: NDArray[np.int64]  # [C], sampled pixels
    spread: _Array  # [1], mean pooled within-class variance; 0: nothing can be told apart
    scale: _Array  # [1], brings centred features to unit size
    bank: NDArray[np.float32] = field(  # [M, D], pooled-whitened pixels; empty but for rule knn
        default_factory=lambda: np.zeros((0, 0), dtype=np.float32)
    )
    bank_label: NDArray[np.int64] = field(  # [M]
        default_factory=lambda: np.zeros(0, dtype=np.int64)
    )
    log_prior: _Array = field(default_factory=lambda: np.zeros(0))  # [C]; empty: uniform

    @property
    def num_classes(self) -> int:
        return len(self.regions)

    @property
    def dim(self) -> int:
        return len(self.projection)

    @property
    def present(self) -> NDArray[np.bool_]:
        """[C] classes that have labels."""
        return self.regions > 0

    @property
    def log_priors(self) -> _Array:
        """[C] log class priors that Q counts with: given ones, else uniform; -inf without labels.

        Uniform priors are left at 0: a constant changes no difference of Q.
        """
        prior = self.log_prior if len(self.log_prior) else np.zeros(self.num_classes)
        return np.where(self.present, prior, -np.inf)

    def supported(self, min_regions: int) -> NDArray[np.bool_]:
        """[C] classes that PLAR may assign: enough regions, and any scatter to measure by."""
        return np.asarray((self.regions >= min_regions) & (self.spread[0] > 0), dtype=np.bool_)

    def project(self, features: NDArray[np.floating]) -> _Array:
        """Features [n, F] as components [n, D]."""
        return (features.astype(np.float64) - self.center) @ self.projection.T

    def mahalanobis(self, features: NDArray[np.floating]) -> _Array:
        """Squared distances [n, C] to the nearest prototype; inf for classes without labels."""
        points = self.project(features)
        distances = np.full((len(points), self.num_classes), np.inf)
        for number in np.flatnonzero(self.present):
            gaps = [
                (((points - mean) @ self.whitening[number].T) ** 2).sum(1)
                for mean in self.feature_means[number] @ self.projection.T
            ]
            distances[:, number] = np.min(gaps, axis=0)
        return distances

    def to_tensors(self) -> dict[str, Tensor]:
        """CPU tensors by field name, ready for safetensors."""
        return {
            f.name: torch.from_numpy(np.ascontiguousarray(getattr(self, f.name)))
            for f in fields(self)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Statistics from `to_tensors` output; a bank may be missing.

        Raises:
            ModelError: a tensor is missing, or shapes do not fit together.
        """
        needed = [f.name for f in fields(cls) if f.default_factory is MISSING]
        missing = [name for name in needed if name not in tensors]
        if missing:
            raise ModelError(
                f"class statistics: {', '.join(missing)} missing; the model folder is incomplete, "
                "train again"
            )
        known = [f.name for f in fields(cls) if f.name in tensors]
        values = {name: tensors[name].detach().cpu().numpy() for name in known}
        dim, channels = values["projection"].shape
        classes = len(values["regions"])
        shapes: dict[str, tuple[int, ...]] = {
            "center": (channels,),
            "whitening": (classes, dim, dim),
            "logdet": (classes,),
        }
        if "bank" in values and len(values["bank"]):
            shapes["bank"] = (len(values.get("bank_label", ())), dim)
        for name, shape in shapes.items():
            if values[name].shape != shape:
                raise ModelError(
                    f"class statistics: {name} has shape {values[name].shape}, expected {shape}; "
                    "the model folder is damaged, train again"
                )
        return cls(**values)


def fit_statistics(
    pixels: LabelledPixels,
    *,
    num_classes: int,
    config: PlarConfig,
    seed: int,
    log_prior: _Array | None = None,
) -> ClassStatistics:
    """Statistics from all given pixels, at most `pixels_per_region` per (region, class).

    Rule `knn` also keeps these pixels as its bank. `log_prior` [C] is what Q counts with; without
    it all classes are alike.

    Raises:
        LabelError: there is no labelled pixel with finite features.
        ModelError: a covariance cannot be factorised even with the largest ridge.
    """
    sample = thin(pixels.finite(), config=config, seed=seed)
    if len(sample) == 0:
        raise LabelError(
            "class statistics: no labelled pixel with finite features; label at least one region "
            "inside a train tile"
        )
    assert sample.label.min() >= 0, "labels are class ids"
    assert sample.label.max() < num_classes, "labels are class ids"
    total = Moments.of(sample.features)
    projection = _principal_axes(total, dim=config.dim)
    classes = [Moments.of(sample.features[sample.label == c]) for c in range(num_classes)]
    regions = count_regions(sample.label, sample.region, num_classes=num_classes)
    centred = (sample.features.astype(np.float64) - _means(classes)[sample.label]) @ projection.T
    pooled = centred.T @ centred / len(centred)
    overall = float(np.trace(projection @ total.covariance @ projection.T)) / len(pooled)
    spread = float(np.trace(pooled)) / len(pooled)
    spread = spread if spread > _NO_SPREAD * overall else 0.0
    unit = spread or overall or 1.0
    shrunk = _towards_sphere(pooled, ledoit_wolf(centred), unit=spread)
    whitening = np.zeros((num_classes, *pooled.shape))
    logdet = np.zeros(num_classes)
    for number in np.flatnonzero(regions):
        weight = regions[number] / (regions[number] + config.shrink_regions)
        own = projection @ classes[number].covariance @ projection.T
        mixed = weight * own + (1 - weight) * shrunk
        whitening[number], logdet[number] = _whiten(
            mixed, unit=unit, eps=config.eps, where=f"class {number}"
        )
    variance = np.diag(total.covariance)
    fitted = ClassStatistics(
        center=total.mean,
        projection=projection,
        feature_means=np.where(regions[:, None] > 0, _means(classes) - total.mean, 0.0)[:, None],
        whitening=whitening,
        pooled_whitening=_whiten(shrunk, unit=unit, eps=config.eps, where="pooled")[0],
        logdet=logdet,
        regions=regions,
        pixels=np.array([moments.count for moments in classes], dtype=np.int64),
        spread=np.array([spread]),
        scale=np.array([1 / np.sqrt(variance.mean()) if variance.any() else 1.0]),
        log_prior=np.zeros(0) if log_prior is None else log_prior,
    )
    return _with_bank(fitted, sample) if config.rule == "knn" else fitted


def _with_bank(fitted: ClassStatistics, sample: LabelledPixels) -> ClassStatistics:
    points = fitted.project(sample.features) @ fitted.pooled_whitening.T
    return replace(fitted, bank=points.astype(np.float32), bank_label=sample.label.astype(np.int64))


def thin(pixels: LabelledPixels, *, config: PlarConfig, seed: int) -> LabelledPixels:
    """At most the configured pixels per (region, class) and regions per class; keeps order."""
    rows = draw_pixels(
        pixels.label,
        pixels.region,
        per_region=config.pixels_per_region,
        max_regions=config.max_regions_per_class,
        rng=np.random.default_rng(seed),
    )
    return pixels.take(rows)


def _means(classes: list[Moments]) -> _Array:
    return np.stack([moments.mean for moments in classes])


def _principal_axes(total: Moments, *, dim: int) -> _Array:
    """[D, F] map that standardises and rotates; D = min(dim, F, numerical rank), at least 1."""
    sd = np.sqrt(np.diag(total.covariance))
    inverse = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > _CONSTANT * abs(total.mean))
    values, vectors = np.linalg.eigh(inverse[:, None] * total.covariance * inverse)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > _RANK_TOLERANCE * max(values[0], 0.0)).sum()) if values[0] > 0 else 0
    axes = vectors[:, : max(1, min(dim, rank))].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)
    signed = axes * np.where(largest < 0, -1.0, 1.0)  # the sign of an axis is free
    return np.ascontiguousarray(signed * inverse)  # products of stored copies are bit-identical


def ledoit_wolf(centred: _Array) -> float:
    """Weight g in [0, 1] of the sphere, for rows [n, D] whose mean is zero (Ledoit and Wolf)."""
    count, dim = centred.shape
    scatter = centred.T @ centred / count
    sphere = np.trace(scatter) / dim
    distance = float(((scatter - sphere * np.eye(dim)) ** 2).sum())
    if distance <= 0:
        return 1.0
    fourth = float(((centred**2).sum(1) ** 2).mean())
    noise = (fourth - float((scatter**2).sum())) / count
    return float(min(max(noise, 0.0), distance) / distance)


def _towards_sphere(covariance: _Array, weight: float, *, unit: float) -> _Array:
    return (1 - weight) * covariance + weight * unit * np.eye(len(covariance))


def _whiten(covariance: _Array, *, unit: float, eps: float, where: str) -> tuple[_Array, float]:
    """Inverse lower Cholesky factor and log determinant of the covariance plus a ridge.

    Cholesky and a triangular solve, one class at a time: batched inverses have returned wrong
    numbers on several threads (pytorch #141358).
    """
    identity = np.eye(len(covariance))
    while eps <= _LARGEST_EPS * (1 + 1e-9):
        ridged = covariance + eps * unit * identity
        try:
            factor = np.linalg.cholesky(ridged)
        except np.linalg.LinAlgError:
            eps *= 10
            continue
        inverse: _Array = np.ascontiguousarray(solve_triangular(factor, identity, lower=True))
        assert np.abs(inverse @ ridged @ inverse.T - identity).max() < 1e-6, where
        return inverse, float(2 * np.log(np.diag(factor)).sum())
    raise ModelError(
        f"class statistics: covariance of {where} has no Cholesky factor with a ridge of "
        f"{_LARGEST_EPS:g}; raise plar.eps or lower plar.dim"
    )
