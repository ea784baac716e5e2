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
    """An unlabelled crop with all that is said of its pixels; CutMix moves all of it together.

    `image` is (batch, band, height, width), all others (batch, height, width): `target` the
    refined teacher label, `weight` its weight, `friend_target`/`friend_weight` and
    `student_target`/`student_weight` the peers' labels, `state` the pixel states, `counted` the
    valid unlabelled pixels that the losses divide by.
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


class StrongViews:
    """Radiometry, blur and CutMix on unlabelled crops."""

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config
        self._blur = K.RandomGaussianBlur((3, 3), (0.2, 1.2), p=config.blur_p)

    def __call__(self, view: UnlabelledView) -> UnlabelledView:
        """The strong view of the same crops."""
        config = self._config
        image = photometric(
            view.image, view.valid, gain=config.gain, offset=config.offset, noise=config.noise
        )
        image = self._blur(image) * view.valid[:, None]
        return cutmix(replace(view, image=image), probability=config.cutmix_p)


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
    return UnlabelledView(
        **{
            name: torch.where(box[:, None] if value.dim() == 4 else box, value.roll(1, 0), value)
            for name, value in (
                (name, getattr(view, name)) for name in UnlabelledView.__dataclass_fields__
            )
        }
    )
