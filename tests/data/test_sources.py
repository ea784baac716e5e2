"""Scenes of a run, opened for crops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geohsal.data import sources
from geohsal.data.sources import SceneOpener
from geohsal.errors import RasterError
from geohsal.io.label_store import empty_labels, write_label_raster
from geohsal.io.manifest import load_manifest
from geohsal.io.raster import open_scene
from geohsal.workflows.landscape import write_landscape


def test_an_image_on_another_grid_than_the_tiled_one_is_refused(tmp_path: Path) -> None:
    manifest = load_manifest(write_landscape(tmp_path, shape=(192, 224)))
    source = manifest.scenes[0]
    with open_scene(source, manifest.bands, max_pixels=10**6) as reader:
        scene = reader.scene
    opener = SceneOpener(
        sources={source.scene_id: source},
        bands=manifest.bands,
        max_pixels=10**6,
        labels={},
        tiles={source.scene_id: []},
        buffers={source.scene_id: 0},
        grids={source.scene_id: scene},
    )
    opener(source.scene_id).close()
    moved = replace(scene, transform=scene.transform.translation(30, 0) @ scene.transform)
    for other in (replace(scene, height=100), moved):
        with pytest.raises(RasterError, match=r"west_1\.tif: its grid .* tiled on"):
            replace(opener, grids={source.scene_id: other})(source.scene_id)


def test_another_image_on_the_same_grid_is_refused(tmp_path: Path) -> None:
    manifest = load_manifest(write_landscape(tmp_path, shape=(192, 224)))
    source = manifest.scenes[0]
    with open_scene(source, manifest.bands, max_pixels=10**6) as reader:
        glance = reader.glance()
    opener = SceneOpener(
        sources={source.scene_id: source},
        bands=manifest.bands,
        max_pixels=10**6,
        labels={},
        tiles={source.scene_id: []},
        buffers={source.scene_id: 0},
        glances={source.scene_id: glance},
    )
    opener(source.scene_id).close()
    replace(opener, glances={source.scene_id: ""})(source.scene_id).close()  # of an older run
    with rasterio.open(source.image, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as image:
        image.write(image.read()[:, ::-1])
    with pytest.raises(
        RasterError, match=r"west_1\.tif: is not the image .* put the old image back"
    ):
        opener(source.scene_id)


def test_labels_of_large_scenes_are_read_by_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_manifest(write_landscape(tmp_path, shape=(192, 224)))
    source = manifest.scenes[0]
    with open_scene(source, manifest.bands, max_pixels=10**6) as reader:
        scene = reader.scene
    labels = empty_labels(scene.shape)
    rng = np.random.default_rng(0)
    labels.classes[:] = rng.integers(0, 4, scene.shape)
    labels.regions[:] = rng.integers(1, 99, scene.shape)
    path = tmp_path / "labels.tif"
    write_label_raster(path, labels.classes, labels.regions, labels.rounds, scene=scene)
    opener = SceneOpener(
        sources={source.scene_id: source},
        bands=manifest.bands,
        max_pixels=10**6,
        labels={source.scene_id: path},
        tiles={source.scene_id: []},
        buffers={source.scene_id: 0},
    )
    monkeypatch.setattr(sources, "read_label_raster", lambda *_: pytest.fail("read as a whole"))
    monkeypatch.setattr(sources, "WHOLE_LABELS", 100)
    crops = opener(source.scene_id)
    for row, col in ((3, 5), (100, 180), (-4, -6)):
        classes, regions = crops.labels(Window(col, row, 40, 30))
        expected = np.full((30, 40), 255)
        inside = labels.classes[max(row, 0) : row + 30, max(col, 0) : col + 40]
        top, left = max(-row, 0), max(-col, 0)
        expected[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        np.testing.assert_array_equal(classes, expected)
        assert ((regions > 0) == (expected != 255)).all()
    crops.close()
