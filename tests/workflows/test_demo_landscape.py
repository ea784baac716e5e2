"""The synthetic example: what it promises, and that its manifest is the one to copy."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.affinity import affine_transform

from geohsal.errors import RequestError
from geohsal.geo.landscape import CLASSES, MATERIALS, SOLAR, make_layout
from geohsal.geo.landscape_image import make_landscape, training_polygons
from geohsal.io.manifest import load_manifest
from geohsal.workflows.landscape import GSD, MANIFEST_NAME, SITES, write_landscape

ROOT = Path(__file__).parents[2]
SHAPE = (192, 224)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a small example."""
    return write_landscape(tmp_path_factory.mktemp("example"), seed=3, shape=SHAPE)


def shares(classes: NDArray[np.uint8]) -> NDArray[np.float64]:
    counts = np.bincount(classes.ravel(), minlength=len(CLASSES))
    return counts / float(classes.size)


@pytest.mark.parametrize("seed", range(6))
def test_every_class_is_there_and_one_is_rare(seed: int) -> None:
    share = shares(make_layout(416, 480, rng=np.random.default_rng(seed)).truth)
    assert 0.001 < share[SOLAR] < 0.005
    assert (np.delete(share, SOLAR) > 0.02).all()
    assert share.max() < 0.6


def test_every_material_belongs_to_a_class_and_every_class_has_one() -> None:
    assert {material.class_id for material in MATERIALS} == {info.class_id for info in CLASSES}


def test_the_same_generator_gives_the_same_scene_and_another_does_not() -> None:
    first, again, other = (
        make_landscape(*SHAPE, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.truth, again.truth)
    assert (first.truth != other.truth).mean() > 0.3


def test_nodata_is_zero_at_the_turned_border_and_in_holes_and_nowhere_else() -> None:
    seen = make_landscape(416, 480, rng=np.random.default_rng(0))
    assert ((seen.image == 0).all(axis=0) == ~seen.valid).all()
    assert (seen.image[:, seen.valid] > 0).all()
    assert not seen.valid[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    assert 0.85 < seen.valid.mean() < 0.97
    assert not seen.valid[60:-60, 60:-60].all()


def test_training_polygons_hold_one_class_only_and_avoid_nodata() -> None:
    scene = make_landscape(416, 480, rng=np.random.default_rng(5))
    drawn = training_polygons(scene, dict.fromkeys(range(6), 3), rng=np.random.default_rng(6))
    assert {class_id for class_id, _ in drawn} == set(range(6))
    for class_id, polygon in drawn:
        assert polygon.is_valid
        inside = rasterize([(polygon, 1)], out_shape=scene.truth.shape).astype(bool)
        assert (scene.truth[inside] == class_id).all()
        assert scene.valid[inside].all()


def test_the_manifest_in_the_repository_is_the_one_that_is_written(example: Path) -> None:
    assert example.name == MANIFEST_NAME
    assert example.read_text("utf-8") == (ROOT / MANIFEST_NAME).read_text("utf-8")


def test_the_manifest_names_the_classes_and_splits_of_the_landscape(example: Path) -> None:
    manifest = load_manifest(example)
    assert manifest.classes == CLASSES
    assert [source.scene_id for source in manifest.scenes] == [site.scene_id for site in SITES]
    splits = {source.scene_id: source.split for source in manifest.scenes}
    assert splits == {"west_1": "train", "west_2": "train", "east_1": "train", "east_2": "test"}
    assert manifest.scene("west_2").labels is None
    assert all(Path(source.image).is_file() for source in manifest.scenes)


def test_scenes_are_uint16_in_two_zones_with_named_bands(example: Path) -> None:
    zones = set()
    for site in SITES:
        with rasterio.open(example.parent / "scenes" / f"{site.scene_id}.tif") as raster:
            assert (raster.height, raster.width) == SHAPE
            assert raster.dtypes == ("uint16",) * 4
            assert raster.descriptions == ("blue", "green", "red", "nir")
            assert raster.nodata == 0
            assert raster.res == (GSD, GSD)
            zones.add(raster.crs.to_epsg())
    assert zones == {32632, 32633}


def test_labels_lie_on_their_truth_in_any_crs(example: Path) -> None:
    expected = {"west_1": 32632, "east_1": 4326}
    total = 0
    for scene_id, epsg in expected.items():
        frame = geopandas.read_file(example.parent / "labels" / f"{scene_id}.gpkg")
        assert frame.crs.to_epsg() == epsg
        total += len(frame)
        with rasterio.open(example.parent / "truth" / f"{scene_id}.tif") as raster:
            truth, back, crs = raster.read(1), ~raster.transform, raster.crs
        names = {info.name: info.class_id for info in CLASSES}
        matrix = [back.a, back.b, back.d, back.e, back.c, back.f]
        for name, geometry in zip(frame["class_name"], frame.to_crs(crs).geometry, strict=True):
            pixels = affine_transform(geometry, matrix)
            inside = rasterize([(pixels, 1)], out_shape=truth.shape).astype(bool)
            assert set(truth[inside]) <= {names[name]}
    assert 15 <= total <= 28


def test_writing_again_keeps_what_is_there_and_other_settings_are_refused(example: Path) -> None:
    before = (example.parent / "scenes/west_1.tif").stat().st_mtime_ns
    assert write_landscape(example.parent, seed=3, shape=SHAPE) == example
    assert (example.parent / "scenes/west_1.tif").stat().st_mtime_ns == before
    with pytest.raises(RequestError, match=r"holds an example made with .*'seed': 3.*--overwrite"):
        write_landscape(example.parent, seed=4, shape=SHAPE)
