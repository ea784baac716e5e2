from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.data.dataset import (
    BandScale,
    LabelledCrops,
    TrainArea,
    UnlabelledCrops,
    collate,
    seed_of,
)
from geohsal.data.index import LabelledPixels, find_regions
from geohsal.geo.scene import Scene

SIDE = 96
SCALE = BandScale(mean=(0.0, 0.0), std=(1.0, 1.0))


class Source:
    """A scene of two bands; four labelled regions, one of them outside the train split."""

    def __init__(self) -> None:
        self.scene = Scene(
            scene_id="s", crs=CRS.from_epsg(32632), transform=Affine(10, 0, 0, 0, -10, 0),
            height=SIDE, width=SIDE, bands=("a", "b"),
        )  # fmt: skip
        self.classes = np.full((SIDE, SIDE), 255, np.uint8)
        self.numbers = np.zeros((SIDE, SIDE), np.int32)
        for number, (row, col, class_id) in enumerate(
            [(10, 10, 0), (40, 40, 1), (60, 20, 1), (20, 80, 2)], start=1
        ):
            self.classes[row : row + 8, col : col + 8] = class_id
            self.numbers[row : row + 8, col : col + 8] = number
        self.train = np.ones((SIDE, SIDE), np.bool_)
        self.train[:, 72:] = False
        self.valid = np.ones((SIDE, SIDE), np.bool_)
        self.valid[40:42, 40:48] = False

    def _cut(self, array: NDArray[Any], window: Window, fill: Any) -> NDArray[Any]:
        padded = np.pad(array, 200, constant_values=fill)
        row, col = window.row_off + 200, window.col_off + 200
        return padded[row : row + window.height, col : col + window.width]

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        valid = self._cut(self.valid, window, False)
        return np.ones((2, *valid.shape), np.float32) * valid, valid

    def labels(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        return self._cut(self.classes, window, 255), self._cut(self.numbers, window, 0)

    def trainable(self, window: Window) -> NDArray[np.bool_]:
        return self._cut(self.train, window, False)


@pytest.fixture
def crops() -> LabelledCrops:
    source = Source()
    usable = np.where(source.train & source.valid, source.classes, np.uint8(255))
    regions = find_regions("s", LabelledPixels.of(usable, source.numbers), seed=0)
    return LabelledCrops(
        lambda _: source, regions=regions, withheld=frozenset({"s#2", "s#3"}),
        learn_errors_at=frozenset({"s#3"}), scale=SCALE, crop_px=32, seed=0, length=80,
    )  # fmt: skip


def test_hidden_labels_never_reach_the_supervised_mask(crops: LabelledCrops) -> None:
    seen: Counter[int] = Counter()
    for index in range(len(crops)):
        sample = crops[index]
        assert not (sample["mask"] == 1).any(), "both regions of class 1 are withheld"
        assert not (sample["mask"] == 2).any(), "class 2 lies outside the train split"
        assert set(sample["withheld"].unique().tolist()) <= {1, 255}
        assert not (sample["regions"][sample["withheld"] == 1] != 3).any()
        seen.update(sample["mask"].unique().tolist())
    assert seen[0] > 0


def test_samples_are_a_function_of_their_number(crops: LabelledCrops) -> None:
    forwards = [crops[index]["bounds"] for index in range(20)]
    backwards = [crops[index]["bounds"] for index in reversed(range(20))][::-1]
    assert forwards == backwards
    assert len(set(forwards)) > 10


def test_crops_speak_torchgeos_words(crops: LabelledCrops) -> None:
    batch = collate([crops[0], crops[1]])
    assert batch["image"].shape == (2, 2, 32, 32)
    assert batch["mask"].dtype == torch.int64
    assert batch["crs"] == [CRS.from_epsg(32632)] * 2
    west, south, east, north = batch["bounds"][0]
    assert (east - west, north - south) == (320.0, 320.0)


def test_invalid_pixels_are_blank_and_unlabelled(crops: LabelledCrops) -> None:
    sample = crops.cut("s", 30, 30)
    assert not sample["image"][:, ~sample["valid"]].any()
    assert (sample["mask"][~sample["valid"]] == 255).all()
    assert not sample["train"][~sample["valid"]].any()


def test_unlabelled_crops_stay_in_train_tiles_and_follow_their_weights() -> None:
    source = Source()
    areas = [
        TrainArea(scene_id="s", row=0, col=0, height=48, width=72, weight=1.0),
        TrainArea(scene_id="s", row=48, col=0, height=48, width=72, weight=3.0),
    ]
    crops = UnlabelledCrops(
        lambda _: source, areas=areas, scale=SCALE, crop_px=32, seed=1, length=400
    )
    tops = [-crops[index]["bounds"][3] / 10 for index in range(400)]
    lower = sum(top >= 48 for top in tops)
    assert all(0 <= top <= 64 for top in tops)
    assert 260 < lower < 340
    assert all(crops[index]["bounds"][2] <= 720 for index in range(50))


@pytest.mark.parametrize(("power", "expected"), [(0.0, 0.5), (1.0, 1 / 65)])
def test_a_class_of_one_pixel_is_drawn_by_the_sampling_power(power: float, expected: float) -> None:
    source = Source()
    source.classes[source.numbers > 2] = 255  # regions 1 and 2 remain
    source.classes[40:48, 40:48] = 255
    source.classes[44, 44] = 1  # a single pixel; no pixel of class 2
    regions = find_regions("s", LabelledPixels.of(source.classes, source.numbers), seed=0)
    crops = LabelledCrops(
        lambda _: source, regions=regions, withheld=frozenset(), learn_errors_at=frozenset(),
        scale=SCALE, crop_px=16, seed=3, length=400, sampling_power=power,
    )  # fmt: skip
    rare = sum(bool((crops[index]["mask"] == 1).any()) for index in range(400))
    assert abs(rare / 400 - expected) < 0.06


def test_seeds_for_purposes_differ_and_are_stable() -> None:
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)
    assert len({seed_of(s, name, n) for s in range(3) for name in "ab" for n in range(3)}) == 18
