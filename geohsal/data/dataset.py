"""Crops of scenes as torch samples, in torchgeo's vocabulary (`image`, `mask`, `crs`, `bounds`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from rasterio.windows import bounds as window_bounds
from torch import Tensor
from torch.utils.data import Dataset

from geohsal.data.index import LabelledRegion, stable_hash
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX

CLAMP = 6.0
"""Normalised values are cut at this many standard deviations: glint and haze must not lead."""


class CropSource(Protocol):
    """An open scene with its labels and split; windows may reach outside the scene."""

    scene: Scene

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw bands (band, row, col) and validity (row, col)."""

    def labels(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Classes (255 unlabelled) and region numbers (0 none), any split."""

    def trainable(self, window: Window) -> NDArray[np.bool_]:
        """True in train cores outside buffers, valid or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandScale:
    """Mean and standard deviation per band, of valid train pixels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Normalised bands, cut at +-6 standard deviations, 0 where invalid."""
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        std = np.asarray(self.std, np.float32)[:, None, None]
        scaled = np.clip((image - mean) / std, -CLAMP, CLAMP)
        return np.where(valid[None], scaled, np.float32(0.0)).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainArea:
    """A train tile that has valid pixels: where unlabelled crops are drawn."""

    scene_id: str
    row: int
    col: int
    height: int
    width: int
    weight: float


class CropDataset(Dataset[dict[str, Any]]):
    """Crops by step number: sample i is a function of (seed, i) alone.

    So a resumed run draws what an undisturbed one would have drawn. Even the order of worker
    processes changes nothing.
    """

    def __init__(
        self,
        open_source: Callable[[str], CropSource],
        *,
        scale: BandScale,
        crop_px: int,
        seed: int,
    ) -> None:
        self._open_source = open_source
        self._sources: dict[str, CropSource] = {}
        self.scale = scale
        self.crop_px = crop_px
        self.seed = seed

    def _source(self, scene_id: str) -> CropSource:
        if scene_id not in self._sources:  # opened in the process that reads (GDAL and fork)
            self._sources[scene_id] = self._open_source(scene_id)
        return self._sources[scene_id]

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, index])

    def cut(self, scene_id: str, row: int, col: int) -> dict[str, Any]:
        """The crop whose upper left pixel is (row, col)."""
        source = self._source(scene_id)
        window = Window(col, row, self.crop_px, self.crop_px)
        image, valid = source.read(window)
        labels, regions = source.labels(window)
        trainable = source.trainable(window) & valid
        return {
            "image": torch.from_numpy(self.scale.apply(image, valid)),
            "mask": torch.from_numpy(np.where(trainable, labels, IGNORE_INDEX).astype(np.int64)),
            "regions": torch.from_numpy(np.where(trainable, regions, 0).astype(np.int64)),
            "valid": torch.from_numpy(valid),
            "train": torch.from_numpy(trainable),
            "crs": source.scene.crs,
            "bounds": window_bounds(window, source.scene.transform),
            "scene_id": scene_id,
        }


