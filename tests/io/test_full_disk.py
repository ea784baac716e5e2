"""Every kind of file is written whole or not at all, at whatever byte the disk is full.

One writer for each library that writes files: what else goes through it is of the same kind.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from full_disk import no_file_beyond
from project_factory import make_project
from rasterio.crs import CRS
from rasterio.windows import Window
from review_factory import CLASSES
from shapely.geometry import MultiPolygon

from geohsal.errors import WriteError
from geohsal.geo.scene import Scene
from geohsal.io import qgis_project
from geohsal.io.atomic import replacing, unwritten, write_json
from geohsal.io.cog import write_cog
from geohsal.io.geopackage import Table, write_geopackage
from geohsal.io.label_store import write_label_raster
from geohsal.io.mapped import mapped_array
from geohsal.io.parts import write_part
from geohsal.io.plan import SceneUnits, make_plan, write_plan
from geohsal.io.polygon_file import PolygonBatch, PolygonLayer, pack_batches, write_polygons
from geohsal.io.qgis_project import write_project
from geohsal.io.review_schema import Field, Layer
from geohsal.io.tile_image import write_tile_image
from geohsal.query.regions import Candidates
from geohsal.training.checkpoint import WholeFiles
from geohsal.training.model_io import _save
from geohsal.workflows.query_parts import ScenePart, write_kept

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


def weights(path: Path) -> None:
    _save(path, {"noise": torch.from_numpy(NOISE)})


def plan(path: Path) -> None:
    scene = SceneUnits(scene_id="s", fingerprint="f", windows=NOISE[:200, :4].tolist())
    write_plan(path, make_plan("query", request="r", scenes=[scene], chunk_units=1))


def kept_scene(path: Path) -> None:
    regions = np.arange(SIDE)
    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(Candidates)), regions)
    part = ScenePart(candidates=Candidates(**values), states={}, labelled=NOISE.astype(np.float32))
    write_kept(path, "unit", part)


MAP = Layer(
    name="map",
    title="Map",
    description="",
    fields=(Field(name="area_m2", kind="real", alias="Area (m²)"),),
)
BOXES = shapely.box(*np.random.default_rng(0).uniform(5e5, 6e5, (4, 2000)))
AREAS = shapely.area(BOXES)


def geopackage(path: Path) -> None:
    boxes = [MultiPolygon([box]) for box in BOXES]
    table = Table(layer=MAP, crs="EPSG:32632", geometries=boxes, columns={"area_m2": list(AREAS)})
    with replacing(path) as beside:
        write_geopackage(beside, [table], classes=[], provenance={})


def export(path: Path) -> None:
    rows = PolygonBatch(polygons=BOXES, columns={"area_m2": AREAS})
    layer = PolygonLayer(layer=MAP, crs="EPSG:32632", batches=[rows])
    with replacing(path) as beside:
        write_polygons(beside, [layer], classes=[], record={})


def export_part(path: Path) -> None:
    pack_batches(path, MAP, [PolygonBatch(polygons=BOXES, columns={"area_m2": AREAS})])


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (label_raster, "labels.tif"),
        (cog, "map.tif"),
        (tile_image, "tile.tif"),
        (part, "part.npz"),
        (kept_scene, "scene.npz"),
        (checkpoint, "last.ckpt"),
        (weights, "model.safetensors"),
        (record, "query.json"),
        (plan, "plan.parquet"),
        (geopackage, "review.gpkg"),
        (export, "map.gpkg"),
        (export, "map.parquet"),
        (export, "map.fgb"),
        (export_part, "map.arrow"),
    ],
)
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_what_does_not_fit_is_one_line_and_the_old_file_stays(
    write: Callable[[Path], Any], name: str, share: float, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    before = path.read_bytes()
    path.write_bytes(b"old")
    with no_file_beyond(int(share * len(before))), pytest.raises(WriteError) as said:
        write(path)
    assert str(said.value).startswith(f"{path}: cannot be written (")
    assert "\n" not in str(said.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write(path)
    assert path.stat().st_size == len(before)


def test_an_array_in_a_file_takes_its_place_at_once(tmp_path: Path) -> None:
    with no_file_beyond(1000), pytest.raises(WriteError, match=r"codes\.bin: cannot be written "):
        mapped_array(tmp_path / "codes.bin", np.uint8, (40, 40))
    array = mapped_array(tmp_path / "codes.bin", np.uint16, (512, 1024))
    stat = (tmp_path / "codes.bin").stat()  # before anything is written into it
    assert (stat.st_size, stat.st_blocks * 512 >= stat.st_size) == (2**20, True)
    assert array.shape == (512, 1024)
    assert (array == 0).all()
    array[3, 5] = 7
    assert np.fromfile(tmp_path / "codes.bin", np.uint16).sum() == 7


@pytest.mark.parametrize("share", [0.3, 0.9999])
@pytest.mark.parametrize("beside", [False, True], ids=["in the review file", "beside it"])
def test_a_project_that_does_not_fit_leaves_the_review_file_as_it_was(
    beside: bool, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_project(tmp_path)
    before = {path: path.read_bytes() for path in made.round.dir.rglob("*") if path.is_file()}
    target = made.project if beside else made.review
    if beside:  # it is smaller than the review file, which would not fit before it
        monkeypatch.setattr(qgis_project, "_embed", lambda *_: None)
    limit = int(share * len(before[target]))
    with no_file_beyond(limit), pytest.raises(WriteError) as said:
        write_project(made.review, round_=made.round, classes=CLASSES)
    assert str(said.value).startswith(f"{target}: cannot be written (")
    after = {path: path.read_bytes() for path in made.round.dir.rglob("*") if path.is_file()}
    assert after == before


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
