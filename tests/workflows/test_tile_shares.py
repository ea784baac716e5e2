"""A tile run in shares: the same bytes for any number of them, after kills and beside repeats."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from affine import Affine
from shapely.geometry import box
from tiny_run import geohsal

from geohsal.config import Config, TileConfig
from geohsal.errors import DataError, RequestError, RunError
from geohsal.io.run import Run, open_run
from geohsal.io.run_tables import load_scenes, load_tiles
from geohsal.workflows import tile as tile_module
from geohsal.workflows import tile_folder, tile_merge, tile_work
from geohsal.workflows.stages import stage_counts
from geohsal.workflows.tile import tile, tile_share

SMALL = Config(seed=0, tile=TileConfig(core_px=16, overlap_px=4))
ZONES = (("EPSG:32631", 780_000.0), ("EPSG:32632", 330_000.0), ("EPSG:32632", 330_160.0))
"""CRS and left edge of three scenes: two zones, the last two overlap."""


def scene(number: int) -> dict[str, Any]:
    return {"id": f"s{number}", "image": f"s{number}.tif", "labels": f"s{number}.gpkg",
            "split": "blocks"}  # fmt: skip


@pytest.fixture
def make_scene(make_raster, make_gpkg) -> Callable[[int], None]:
    def make(number: int) -> None:
        crs, left = ZONES[number]
        transform = Affine(10.0, 0.0, left, 0.0, -10.0, 5_200_000.0)
        pixels = np.random.default_rng(number).integers(0, 99, (3, 48, 64)).astype(np.uint16)
        make_raster(f"s{number}.tif", pixels, crs=crs, transform=transform, nodata=0)
        boxes = [
            (box(left + x, 5_199_600 + y, left + x + 90, 5_199_690 + y), {"class_name": name})
            for x, y, name in ((5, 5, "water"), (310, 205, "forest"), (515, 15, "water"))
        ]
        make_gpkg(f"s{number}.gpkg", boxes, crs=crs)

    return make


@pytest.fixture
def land(make_scene, make_manifest) -> Path:
    """Manifest of three scenes in blocks of 16 pixels."""
    for number in range(3):
        make_scene(number)
    blocks = {"size_px": 16, "buffer_px": 3}
    return make_manifest([scene(number) for number in range(3)], blocks=blocks)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def whole(land: Path, tmp_path: Path) -> dict[str, bytes]:
    """What one call without shares writes."""
    tile(land, tmp_path / "whole", config=SMALL)
    found = files(tmp_path / "whole")
    assert {name for name in found if name.endswith(".tif")} == {
        f"labels/{folder}s{n}.tif" for folder in ("", "manifest/", "heldout/") for n in range(3)
    }
    return found


@contextmanager
def scans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the scenes that are scanned in this process."""
    seen: list[str] = []
    scan = tile_work.scan_scene

    def counting(task, *rest, **keys):
        seen.append(task.source.scene_id)
        return scan(task, *rest, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(tile_work, "scan_scene", counting)
        yield seen


def test_a_share_without_work_leaves_the_others_alone(
    land: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five shares of three scenes: an idle one ends while another is at its scene."""
    out, scan = tmp_path / "run", tile_work.scan_scene

    def beside(task: Any, *rest: Any, **keys: Any) -> Any:
        monkeypatch.setattr(tile_work, "scan_scene", scan)
        found = scan(task, *rest, **keys)
        assert tile_share(land, out, shard="4/5", config=SMALL, patches=True).done == 0
        return found

    monkeypatch.setattr(tile_work, "scan_scene", beside)
    tile_share(land, out, shard="0/5", config=SMALL, patches=True)
    tile(land, out, config=SMALL, patches=True)
    tile(land, tmp_path / "whole", config=SMALL, patches=True)
    assert files(out) == files(tmp_path / "whole")


def test_a_share_that_a_merge_overtakes_says_so_and_leaves_nothing(
    land: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scan = tmp_path / "run", tile_work.scan_scene

    def overtaken(task: Any, *rest: Any, **keys: Any) -> Any:
        monkeypatch.setattr(tile_work, "scan_scene", scan)
        tile(land, out, config=SMALL)
        return scan(task, *rest, **keys)

    monkeypatch.setattr(tile_work, "scan_scene", overtaken)
    with pytest.raises(RunError, match="share 0/3 came too late: the run is complete"):
        tile_share(land, out, shard="0/3", config=SMALL)
    assert files(out) == whole


def test_rasters_that_somebody_removed_are_not_called_complete(
    land: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scan = tmp_path / "run", tile_work.scan_scene

    def torn(task: Any, stage: Path, **keys: Any) -> Any:
        found = scan(task, stage, **keys)
        sorted(stage.rglob("*.tif"))[-1].unlink()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(tile_work, "scan_scene", torn)
        with pytest.raises(DataError, match="1 of 14 rasters were removed"):
            tile_share(land, out, shard="0/3", config=SMALL, patches=True)
    assert sorted(out.glob(".tile_parts/parts/*")) == []


def test_a_dry_run_with_a_scheduler_is_refused(land: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--scheduler tcp://host:1: a dry run works here"):
        tile(land, tmp_path / "run", dry_run=True, scheduler="tcp://host:1")


def test_labels_that_change_between_shares_are_not_taken_for_the_planned_ones(
    land: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out, labels = tmp_path / "run", tmp_path / "s1.gpkg"
    planned = labels.read_bytes()
    tile_share(land, out, shard="0/3", config=SMALL)
    shutil.copyfile(tmp_path / "s2.gpkg", labels)
    tile_share(land, out, shard="1/3", config=SMALL)
    labels.write_bytes(planned)
    tile(land, out, config=SMALL)
    assert files(out) == whole


def test_work_of_a_relative_folder_can_be_done_elsewhere(
    land: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    judged_elsewhere: Callable[[ModuleType], Path],
) -> None:
    elsewhere = judged_elsewhere(tile_merge)
    monkeypatch.chdir(tmp_path)
    tile(land.relative_to(tmp_path), Path("run"), config=SMALL, scheduler=None, workers=1)
    assert files(tmp_path / "run") == whole
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_shares_gives_the_same_bytes(tmp_path, land, whole, monkeypatch, count):
    out = tmp_path / "run"
    for index in range(count):
        share = tile_share(land, out, shard=f"{index}/{count}", config=SMALL)
        assert share.done == len(range(index, 3, count))
        assert share.left == 3 - sum(len(range(i, 3, count)) for i in range(index + 1))
    [stage] = stage_counts(Run(path=out))
    assert (stage.stage, stage.done, stage.planned) == ("tile", 3, 3)
    with scans(monkeypatch) as seen:
        assert tile(land, out, config=SMALL).changed
    assert seen == []
    assert files(out) == whole
    assert tile_share(land, out, shard="0/2", config=SMALL).left == 0
    assert files(out) == whole


def test_without_shares_what_is_left_is_done(tmp_path, land, whole, monkeypatch):
    out = tmp_path / "run"
    tile_share(land, out, shard="1/3", config=SMALL)
    with scans(monkeypatch) as seen:
        tile(land, out, config=SMALL)
    assert seen == ["s0", "s2"]
    assert files(out) == whole


def test_processes_and_a_chunk_done_twice_change_nothing(tmp_path, land, whole):
    out = tmp_path / "run"
    tile_share(land, out, shard="0/1", config=SMALL, workers=2)
    first = files(out)
    for path in sorted(out.glob(".tile_parts/parts/*"))[:2]:
        path.unlink()
    tile_share(land, out, shard="0/1", config=SMALL)
    assert files(out) == first
    tile(land, out, config=SMALL)
    assert files(out) == whole


def test_later_shares_trust_the_plan_of_the_first(tmp_path, land, monkeypatch):
    out = tmp_path / "run"
    tile_share(land, out, shard="0/3", config=SMALL)

    def refuse(_):
        raise AssertionError("every image was looked at again")

    monkeypatch.setattr(tile_module, "plan_scenes", refuse)
    assert tile_share(land, out, shard="1/3", config=SMALL).left == 1


@pytest.mark.parametrize("step", ["write_text", "write_config", "write_summary"])
def test_a_merge_that_was_killed_goes_on(tmp_path, land, whole, monkeypatch, step):
    out = tmp_path / "run"

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tile_merge, step, die)
        with pytest.raises(KeyboardInterrupt):
            tile(land, out, config=SMALL)
    assert not (out / "tiles.parquet").exists()
    with scans(monkeypatch) as seen:
        tile(land, out, config=SMALL)
    assert seen == []
    assert files(out) == whole


def test_a_killed_merge_of_added_scenes_scans_nothing_again(tmp_path, land, whole, monkeypatch):
    out = tmp_path / "run"
    content = yaml.safe_load(land.read_text("utf-8"))
    some = land.with_name("some.yaml")
    some.write_text(yaml.safe_dump(content | {"scenes": content["scenes"][:2]}), "utf-8")
    tile(some, out, config=SMALL)
    old_index = (out / "tiles.parquet").read_bytes()
    old_ids = [entry.tile_id for tiles in load_tiles(open_run(out)).values() for entry in tiles]
    with monkeypatch.context() as patch:
        patch.setattr(tile_folder, "discard", lambda _: None)
        tile(land, out, config=SMALL)
    (out / "tiles.parquet").write_bytes(old_index)  # killed just before its rename
    with scans(monkeypatch) as seen:
        tile(land, out, config=SMALL)
    assert seen == []
    grown = files(out)
    assert grown.keys() == whole.keys()
    for name in grown:
        if name != "manifest.yaml":  # names the file it was read from
            assert grown[name] == whole[name], name
    ids = [entry.tile_id for tiles in load_tiles(open_run(out)).values() for entry in tiles]
    assert ids[: len(old_ids)] == old_ids


def test_scenes_may_appear_between_shares(tmp_path, land, whole, monkeypatch):
    out = tmp_path / "run"
    content = yaml.safe_load(land.read_text("utf-8"))
    full = land.read_text("utf-8")
    land.write_text(yaml.safe_dump(content | {"scenes": content["scenes"][:2]}), "utf-8")
    tile_share(land, out, shard="0/1", config=SMALL)
    land.write_text(full, "utf-8")
    with scans(monkeypatch) as seen:
        tile(land, out, config=SMALL)
    assert seen == ["s2"]
    assert files(out) == whole


def test_zones_and_overlaps_keep_their_own_tiles(tmp_path, land, whole):
    run = open_run(tmp_path / "whole")
    scenes, tiles = load_scenes(run), load_tiles(run)
    assert [scene.crs.to_epsg() for scene in scenes.values()] == [32631, 32632, 32632]
    assert len({entry.tile_id for own in tiles.values() for entry in own}) == 3 * 12
    first, second, third = ([t.footprint for t in own] for own in tiles.values())
    assert any(a.intersection(b).area > 0 for a in second for b in third), "s1 and s2 overlap"
    assert not any(a.intersects(b) for a in first for b in second)


def test_an_image_that_changed_after_its_share_is_read_again(tmp_path, land, make_scene):
    out = tmp_path / "run"
    tile_share(land, out, shard="0/1", config=SMALL)
    shutil.copyfile(tmp_path / "s1.tif", tmp_path / "s2.tif")
    tile(land, out, config=SMALL)
    tile(land, tmp_path / "fresh", config=SMALL)
    assert files(out) == files(tmp_path / "fresh")


def test_lost_rasters_and_damaged_parts_are_made_again(tmp_path, land, whole, monkeypatch):
    out = tmp_path / "run"
    tile_share(land, out, shard="0/1", config=SMALL)
    part = sorted(out.glob(".tile_parts/parts/*"))[0]
    part.write_bytes(part.read_bytes()[:-20])
    lost = sorted(out.glob(".tile_parts/rasters/*/labels/s2.tif"))[0]
    lost.unlink()
    tile(land, out, config=SMALL)
    assert files(out) == whole


def test_a_scene_that_fails_leaves_the_others_done(tmp_path, land, whole, monkeypatch):
    out = tmp_path / "run"
    good = (tmp_path / "s1.tif").read_bytes()
    (tmp_path / "s1.tif").unlink()
    tile_share(land, out, shard="0/2", config=SMALL)
    with pytest.raises(DataError, match=r"scene 's1': .*s1\.tif: cannot be opened"):
        tile_share(land, out, shard="1/2", config=SMALL)
    with pytest.raises(DataError, match=r"scene 's1': .*s1\.tif: cannot be opened"):
        tile(land, out, config=SMALL)
    assert [path.name for path in out.iterdir()] == [".tile_parts"]
    (tmp_path / "s1.tif").write_bytes(good)
    with scans(monkeypatch) as seen:
        tile(land, out, config=SMALL)
    assert seen == ["s1"]
    assert files(out) == whole


def test_a_folder_that_only_holds_a_submission_is_a_new_run(tmp_path, land, whole):
    out = tmp_path / "run"
    (out / "slurm").mkdir(parents=True)
    (out / "slurm" / "tile.sh").write_text("#!/bin/bash\n", "utf-8")
    (out / "jobs.json").write_text("{}", "utf-8")
    tile_share(land, out, shard="0/1", config=SMALL)
    assert tile(land, out, config=SMALL).notes == ()
    extra = {"slurm/tile.sh", "jobs.json"}
    assert {name: data for name, data in files(out).items() if name not in extra} == whole


def test_shares_on_the_command_line(tmp_path, land, whole):
    out, config = tmp_path / "run", tmp_path / "c.yaml"
    config.write_text("seed: 0\ntile: {core_px: 16, overlap_px: 4}\n", "utf-8")
    asked = ("tile", land, "-o", out, "-c", config)
    said = geohsal(*asked, "--shard", "0/2").stdout
    assert f"{out}: share 0/2: scenes scanned now: 2" in said
    assert "scenes left for other shares: 1" in said
    share = json.loads(geohsal(*asked, "--shard", "1/2", "--json").stdout)
    assert (share["done"], share["left"]) == (1, 0)
    geohsal(*asked)
    assert files(out)["tiles.parquet"] == whole["tiles.parquet"]
    geohsal(*asked, "--shard", "2/2", code=2)
    geohsal(*asked, "--shard", "0/2", "--dry-run", code=2)
    with pytest.raises(RequestError, match="--shard 7: write I/N"):
        tile_share(land, out, shard="7", config=SMALL)
