"""The whole way on real scenes; run with `pytest -m real` where the scenes are."""

import json
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from real_scenes import write_dubai, write_landsat7, write_zion
from tiny_run import geohsal

from geohsal.io.ledger import read_ledger
from geohsal.io.round_record import read_regions
from geohsal.io.run import open_run
from geohsal.io.run_tables import read_summary
from geohsal.workflows.simulate_forest import measure_forest

pytestmark = pytest.mark.real
SHORT = ("--set", "train.steps=40", "--set", "train.checkpoints=2")


def test_zion_two_rounds_with_truth_as_oracle(
    real_data: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    run_dir = tmp_path / "run"
    manifest = write_zion(tmp_path / "zion.yaml", real_data)
    geohsal("tile", manifest, "-o", run_dir, "-c", "cpu-small", "--set", "train.steps=200")
    run = open_run(run_dir)
    record = read_summary(run).scenes["zion"]
    assert record.labelled["Forest"] > 300
    assert record.dropped_labels > 1000
    figures = []
    for index in range(2):
        geohsal("train", run_dir)
        found = json.loads(geohsal("evaluate", run_dir, "--json").stdout)
        figures.append((found["miou"], found["oa"], found["macro_f1"]))
        geohsal("query", run_dir, "--budget", "60regions")
        regions = read_regions(run.round(index).regions)
        assert len(regions) == 60
        assert sum(region.audit for region in regions) == 6
        if index == 0:
            reviewed = tmp_path / "reviewed.gpkg"
            geohsal("answer", run_dir, run.round(0).queries(), "-o", reviewed)
            geohsal("ingest", run_dir, reviewed)
    entries = read_ledger(run.ledger)
    assert sum(entry.pixels for entry in entries) <= 60 * 32 * 32
    review = pyogrio.read_dataframe(run.round(1).queries(), layer="query_regions")
    assert review.crs.to_epsg() == 32612
    assert np.allclose(review["area_m2"], review.geometry.area, rtol=2e-3)  # UTM scale
    with rasterio.open(run.round(1).raster("zion", "class")) as source:
        assert source.crs.to_epsg() == 32612
        assert source.shape == (1428, 1128)
    forest = measure_forest(run_dir, round_index=1, seed=0, jobs=-1).accuracy
    record_property("geohsal_miou_oa_f1", figures)
    record_property("forest_miou", forest.miou)
    assert figures[1][0] > figures[0][0], "60 answered regions must help"
    assert figures[1][0] > forest.miou - 0.03


def test_landsat7_shapefile_with_a_constant_band(real_data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    manifest = write_landsat7(tmp_path / "l7.yaml", real_data)
    tiled = geohsal("tile", manifest, "-o", run_dir, "-c", "cpu-small", *SHORT)
    assert "fmask" in tiled.output
    record = read_summary(open_run(run_dir))
    assert [band.name for band in record.bands if band.constant] == ["fmask"]
    assert sum(record.scenes["p022r049"].labelled.values()) == 718
    geohsal("train", run_dir)
    geohsal("query", run_dir, "--budget", "2%")
    regions = read_regions(open_run(run_dir).round(0).regions)
    assert sum(region.pixels for region in regions) <= 0.02 * record.train_valid_pixels
    assert "no test core" in geohsal("evaluate", run_dir, code=3).stderr
    target = tmp_path / "map.gpkg"
    geohsal("export", run_dir, "-o", target)
    frame: geopandas.GeoDataFrame = pyogrio.read_dataframe(target, layer="pseudo_labels")
    assert frame.crs.to_epsg() == 32615
    assert np.isclose(frame.geometry.area.sum(), 250 * 250 * 900.0)


def test_dubai_has_no_position_on_earth(real_data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    manifest = write_dubai(tmp_path / "dubai.yaml", real_data)
    geohsal("tile", manifest, "-o", run_dir, "-c", "cpu-small", *SHORT)
    record = read_summary(open_run(run_dir))
    assert record.local
    assert record.scenes["scene1"].labelled["water"] == 646_632
    geohsal("train", run_dir)
    assert "position on Earth" in geohsal("query", run_dir, "--budget", "1ha", code=2).stderr
    geohsal("query", run_dir, "--budget", "0.2%")
    round_ = open_run(run_dir).round(0)
    regions = read_regions(round_.regions)
    assert all(region.area_m2 is None for region in regions)
    assert round_.queries("scene1").exists()
    found = json.loads(geohsal("evaluate", run_dir, "--json").stdout)
    assert found["reference"] == {"scene2": "truth"}
