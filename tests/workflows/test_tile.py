import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.windows import Window
from shapely.geometry import box

from geohsal.config import Config, TileConfig, load_config
from geohsal.errors import DataError, RunError
from geohsal.geo.blocks import split_codes
from geohsal.geo.states import Split
from geohsal.io.label_store import FIRST_ANSWER_REGION, read_label_raster
from geohsal.io.ledger import LedgerEntry, append, encode_classes, read_ledger, replay
from geohsal.io.lock import changing
from geohsal.io.manifest import load_manifest
from geohsal.io.raster import open_scene
from geohsal.io.run import Run, open_run
from geohsal.io.run_tables import (
    heldout_labels,
    load_scenes,
    load_tiles,
    read_config,
    read_summary,
    write_config,
)
from geohsal.io.tile_index import read_tiles
from geohsal.workflows import tile_folder
from geohsal.workflows.tile import tile

SMALL = Config(seed=0, tile=TileConfig(core_px=32, overlap_px=8))
ULX, ULY = 500_000.0, 5_200_000.0


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 200, size=(3, 80, 100)).astype(np.uint8)


def square(row: int, col: int, side: int = 4):
    """A box of side x side pixels of the factories' grid."""
    left, top = ULX + 10 * col, ULY - 10 * row
    return box(left, top - 10 * side, left + 10 * side, top)


@pytest.fixture
def town(make_raster, make_gpkg, make_manifest, pixels) -> Path:
    """One train scene with two labelled squares and one without labels."""
    make_raster("north.tif", pixels, nodata=0)
    make_raster("south.tif", pixels[:, :40, :50])
    make_gpkg(
        "labels.gpkg",
        [(square(2, 3), {"class_name": "water"}), (square(40, 60), {"class_name": "forest"})],
    )
    return make_manifest(
        [
            {"id": "north", "image": "north.tif", "labels": "labels.gpkg"},
            {"id": "south", "image": "south.tif"},
        ]
    )


def edit(manifest: Path, change) -> None:
    """Change the manifest's content in place."""
    content = yaml.safe_load(manifest.read_text("utf-8"))
    change(content)
    manifest.write_text(yaml.safe_dump(content), "utf-8")


