"""Manifests: what they say, how they are refused, and that they survive being written."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geohsal.errors import ManifestError
from geohsal.io.manifest import Blocks, LabelSource, dump_manifest, load_manifest

ManifestFactory = Callable[..., Path]

CLASSES: list[dict[str, Any]] = [
    {"id": 0, "name": "water", "color": "#0000ff"},
    {"id": 1, "name": "forest", "color": "#00ff00"},
    {"id": 2, "name": "building", "color": "#ff0000"},
]

FULL = """
version: 1
name: my-town-2026
classes:
  - {id: 1, name: building, color: "#0000FF", description: "roofs seen from above"}
  - {id: 0, name: impervious, color: "#ffffff"}
bands: [red, green, blue, nir]
blocks: {size_px: 128, buffer_px: 16, shares: {train: 0.8, test: 0.2}, seed: 3}
scenes:
  - id: north
    image: scenes/north.tif
    bands: {nir: 4, red: 1, green: 2, blue: 3}
    labels: labels/north.gpkg
    truth:
      path: truth/north.tif
      values: {1: impervious, "255,0,0": building, [0, 0, 7]: building, Roof: building}
      ignore: [0, [155, 155, 155], null]
    split: blocks
    aoi: aoi.gpkg
    nodata: 0
    mask: https://example.org/mask.tif
    crs: "EPSG:32632"
    sha256: "%s"
  - id: south
    image: s3://bucket/south.tif
    labels: {path: /vsizip/a.zip/l.gpkg, layer: south, field: class, overlap: last}
