"""Scenes of a run, opened for crops."""

from dataclasses import replace
from pathlib import Path

import pytest

from geohsal.data.sources import SceneOpener
from geohsal.errors import RasterError
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