def files(run: Path) -> dict[str, bytes]:
    """All files of a run by name."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def test_a_run_holds_what_later_steps_need(tmp_path, town, pixels):
    out = tmp_path / "run"
    summary = tile(town, out, config=SMALL)
    run = open_run(out)
    assert (summary.changed, summary.tiles, summary.notes) == (True, 12 + 4, ())
    assert sorted(files(out)) == [
        "config.yaml",
        "labels/manifest/north.tif",
        "labels/manifest/south.tif",
        "labels/north.tif",
        "labels/south.tif",
        "manifest.yaml",
        "tile.json",
        "tiles.parquet",
    ]
    record = read_summary(run)
    assert record == summary.record
    assert list(record.scenes) == ["north", "south"]
    assert record.train_valid_pixels == 80 * 100 + 40 * 50
    values = np.concatenate([pixels.reshape(3, -1), pixels[:, :40, :50].reshape(3, -1)], axis=1)
    assert [band.mean for band in record.bands] == pytest.approx(values.mean(axis=1), rel=1e-12)
    assert [band.std for band in record.bands] == pytest.approx(values.std(axis=1), rel=1e-12)
    assert [(share.name, share.pixels, share.regions) for share in record.classes] == [
        ("water", 16, 1),
        ("forest", 16, 1),
        ("building", 0, 0),
    ]
    assert record.classes_missing == ("building",)
    assert "no labels in the train split for: building" in record.warnings
    labels = read_label_raster(run.labels("north"))
    assert (labels.classes[2:6, 3:7] == 0).all()
    assert (labels.classes[40:44, 60:64] == 1).all()
    assert (labels.classes != 255).sum() == 32
    assert set(np.unique(labels.rounds)) == {-1}
    tiles = load_tiles(run)
    assert [entry.tile_id for entry in tiles["south"]][-1] == "south_r000032_c000032"
    assert tiles["north"][0].labelled_share == 16 / 1024
    with open_scene(
        load_manifest(town).scene("north"), ("red", "green", "blue"), max_pixels=10**6
    ) as reader:
        assert load_scenes(run)["north"] == reader.scene


def test_copies_in_the_run_read_back(tmp_path, town):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    assert load_manifest(run.manifest) == load_manifest(town)
    assert read_config(run) == SMALL
    assert load_config(run.config) == SMALL
    assert "format_version 1" in run.config.read_text("utf-8").splitlines()[0]
    assert "format_version 1" in run.manifest.read_text("utf-8").splitlines()[0]
    assert json.loads(run.summary.read_text("utf-8"))["format_version"] == 1


def test_the_same_again_does_nothing(tmp_path, town):
    out = tmp_path / "run"
    tile(town, out, config=SMALL)
    before = files(out)
    stamp = (out / "tiles.parquet").stat().st_mtime_ns
    again = tile(town, out, config=SMALL)
    assert not again.changed
    assert files(out) == before
    assert (out / "tiles.parquet").stat().st_mtime_ns == stamp
    assert not tile(town, out).changed, "without settings the run's own hold"


def test_a_dry_run_writes_nothing(tmp_path, town):
    out = tmp_path / "run"
    summary = tile(town, out, config=SMALL, dry_run=True)
    assert summary.tiles == 16
    assert not out.exists()


def test_val_test_and_buffer_enter_nothing_that_trains(
    tmp_path, make_raster, make_manifest, pixels
):
    make_raster("north.tif", pixels)
    dense = np.full((80, 100), 1, dtype=np.uint8)
    make_raster("truth.tif", dense)
    manifest = make_manifest(
        [{"id": "north", "image": "north.tif", "labels": "truth.tif", "split": "blocks"}],
        blocks={
            "size_px": 20,
            "buffer_px": 3,
            "shares": {"train": 0.6, "val": 0.2, "test": 0.2},
            "seed": 1,
        },
    )
    run = Run(path=tmp_path / "run")
    record = tile(manifest, run.path, config=SMALL).record
    scene = record.scenes["north"]
    codes = split_codes(read_tiles(run.tiles), Window(0, 0, 100, 80), buffer_px=scene.buffer_px)
    counts = {code.name.lower(): int((codes == code).sum()) for code in Split}
    assert scene.split_pixels == counts
    assert min(counts.values()) > 0
    assert record.train_valid_pixels == counts["train"]
    train = codes == Split.TRAIN
    labels = read_label_raster(run.labels("north"))
    np.testing.assert_array_equal(labels.classes != 255, train)
    np.testing.assert_array_equal(labels.regions > 0, train)
    held = read_label_raster(heldout_labels(run, "north"))
    np.testing.assert_array_equal(held.classes == 1, (codes == Split.VAL) | (codes == Split.TEST))
    assert scene.dropped_labels == 8000 - counts["train"]
    assert scene.labelled == {"water": 0, "forest": counts["train"], "building": 0}
    assert any(f"{scene.dropped_labels} labelled pixels lie in val" in w for w in record.warnings)
    means = [band.mean for band in record.bands]
    assert means == pytest.approx(pixels[:, train].mean(axis=1), rel=1e-12)


def test_nodata_counts_nowhere_and_empty_tiles_are_left_out(
    tmp_path, make_raster, make_gpkg, make_manifest, pixels
):
    pixels[:, :32, :32] = 0
    pixels[:, 40, :] = 0
    make_raster("north.tif", pixels, nodata=0)
    make_gpkg("labels.gpkg", [(square(30, 30), {"class_name": "water"})])
    manifest = make_manifest([{"id": "north", "image": "north.tif", "labels": "labels.gpkg"}])
    run = Run(path=tmp_path / "run")
    record = tile(manifest, run.path, config=SMALL).record
    assert record.train_valid_pixels == 8000 - 1024 - 100
    assert record.scenes["north"].invalid_labels == 4
    assert "scene 'north': 4 labelled pixels have no data" in record.warnings
    tiles = read_tiles(run.tiles)
    assert len(tiles) == 11
    assert "north_r000000_c000000" not in {entry.tile_id for entry in tiles}
    assert next(t for t in tiles if t.tile_id == "north_r000032_c000000").valid_share == 31 / 32


def test_a_constant_band_is_scaled_by_one(tmp_path, make_raster, make_manifest, pixels):
    pixels[1] = 7
    make_raster("north.tif", pixels)
    record = tile(make_manifest(), tmp_path / "run", config=SMALL).record
    assert (record.bands[1].std, record.bands[1].constant) == (1.0, True)
    assert "band green has one value everywhere (7); it is scaled by 1" in record.warnings


def test_local_scenes_and_scenes_smaller_than_a_tile(tmp_path, make_raster, make_manifest):
    make_raster("north.tif", np.arange(75, dtype=np.uint8).reshape(3, 5, 5), crs=None)
    manifest = make_manifest([{"id": "north", "image": "north.tif", "crs": "local"}])
    run = Run(path=tmp_path / "run")
    record = tile(manifest, run.path, config=SMALL).record
    assert record.local
    assert read_tiles(run.tiles)[0].footprint is None
    assert load_scenes(run)["north"].crs is None


def test_every_bad_scene_is_named_and_nothing_is_written(
    tmp_path, town, make_raster, make_gpkg, pixels
):
    make_raster("two.tif", pixels[:2])
    make_gpkg("odd.gpkg", [(square(1, 1), {"class_name": "lava"})])

    def add(content):
        content["scenes"] += [
            {"id": "gone", "image": "gone.tif"},
            {"id": "two", "image": "two.tif"},
            {"id": "odd", "image": "south.tif", "labels": "odd.gpkg"},
        ]

    edit(town, add)
    with pytest.raises(DataError) as caught:
        tile(town, tmp_path / "run", config=SMALL)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["scene 'gone'", "scene 'two'", "scene 'odd'"]
    assert caught.value.exit_code == 3
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".tile_parts"]


def test_without_a_train_pixel_there_is_nothing_to_do(tmp_path, town):
    def hold(content):
        for scene in content["scenes"]:
            scene["split"] = "test"

    edit(town, hold)
    with pytest.raises(DataError, match="no valid pixel in the train split of any scene"):
        tile(town, tmp_path / "run", config=SMALL)


def test_a_scene_without_any_valid_pixel_is_named(tmp_path, make_raster, make_manifest):
    make_raster("north.tif", np.zeros((3, 40, 40), dtype=np.uint8), nodata=0)
    with pytest.raises(DataError, match=r"scene 'north': .*no valid pixel; check nodata"):
        tile(make_manifest(), tmp_path / "run", config=SMALL)


def test_added_scenes_and_labels_are_taken_and_named(
    tmp_path, town, make_raster, make_gpkg, pixels
):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    make_raster("west.tif", pixels[:, :20, :20])
    make_gpkg("south.gpkg", [(square(0, 0), {"class_name": "building"})])

    def add(content):
        content["scenes"].append({"id": "west", "image": "west.tif"})
        content["scenes"][1]["labels"] = "south.gpkg"

    edit(town, add)
    summary = tile(town, run.path, config=SMALL)
    assert summary.changed
    assert summary.notes == (
        "scene 'south': labels added; labelled train pixels 0 -> 16",
        "scene 'west': added; labelled train pixels 0 -> 0",
    )
    fresh = Run(path=tmp_path / "fresh")
    tile(town, fresh.path, config=SMALL)
    assert files(run.path) == files(fresh.path), "a run that grew equals one made at once"


def test_edited_labels_are_read_again(tmp_path, town, make_gpkg):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    (tmp_path / "labels.gpkg").unlink()
    make_gpkg("labels.gpkg", [(square(2, 3, 6), {"class_name": "water"})])
    summary = tile(town, run.path, config=SMALL)
    assert summary.notes == ("scene 'north': labels read again; labelled train pixels 32 -> 36",)
    assert not tile(town, run.path, config=SMALL).changed


def test_colours_and_truth_may_change(tmp_path, town):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    edit(town, lambda content: content["classes"][0].update(color="#123456"))
    summary = tile(town, run.path, config=SMALL)
    assert summary.notes == ("manifest.yaml brought up to date; tiles and labels are the same",)
    assert load_manifest(run.manifest).classes[0].color == "#123456"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda c: c["classes"].append({"id": 3, "name": "road", "color": "#000000"}),
            "was tiled with classes water, forest, building, the manifest has water, forest, "
            "building, road",
        ),
        (lambda c: c.update(bands=["red", "green"]), "the manifest has red, green"),
        (
            lambda c: c["scenes"][0].update(nodata=3),
            r"scene 'north': .*not the image .*\(its nodata changed in the manifest\)",
        ),
        (
            lambda c: c["scenes"][0].update(bands={"red": 2, "green": 1, "blue": 3}),
            r"scene 'north': .*\(its bands changed in the manifest\)",
        ),
    ],
)
def test_changed_data_is_refused(tmp_path, town, change, reason):
    out = tmp_path / "run"
    tile(town, out, config=SMALL)
    before = files(out)
    edit(town, change)
    with pytest.raises(DataError, match=reason) as caught:
        tile(town, out, config=SMALL)
    assert caught.value.exit_code == 3
    assert files(out) == before


def test_changed_images_are_named_each(tmp_path, town, make_raster, pixels):
    out = tmp_path / "run"
    tile(town, out, config=SMALL)
    make_raster("north.tif", pixels + 1, nodata=0)
    make_raster("south.tif", pixels[:, :41, :50])
    with pytest.raises(DataError, match="the file changed") as caught:
        tile(town, out, config=SMALL)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "scene 'north'",
        "scene 'south'",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["scenes"].pop(), "has a scene 'south' that is no longer in"),
        (lambda c: c["scenes"][1].update(split="test"), "with split train, the manifest says test"),
    ],
)
def test_another_request_is_refused(tmp_path, town, change, reason):
    out = tmp_path / "run"
    tile(town, out, config=SMALL)
    edit(town, change)
    with pytest.raises(RunError, match=reason) as caught:
        tile(town, out, config=SMALL)
    assert caught.value.exit_code == 2
    assert "-o, or --overwrite" in str(caught.value)
    assert tile(town, out, config=SMALL, overwrite=True).changed


def test_other_settings_are_refused_and_named(tmp_path, town):
    out = tmp_path / "run"
    tile(town, out, config=SMALL)
    other = Config(seed=0, tile=TileConfig(core_px=64, overlap_px=8))
    with pytest.raises(RunError, match=r"was tiled with tile\.core_px: 32, asked for now: 64"):
        tile(town, out, config=other)
    assert tile(town, out, config=other, overwrite=True).tiles == 4 + 1


def test_settings_of_later_steps_do_not_matter(tmp_path, town, make_raster, make_gpkg, pixels):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    later = dataclasses.replace(SMALL, seed=5, query=dataclasses.replace(SMALL.query, region_px=8))
    assert not tile(town, run.path, config=later).changed
    write_config(run.config, later, version="0.1.0")  # as training does
    assert not tile(town, run.path).changed
    make_raster("west.tif", pixels[:, :20, :20])
    edit(town, lambda c: c["scenes"].append({"id": "west", "image": "west.tif"}))
    assert tile(town, run.path).changed
    assert read_config(run) == later
    assert read_summary(run).region_px == SMALL.query.region_px


def test_overwrite_never_orphans_what_was_built(tmp_path, town):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    run.round(0).dir.mkdir()
    with pytest.raises(RunError, match=r"would orphan .*\(round_000\)"):
        tile(town, run.path, config=SMALL, overwrite=True)
    run.round(0).dir.rmdir()
    append(run.ledger, [answer()])
    with pytest.raises(RunError, match="entries in the ledger"):
        tile(town, run.path, config=SMALL, overwrite=True)


def answer() -> LedgerEntry:
    """An answered region of the scene north: 4 x 4 pixels of class 2."""
    return LedgerEntry(
        event="ingest",
        round=0,
        time="2026-01-01T00:00:00Z",
        scene_id="north",
        region_id="north/32/10/10",
        region_number=FIRST_ANSWER_REGION,
        cell=(3, 4, 4, 4),
        classes_rle=encode_classes(np.full((4, 4), 2, dtype=np.uint8)),
    )


def test_answers_survive_new_manifest_labels(tmp_path, town, make_gpkg):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    append(run.ledger, [answer()])
    (tmp_path / "labels.gpkg").unlink()
    make_gpkg(
        "labels.gpkg",
        [(square(2, 3, 6), {"class_name": "water"}), (square(50, 50), {"class_name": "forest"})],
    )
    tile(town, run.path, config=SMALL)
    base = read_label_raster(run.base_labels("north"))
    current = read_label_raster(run.labels("north"))
    assert current.equals(replay(base, read_ledger(run.ledger)))
    assert (current.classes[3:7, 4:8] == 2).all()
    assert (base.classes[3:7, 4:8] == 0).all()


Change = Callable[[], object]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Has something done once, after `tile` has read a run and before it holds the lock."""

    def plan(change: Change) -> None:
        @contextmanager
        def late(run: Run, command: str) -> Iterator[None]:
            monkeypatch.setattr(tile_folder, "changing", changing)
            change()
            with changing(run, command):
                yield

        monkeypatch.setattr(tile_folder, "changing", late)

    return plan


