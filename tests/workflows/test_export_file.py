"""Exports in all formats: repeatable, with their record inside, the same for any strip height."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from rasterio.features import rasterize
from review_factory import CLASSES, GRIDS, SIDE, make_maps

from geohsal.config import Config, OutputConfig, TileConfig
from geohsal.errors import PartialError, RequestError, RunError
from geohsal.geo.scene import Scene, SceneMaps
from geohsal.io.atomic import write_json
from geohsal.io.cog import write_cog
from geohsal.io.polygon_file import read_record
from geohsal.io.run import Run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows import export as export_module
from geohsal.workflows import export_scene, export_work
from geohsal.workflows.export import export, export_folder
from geohsal.workflows.tile import tile

CONFIG = Config(tile=TileConfig(core_px=64, overlap_px=0), output=OutputConfig(sieve_px=0))


def queried_run(make_raster, make_manifest, folder: Path, grids=("utm",)) -> Run:  # type: ignore[no-untyped-def]
    """A run whose round 0 has rasters."""
    scenes = []
    for name in grids:
        crs, transform = GRIDS[name]
        text = crs.to_string() if crs else None
        make_raster(
            f"{name}.tif", np.full((3, SIDE, SIDE), 7, np.uint8), crs=text, transform=transform
        )
        scenes.append({"id": name, "image": f"{name}.tif"} | ({} if crs else {"crs": "local"}))
    classes = [{"id": c.class_id, "name": c.name, "color": c.color} for c in CLASSES]
    manifest = make_manifest(scenes, bands=("b1", "b2", "b3"), classes=classes)
    tile(manifest, folder / "run", config=CONFIG)
    run = Run(path=folder / "run")
    for seed, (name, scene) in enumerate(load_scenes(run).items()):
        write_maps(run, name, scene, make_maps(seed))
    write_json(run.round(0).query_json, {"request": "abc"})
    return run


def write_maps(run: Run, name: str, scene: Scene, maps: SceneMaps) -> None:
    files = (
        ("class", np.stack([maps.refined, maps.teacher]), 255, ("refined", "teacher")),
        ("state", maps.state, 0, ("state",)),
        ("confidence", maps.confidence, float("nan"), ("confidence",)),
    )
    for kind, array, nodata, bands in files:
        path = run.round(0).raster(name, kind)  # type: ignore[arg-type]
        write_cog(path, array, scene=scene, nodata=nodata, band_names=bands)


@pytest.fixture
def run(make_raster, make_manifest, tmp_path: Path) -> Run:  # type: ignore[no-untyped-def]
    return queried_run(make_raster, make_manifest, tmp_path)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb"])
def test_the_same_export_again_does_nothing(run: Run, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"map{suffix}"
    first = export(run.path, out)
    assert first.written
    before = out.read_bytes()
    assert not export(run.path, out).written
    assert out.read_bytes() == before
    for change in ({"sieve_px": 3}, {"what": "final"}, {"simplify_px": 1.0}):
        with pytest.raises(
            RequestError, match="exists and is of another request; give --overwrite"
        ):
            export(run.path, out, **change)  # type: ignore[arg-type]
    assert export(run.path, out, what="final", overwrite=True).written
    assert read_record(out) is not None
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb"])
def test_another_programs_file_is_not_replaced(run: Run, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"map{suffix}"
    out.write_bytes(b"something else")
    with pytest.raises(RequestError, match="exists and is of another request"):
        export(run.path, out)
    assert out.read_bytes() == b"something else"


def test_all_formats_say_the_same(run: Run, tmp_path: Path) -> None:
    frames = []
    for suffix in (".gpkg", ".parquet", ".fgb"):
        out = export(run.path, tmp_path / f"map{suffix}", simplify_px=1.0, sieve_px=4).out
        if suffix == ".parquet":
            frame = geopandas.read_parquet(out)
        else:
            frame = geopandas.read_file(out, layer="pseudo_labels")
        frame["area"] = frame.geometry.area.round(6)
        assert frame.crs.to_epsg() == 32632
        assert list(frame.columns[:6]) == [
            "class_id", "class_name", "source", "confidence", "scene_id", "area_m2",
        ]  # fmt: skip
        columns = [*frame.columns[:6], "area"]
        frames.append(frame[columns].sort_values(columns).reset_index(drop=True))
    for frame in frames[1:]:
        assert frame.astype(object).equals(frames[0].astype(object))


def test_geoparquet_is_what_it_says(run: Run, tmp_path: Path) -> None:
    out = export(run.path, tmp_path / "map.parquet").out
    metadata = pq.read_schema(out).metadata
    geo = json.loads(metadata[b"geo"])
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["crs"]["id"] == {"authority": "EPSG", "code": 32632}
    assert json.loads(metadata[b"geohsal"])["kind"] == "geohsal export"


def test_strips_change_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export(run.path, tmp_path / "whole.parquet", sieve_px=5)
    monkeypatch.setattr(export_scene, "STRIP_ROWS", 9)
    monkeypatch.setattr(export_scene, "STRIP_PX", 9 * SIDE)
    monkeypatch.setattr(export_scene, "BATCH_VERTICES", 50)
    cut = export(run.path, tmp_path / "cut.parquet", sieve_px=5)
    assert (cut.polygons, cut.area_m2) == (whole.polygons, whole.area_m2)
    one, other = (geopandas.read_parquet(summary.out) for summary in (whole, cut))
    for frame in (one, other):
        frame["geometry"] = frame.geometry.normalize()
        frame["outline"] = shapely.to_wkb(frame.geometry.values)
    tables = [
        frame.drop(columns="geometry").sort_values("outline", ignore_index=True)
        for frame in (one, other)
    ]
    assert tables[0].equals(tables[1])
    simple = export(run.path, tmp_path / "simple.parquet", sieve_px=5, simplify_px=1.5)
    frame = geopandas.read_parquet(simple.out)
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert len(frame) == cut.polygons


def test_holes_stay_and_nodata_stays_out(run: Run, tmp_path: Path) -> None:
    maps = make_maps(0)
    maps.refined[:], maps.state[:] = 0, 2
    maps.refined[20:30, 20:30] = 1
    maps.state[40:44, 40:44] = 0
    write_maps(run, "utm", load_scenes(run)["utm"], maps)
    summary = export(run.path, tmp_path / "map.fgb")
    frame = geopandas.read_file(summary.out)
    assert summary.polygons == len(frame) == 2
    [large] = frame[frame.class_id == 0].geometry
    assert len(large.interiors) == 2
    assert summary.area_m2["water"] == pytest.approx(100 * (64 * 64 - 100 - 16), rel=2e-3)
    burnt = rasterize(
        zip(frame.geometry, frame.class_id + 1, strict=True),
        (SIDE, SIDE),
        transform=GRIDS["utm"][1],
    )
    assert np.array_equal(burnt, np.where(maps.state == 0, 0, maps.refined + 1))


def test_scenes_without_a_common_ground_need_layers(
    make_raster,
    make_manifest,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    run = queried_run(make_raster, make_manifest, tmp_path, ("utm", "grid"))
    with pytest.raises(RequestError, match="scenes without a common ground need layers"):
        export(run.path, tmp_path / "map.fgb")
    out = export(run.path, tmp_path / "map.gpkg").out
    layers = pyogrio.list_layers(out)[:, 0].tolist()
    assert layers[:2] == ["pseudo_labels", "pseudo_labels_grid"]


def test_where_there_is_no_ground_no_area_is_told(
    make_raster,
    make_manifest,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    run = queried_run(make_raster, make_manifest, tmp_path, ("grid",))
    summary = export(run.path, tmp_path / "map.gpkg")
    assert (summary.polygons > 0, summary.area_m2) == (True, {})


@pytest.fixture
def three(make_raster, make_manifest, tmp_path: Path) -> Run:  # type: ignore[no-untyped-def]
    """A run of three scenes with a common ground."""
    return queried_run(make_raster, make_manifest, tmp_path, ("utm", "turned", "utm33"))


def rows(path: Path) -> list[object]:
    """Everything a reader of the file sees, in order."""
    if path.suffix != ".gpkg":
        return [path.read_bytes()]
    frame = geopandas.read_file(path, layer="pseudo_labels")
    return [frame.drop(columns="geometry").to_csv(), shapely.to_wkb(frame.geometry.values).tolist()]


@contextmanager
def cuts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the scenes that are cut in this process."""
    seen: list[str] = []

    def counting(*arguments, **keys):  # type: ignore[no-untyped-def]
        seen.append(arguments[2].scene_id)
        return export_scene.stage(*arguments, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(export_work, "stage", counting)
        yield seen


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb"])
def test_shares_give_what_one_call_gives(
    three: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    whole = export(three.path, tmp_path / f"whole{suffix}", sieve_px=3)
    out = tmp_path / f"map{suffix}"
    told = [export(three.path, out, sieve_px=3, shard=f"{index}/2") for index in (1, 0)]
    assert [(share.done, share.left, share.written) for share in told] == [
        (1, 2, False),
        (2, 0, False),
    ]
    assert not out.exists()
    part = sorted(export_folder(out).parts.iterdir())[0]
    first = part.read_bytes()
    part.unlink()
    with cuts(monkeypatch) as seen:
        export(three.path, out, sieve_px=3, shard="0/1")
        assert part.read_bytes() == first
        assert len(seen) == 1
        merged = export(three.path, out, sieve_px=3)
        assert len(seen) == 1
    assert merged == replace(whole, out=out)
    assert rows(out) == rows(whole.out)
    assert [path.name for path in tmp_path.glob(".map*")] == []
    again = export(three.path, out, sieve_px=3, shard="0/2")
    assert (again.written, again.left, again.polygons) == (False, None, whole.polygons)


def test_a_killed_export_goes_on_with_the_next_scene(
    three: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.parquet"
    cut = export_work.stage

    def die(*arguments, **keys):  # type: ignore[no-untyped-def]
        if arguments[2].scene_id == "turned":
            raise KeyboardInterrupt
        return cut(*arguments, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(export_work, "stage", die)
        with pytest.raises(KeyboardInterrupt):
            export(three.path, out)
    assert not out.exists()
    with cuts(monkeypatch) as seen:
        export(three.path, out)
    assert seen == ["turned", "utm33"]
    assert rows(out) == rows(export(three.path, tmp_path / "whole.parquet").out)


def test_an_export_killed_once_its_file_is_there_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.gpkg"

    def die(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "discard", die)
        with pytest.raises(KeyboardInterrupt):
            export(run.path, out)
    assert out.exists()
    assert export_folder(out).plan.exists()
    assert not export(run.path, out).written
    assert not export_folder(out).path.exists()


def test_a_share_that_comes_too_late_leaves_nothing(
    three: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cut = tmp_path / "map.gpkg", export_work.stage

    def overtaken(*arguments, **keys):  # type: ignore[no-untyped-def]
        with monkeypatch.context() as patch:
            patch.setattr(export_work, "stage", cut)
            export(three.path, out)
        return cut(*arguments, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(export_work, "stage", overtaken)
        with pytest.raises(RunError, match=r"share 1/2 came too late, its parts were removed"):
            export(three.path, out, shard="1/2")
    assert out.exists()
    assert [path.name for path in tmp_path.glob(".map*")] == []


def test_a_share_names_its_failures_and_the_merge_tries_again(
    three: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "map.parquet"
    raster = three.round(0).raster("turned", "state")
    good = raster.read_bytes()
    raster.write_bytes(good[:600])
    share = export(three.path, out, shard="0/1")
    assert (share.done, share.left, list(share.failures)) == (3, 0, ["turned"])
    assert "turned_state.tif: cannot be read" in caplog.text
    with pytest.raises(PartialError, match="1 of 3 scenes failed and are not in it"):
        export(three.path, out)
    raster.write_bytes(good)
    export(three.path, out, overwrite=True)
    assert rows(out) == rows(export(three.path, tmp_path / "whole.parquet").out)


def test_rasters_that_are_made_anew_between_shares_are_planned_anew(
    three: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.parquet"
    export(three.path, out, shard="0/3")
    for seed, (name, scene) in enumerate(load_scenes(three).items()):
        write_maps(three, name, scene, make_maps(seed + 7))
    for index in (1, 2, 0):
        export(three.path, out, shard=f"{index}/3")
    with cuts(monkeypatch) as seen:
        export(three.path, out)
    assert seen == []
    assert rows(out) == rows(export(three.path, tmp_path / "whole.parquet").out)


def test_a_scene_cut_from_other_rasters_than_planned_is_cut_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, [scene] = tmp_path / "map.parquet", load_scenes(run).values()

    def hashed_late(run_, round_, name, *, what):  # type: ignore[no-untyped-def]
        write_maps(run, "utm", scene, make_maps(7))
        return hashes(run_, round_, name, what=what)

    hashes = export_work.input_hashes
    with monkeypatch.context() as patch:
        patch.setattr(export_work, "input_hashes", hashed_late)
        export(run.path, out, shard="0/1")
    write_maps(run, "utm", scene, make_maps(0))
    with cuts(monkeypatch) as seen:
        export(run.path, out)
    assert seen == ["utm"]
    assert rows(out) == rows(export(run.path, tmp_path / "whole.parquet").out)


def test_an_export_of_relative_paths_can_be_done_elsewhere(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    judged_elsewhere: Callable[[ModuleType], Path],
) -> None:
    elsewhere = judged_elsewhere(export_module)
    monkeypatch.chdir(tmp_path)
    assert export(Path("run"), Path("map.parquet")).written
    assert list(elsewhere.iterdir()) == []


def test_where_no_scene_can_be_read_nothing_is_written(run: Run, tmp_path: Path) -> None:
    raster = run.round(0).raster("utm", "confidence")
    raster.write_bytes(raster.read_bytes()[:600])
    with pytest.raises(PartialError, match="1 of 1 scenes failed; nothing is written") as caught:
        export(run.path, tmp_path / "map.gpkg")
    assert "utm_confidence.tif" in caught.value.failures["utm"]
    assert sorted(path.name for path in tmp_path.iterdir() if "map" in path.name) == []


def test_unknown_classes_are_refused(run: Run, tmp_path: Path) -> None:
    maps = make_maps(0)
    maps.refined[10, 10] = 77
    write_maps(run, "utm", load_scenes(run)["utm"], maps)
    with pytest.raises(PartialError) as caught:
        export(run.path, tmp_path / "map.gpkg")
    assert "holds unknown classes" in caught.value.failures["utm"]
