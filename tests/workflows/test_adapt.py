"""Benchmark datasets: what their manifests say, pixel by pixel, and that a run accepts them."""

from pathlib import Path
from typing import Any

import dataset_factory as factory
import numpy as np
import pytest
from numpy.typing import NDArray

from geohsal.config import load_config
from geohsal.errors import DataError, RasterError, RequestError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.labels import read_truth
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.io.raster import open_scene
from geohsal.workflows.adapt import adapt_cityscapes, adapt_loveda, adapt_vaihingen
from geohsal.workflows.seed_labels import SeedRequest
from geohsal.workflows.tile import tile

SMALL = ["tile.core_px=32", "tile.overlap_px=0", "query.region_px=8"]


def truth_of(manifest: Manifest, scene_id: str) -> NDArray[np.uint8]:
    source = manifest.scene(scene_id)
    assert source.truth is not None
    with open_scene(source, manifest.bands, max_pixels=10_000) as reader:
        scene = reader.scene
    return read_truth(source.truth, scene, manifest.classes, where=scene_id)


def splits_of(manifest: Manifest) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for scene in manifest.scenes:
        found.setdefault(scene.split, []).append(scene.scene_id)
    return found


def areas(*numbers: int) -> list[str]:
    return [f"area{number}" for number in numbers]


def test_vaihingen_is_split_as_published_and_read_by_colour(tmp_path: Path) -> None:
    root, out = factory.vaihingen(tmp_path / "data"), tmp_path / "vaihingen.yaml"
    summary = adapt_vaihingen(root, out)
    manifest = load_manifest(out)
    assert splits_of(manifest) == {
        "train": areas(1, 3, 5, 7, 13, 17, 21, 23, 26, 32, 37),
        "val": areas(11, 15, 28, 30, 34),
        "test": areas(*factory.VAIHINGEN_TEST),
    }
    assert summary.scenes == {"train": 11, "val": 5, "test": 17}
    assert manifest.class_names == summary.classes
    assert summary.classes == ("impervious_surfaces", "building", "low_vegetation", "tree", "car")
    assert manifest.classes[0].color == "#ffffff"
    assert {scene.crs for scene in manifest.scenes} == {"local"}
    expected = factory.class_map(6, offset=12)
    expected[expected == 5] = IGNORE_INDEX
    np.testing.assert_array_equal(truth_of(manifest, "area12"), expected)


def test_vaihingen_has_clutter_as_a_class_and_no_validation_where_asked(tmp_path: Path) -> None:
    root, out = factory.vaihingen(tmp_path / "data"), tmp_path / "vaihingen.yaml"
    summary = adapt_vaihingen(root, out, num_classes=6, split="isprs")
    manifest = load_manifest(out)
    assert summary.scenes == {"train": 16, "test": 17}
    assert manifest.class_names[5] == "clutter"
    assert splits_of(manifest)["train"] == areas(*factory.VAIHINGEN_TRAIN)
    np.testing.assert_array_equal(truth_of(manifest, "area1"), factory.class_map(6, offset=1))
    assert "classes: 6, with clutter" in summary.protocol


def test_vaihingen_bands_are_infrared_red_green_though_gdal_calls_them_otherwise(
    tmp_path: Path,
) -> None:
    root, out = factory.vaihingen(tmp_path / "data"), tmp_path / "vaihingen.yaml"
    adapt_vaihingen(root, out)
    manifest = load_manifest(out)
    assert manifest.bands == ("nir", "red", "green")
    with open_scene(manifest.scene("area1"), manifest.bands, max_pixels=10_000) as reader:
        pixels = reader.read(reader.scene.extent)
    drawn = factory.picture(factory.class_map(6, offset=1), seed=1)
    np.testing.assert_array_equal(pixels, drawn.transpose(2, 0, 1))


def test_a_world_file_beside_an_image_changes_no_truth(tmp_path: Path) -> None:
    root, out = factory.vaihingen(tmp_path / "data"), tmp_path / "vaihingen.yaml"
    world = "0.09\n0\n0\n-0.09\n496850.0\n5419300.0\n"
    (root / "top" / "top_mosaic_09cm_area12.tfw").write_text(world)
    adapt_vaihingen(root, out, num_classes=6, labels=SeedRequest(share=0.5, region_px=8))
    manifest = load_manifest(out)
    np.testing.assert_array_equal(truth_of(manifest, "area12"), factory.class_map(6, offset=12))


