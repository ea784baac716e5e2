"""GDAL's options: memory, threads, networks, and that the user's own win."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.env import get_gdal_config

from geohsal.io import gdal
from geohsal.io.gdal import CACHE_MB, environment, file_threads, is_remote, open_raster

FAR = "https://example.org/a.tif"


def test_remote_paths_are_told_from_local_ones() -> None:
    far = (FAR, "s3://b/a.tif", "zip+https://h/a.zip!a.tif", "/vsicurl/https://h/a.tif")
    assert all(is_remote(path) for path in far)
    near = ("/data/a.tif", "a.tif", "file:///a.tif", "zip:///a.zip!a.tif", "/vsizip/a.zip/a.tif")
    assert not any(is_remote(path) for path in near)


def test_only_remote_paths_go_without_side_files() -> None:
    with environment("/data/a.tif"):
        assert get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN") is None
        assert get_gdal_config("GDAL_NUM_THREADS") == file_threads()
    with environment(FAR):
        assert get_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN") == "EMPTY_DIR"
        assert get_gdal_config("GDAL_HTTP_MAX_RETRY") == 3
    assert get_gdal_config("GDAL_HTTP_MAX_RETRY") is None


def test_the_users_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    monkeypatch.setenv("GDAL_NUM_THREADS", "ALL_CPUS")
    with rasterio.Env(GDAL_HTTP_TIMEOUT=7), environment(FAR):
        assert get_gdal_config("GDAL_HTTP_MAX_RETRY") == 9
        assert get_gdal_config("GDAL_HTTP_TIMEOUT") == 7
        assert get_gdal_config("GDAL_NUM_THREADS") == 1, "threads lose pixels over a network"
    with environment("/data/a.tif"):
        assert get_gdal_config("GDAL_NUM_THREADS") == "ALL_CPUS"


@pytest.mark.parametrize(("own", "expected"), [(None, CACHE_MB), ("100", 100), ("700", 700)])
def test_the_block_cache_of_a_process_is_bounded(own: str | None, expected: int) -> None:
    code = (
        "from rasterio.env import get_gdal_config, set_gdal_config; "
        "from geohsal.io.gdal import quiet; "
        "import os; 'GDAL_CACHEMAX' in os.environ or set_gdal_config('GDAL_CACHEMAX', 2**33)\n"
        "with quiet(): print(get_gdal_config('GDAL_CACHEMAX') // 2**20)"
    )
    env = {name: value for name, value in os.environ.items() if name != "GDAL_CACHEMAX"}
    env |= {} if own is None else {"GDAL_CACHEMAX": own}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == expected


def test_a_worker_process_reads_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= file_threads() <= gdal.FILE_THREADS
    monkeypatch.setattr(gdal.multiprocessing, "parent_process", lambda: object())
    assert file_threads() == 1


def test_side_files_of_local_rasters_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 64, "width": 64, "dtype": "uint8"}
    with gdal.quiet(), rasterio.open(path, "w", **profile) as target:
        target.write(np.full((1, 64, 64), 7, dtype=np.uint8))
    mask = np.zeros((64, 64), dtype=bool)
    mask[:32] = True
    outside = rasterio.Env(GDAL_TIFF_INTERNAL_MASK="NO")
    with gdal.quiet(), outside, rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    assert (tmp_path / "a.tif.msk").is_file()
    with open_raster(str(path)) as dataset:
        np.testing.assert_array_equal(dataset.read_masks(1) > 0, mask)
