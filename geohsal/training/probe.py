"""A linear probe: labels for unlabelled pixels from features that no training has touched.

With few labels a network learns its labelled regions by heart, and so does the teacher that follows
it. A linear classifier on fixed features is held back from that by its form and its shrinkage. Its
probabilities on unlabelled pixels are learned by student and friend as soft targets (distillation,
Hinton et al. 2015) beside the teacher's hard ones, under `ssl.probe_weight`. The probe itself maps
nothing and is no part of the saved model.

Do no harm: where labels are many, or no pretrained features at hand, a network can be far better
than any linear classifier. At every refresh both are judged on the withheld regions; while the
labelling network is ahead there by more than two standard errors, the probe is not learned from.
With fewer than five withheld regions it always is.

Features of a pixel: the normalised bands, their means and standard deviations in windows of 5 and
13 pixels, and, where `model.weights` names any, the first feature maps of the encoder with exactly
these weights, as a round found them before anything was trained. The classifier is linear
discriminant analysis with half of the pooled covariance replaced by a multiple of the identity
(regularised discriminant analysis, Friedman 1989, with one covariance for all classes).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geohsal.config import ModelConfig
from geohsal.data.dataset import BandScale, CropDataset, CropSource
from geohsal.data.index import LabelledRegion, stable_hash
from geohsal.models.segmenter import build_segmenter
from geohsal.models.weights import load_encoder_weights
from geohsal.refine.statistics import LabelledPixels
from geohsal.training.forest import WINDOWS
from geohsal.training.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)

SHRINKAGE = 0.5
"""Share of the identity in the pooled covariance of standardised features."""
CLAMP = 6.0
"""Standardised features are cut there: one that was silent at the labels must not decide alone."""
MAX_PIXELS = 50_000
"""Pixels that are learned from at most, the same number of every region."""
FEWEST_JUDGES = 5
"""Withheld regions below which nothing is judged."""
LEVELS = 3
"""Feature maps of the encoder that are read: those of half to an eighth of the resolution."""
RIDGE = 1e-6
"""Added to the diagonal: classes without any spread must not fail."""
FOLDS = 5
"""Of regions, each judged by a classifier of the others: these set the temperature."""
TEMPERATURES = np.geomspace(1.0, 64.0, 25)
PIECE_PX = 192
MARGIN_PX = 32
"""Labelled pixels are read in pieces of that side, with that much around them."""


class LinearProbe(nn.Module):
    """Class probabilities of every pixel by linear discriminants of fixed features.

    Args:
        encoder: with its pretrained weights, or None: bands and windows alone.
        discriminants: of the features.
        temperature: what logits are divided by.
    """

    def __init__(
        self, encoder: nn.Module | None, discriminants: "Discriminants", *, temperature: float
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.mean: Tensor
        self.spread: Tensor
        self.weight: Tensor
        self.bias: Tensor
        for name in ("mean", "spread", "weight", "bias"):
            value = torch.from_numpy(getattr(discriminants, name)).float()
            self.register_buffer(name, value)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "LinearProbe":
        """It never leaves evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """(batch, band, height, width), normalised, to probabilities (batch, class, ...).

        Height and width are multiples of the encoder's stride; `valid` is (batch, height, width).
        Each group of features has its own share of the logits, made at the resolution of the
        group: interpolation is linear too, and class maps are fewer than features.
        """
        with torch.autocast(image.device.type, enabled=False):
            groups = fixed_features(self.encoder, image, valid)
            sizes = [group.shape[1] for group in groups]
            parts = (
                groups,
                torch.split(self.mean, sizes),
                torch.split(self.spread, sizes),
                torch.split(self.weight, sizes, dim=1),
            )
            logits = self.bias[:, None, None].expand(len(image), -1, *image.shape[-2:])
            for group, mean, spread, weight in zip(*parts, strict=True):
                scaled = (group - mean[:, None, None]) / spread[:, None, None]
                maps = F.conv2d(scaled.clamp(-CLAMP, CLAMP), weight[:, :, None, None])
                logits = logits + _enlarged(maps, image)
        return (logits / self.temperature).softmax(dim=1)


