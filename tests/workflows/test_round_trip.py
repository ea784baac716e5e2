"""Two rounds through the real command line, with a person in between."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from tiny_run import geohsal

from geohsal.config import load_config
from geohsal.errors import RunError
from geohsal.geo.states import PixelState
from geohsal.io.atomic import read_json
from geohsal.io.label_store import read_label_raster
from geohsal.io.ledger import read_ledger, replay
from geohsal.io.manifest import load_manifest
from geohsal.io.round_record import read_regions
from geohsal.io.run import Run, open_run
from geohsal.workflows.query import query
from geohsal.workflows.status import status
from geohsal.workflows.train import train


@pytest.fixture(scope="module")
def queried(tiny_landscape: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose first round is queried."""
    folder = tmp_path_factory.mktemp("run") / "run"
    settings = tiny_landscape.parent / "settings.yaml"
    geohsal("tile", tiny_landscape, "-o", folder, "-c", settings)
    geohsal("train", folder)
    geohsal("query", folder, "--budget", "8regions")
    return open_run(folder)


@pytest.fixture
def run(queried: Run, tmp_path: Path) -> Run:
    """A copy of the queried run that a test may change."""
    shutil.copytree(queried.path, tmp_path / "run")
    return open_run(tmp_path / "run")


def test_two_rounds_with_an_oracle_in_between(run: Run, tmp_path: Path) -> None:
    review = run.round(0).queries()
    reviewed = tmp_path / "reviewed.gpkg"
    geohsal("answer", run.path, review, "-o", reviewed)
    geohsal("ingest", run.path, reviewed)
    assert [item.step for item in status(run.path).rounds] == ["ingested", "tiled"]
    regions = {region.region_id for region in read_regions(run.round(0).regions)}
    entries = read_ledger(run.ledger)
    assert {entry.region_id for entry in entries} == regions
    for scene_id in ("west_1", "west_2", "east_1"):
        base = read_label_raster(run.base_labels(scene_id))
        own = [entry for entry in entries if entry.scene_id == scene_id]
        assert replay(base, own).equals(read_label_raster(run.labels(scene_id)))
    again = geohsal("ingest", run.path, reviewed)
    assert "nothing" in again.output
    assert len(read_ledger(run.ledger)) == len(entries)

    geohsal("train", run.path, "--set", "prior.min_regions=5")
    priors = read_json(run.round(1).metrics)["priors"]
    assert priors["source"] == "answers", priors["reason"]
    assert sum(priors["share"].values()) == pytest.approx(1, abs=1e-4)
    assert any(abs(shift) > 0.01 for shift in priors["shift"].values())
    geohsal("query", run.path, "--budget", "5000px")
    second = read_regions(run.round(1).regions)
    assert 0 < sum(region.pixels for region in second) <= 5000
    assert not regions & {region.region_id for region in second}
    evaluation = json.loads(geohsal("evaluate", run.path, "--json").stdout)
    assert evaluation["round"] == 1
    assert evaluation["reference"] == {"east_2": "truth"}
    assert np.asarray(evaluation["confusion"]).sum() == evaluation["pixels"]


def test_a_person_edits_the_file_and_the_burnt_pixels_follow(run: Run, tmp_path: Path) -> None:
    """Whole-region class, a changed answer, a split and a region left alone."""
    mine = tmp_path / "mine.gpkg"
    shutil.copy(run.round(0).queries(), mine)
    regions = pyogrio.read_dataframe(mine, layer="query_regions", fid_as_index=True)
    answers = pyogrio.read_dataframe(mine, layer="answers", fid_as_index=True)
    names = regions["region_id"].tolist()
    whole, changed, cut, alone = names[0], names[1], names[2], names[3]
    regions.loc[regions["region_id"] == whole, ["status", "assigned_class"]] = ["done", 4]
    regions.loc[regions["region_id"].isin([changed, cut]), "status"] = "done"
    one = answers.index[answers["region_id"] == changed][0]
    answers.loc[one, "assigned_class"] = 0
    piece = answers.index[answers["region_id"] == cut][0]
    geometry = answers.loc[piece, "geometry"]
    west, south, east, north = geometry.bounds
    half = geopandas.GeoSeries.from_wkt(
        [
            f"POLYGON(({west} {south},{(west + east) / 2} {south},{(west + east) / 2} {north},"
            f"{west} {north},{west} {south}))"
        ]
    ).iloc[0]
    left, right = geometry.intersection(half), geometry.difference(half)
    answers.loc[piece, "geometry"] = left
    twin = answers.loc[[piece]].copy()
    twin["geometry"] = [right]
    twin["assigned_class"] = 1
    answers = geopandas.GeoDataFrame(
        geopandas.pd.concat([answers, twin], ignore_index=True), crs=answers.crs
    )
    for layer, frame in (("query_regions", regions), ("answers", answers)):
        frame = frame.astype({"assigned_class": "Int32"})
        pyogrio.write_dataframe(frame, mine, layer=layer, driver="GPKG")
    result = json.loads(geohsal("ingest", run.path, mine, "--json").stdout)
    assert (result["done"], result["todo"]) == (3, len(names) - 3)

    asked = {region.region_id: region for region in read_regions(run.round(0).regions)}

    def labels(region_id: str) -> np.ndarray:
        region = asked[region_id]
        found = read_label_raster(run.labels(region.scene_id), region.cell)
        return found.classes[region.mask]

    assert (labels(whole) == 4).all()
    assert (labels(changed) == 0).any()
    assert (labels(cut) == 1).any()
    assert (labels(cut) != 255).all()
    assert (labels(alone) == 255).all()
    geohsal("ingest", run.path, "--undo")
    assert (labels(whole) == 255).all()
    assert run.current.step == "queried"