@pytest.mark.parametrize("fresh", [False, True])
def test_scenes_that_another_tile_adds_meanwhile_are_not_lost(
    tmp_path, town, make_raster, pixels, meanwhile, fresh
):
    make_raster("west.tif", pixels)
    run, mine, theirs = Run(path=tmp_path / "run"), tmp_path / "mine.yaml", tmp_path / "theirs.yaml"
    if not fresh:
        tile(town, run.path, config=SMALL)
    mine.write_text(town.read_text("utf-8").replace("#0000ff", "#0000fe"), "utf-8")
    theirs.write_bytes(town.read_bytes())
    edit(theirs, lambda c: c["scenes"].append({"id": "west", "image": "west.tif"}))
    meanwhile(lambda: tile(theirs, run.path, config=SMALL))
    with pytest.raises(RunError, match="tiled since this one began; give this command again"):
        tile(mine, run.path, config=SMALL)
    assert list(read_summary(run).scenes) == ["north", "south", "west"]
    with pytest.raises(RunError, match="'west' that is no longer in"):
        tile(mine, run.path, config=SMALL)


def test_answers_that_come_meanwhile_are_not_lost(tmp_path, town, make_gpkg, meanwhile):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    (tmp_path / "labels.gpkg").unlink()
    make_gpkg("labels.gpkg", [(square(2, 3, 6), {"class_name": "water"})])
    before = files(run.path)
    meanwhile(lambda: append(run.ledger, [answer()]))
    with pytest.raises(RunError, match="since this one began; give this command again"):
        tile(town, run.path, config=SMALL)
    assert files(run.path) == before | {"ledger.jsonl": run.ledger.read_bytes()}
    tile(town, run.path, config=SMALL)
    assert (read_label_raster(run.labels("north")).classes[3:7, 4:8] == 2).all()