def test_eroded_masks_hold_on_test_alone(tmp_path: Path) -> None:
    root, out = factory.vaihingen(tmp_path / "data", eroded=True), tmp_path / "vaihingen.yaml"
    summary = adapt_vaihingen(root, out, boundaries="eroded")
    manifest = load_manifest(out)
    expected = factory.class_map(6, offset=2)
    expected[expected == 5] = IGNORE_INDEX
    expected[0::8] = IGNORE_INDEX
    np.testing.assert_array_equal(truth_of(manifest, "area2"), expected)
    assert (truth_of(manifest, "area1")[0] != IGNORE_INDEX).any()
    assert "boundaries: eroded masks on test, full ones elsewhere" in summary.protocol


def test_the_protocol_stands_on_top_of_the_manifest(tmp_path: Path) -> None:
    root, out = factory.vaihingen(tmp_path / "data"), tmp_path / "vaihingen.yaml"
    protocol = adapt_vaihingen(root, out).protocol
    assert out.read_text().startswith("".join(f"# {line}\n" for line in protocol))
    assert any(line.startswith("val: 5 scenes, areas 11, 15, 28, 30, 34; ") for line in protocol)
    assert "classes: 5, clutter is ignored" in protocol
    assert "boundaries: full masks on test, full ones elsewhere" in protocol
    assert any(line.startswith("crop: none") for line in protocol)


def test_loveda_reads_codes_from_one_and_tests_on_val(tmp_path: Path) -> None:
    root, out = factory.loveda(tmp_path / "data"), tmp_path / "loveda.yaml"
    summary = adapt_loveda(root, out)
    manifest = load_manifest(out)
    assert splits_of(manifest) == {
        "train": ["train_rural_9", "train_rural_10", "train_urban_11", "train_urban_12"],
        "test": ["val_rural_13", "val_rural_14", "val_urban_15", "val_urban_16"],
    }
    assert manifest.class_names == (
        "background", "building", "road", "water", "barren", "forest", "agriculture",
    )  # fmt: skip
    expected = factory.class_map(7, offset=3)
    expected[:2] = IGNORE_INDEX
    np.testing.assert_array_equal(truth_of(manifest, "train_urban_12"), expected)
    assert summary.protocol[1] == (
        "train (Train): 4 scenes of the 2,522 published: a part of the dataset"
    )


def test_loveda_takes_one_domain_alone(tmp_path: Path) -> None:
    root, out = factory.loveda(tmp_path / "data"), tmp_path / "loveda.yaml"
    summary = adapt_loveda(root, out, domain="urban")
    assert (summary.name, summary.scenes) == ("loveda-urban", {"train": 2, "test": 2})


def test_cityscapes_keeps_the_evaluated_classes(tmp_path: Path) -> None:
    root, out = factory.cityscapes(tmp_path / "data"), tmp_path / "cityscapes.yaml"
    adapt_cityscapes(root, out)
    manifest = load_manifest(out)
    assert splits_of(manifest) == {
        "train": [
            "aachen_000000_000000", "aachen_000000_000001",
            "bochum_000000_000000", "bochum_000000_000001",
        ],
        "test": ["lindau_000000_000000", "lindau_000000_000001"],
    }  # fmt: skip
    assert (manifest.num_classes, manifest.class_names[6]) == (19, "traffic_light")
    expected = factory.class_map(19, offset=1, side=64)
    expected[:3] = IGNORE_INDEX
    np.testing.assert_array_equal(truth_of(manifest, "bochum_000000_000001"), expected)


def test_cityscapes_opens_no_image(tmp_path: Path) -> None:
    root, out = factory.cityscapes(tmp_path / "data"), tmp_path / "cityscapes.yaml"
    for image in root.rglob("*.png"):
        image.write_bytes(b"")
    assert adapt_cityscapes(root, out).scenes == {"train": 4, "test": 2}


ADAPTERS: tuple[tuple[Any, Any], ...] = (
    (factory.vaihingen, adapt_vaihingen),
    (factory.loveda, adapt_loveda),
    (factory.cityscapes, adapt_cityscapes),
)


@pytest.mark.parametrize(("make", "adapt"), ADAPTERS)
def test_tile_accepts_the_manifest_with_first_labels(make: Any, adapt: Any, tmp_path: Path) -> None:
    root, out = make(tmp_path / "data"), tmp_path / "m.yaml"
    request = SeedRequest(share=0.3, region_px=8, seed=1)
    seeds = adapt(root, out, labels=request).labels
    record = tile(out, tmp_path / "run", config=load_config("cpu-small", overrides=SMALL)).record
    labelled = sum(sum(scene.labelled.values()) for scene in record.scenes.values())
    assert labelled == seeds.pixels
    assert record.train_valid_pixels == seeds.pool
    assert {info.name: info.regions for info in record.classes} == seeds.regions
    assert min(seeds.regions.values()) >= 1


