"""Windows of the pool: anywhere inside the tiles, never where nothing is to train on."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rank_factory import each_rank
from rasterio.windows import Window

from geohsal.config import config_from_dict
from geohsal.data.dataset import BandScale, TrainArea
from geohsal.geo.patches import slices
from geohsal.models.tsf import build_inference_networks
from geohsal.training.collect import collect_pool
from geohsal.training.inference import Predictor, WindowGrid
from geohsal.training.ranks import ALONE, Ranks

SIDE, CLASSES = 256, 3


class Scene:
    """Random bands; `train` says where training may look. Remembers where it was asked."""

    def __init__(self, train: NDArray[np.bool_]) -> None:
        self.train = train
        self.image = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)).astype(np.float32)
        self.looked: set[tuple[int, int]] = set()

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        own = np.pad(self.image, ((0, 0), (64, 64), (64, 64)))
        train = np.pad(self.train, 64)
        at = slices(Window(window.col_off + 64, window.row_off + 64, window.width, window.height))
        return own[:, *at], train[at]

    def trainable(self, window: Window) -> NDArray[np.bool_]:
        self.looked.add((int(window.row_off), int(window.col_off)))
        return self.train[slices(window)]

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    values = {
        "model": {
            "arch": "unet", "encoder": "tu-resnet10t", "encoder_depth": 3, "decoder_channels": 8,
        },
        "ssl": {"friend": "none"},
    }  # fmt: skip
    torch.manual_seed(0)
    return Predictor(
        build_inference_networks(
            config_from_dict(values, where="test"), bands=2, classes=CLASSES
        ).eval(),
        scale=BandScale(mean=(0.0, 0.0), std=(1.0, 1.0)),
        grid=WindowGrid(size=64, overlap=16),
        device=torch.device("cpu"),
    )


def look(predictor: Predictor, scene: Scene, *, seed: int = 0) -> NDArray[np.float32]:
    area = TrainArea(scene_id="north", row=0, col=0, height=SIDE, width=SIDE, weight=1.0)
    return collect_pool(predictor, lambda _: scene, [area], windows=12, seed=seed)  # type: ignore[arg-type,return-value]


def test_windows_lie_anywhere_in_a_tile_and_an_empty_corner_does_no_harm(
    predictor: Predictor,
) -> None:
    train = np.ones((SIDE, SIDE), dtype=np.bool_)
    train[:64, :64] = False
    scene = Scene(train)
    found = look(predictor, scene)
    rows, cols = zip(*scene.looked, strict=True)
    assert len(scene.looked) > 6
    assert max(rows) > 96
    assert max(cols) > 96
    assert min(rows) >= 0
    assert max(rows) <= SIDE - 64
    assert found.shape[0] > 300
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, look(predictor, Scene(train)))


def test_no_pixel_to_look_at_is_no_pixel(predictor: Predictor) -> None:
    found = look(predictor, Scene(np.zeros((SIDE, SIDE), dtype=np.bool_)))
    assert found.shape == (0, CLASSES)
    assert found.dtype == np.float32


def test_processes_share_the_windows_out_and_all_see_all(predictor: Predictor) -> None:
    train = np.ones((SIDE, SIDE), dtype=np.bool_)
    train[:, :200] = False  # some windows show nothing
    area = TrainArea(scene_id="north", row=0, col=0, height=SIDE, width=SIDE, weight=1.0)

    def work(ranks: Ranks) -> tuple[NDArray[np.float32], int]:
        scene = Scene(train)
        found = collect_pool(
            predictor,
            lambda _: scene,  # type: ignore[arg-type,return-value]
            [area],
            windows=5,
            seed=1,
            ranks=ranks,
        )
        return found, len(scene.looked)

    whole, looked = work(ALONE)
    split = each_rank(7, work)
    for found, _ in split:
        np.testing.assert_array_equal(found, whole)
    assert sum(count for _, count in split) == looked == 5