def test_a_round_that_begins_meanwhile_is_not_orphaned(tmp_path, town, meanwhile):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    meanwhile(run.round(0).dir.mkdir)
    with pytest.raises(RunError, match="since this one began; give this command again"):
        tile(town, run.path, config=SMALL, overwrite=True)


def test_patches_are_georeferenced_and_can_be_added_later(tmp_path, town, pixels):
    out = tmp_path / "run"
    tile(town, out, config=SMALL)
    summary = tile(town, out, config=SMALL, patches=True)
    assert [note.split(";")[0] for note in summary.notes] == [
        "scene 'north': patches added",
        "scene 'south': patches added",
    ]
    tiles = read_tiles(out / "tiles.parquet")
    assert sorted(path.stem for path in (out / "patches").iterdir()) == sorted(
        entry.tile_id for entry in tiles
    )
    middle = next(entry for entry in tiles if entry.tile_id == "north_r000032_c000032")
    with rasterio.open(out / "patches" / "north_r000032_c000032.tif") as patch:
        top, left = middle.window.row_off, middle.window.col_off
        assert patch.transform.c == ULX + 10 * left
        np.testing.assert_array_equal(patch.read(), pixels[:, top : top + 48, left : left + 48])
    assert not tile(town, out, config=SMALL).changed
    edit(town, lambda content: content["scenes"][0].pop("labels"))
    assert tile(town, out, config=SMALL).changed
    assert not tile(town, out, config=SMALL, patches=True).changed