@pytest.mark.parametrize(("make", "adapt"), ADAPTERS)
def test_tile_accepts_the_manifest_without_labels(make: Any, adapt: Any, tmp_path: Path) -> None:
    root, out = make(tmp_path / "data"), tmp_path / "m.yaml"
    assert adapt(root, out).labels is None
    record = tile(out, tmp_path / "run", config=load_config("cpu-small", overrides=SMALL)).record
    assert set(record.scenes) == {scene.scene_id for scene in load_manifest(out).scenes}
    assert all(scene.local for scene in record.scenes.values())


@pytest.mark.parametrize(("make", "adapt"), ADAPTERS)
def test_the_same_again_does_nothing_and_another_request_needs_overwrite(
    make: Any, adapt: Any, tmp_path: Path
) -> None:
    root, out = make(tmp_path / "data"), tmp_path / "m.yaml"
    assert adapt(root, out).written
    before = out.stat().st_mtime_ns
    assert not adapt(root, out).written
    assert out.stat().st_mtime_ns == before
    request = SeedRequest(share=0.5, region_px=8, seed=0)
    with pytest.raises(RequestError, match=r"m\.yaml: exists and is of another request"):
        adapt(root, out, labels=request)
    assert adapt(root, out, labels=request, overwrite=True).written
    assert not adapt(root, out, labels=request).written
    with pytest.raises(RequestError, match="exists and is of another request"):
        adapt(root, out)


@pytest.mark.parametrize(
    ("adapt", "missing", "source"),
    [
        (adapt_vaihingen, "no folder top; expected are top/top_mosaic", "https://www.isprs.org"),
        (adapt_loveda, "no train images of urban and rural", "https://zenodo.org/records/5706578"),
        (adapt_cityscapes, "no folder leftImg8bit/train", "https://www.cityscapes-dataset.com"),
    ],
)
def test_a_missing_dataset_is_one_line_with_layout_and_source(
    adapt: Any, missing: str, source: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        adapt(tmp_path, tmp_path / "m.yaml")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: {missing}")
    assert source in message
    assert "\n" not in message
    assert not (tmp_path / "m.yaml").exists()


@pytest.mark.parametrize(
    ("make", "adapt", "gone"),
    [
        (factory.vaihingen, adapt_vaihingen, "top_mosaic_09cm_area21.tif"),
        (factory.loveda, adapt_loveda, "Val/Urban/masks_png/16.png"),
        (factory.cityscapes, adapt_cityscapes,
         "gtFine/train/aachen/aachen_000000_000001_gtFine_labelIds.png"),
    ],
)  # fmt: skip
def test_a_missing_mask_is_named(make: Any, adapt: Any, gone: str, tmp_path: Path) -> None:
    root = make(tmp_path / "data")
    (root / gone).unlink()
    with pytest.raises(DataError, match=f"no {root / gone}; expected are"):
        adapt(root, tmp_path / "m.yaml")


def test_eroded_masks_must_be_there(tmp_path: Path) -> None:
    root = factory.vaihingen(tmp_path / "data")
    with pytest.raises(DataError, match=r"no .*area2_noBoundary\.tif and 16 more"):
        adapt_vaihingen(root, tmp_path / "m.yaml", boundaries="eroded")


def test_archives_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "ISPRS_semantic_labeling_Vaihingen.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="no folder top"):
        adapt_vaihingen(tmp_path, tmp_path / "m.yaml")


def test_a_torn_image_is_named(tmp_path: Path) -> None:
    root = factory.vaihingen(tmp_path / "data")
    (root / "top" / "top_mosaic_09cm_area5.tif").write_bytes(b"torn")
    with pytest.raises(RasterError, match=r"area5\.tif: cannot be opened"):
        adapt_vaihingen(root, tmp_path / "m.yaml")


def test_a_stray_file_among_the_cities_is_named(tmp_path: Path) -> None:
    root = factory.cityscapes(tmp_path / "data")
    (root / "leftImg8bit" / "train" / ".DS_Store").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.DS_Store is no folder of a city"):
        adapt_cityscapes(root, tmp_path / "m.yaml")
