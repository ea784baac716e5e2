import dataclasses
from pathlib import Path

import numpy as np
import pytest

from geohsal.errors import DataError, LabelError
from geohsal.geo.moments import BandMoments
from geohsal.io.manifest import LabelSource
from geohsal.io.run import Run
from geohsal.io.run_tables import (
    BandStat,
    ClassShare,
    SceneRecord,
    TileRecord,
    labels_digest,
    load_scenes,
    read_summary,
    write_summary,
)


def scene(scene_id: str, *, train: int = 80) -> SceneRecord:
    pixels = np.random.default_rng(0).random((1, train), dtype=np.float32)
    return SceneRecord(
        scene_id=scene_id,
        height=10,
        width=9,
        crs_wkt=None,
        transform=(1.0, 0.0, 0.0, 0.0, -1.0, 10.0),
        local=True,
        bands=("red",),
        split="train" if train else "test",
        buffer_px=0,
        fingerprint="ab",
        labels_digest="",
        tiles=1,
        valid_pixels=90,
        split_pixels={"train": train, "val": 0, "test": 90 - train, "buffer": 0},
        labelled={"water": 3},
        regions={"water": 1},
        dropped_labels=0,
        invalid_labels=0,
        issues=("one line",),
        moments=BandMoments.of(pixels),
    )


@pytest.fixture
def record() -> TileRecord:
    return TileRecord(
        bands=(BandStat(name="red", mean=0.5, std=0.25, constant=False),),
        scenes={"zulu": scene("zulu"), "alpha": scene("alpha", train=0)},
        classes=(
            ClassShare(class_id=0, name="water", pixels=3, regions=1, share=3 / 80),
            ClassShare(class_id=1, name="road", pixels=0, regions=0, share=0.0),
        ),
        warnings=("careful",),
        core_px=256,
        overlap_px=32,
        region_px=32,
        tiles_sha256="cd",
    )


def test_tile_json_comes_back_as_it_was_in_the_manifests_order(tmp_path, record):
    run = Run(path=tmp_path)
    write_summary(run.summary, record)
    found = read_summary(run)
    assert found == record
    assert list(load_scenes(run)) == ["zulu", "alpha"]
    assert load_scenes(run)["zulu"].local
    assert (found.train_valid_pixels, found.classes_missing) == (80, ("road",))
    assert "Infinity" not in run.summary.read_text("utf-8"), "JSON knows no infinity"


def test_damage_and_other_versions_are_named(tmp_path, record):
    run = Run(path=tmp_path)
    with pytest.raises(DataError, match=r"tile\.json: cannot be read"):
        read_summary(run)
    run.summary.write_text('{"format_version": 1, "bands": []}', "utf-8")
    with pytest.raises(DataError, match=r"tile\.json: damaged .*delete it and run geohsal tile"):
        read_summary(run)
    run.summary.write_text('{"format_version": 7}', "utf-8")
    with pytest.raises(DataError, match="format 7, this geohsal reads 1"):
        read_summary(run)


def test_labels_digest_sees_content_and_reading_but_not_the_folder(tmp_path: Path):
    def digest(path: Path, **keys) -> str:
        return labels_digest(LabelSource(path=str(path), **keys), region_px=32)

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "l.shp").write_bytes(b"points")
        (tmp_path / folder / "l.dbf").write_bytes(b"classes")
    first = digest(tmp_path / "a" / "l.shp")
    assert first == digest(tmp_path / "b" / "l.shp")
    assert first != digest(tmp_path / "a" / "l.shp", overlap="last")
    assert first != labels_digest(LabelSource(path=str(tmp_path / "a" / "l.shp")), region_px=16)
    (tmp_path / "a" / "l.dbf").write_bytes(b"other classes")
    assert first != digest(tmp_path / "a" / "l.shp")
    assert labels_digest(None, region_px=32) == ""


def test_label_files_that_are_missing_or_remote(tmp_path):
    with pytest.raises(LabelError, match=r"gone\.gpkg: cannot be read"):
        labels_digest(LabelSource(path=str(tmp_path / "gone.gpkg")), region_px=32)
    far = LabelSource(path="https://example.org/labels.gpkg")
    other = dataclasses.replace(far, path="https://example.org/other.gpkg")
    assert labels_digest(far, region_px=32) != labels_digest(other, region_px=32)