@pytest.mark.parametrize("name", ["tile.json", "tiles.parquet", "labels/north.tif"])
def test_what_was_damaged_can_be_deleted_and_made_again(tmp_path, town, name):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    append(run.ledger, [answer()])
    (run.path / "labels" / "north.tif").unlink()
    tile(town, run.path, config=SMALL)
    whole = files(run.path)
    (run.path / name).unlink()
    assert tile(town, run.path, config=SMALL).changed
    assert files(run.path) == whole


def test_a_file_in_the_way_is_named(tmp_path, town):
    (tmp_path / "run").write_text("", "utf-8")
    with pytest.raises(RunError, match="run: is a file; give a folder with -o"):
        tile(town, tmp_path / "run", config=SMALL)


def test_an_index_that_a_kill_left_behind_is_rebuilt(tmp_path, town, make_raster, pixels):
    run = Run(path=tmp_path / "run")
    tile(town, run.path, config=SMALL)
    old = run.tiles.read_bytes()
    make_raster("west.tif", pixels[:, :20, :20])
    edit(town, lambda c: c["scenes"].append({"id": "west", "image": "west.tif"}))
    tile(town, run.path, config=SMALL)
    new = run.tiles.read_bytes()
    run.tiles.write_bytes(old)  # killed between tile.json and tiles.parquet
    assert tile(town, run.path, config=SMALL).changed
    assert run.tiles.read_bytes() == new


