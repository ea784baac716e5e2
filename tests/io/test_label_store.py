import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.errors import LabelError
from geohsal.geo.scene import Scene
from geohsal.io.label_store import (
    LabelArrays,
    empty_labels,
    read_label_raster,
    write_label_raster,
)


@pytest.fixture
def scene() -> Scene:
    return Scene(
        scene_id="north",
        crs=CRS.from_epsg(32612),
        transform=Affine(30, 0, 301_905, 0, -30, 4_154_085),
        height=700,
        width=300,
        bands=("red",),
    )


@pytest.fixture
def labels(scene) -> LabelArrays:
    rng = np.random.default_rng(0)
    return LabelArrays(
        classes=rng.choice([0, 1, 7, 255], size=scene.shape).astype(np.uint8),
        regions=rng.integers(0, 1 << 25, size=scene.shape, dtype=np.int32),
        rounds=rng.integers(-1, 4, size=scene.shape, dtype=np.int32),
    )


def test_labels_come_back_whole_and_by_window(tmp_path, scene, labels):
    path = tmp_path / "labels" / "north.tif"
    write_label_raster(path, labels.classes, labels.regions, labels.rounds, scene=scene)
    assert read_label_raster(path).equals(labels)
    part = read_label_raster(path, Window(250, 500, 50, 200))
    np.testing.assert_array_equal(part.regions, labels.regions[500:, 250:])
    with rasterio.open(path) as file:
        assert file.dtypes == ("int32",) * 3
        assert file.descriptions == ("class", "region", "round")
        assert file.nodata is None
        assert (file.crs, file.transform) == (scene.crs, scene.transform)
        assert file.tags()["format_version"] == "1"
    assert [entry.name for entry in path.parent.iterdir()] == ["north.tif"]


def test_outside_the_scene_nothing_is_labelled(tmp_path, scene, labels):
    path = tmp_path / "north.tif"
    write_label_raster(path, labels.classes, labels.regions, labels.rounds, scene=scene)
    edge = read_label_raster(path, Window(-4, -3, 10, 10))
    expected = empty_labels((10, 10))
    expected.classes[3:, 4:] = labels.classes[:7, :6]
    expected.regions[3:, 4:] = labels.regions[:7, :6]
    expected.rounds[3:, 4:] = labels.rounds[:7, :6]
    assert edge.equals(expected)
    assert read_label_raster(path, Window(900, 900, 5, 5)).equals(empty_labels((5, 5)))


def test_local_scenes_are_written_without_a_warning(tmp_path, labels):
    bare = Scene(
        scene_id="s",
        crs=None,
        transform=Affine.identity(),
        height=700,
        width=300,
        bands=("red",),
        local=True,
    )
    path = tmp_path / "s.tif"
    write_label_raster(path, labels.classes, labels.regions, labels.rounds, scene=bare)
    assert read_label_raster(path).equals(labels)


def test_missing_and_foreign_files_are_named(tmp_path, make_raster):
    with pytest.raises(
        LabelError, match=r"no\.tif: cannot be read .*; delete it and run geohsal tile again"
    ):
        read_label_raster(tmp_path / "no.tif")
    other = make_raster("other.tif", np.zeros((1, 4, 4), dtype=np.uint8))
    with pytest.raises(LabelError, match=r"not a label raster \(found 1 bands of uint8\)"):
        read_label_raster(other)