def test_rasters_of_a_round_are_cogs_with_names_colours_and_nodata(queried: Run) -> None:
    round_ = queried.round(0)
    with rasterio.open(round_.raster("west_1", "class")) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.descriptions == ("refined", "teacher")
        assert source.nodata == 255
        refined, teacher = source.read()
        assert source.colormap(1)[0][:3] == (0x2B, 0x7B, 0xBA)
    style = ET.parse(round_.raster("west_1", "class").with_suffix(".qml"))
    entries = style.findall("pipe/rasterrenderer[@band='1']/colorPalette/paletteEntry")
    assert [(e.get("value"), e.get("label")) for e in entries][:2] == [
        ("0", "water"),
        ("1", "woodland"),
    ]
    with rasterio.open(round_.raster("west_1", "state")) as source:
        state = source.read(1)
        assert source.nodata == 0
    with rasterio.open(round_.raster("west_1", "error")) as source:
        error = source.read(1)
    with rasterio.open(round_.raster("west_1", "view")) as source:
        assert source.count == 3
        assert source.dtypes[0] == "uint8"
        view = source.read()
    nodata = state == PixelState.NODATA
    assert nodata.any()
    assert set(np.unique(state)) <= {int(code) for code in PixelState}
    assert np.array_equal(refined == 255, nodata)
    assert np.array_equal(teacher == 255, nodata)
    assert np.array_equal(np.isnan(error), nodata)
    assert np.array_equal((view == 0).all(axis=0), nodata)
    labels = read_label_raster(queried.labels("west_1")).classes
    labelled = state == PixelState.LABELLED
    assert np.array_equal(labelled, labels != 255)
    assert np.array_equal(refined[labelled], labels[labelled])
    kept = ~np.isin(state, (PixelState.LABELLED, PixelState.CORRECTED))
    assert np.array_equal(refined[kept], teacher[kept])


def test_workers_change_nothing(run: Run) -> None:
    before = read_regions(run.round(0).regions)
    state = run.round(0).raster("west_2", "state").read_bytes()
    shutil.rmtree(run.round(0).dir / "parts")
    query(run.path, budget="8regions", overwrite=True, workers=2)
    after = read_regions(run.round(0).regions)
    assert [(r.region_id, r.score, r.reason) for r in before] == [
        (r.region_id, r.score, r.reason) for r in after
    ]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(before, after, strict=True))
    assert run.round(0).raster("west_2", "state").read_bytes() == state


def test_a_finished_step_does_nothing_and_another_request_is_refused(run: Run) -> None:
    assert train(run.path).changed is False
    assert query(run.path, budget="8regions").changed is False
    with pytest.raises(
        RunError, match="with budget 8regions in 1 package, not 3regions in 2 packages, overlap 10%"
    ):
        query(run.path, budget="3regions", packages=2, overlap="10%")
    said = geohsal("query", run.path, "--budget", "8regions").stdout
    assert said.startswith("nothing to do: round 0 is already queried like this\n")
    other = geohsal("train", run.path, "--set", "train.steps=13", code=2)
    assert "already queried" in other.stderr
    assert query(run.path, budget="3regions", overwrite=True).regions == 3


