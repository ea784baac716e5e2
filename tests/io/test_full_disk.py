"""Every kind of file is written whole or not at all, at whatever byte the disk is full."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affine import Affine
from full_disk import no_file_beyond
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.errors import WriteError
from geohsal.geo.scene import Scene
from geohsal.io.atomic import unwritten, write_json
from geohsal.io.cog import write_cog
from geohsal.io.label_store import write_label_raster
from geohsal.io.mapped import mapped_array
from geohsal.io.parts import write_part
from geohsal.io.tile_image import write_tile_image
from geohsal.training.checkpoint import WholeFiles

SIDE = 300
SCENE = Scene(
    scene_id="s",
    crs=CRS.from_epsg(32632),
    transform=Affine(1, 0, 5e5, 0, -1, 5e6),
    height=SIDE,
    width=SIDE,
    bands=("red",),
)
NOISE = np.random.default_rng(0).integers(0, 2**31 - 1, (SIDE, SIDE)).astype(np.int32)


def label_raster(path: Path) -> None:
    write_label_raster(path, NOISE, NOISE, NOISE, scene=SCENE)


def cog(path: Path) -> None:
    write_cog(path, NOISE.astype(np.float32), scene=SCENE, nodata=None, band_names=["noise"])


def tile_image(path: Path) -> None:
    valid = np.ones((SIDE, SIDE), dtype=bool)
    window = Window(0, 0, SIDE, SIDE)
    write_tile_image(path, NOISE[None].astype(np.float32), valid, scene=SCENE, window=window)


def part(path: Path) -> None:
    write_part(path, {"noise": NOISE}, {})


def checkpoint(path: Path) -> None:
    WholeFiles().save_checkpoint({"noise": torch.from_numpy(NOISE)}, path)


def record(path: Path) -> None:
    write_json(path, {"noise": NOISE.tolist()})


@pytest.mark.parametrize("write", [label_raster, cog, tile_image, part, checkpoint, record])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_what_does_not_fit_is_one_line_and_the_old_file_stays(
    write: Callable[[Path], Any], share: float, tmp_path: Path
) -> None:
    path = tmp_path / "file.tif"
    write(path)
    before = path.read_bytes()
    path.write_bytes(b"old")
    with no_file_beyond(int(share * len(before))), pytest.raises(WriteError) as said:
        write(path)
    assert str(said.value).startswith(f"{path}: cannot be written (")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file.tif"]
    write(path)
    assert path.stat().st_size == len(before)


def test_an_array_in_a_file_takes_its_place_at_once(tmp_path: Path) -> None:
    with no_file_beyond(1000), pytest.raises(WriteError, match=r"codes\.bin: cannot be written "):
        mapped_array(tmp_path / "codes.bin", np.uint8, (40, 40))
    array = mapped_array(tmp_path / "codes.bin", np.uint16, (40, 40))
    assert (array == 0).all()
    array[3, 5] = 7
    assert array.shape == (40, 40)
    stat = (tmp_path / "codes.bin").stat()
    assert (stat.st_size, stat.st_blocks * 512 >= stat.st_size) == (3200, True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(13, "Permission denied"), "Permission denied"),
        (RuntimeError("unexpected pos 128\nvs 0"), "unexpected pos 128 vs 0; is the disk full?"),
        ("database or disk is full", "No space left on device"),
        (OSError("Detail: [errno 28] No space left on device"), "No space left on device"),
        ("x" * 300, f"{'x' * 200}; is the disk full?"),
    ],
)
@pytest.mark.parametrize(
    "name", ["labels.gpkg", ".labels.0a1b2c3d-17-00112233.part.gpkg", ".labels.00112233.part.gpkg"]
)
def test_every_library_s_words_for_a_full_disk_become_ours(
    error: Exception | str, said: str, name: str
) -> None:
    message = str(unwritten(Path("run") / name, error))
    assert message == f"run/labels.gpkg: cannot be written ({said})"
