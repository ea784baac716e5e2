import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import config_from_dict
from geohsal.data.dataset import BandScale
from geohsal.models.mc_dropout import dropout_masks
from geohsal.models.tsf import build_inference_networks
from geohsal.training.inference import ChunkOutput, Predictor, WindowGrid, chunks

CONFIG = config_from_dict(
    {
        "model": {
            "arch": "unet",
            "encoder": "tu-resnet10t",
            "encoder_depth": 3,
            "decoder_channels": 8,
            "pixel_channels": 8,
            "window_px": 64,
            "window_overlap_px": 16,
        },
        "emd": {"channels": 8},
        "ssl": {"friend": "head"},
    },
    where="test",
)


class Picture:
    """A source of random bands with an invalid corner."""

    def __init__(self, height: int, width: int) -> None:
        rng = np.random.default_rng(0)
        self.image = rng.normal(size=(3, height, width)).astype(np.float32)
        self.mask = np.ones((height, width), dtype=np.bool_)
        self.mask[:9, :5] = False

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        height, width = self.mask.shape
        image = np.zeros((3, window.height, window.width), np.float32)
        valid = np.zeros((window.height, window.width), np.bool_)
        row0, row1 = max(0, window.row_off), min(height, window.row_off + window.height)
        col0, col1 = max(0, window.col_off), min(width, window.col_off + window.width)
        inside = (
            slice(row0 - window.row_off, row1 - window.row_off),
            slice(col0 - window.col_off, col1 - window.col_off),
        )
        image[:, *inside] = self.image[:, row0:row1, col0:col1]
        valid[inside] = self.mask[row0:row1, col0:col1]
        return image, valid


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(
        build_inference_networks(CONFIG, bands=3, classes=4),
        scale=BandScale(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        grid=WindowGrid(size=64, overlap=16),
        device=torch.device("cpu"),
    )


def assembled(predictor: Predictor, picture: Picture, size: int) -> dict[str, torch.Tensor]:
    height, width = picture.mask.shape
    fields = ("probabilities", "features", "error_logits", "teacher", "confidence", "valid")
    masks = dropout_masks(4, 16, share=0.2, seed=0)
    parts: dict[str, torch.Tensor] = {}
    for window in chunks(height, width, size=size):
        output: ChunkOutput = predictor.predict(picture, window, dropout=masks)
        place = (
            ...,
            slice(window.row_off, window.row_off + window.height),
            slice(window.col_off, window.col_off + window.width),
        )
        for name in (*fields, "information"):
            value = getattr(output, name)
            if name not in parts:
                parts[name] = torch.zeros((*value.shape[:-2], height, width), dtype=value.dtype)
            parts[name][place] = value
    return parts


def test_chunk_size_changes_no_bit(predictor: Predictor) -> None:
    picture = Picture(150, 131)
    whole = assembled(predictor, picture, 200)
    for size in (17, 48, 96):
        parts = assembled(predictor, picture, size)
        for name, value in whole.items():
            assert torch.equal(value, parts[name]), (size, name)


def test_a_chunk_is_read_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, seen = Picture(150, 170), []
    read = picture.read

    def counting(window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        seen.append((window.row_off, window.col_off, window.height, window.width))
        return read(window)

    monkeypatch.setattr(picture, "read", counting)
    predictor.predict(picture, Window(50, 60, 40, 70))
    assert seen == [(0, 0, 160, 112)]


def test_blending_leaves_no_seam(predictor: Predictor) -> None:
    """The mean step across window edges is no larger than elsewhere, by a wide margin."""
    whole = assembled(predictor, Picture(200, 200), 200)["probabilities"]
    steps = (whole[:, 1:] - whole[:, :-1]).abs().mean(dim=(0, 2))
    edges = [48, 64, 96, 112]
    assert steps[[e - 1 for e in edges]].mean() < 1.3 * steps.median()


def test_an_image_smaller_than_a_window_is_answered(predictor: Predictor) -> None:
    output = predictor.predict(Picture(20, 30), Window(0, 0, 30, 20))
    assert output.probabilities.shape == (4, 20, 30)
    assert output.information is None
    assert torch.isfinite(output.probabilities).all()
    assert int(output.valid.sum()) == 20 * 30 - 45
    assert torch.allclose(output.probabilities.sum(dim=0), torch.ones(20, 30))


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([32, 64, 96]),
    overlap=st.integers(0, 16),
    start=st.integers(0, 500),
    length=st.integers(1, 300),
)
def test_windows_touching_an_interval_are_exactly_those_that_overlap(
    size: int, overlap: int, start: int, length: int
) -> None:
    grid = WindowGrid(size=size, overlap=overlap)
    expected = [
        n for n in range(60) if n * grid.stride < start + length and n * grid.stride + size > start
    ]
    assert list(grid.touching(start, length)) == expected


@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_blending_weights_sum_to_one_where_windows_overlap(overlap: int) -> None:
    grid = WindowGrid(size=64, overlap=overlap)
    line = np.zeros(64 + 2 * grid.stride)
    profile = grid.weights()[32] / np.sqrt(grid.weights()[32, 32])
    for number in range(3):
        line[number * grid.stride : number * grid.stride + 64] += profile
    middle = line[overlap : len(line) - overlap] if overlap else line
    assert np.allclose(middle, 1.0)


def test_band_scale_clamps_and_blanks() -> None:
    scale = BandScale(mean=(10.0,), std=(2.0,))
    image = np.array([[[12.0, 1e9, 7.0]]], dtype=np.float32)
    valid = np.array([[True, True, False]])
    assert scale.apply(image, valid).tolist() == [[[1.0, 6.0, 0.0]]]