def test_wrong_order_is_exit_2_with_the_right_command(tiny_landscape: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert "geohsal tile" in geohsal("train", folder, code=2).stderr
    geohsal("tile", tiny_landscape, "-o", folder, "-c", tiny_landscape.parent / "settings.yaml")
    assert f"geohsal train {folder}" in geohsal("query", folder, code=2).stderr
    assert f"geohsal train {folder}" in geohsal("evaluate", folder, code=2).stderr
    assert "nothing" in geohsal("ingest", folder, "--undo", code=2).stderr


def test_an_interrupted_training_ends_as_if_nothing_had_happened(
    tiny_landscape: Path, tmp_path: Path
) -> None:
    settings = tiny_landscape.parent / "settings.yaml"
    for name in ("whole", "killed"):
        geohsal("tile", tiny_landscape, "-o", tmp_path / name, "-c", settings)
    train(tmp_path / "whole")

    class Killed(BaseException):
        """As sudden as a signal."""

    class Kill:
        def __init__(self) -> None:
            self.steps = 0

        def start(self, label: str, total: int) -> None: ...

        def advance(self, amount: int = 1) -> None:
            self.steps += amount
            if self.steps == 7:  # inside the second of three parts
                raise Killed

        def done(self) -> None: ...

    with pytest.raises(Killed):
        train(tmp_path / "killed", progress=Kill())
    killed = Run(path=tmp_path / "killed").round(0)
    assert killed.checkpoint.exists()
    assert killed.step == "tiled"
    with pytest.raises(RunError, match="unfinished training with other settings"):
        train(tmp_path / "killed", config=load_config(settings, overrides=["train.lr=0.01"]))
    train(tmp_path / "killed")
    whole = Run(path=tmp_path / "whole").round(0)
    assert not killed.checkpoint.exists()
    for name in ("model.safetensors", "statistics.safetensors"):
        assert (killed.model_dir / name).read_bytes() == (whole.model_dir / name).read_bytes()


def test_predict_maps_scenes_and_foreign_rasters(queried: Run, tmp_path: Path) -> None:
    geohsal("predict", queried.path, "-o", tmp_path / "maps")
    names = sorted(path.name for path in (tmp_path / "maps").glob("*.tif"))
    assert len(names) == 4 * 5
    with rasterio.open(tmp_path / "maps" / "west_1_class.tif") as mine:
        with rasterio.open(queried.round(0).raster("west_1", "class")) as theirs:
            assert np.array_equal(mine.read(1), theirs.read(2))
        assert mine.crs == theirs.crs
    with rasterio.open(tmp_path / "maps" / "west_1_probabilities.tif") as source:
        assert source.descriptions[0] == "water"
        total = source.read().sum(axis=0)
        assert np.allclose(total[np.isfinite(total)], 1.0, atol=1e-5)
    foreign = tmp_path / "foreign.tif"
    image = load_manifest(queried.manifest).scenes[0].image
    with rasterio.open(image) as source:
        profile = source.profile | {"driver": "GTiff", "height": 50, "width": 60}
        with rasterio.open(foreign, "w", **profile) as target:
            target.write(source.read(window=((60, 110), (70, 130))))
            target.descriptions = source.descriptions
    model = queried.round(0).model_dir
    out = geohsal("predict", "--model", model, foreign, "-o", tmp_path / "more")
    assert "foreign" in out.output
    wrong = tmp_path / "wrong.tif"
    with rasterio.open(foreign) as source:
        profile = source.profile | {"count": 2}
        with rasterio.open(wrong, "w", **profile) as target:
            target.write(source.read([1, 2]))
    failed = geohsal("predict", "--model", model, wrong, "-o", tmp_path / "more", code=3)
    assert "wrong.tif" in failed.stderr


def test_export_covers_every_valid_pixel_once(queried: Run, tmp_path: Path) -> None:
    target = tmp_path / "out.gpkg"
    geohsal("export", queried.path, "-o", target)
    layers = pyogrio.list_layers(target)[:, 0].tolist()
    frame = pyogrio.read_dataframe(target, layer=layers[0])
    assert {"class_id", "class_name", "source", "confidence", "scene_id"} <= set(frame.columns)
    assert frame.geometry.is_valid.all()
    assert set(frame["scene_id"]) == {"west_1", "west_2", "east_1", "east_2"}


def test_metrics_name_every_fallback(queried: Run) -> None:
    metrics = json.loads(queried.round(0).metrics.read_text())
    assert metrics["withheld_regions"] > 0
    assert metrics["fallbacks"], "so few withheld regions cannot calibrate everything"
    for entry in metrics["fallbacks"]:
        assert entry["threshold"]
        assert entry["reason"]
    assert len(metrics["thresholds"]["gate"]) == 6
    assert metrics["history"][-1]["step"] == 12


def test_a_dry_run_changes_nothing(run: Run) -> None:
    def everything() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()}

    before = everything()
    found = query(run.path, budget="3regions", overwrite=True, dry_run=True)
    assert (found.regions, found.files) == (3, ())
    assert everything() == before