def test_a_killed_call_is_completed_by_the_same_call(tmp_path, town, make_raster, pixels):
    big = np.tile(pixels, (1, 8, 8))
    for number in range(3):
        make_raster(f"big{number}.tif", big + number)

    def add(content):
        content["scenes"] += [{"id": f"b{n}", "image": f"big{n}.tif"} for n in range(3)]

    edit(town, add)
    out = tmp_path / "run"
    code = (
        "import sys; from pathlib import Path; from geohsal.config import Config, TileConfig; "
        "from geohsal.workflows.tile import tile; "
        "config = Config(seed=0, tile=TileConfig(core_px=32, overlap_px=8)); "
        "tile(Path(sys.argv[1]), Path(sys.argv[2]), config=config)"
    )
    victim = subprocess.Popen([sys.executable, "-c", code, town, out], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while victim.poll() is None and time.monotonic() < deadline:
        if any(out.glob(".tile_parts/parts/*.arrow")):
            os.kill(victim.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    assert victim.wait() == -signal.SIGKILL
    assert not (out / "tiles.parquet").exists()
    assert tile(town, out, config=SMALL).changed
    assert not list(out.glob(".tile*"))
    tile(town, tmp_path / "fresh", config=SMALL)
    assert files(out) == files(tmp_path / "fresh")


def test_several_processes_give_the_same_run(tmp_path, town):
    tile(town, tmp_path / "one", config=SMALL)
    tile(town, tmp_path / "two", config=SMALL, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