def fixed_features(encoder: nn.Module | None, image: Tensor, valid: Tensor) -> list[Tensor]:
    """Groups of features (batch, feature, height, width), the later ones at lower resolutions."""
    image = image.float()
    known = valid[:, None].to(image.dtype)
    parts = [image]
    for size in WINDOWS:
        share = _window_mean(known, size).clamp_min(1e-6)
        mean = _window_mean(image * known, size) / share
        square = _window_mean(image * image * known, size) / share
        parts += [mean, (square - mean * mean).clamp_min(0.0).sqrt()]
    groups = [torch.cat(parts, dim=1)]
    if encoder is not None:
        pyramid = encoder(image.contiguous(memory_format=torch.channels_last))
        groups += [level.float() for level in pyramid[1 : 1 + LEVELS] if level.shape[1]]
    return groups


def _window_mean(values: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(values, size, stride=1, padding=size // 2, count_include_pad=False)


def _enlarged(maps: Tensor, image: Tensor) -> Tensor:
    if maps.shape[-2:] == image.shape[-2:]:
        return maps
    return F.interpolate(maps, size=image.shape[-2:], mode="bilinear", align_corners=False)


class Tutor:
    """The probe with its do-no-harm switch: what a training learns softly from, and whether.

    Args:
        probe: on the device of the training.
        right: by the position of a withheld region: share of its sampled pixels that the probe
            has right.
    """

    def __init__(self, probe: LinearProbe, *, right: Mapping[int, float]) -> None:
        self.probe = probe
        self.right = right
        self.on = True

    def see(self, pixels: LabelledPixels) -> None:
        """Compare with the labelling network on withheld regions, and switch accordingly.

        Args:
            pixels: the labelled pixels as the labelling network sees them.
        """
        leads = [
            float((pixels.teacher[own] == pixels.label[own]).mean()) - share
            for region, share in self.right.items()
            if (own := pixels.region == region).any()
        ]
        before, self.on = self.on, not _ahead(leads)
        if self.on != before:
            logger.info(
                "linear probe: %s, the labelling network is right at %+.3f more of the pixels of "
                "%d withheld regions",
                "learned from again" if self.on else "no longer learned from",
                float(np.mean(leads)),
                len(leads),
            )


def _ahead(leads: Sequence[float]) -> bool:
    """Whether the mean lead over regions is above two standard errors; never with few regions."""
    if len(leads) < FEWEST_JUDGES:
        return False
    error = np.std(leads, ddof=1) / np.sqrt(len(leads))
    return bool(np.mean(leads) > 2.0 * error)


# --- fitting ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSamples:
    """Labelled pixels: `features` (pixel, feature), all else (pixel,); `regions` are positions."""

    features: NDArray[np.float32]
    classes: NDArray[np.int64]
    folds: NDArray[np.int64]
    regions: NDArray[np.int64]

    def where(self, chosen: NDArray[np.bool_]) -> "ProbeSamples":
        """Some of them."""
        return ProbeSamples(
            features=self.features[chosen],
            classes=self.classes[chosen],
            folds=self.folds[chosen],
            regions=self.regions[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Discriminants:
    """Linear discriminants of standardised features.

    `mean` and `spread` (feature,) standardise, `weight` is (class, feature), `bias` (class,), minus
    infinity where a class has no labels.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logits (pixel, class) of features (pixel, feature)."""
        scaled = np.clip((features - self.mean) / self.spread, -CLAMP, CLAMP)
        return np.asarray(scaled @ self.weight.T + self.bias, dtype=np.float64)


def pretrained_encoder(
    config: ModelConfig, *, bands: int, device: torch.device
) -> nn.Module | None:
    """The encoder as its weights have it; None where the settings name none.

    Raises:
        ConfigError: the weights cannot be loaded.
    """
    if config.weights is None:
        logger.warning(
            "ssl.probe_weight without model.weights: the probe sees bands and their windows alone, "
            "with which it did harm where it was tried; name pretrained weights, or set it to 0"
        )
        return None
    encoder = build_segmenter(config, in_channels=bands, classes=2).encoder
    load_encoder_weights(encoder, config.weights, name=config.encoder)
    return encoder.requires_grad_(False).eval().to(device)


def fit_probe(
    regions: Sequence[LabelledRegion],
    *,
    withheld: frozenset[str],
    open_source: Callable[[str], CropSource],
    scale: BandScale,
    encoder: nn.Module | None,
    num_classes: int,
    seed: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Tutor | None:
    """The probe of a round's supervised regions; None, with a warning, where they allow none.

    Classes weigh as their labelled pixels do. Withheld regions stay unseen: what is judged on them
    would know their labels through the probe otherwise.

    Args:
        regions: all labelled regions with their sampled pixels.
        withheld: keys of those that must not be learned from.
        open_source: opens a scene by id.
        scale: of the bands.
        encoder: as `pretrained_encoder` gives it.
        num_classes: C.
        seed: of the folds.
        device: where the encoder is, and the probe will be.
        ranks: processes that share the reading out; all get the same probe.
    """
    if not any(len(region.classes) for region in regions):
        logger.warning("no linear probe: no labelled pixel away from label borders")
        return None
    crops = CropDataset(open_source, scale=scale, crop_px=PIECE_PX + 2 * MARGIN_PX, seed=0)
    reader = _Reader(crops=crops, encoder=encoder, device=device)
    samples = _collect(regions, reader, seed=seed, ranks=ranks)
    apart = np.array([region.key in withheld for region in regions])[samples.regions]
    seen, unseen = samples.where(~apart), samples.where(apart)
    pixels = np.zeros(num_classes)
    for region in regions:
        if region.key not in withheld:
            for class_id, count in region.counts.items():
                pixels[class_id] += count
    temperature = _temperature(seen, pixels)
    if temperature is None:
        logger.warning(
            "no linear probe: fewer than two classes are labelled in regions of their own"
        )
        return None
    found = _discriminants(seen.features, seen.classes, pixels)
    logger.info(
        "linear probe: %d features, %d regions, temperature %.1f",
        len(found.mean),
        len(np.unique(seen.regions)),
        temperature,
    )
    right = found(unseen.features).argmax(axis=1) == unseen.classes
    return Tutor(
        LinearProbe(encoder, found, temperature=temperature).to(device),
        right={
            int(region): float(right[unseen.regions == region].mean())
            for region in np.unique(unseen.regions)
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads the features of pixels, piece by piece."""

    crops: CropDataset
    encoder: nn.Module | None
    device: torch.device

    @torch.no_grad()
    def __call__(self, piece: "_Piece", pixels: "_Integers") -> NDArray[np.float32]:
        """Features (pixel, feature) of pixels (row, col) of a piece."""
        scene_id, row, col = piece
        sample = self.crops.cut(scene_id, row - MARGIN_PX, col - MARGIN_PX)
        image = sample["image"][None].to(self.device)
        groups = fixed_features(self.encoder, image, sample["valid"][None].to(self.device))
        down, right = torch.from_numpy(pixels.T + MARGIN_PX).to(self.device)
        found = [_enlarged(group, image)[0][:, down, right] for group in groups]
        return torch.cat(found).T.cpu().numpy()


def _collect(
    regions: Sequence[LabelledRegion], reader: _Reader, *, seed: int, ranks: Ranks
) -> ProbeSamples:
    """Features of the sampled pixels; the same in every process, in the same order."""
    own = [
        (reader(piece, pixels), classes, folds, numbers)
        for piece, pixels, classes, folds, numbers in ranks.share(list(_pieces(regions, seed=seed)))
    ]
    features, classes, folds, numbers = (
        np.concatenate(column) for column in zip(*ranks.merge(own), strict=True)
    )
    return ProbeSamples(features=features, classes=classes, folds=folds, regions=numbers)


def _spread_out(count: int, most: int) -> list[int]:
    """All places below `count`, or about `most` of them at equal distances."""
    return list(range(0, count, -(-count // most) if count > most else 1))


_Piece = tuple[str, int, int]
_Integers = NDArray[np.int64]


def _pieces(
    regions: Sequence[LabelledRegion], *, seed: int
) -> Iterator[tuple[_Piece, _Integers, _Integers, _Integers, _Integers]]:
    """Scene, row and column of each piece; pixels (row, col) in it, classes, folds, regions."""
    ranked = sorted(regions, key=lambda region: (stable_hash(f"{seed}:{region.key}"), region.key))
    fold = {region.key: rank % FOLDS for rank, region in enumerate(ranked)}
    most = max(1, MAX_PIXELS // len(regions))
    points = sorted(
        (region.scene_id, *(region.pixels[place] // PIECE_PX).tolist(), number, place)
        for number, region in enumerate(regions)
        for place in _spread_out(len(region.classes), most)
    )
    for (scene_id, down, right), group in groupby(points, key=lambda point: point[:3]):
        members = [(regions[number], number, place) for *_, number, place in group]
        corner = np.array([down, right]) * PIECE_PX
        yield (
            (scene_id, *corner.tolist()),
            np.array([region.pixels[place] for region, _, place in members], np.int64) - corner,
            np.array([region.classes[place] for region, _, place in members], np.int64),
            np.array([fold[region.key] for region, *_ in members], np.int64),
            np.array([number for _, number, _ in members], np.int64),
        )


def _discriminants(
    features: NDArray[np.floating], classes: NDArray[np.int64], pixels: NDArray[np.float64]
) -> Discriminants:
    """Linear discriminants with a shrunken pooled covariance.

    Args:
        features: (pixel, feature).
        classes: (pixel,), at least two of them.
        pixels: (class,) by which classes weigh.
    """
    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    spread = spread + 1e-3
    scaled = np.clip((features - mean) / spread, -CLAMP, CLAMP)
    present, place = np.unique(classes, return_inverse=True)
    members = [scaled[place == number] for number in range(len(present))]
    centres = np.stack([own.mean(axis=0) for own in members])
    share = pixels[present] / pixels[present].sum()
    pooled = sum(part * _covariance(own) for part, own in zip(share, members, strict=True))
    size = len(mean)
    pooled = (1 - SHRINKAGE) * pooled + SHRINKAGE * np.trace(pooled) / size * np.eye(size)
    own = np.linalg.solve(pooled + RIDGE * np.eye(size), centres.T).T
    weight = np.zeros((len(pixels), size))
    bias = np.full(len(pixels), -np.inf)
    weight[present] = own
    bias[present] = np.log(share) - 0.5 * (own * centres).sum(axis=1)
    return Discriminants(mean=mean, spread=spread, weight=weight, bias=bias)


def _covariance(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """(feature, feature) of (pixel, feature); 0 of one pixel."""
    centred = features - features.mean(axis=0)
    return np.asarray(centred.T @ centred / len(features), dtype=np.float64)


def _temperature(samples: ProbeSamples, pixels: NDArray[np.float64]) -> float | None:
    """The temperature of least cross-entropy on left-out regions; None where none can be judged.

    A left-out pixel whose class no other fold holds says nothing of confidence.
    """
    scores = []
    for fold in np.unique(samples.folds):
        out = samples.folds == fold
        inside = samples.classes[~out]
        known = out & np.isin(samples.classes, inside)
        if len(np.unique(inside)) < 2 or not known.any():
            continue
        found = _discriminants(samples.features[~out], inside, pixels)
        scores.append((found(samples.features[known]), samples.classes[known]))
    if not scores:
        return None
    logits, classes = (np.concatenate(column) for column in zip(*scores, strict=True))
    truth = torch.from_numpy(classes)
    losses = [
        float(F.cross_entropy(torch.from_numpy(logits / heat), truth)) for heat in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmin(losses))])


def probe_loss(
    logits: Tensor, target: Tensor, counted: Tensor, *, count: Tensor | None = None
) -> Tensor:
    """Cross-entropy against soft targets, its mean over the counted pixels.

    Args:
        logits: (batch, class, height, width) of a strong view.
        target: the probe's probabilities, of the same shape.
        counted: (batch, height, width) bool, the valid unlabelled pixels.
        count: what to divide by instead, where other processes hold pixels of the same step.
    """
    pixel = -(target * logits.float().log_softmax(dim=1)).sum(dim=1)
    return (pixel * counted).sum() / (counted.sum().clamp_min(1) if count is None else count)
