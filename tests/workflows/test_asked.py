"""What is not asked about again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pytest
from tiny_run import geohsal

from geohsal.geo.patches import slices
from geohsal.io.round_record import read_regions
from geohsal.io.run import Run, open_run
from geohsal.workflows import asked
from geohsal.workflows.asked import blocked_pixels
from geohsal.workflows.context import open_context


@pytest.fixture(scope="module")
def ingested(tiny_landscape: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose reviewer did the first region, was unsure of the second, skipped the third."""
    folder = tmp_path_factory.mktemp("asked")
    run_dir = folder / "run"
    geohsal("tile", tiny_landscape, "-o", run_dir, "-c", tiny_landscape.parent / "settings.yaml")
    geohsal("train", run_dir)
    geohsal("query", run_dir, "--budget", "5regions")
    run = open_run(run_dir)
    mine = folder / "mine.gpkg"
    shutil.copy(run.round(0).queries(), mine)
    frame = pyogrio.read_dataframe(mine, layer="query_regions").sort_values("rank")
    frame["status"] = ["done", "unsure", "skipped", "todo", "todo"]
    frame["assigned_class"] = frame["assigned_class"].astype("Int32")
    pyogrio.write_dataframe(frame, mine, layer="query_regions", driver="GPKG")
    geohsal("ingest", run_dir, mine)
    return run


def test_done_regions_are_blocked_and_doubtful_ones_rest(ingested: Run) -> None:
    regions = read_regions(ingested.round(0).regions)
    context = open_context(ingested.path)
    blocked, resting = blocked_pixels(ingested, context.scenes)
    done = regions[0]
    assert list(blocked) == [done.scene_id]
    assert np.array_equal(blocked[done.scene_id][slices(done.cell)], done.mask)
    assert int(blocked[done.scene_id].sum()) == done.pixels
    assert {region.region_id for region, _ in resting} == {r.region_id for r in regions[1:3]}


@pytest.mark.parametrize(("share", "returns"), [(1.1, False), (0.0, True)])
def test_a_doubtful_region_returns_only_where_the_model_changed(
    ingested: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, returns: bool
) -> None:
    """With a share above 1 nothing counts as changed; with 0 everything does."""
    shutil.copytree(ingested.path, tmp_path / "run")
    run = open_run(tmp_path / "run")
    before = {region.region_id for region in read_regions(run.round(0).regions)[1:3]}
    monkeypatch.setattr(asked, "CHANGED_SHARE", share)
    geohsal("train", run.path)
    geohsal("query", run.path, "--budget", "99%")
    offered = {region.region_id for region in read_regions(run.round(1).regions)}
    assert (before <= offered) == returns
    assert bool(before & offered) == returns
    done = read_regions(run.round(0).regions)[0]
    assert done.region_id not in offered


def test_the_ledger_charges_what_was_looked_at(ingested: Run) -> None:
    status = json.loads(geohsal("status", ingested.path, "--json").stdout)
    regions = read_regions(ingested.round(0).regions)
    assert str(sum(region.pixels for region in regions[:3])) in json.dumps(status)
