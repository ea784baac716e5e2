"""Scenes over http: only the blocks that are needed, retries, and what goes wrong in one line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from range_server import Traffic, range_server
from rasterio.windows import Window
from shapely.geometry import box
from tiny_run import geohsal

from geohsal.errors import RasterError
from geohsal.io.label_store import read_label_raster
from geohsal.io.manifest import SceneSource
from geohsal.io.raster import SceneReader, open_scene
from geohsal.io.run import Run, open_run
from geohsal.io.run_tables import read_summary

SIDE, BLOCK = 1024, 128
BANDS = ("red", "green", "blue")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.05")
    with range_server(tmp_path) as traffic:
        yield traffic


@pytest.fixture
def image(make_raster: Any, tmp_path: Path) -> Path:
    """A COG of 64 blocks that hardly gets smaller when packed: 3 MB."""
    noise = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE), np.uint8)
    path = tmp_path / "north.tif"
    rasterio.shutil.copy(
        make_raster("draft.tif", noise, nodata=0), path, driver="COG", blocksize=BLOCK,
        compress="deflate", overviews="NONE",
    )  # fmt: skip
    return path


def reader(place: str) -> SceneReader:
    source = SceneSource(scene_id="north", image=place)
    return open_scene(source, BANDS, max_pixels=SIDE * SIDE)


def test_one_window_takes_its_blocks_alone(image: Path, server: Traffic) -> None:
    window = Window(300, 520, 100, 100)  # in two blocks
    with reader(f"{server.url}/north.tif") as far:
        header = server.sent
        server.failures = {server.gets: 503, server.gets + 1: 503}
        pixels, valid = far.read_with_valid(window)
        assert far.pixel_bytes == 3 * 100 * 100
    with reader(str(image)) as near:
        expected, inside = near.read_with_valid(window)
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(valid, inside)
    assert server.refused == [("north.tif", 503)] * 2
    assert server.paths == {"north.tif"}, "nothing is looked for beside it"
    size = image.stat().st_size
    assert header <= 64 * 1024
    assert 2 / 64 * size < server.sent < 4 / 64 * size


def test_tiling_a_small_area_of_a_remote_scene(
    image: Path, server: Traffic, make_gpkg: Any, make_manifest: Any, tmp_path: Path
) -> None:
    def square(row: int, col: int, side: int) -> Any:
        left, top = 500_000 + 10 * col, 5_200_000 - 10 * row
        return box(left, top - 10 * side, left + 10 * side, top)

    make_gpkg("aoi.gpkg", [(square(520, 300, 100), {"name": "here"})])
    make_gpkg("labels.gpkg", [(square(530, 310, 20), {"class_name": "water"})])
    keys = {"id": "north", "labels": "labels.gpkg", "aoi": "aoi.gpkg"}
    far = make_manifest([keys | {"image": f"{server.url}/north.tif"}], filename="far.yaml")
    near = make_manifest([keys | {"image": "north.tif"}], filename="near.yaml")
    server.failures = {1: 503, 2: 503}
    told = json.loads(geohsal("tile", far, "-o", tmp_path / "far", "--json").stdout)
    geohsal("tile", near, "-o", tmp_path / "near")
    beside = ("north.tif.vat.dbf", 404)  # GDAL 3.12 looks for it, too
    assert [refused for refused in server.refused if refused != beside] == [("north.tif", 503)] * 2
    assert server.sent < 5 / 64 * image.stat().st_size
    assert told["remote_pixel_bytes"] == {"north": 3 * 100 * 100}
    runs = [open_run(tmp_path / name) for name in ("far", "near")]
    assert runs[0].tiles.read_bytes() == runs[1].tiles.read_bytes()
    assert runs[0].labels("north").read_bytes() == runs[1].labels("north").read_bytes()
    records = [read_summary(run).scenes["north"] for run in runs]
    assert records[0].moments == records[1].moments
    assert records[0].valid_pixels == 100 * 100
    assert (read_label_raster(Run(path=tmp_path / "far").labels("north")).classes == 0).sum() == 400
    lines = geohsal("tile", far, "-o", tmp_path / "again").stdout
    assert "scene north: 0.0 MB of pixels came over the network (unpacked)" in lines


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gone.tif", "404); the server has no such file; correct the address"),
        ("403_a.tif", "403); the server refuses access; check address and credentials"),
        ("503_a.tif", "503); the server is out of order or busy; run the same command later"),
        ("slow_a.tif", "the server does not answer in time; run the same command later"),
    ],
)
def test_what_a_server_refuses_is_one_line(
    server: Traffic, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")
    with pytest.raises(RasterError) as caught:
        reader(f"{server.url}/{name}")
    message = str(caught.value)
    assert message.startswith(f"scene 'north': {server.url}/{name}: cannot be opened (")
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/a.tif", "http://nowhere.invalid/a.tif"])
def test_without_a_network_that_is_said(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with pytest.raises(RasterError, match="the server cannot be reached; check network and"):
        reader(place)


def test_a_connection_that_breaks_is_told_from_a_damaged_file(image: Path, server: Traffic) -> None:
    with reader(f"{server.url}/north.tif") as far:
        server.failures = dict.fromkeys(range(server.gets, server.gets + 99), 503)
        with pytest.raises(RasterError, match=r"cannot be read \(.*later$"):
            far.read(Window(0, 0, 10, 10))