""" % ("Ab" * 32)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data_manifest.yaml"
    path.write_text(text, "utf-8")
    return path


def test_reads_every_key(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, FULL))
    assert manifest.class_names == ("impervious", "building")
    assert manifest.classes[1].color == "#0000ff"
    assert manifest.num_classes == 2
    assert manifest.blocks == Blocks(
        size_px=128, buffer_px=16, shares={"train": 0.8, "val": 0.0, "test": 0.2}, seed=3
    )
    north, south = manifest.scenes
    assert north.image == str(tmp_path / "scenes/north.tif")
    assert north.bands == {"red": 1, "green": 2, "blue": 3, "nir": 4}
    assert north.labels == LabelSource(path=str(tmp_path / "labels/north.gpkg"))
    assert north.truth is not None
    assert north.truth.values == {
        1: "impervious",
        (255, 0, 0): "building",
        (0, 0, 7): "building",
        "Roof": "building",
    }
    assert north.truth.ignore == (0, (155, 155, 155), None)
    assert (north.split, north.nodata, north.sha256) == ("blocks", 0.0, "ab" * 32)
    assert north.mask == "https://example.org/mask.tif"
    assert south.image == "s3://bucket/south.tif"
    assert south.labels is not None
    assert south.labels.path == "/vsizip/a.zip/l.gpkg"
    assert south.labels.overlap == "last"
    assert manifest.scene("south") is south


def test_written_text_reads_back_equal(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, FULL))
    copy = tmp_path / "run" / "manifest.yaml"
    copy.parent.mkdir()
    copy.write_text(dump_manifest(manifest), "utf-8")
    again = load_manifest(copy)
    assert again == manifest
    assert again.path == copy


def test_defaults_of_a_short_manifest(make_manifest: ManifestFactory) -> None:
    manifest = load_manifest(make_manifest(name=None))
    assert manifest.name == "data_manifest"
    assert manifest.blocks == Blocks()
    assert manifest.scenes[0].split == "train"
    assert manifest.scenes[0].labels is None


def test_nodata_may_be_nan(make_manifest: ManifestFactory) -> None:
    path = make_manifest([{"id": "a", "image": "a.tif", "nodata": math.nan}])
    nodata = load_manifest(path).scenes[0].nodata
    assert nodata is not None
    assert math.isnan(nodata)


def scene(**keys: Any) -> list[dict[str, Any]]:
    return [{"id": "north", "image": "north.tif"} | keys]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"scenes": scene(lables="x")},
            "scene 'north': unknown key 'lables'; did you mean 'labels'",
        ),
        ({"scenes": scene(labels={"path": "a", "fild": "x"})}, "did you mean 'field'"),
        ({"bandz": []}, "unknown key 'bandz'; did you mean 'bands'"),
        ({"version": 2}, "version"),
        ({"version": None}, "version"),
        ({"scenes": []}, "scenes"),
        ({"scenes": ["north.tif"]}, "scenes[0]: must be a mapping of keys, found str (north.tif)"),
        ({"scenes": scene(id="a b")}, "id: must be at most 100 letters"),
        ({"scenes": scene() + scene()}, "scene id 'north' stands twice; rename one"),
        ({"scenes": scene(id=7)}, "must be text, found 7; write it in quotes"),
        ({"scenes": scene(split="tests")}, "split: Input should be 'train', 'val', 'test' or"),
        ({"scenes": scene(crs="EPSG:99999999")}, "is no known CRS"),
        ({"scenes": scene(sha256="abc")}, "sha256"),
        ({"scenes": scene(nodata="0")}, "nodata: must be a number, found '0'"),
        ({"scenes": scene(bands={"red": 1, "green": 2})}, "bands: no number for blue"),
        ({"scenes": scene(bands={"red": 1, "green": 1, "blue": 2})}, "have the same number"),
        ({"scenes": scene(bands={"rde": 1})}, "'rde' is no band; did you mean 'red'?"),
        ({"scenes": scene(bands={"red": 0, "green": 1, "blue": 2})}, "bands.red"),
        ({"bands": ["red", "Red"]}, "band 'Red' stands twice (and 'red': only the case differs)"),
        ({"classes": CLASSES[:1]}, "classes"),
        ({"classes": [CLASSES[0], CLASSES[2]]}, "ids must run from 0 to 1 without gap or repeat"),
        ({"classes": [CLASSES[0], CLASSES[1] | {"name": "water"}]}, "class name 'water'"),
        ({"classes": [CLASSES[0], CLASSES[1] | {"color": "red"}]}, "classes[1]: color"),
        ({"classes": [CLASSES[0], CLASSES[1] | {"color": None}]}, '(an unquoted "#" starts a'),
        ({"blocks": {"shares": {"train": 0.7, "test": 0.2}}}, "shares must sum to 1, found 0.9"),
        ({"blocks": {"size_px": 0}}, "blocks.size_px"),
        (
            {"scenes": scene(labels={"path": "a", "values": {1: "biulding"}})},
            "labels: values: 1: 'biulding' is no class; did you mean 'building'?",
        ),
        (
            {"scenes": scene(labels={"path": "a", "values": {True: "water"}})},
            "an unquoted yes, no, on or off as True; quote it",
        ),
        (
            {"scenes": scene(truth={"path": "a", "values": {1: "water", "256,0,0": "forest"}})},
            "truth: (256, 0, 0) is no RGB triple",
        ),
        (
            {"scenes": scene(labels={"path": "a", "values": {1: "water"}, "ignore": [1]})},
            "1 stands in values and in ignore",
        ),
    ],
)
def test_mistakes_are_named(
    make_manifest: ManifestFactory, keys: dict[str, Any], told: str
) -> None:
    path = make_manifest(**keys)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"manifest {path}: ")
    assert told in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "must be a mapping of keys"),
        ("", "must be a mapping of keys"),
        (FULL.replace("    split: blocks", "    split: blocks\n    split: test"), "'split' stands"),
    ],
)
def test_text_that_is_no_manifest(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ManifestError, match=told) as caught:
        load_manifest(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_file_is_a_manifest_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.yaml: cannot be read \(No such file"):
        load_manifest(tmp_path / "none.yaml")


def test_unknown_scene_has_a_suggestion(make_manifest: ManifestFactory) -> None:
    manifest = load_manifest(make_manifest())
    with pytest.raises(ManifestError, match="no scene 'nroth'; did you mean 'north'"):
        manifest.scene("nroth")


def test_one_image_cannot_be_train_and_test(tmp_path: Path) -> None:
    twice = FULL.split("scenes:")[0] + (
        "scenes:\n  - {id: a, image: x.tif%s}\n  - {id: b, image: x.tif, split: test}\n"
    )
    with pytest.raises(ManifestError, match=r"'a' \(train\) and 'b' \(test\) are the same image"):
        load_manifest(written(tmp_path, twice % ""))
    assert load_manifest(written(tmp_path, twice % ", aoi: here.gpkg")).scenes[0].aoi


def test_an_unknown_crs_leaves_no_line_of_projs_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = FULL.replace("EPSG:32632", "EPSG:99999")
    with pytest.raises(ManifestError, match="no known CRS"):
        load_manifest(written(tmp_path, text))
    assert capfd.readouterr().err == ""
