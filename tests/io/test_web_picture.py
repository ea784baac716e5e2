"""Rasters are read no larger than they are shown, and packed without a loss where asked."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import RasterFactory
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.windows import Window

from geohsal.errors import DataError
from geohsal.io.web_picture import read_small, small_shape, webp_uri


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 4096))
def test_a_picture_keeps_within_its_side_and_is_never_enlarged(h: int, w: int, most: int) -> None:
    height, width = small_shape(h, w, longest=most)
    assert 1 <= height <= min(h, most)
    assert 1 <= width <= min(w, most)
    assert max(height, width) == min(max(h, w), most)


def test_codes_are_picked_and_quantities_averaged(make_raster: RasterFactory) -> None:
    values = np.zeros((2, 64, 64), np.float32)
    values[1, ::2] = 1
    path = make_raster("x.tif", values)
    picked = read_small(path, longest=16, bands=[2])
    averaged = read_small(path, longest=16, bands=[2], average=True)
    assert picked.shape == averaged.shape == (1, 16, 16)
    assert set(np.unique(picked)) <= {0, 1}
    np.testing.assert_allclose(averaged, 0.5)


def test_a_window_is_read_in_full_where_it_is_small(make_raster: RasterFactory) -> None:
    values = np.arange(64 * 64, dtype=np.int32).reshape(64, 64)
    found = read_small(make_raster("x.tif", values), longest=99, window=Window(3, 5, 7, 9))
    np.testing.assert_array_equal(found[0], values[5:14, 3:10])


def test_a_large_raster_is_read_from_its_overviews(make_raster: RasterFactory) -> None:
    path = make_raster("x.tif", np.zeros((512, 512), np.uint8), tiled=True, blockxsize=256,
                       blockysize=256)  # fmt: skip
    with rasterio.open(path, "r+") as target:
        target.build_overviews([4])
    with rasterio.open(path, "r+", OVERVIEW_LEVEL=0) as small:
        small.write(np.full((1, 128, 128), 7, np.uint8))
    assert (read_small(path, longest=128) == 7).all()
    assert (read_small(path, longest=512) == 0).all()


def test_a_missing_raster_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tif: cannot be read .*run geohsal query"):
        read_small(tmp_path / "gone.tif", longest=9)


def test_codes_survive_and_pictures_stay_alike() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    uri = webp_uri(pixels, lossless=True)
    data = base64.b64decode(uri.removeprefix("data:image/webp;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")), pixels)
    assert len(webp_uri(pixels, lossless=False)) != len(uri)