class LabelledCrops(CropDataset):
    """Crops around labelled regions; classes take turns, then regions of the class by chance.

    `mask` holds supervised labels only: those of `withheld` regions are hidden. Every
    `withheld_every`-th crop is drawn around a region of `learn_errors_at`, a part of the withheld
    ones, whose labels `withheld` holds: the error-mask decoder learns there. Both are 255
    elsewhere.
    """

    def __init__(
        self,
        open_source: Callable[[str], CropSource],
        *,
        regions: Sequence[LabelledRegion],
        withheld: frozenset[str],
        learn_errors_at: frozenset[str],
        scale: BandScale,
        crop_px: int,
        seed: int,
        length: int,
        sampling_power: float = 0.0,
        withheld_every: int = 4,
    ) -> None:
        super().__init__(open_source, scale=scale, crop_px=crop_px, seed=seed)
        self.length = length
        self.withheld_every = withheld_every
        supervised = [region for region in regions if region.key not in withheld]
        erring = [region for region in regions if region.key in learn_errors_at]
        self._supervised = _ClassDraw(supervised, power=sampling_power)
        self._withheld = _ClassDraw(erring, power=sampling_power)
        self._hidden = _numbers([r for r in regions if r.key in withheld])
        self._error_regions = _numbers([r for r in regions if r.key in learn_errors_at])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = self._generator(index)
        use_withheld = bool(self._withheld.classes) and index % self.withheld_every == 0
        pool = self._withheld if use_withheld else self._supervised
        class_id, region = pool.draw(generator)
        own = np.flatnonzero(region.classes == class_id)
        row, col = region.pixels[own[int(generator.integers(own.size))]]
        jitter = generator.integers(-self.crop_px // 4, self.crop_px // 4 + 1, size=2)
        half = self.crop_px // 2
        sample = self.cut(
            region.scene_id, int(row) - half + int(jitter[0]), int(col) - half + int(jitter[1])
        )
        return self._separate(sample)

    def _separate(self, sample: dict[str, Any]) -> dict[str, Any]:
        labels: Tensor = sample["mask"]
        regions: Tensor = sample["regions"]
        nothing = torch.full_like(labels, IGNORE_INDEX)
        none = torch.zeros(0, dtype=regions.dtype)
        hidden = torch.isin(regions, self._hidden.get(sample["scene_id"], none))
        learn = torch.isin(regions, self._error_regions.get(sample["scene_id"], none))
        sample["mask"] = torch.where(hidden, nothing, labels)
        sample["withheld"] = torch.where(learn, labels, nothing)
        return sample


class UnlabelledCrops(CropDataset):
    """Crops of train tiles, drawn by their valid pixels; `mask` says what is labelled there."""

    def __init__(
        self,
        open_source: Callable[[str], CropSource],
        *,
        areas: Sequence[TrainArea],
        scale: BandScale,
        crop_px: int,
        seed: int,
        length: int,
    ) -> None:
        super().__init__(open_source, scale=scale, crop_px=crop_px, seed=seed)
        self.length = length
        self._areas = list(areas)
        weights = np.asarray([area.weight for area in areas], np.float64)
        self._cumulative = np.cumsum(weights) / weights.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = self._generator(index)
        area = self._areas[int(np.searchsorted(self._cumulative, generator.random(), "right"))]
        return self.cut(
            area.scene_id,
            area.row + _place(generator, area.height, self.crop_px),
            area.col + _place(generator, area.width, self.crop_px),
        )


def _place(generator: np.random.Generator, extent: int, crop: int) -> int:
    """Offset of a crop inside an extent; a crop larger than the extent is centred."""
    if extent <= crop:
        return (extent - crop) // 2
    return int(generator.integers(extent - crop + 1))


class _ClassDraw:
    """Draws a class by its labelled pixels to a power, then one of its regions."""

    def __init__(self, regions: Sequence[LabelledRegion], *, power: float) -> None:
        self._members: dict[int, list[LabelledRegion]] = {}
        pixels: dict[int, int] = {}
        for region in regions:
            for class_id, count in region.counts.items():
                self._members.setdefault(class_id, []).append(region)
                pixels[class_id] = pixels.get(class_id, 0) + count
        self.classes = sorted(pixels)
        weights = np.asarray([pixels[c] for c in self.classes], np.float64) ** power
        self._share = weights / weights.sum() if self.classes else weights

    def draw(self, generator: np.random.Generator) -> tuple[int, LabelledRegion]:
        class_id = int(generator.choice(self.classes, p=self._share))
        members = self._members[class_id]
        return class_id, members[int(generator.integers(len(members)))]


def _numbers(regions: Sequence[LabelledRegion]) -> Mapping[str, Tensor]:
    table: dict[str, list[int]] = {}
    for region in regions:
        table.setdefault(region.scene_id, []).append(region.number)
    return {scene_id: torch.tensor(sorted(numbers)) for scene_id, numbers in table.items()}


def seed_of(seed: int, *names: object) -> int:
    """A seed below 2**31 for a purpose, from the run's seed and some names."""
    return stable_hash(":".join([str(seed), *map(str, names)])) % 2**31


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack tensors; keep everything else (crs, bounds, scene_id) as lists."""
    return {
        key: torch.stack([sample[key] for sample in samples])
        if isinstance(samples[0][key], Tensor)
        else [sample[key] for sample in samples]
        for key in samples[0]
    }
