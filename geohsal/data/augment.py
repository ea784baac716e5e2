"""Weak views move pixels, strong views change radiometry and mix; all maps move together."""

from dataclasses import dataclass, replace

import kornia.augmentation as K
import torch
from kornia.constants import DataKey, Resample
from torch import Tensor

from geohsal.config import AugmentConfig
from geohsal.geo.states import IGNORE_INDEX


class WeakViews:
    """Flips, quarter turns and a zoom; what a zoom uncovers is invalid and unlabelled.

    Random numbers come from torch's global generator: the training step seeds it (fork_rng).
    """

    def __init__(self, config: AugmentConfig) -> None:
        steps: list[K.AugmentationBase2D] = [
            K.RandomHorizontalFlip(p=0.5),
            K.RandomVerticalFlip(p=0.5),
            K.RandomRotation90(times=(0, 3), p=1.0),
        ]
        if config.scale != (1.0, 1.0):
            steps.append(
                K.RandomAffine(
                    degrees=0.0, scale=config.scale, p=config.scale_p, padding_mode="zeros"
                )
            )
        self._pipeline = K.AugmentationSequential(
            *steps,
            data_keys=["input", "mask"],
            extra_args={DataKey.MASK: {"resample": Resample.NEAREST, "align_corners": None}},
        )

    def __call__(self, image: Tensor, maps: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Image (batch, band, height, width) and integer or bool maps (batch, height, width).

        Label maps (int64) come back with 255, bool maps with False, where nothing was.
        """
        names = sorted(maps)
        stacked = torch.stack([_shift(maps[name]) for name in names], dim=1)
        moved, moved_maps = self._pipeline(image, stacked)
        result = {
            name: _unshift(moved_maps[:, position], maps[name])
            for position, name in enumerate(names)
        }
        return moved, result


def _shift(values: Tensor) -> Tensor:
    """Floats in which 0 means nothing: bool as it is, labels + 1 with 255 as 0."""
    if values.dtype == torch.bool:
        return values.float()
    return torch.where(values == IGNORE_INDEX, torch.zeros_like(values), values + 1).float()


def _unshift(values: Tensor, like: Tensor) -> Tensor:
    codes = values.round().long()
    if like.dtype == torch.bool:
        return codes > 0
    return torch.where(codes == 0, torch.full_like(codes, IGNORE_INDEX), codes - 1)


def photometric(
    image: Tensor, valid: Tensor, *, gain: float, offset: float, noise: float
) -> Tensor:
    """Gain and offset per crop and band, and noise, in standard deviations; no hue jitter.

    Invalid pixels stay 0.
    """
    batch, bands = image.shape[:2]
    size = (batch, bands, 1, 1)
    factor = 1.0 + gain * (2.0 * torch.rand(size, device=image.device) - 1.0)
    shift = offset * (2.0 * torch.rand(size, device=image.device) - 1.0)
    changed = image * factor + shift
    if noise > 0:
        changed = changed + noise * torch.randn_like(image)
    return changed * valid[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledView:
    """An unlabelled crop with all that is said of its pixels; mixing moves all of it together.

    `image` is (batch, band, height, width), all others (batch, height, width): `target` the
    refined teacher label, `weight` its weight, `friend_target`/`friend_weight` and
    `student_target`/`student_weight` the peers' labels, `state` the pixel states, `counted` the
    valid unlabelled pixels that the losses divide by, `probe` the linear probe's
    probabilities (batch, class, height, width) where there is one.
    """

    image: Tensor
    target: Tensor
    weight: Tensor
    friend_target: Tensor
    friend_weight: Tensor
    student_target: Tensor
    student_weight: Tensor
    state: Tensor
    counted: Tensor
    valid: Tensor
    probe: Tensor | None = None


class StrongViews:
    """Radiometry, blur, and CutMix or ClassMix, on unlabelled crops.

    Args:
        config: how strong.
        mix: cutmix, classmix or none.
        class_pixels: (class,) labelled pixels; ClassMix rather pastes classes with few.
    """

    def __init__(
        self, config: AugmentConfig, *, mix: str = "cutmix", class_pixels: Tensor | None = None
    ) -> None:
        self._config = config
        self._mix = mix
        self._class_pixels = class_pixels
        self._blur = K.RandomGaussianBlur((3, 3), (0.2, 1.2), p=config.blur_p)

    def __call__(self, view: UnlabelledView) -> UnlabelledView:
        """The strong view of the same crops."""
        config = self._config
        image = photometric(
            view.image, view.valid, gain=config.gain, offset=config.offset, noise=config.noise
        )
        image = self._blur(image) * view.valid[:, None]
        changed = replace(view, image=image)
        if self._mix == "cutmix":
            return cutmix(changed, probability=config.cutmix_p)
        if self._mix == "classmix":
            assert self._class_pixels is not None, "ClassMix needs the labelled pixels per class"
            return classmix(changed, probability=config.cutmix_p, class_pixels=self._class_pixels)
        return changed


def cutmix(view: UnlabelledView, *, probability: float) -> UnlabelledView:
    """Paste a box of the next crop into each chosen one: image, labels, weights, states, nodata."""
    batch, _, height, width = view.image.shape
    if batch < 2 or probability == 0:
        return view
    box = torch.zeros((batch, height, width), dtype=torch.bool, device=view.image.device)
    for item in range(batch):
        chosen, area, aspect, top, left = torch.rand(5).tolist()
        if chosen >= probability:
            continue
        share = 0.1 + 0.3 * area
        ratio = 0.5 + 1.5 * aspect
        rows = max(1, min(height, round((share * ratio) ** 0.5 * height)))
        cols = max(1, min(width, round((share / ratio) ** 0.5 * width)))
        row, col = int(top * (height - rows + 1)), int(left * (width - cols + 1))
        box[item, row : row + rows, col : col + cols] = True
    return _paste(view, box)


def classmix(view: UnlabelledView, *, probability: float, class_pixels: Tensor) -> UnlabelledView:
    """Paste half of the classes of the next crop into each chosen one, all maps together.

    Classes are those of the pseudo-labels on valid pixels; half of an odd number is rounded down,
    so a crop of one class gives nothing (Olsson et al. 2021). They are drawn without return, with
    probability 1/sqrt(labelled pixels): rare classes rather. A class without labels is drawn like
    the most common one, since nothing says that it is there.

    Args:
        view: crops.
        probability: that a crop is pasted into.
        class_pixels: (class,) labelled pixels.
    """
    batch = len(view.image)
    if batch < 2 or probability == 0:
        return view
    counts = class_pixels.cpu().double()
    rarity = torch.where(counts > 0, counts, counts.max().clamp_min(1)).rsqrt()
    source, there = view.target.roll(1, 0), view.valid.roll(1, 0)
    mask = torch.zeros_like(there)
    for item in range(batch):
        if float(torch.rand(1)) >= probability:
            continue
        found = source[item][there[item]].bincount(minlength=len(rarity)).cpu()
        classes = found.nonzero()[:, 0]
        half = len(classes) // 2
        if half == 0:
            continue
        drawn = classes[torch.multinomial(rarity[classes], half)]
        mask[item] = torch.isin(source[item], drawn.to(source.device)) & there[item]
    return _paste(view, mask)


def _paste(view: UnlabelledView, where: Tensor) -> UnlabelledView:
    """The view with all of the next crop's maps where `where` (batch, height, width) is True."""
    maps = {name: getattr(view, name) for name in UnlabelledView.__dataclass_fields__}
    return UnlabelledView(
        **{
            name: torch.where(
                where[:, None] if value.dim() == 4 else where, value.roll(1, 0), value
            )
            for name, value in maps.items()
            if value is not None
        }
    )
