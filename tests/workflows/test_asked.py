"""What is not asked about again."""

import json
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pyogrio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from tiny_run import geohsal

from geohsal.geo.patches import slices
from geohsal.geo.scene import QueryRegion
from geohsal.io.round_record import read_regions
from geohsal.io.run import Run, open_run
from geohsal.workflows import asked
from geohsal.workflows.asked import Blocked, blocked_pixels
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


def region(row: int, col: int, mask: np.ndarray, scene_id: str = "s") -> QueryRegion:
    height, width = mask.shape
    return QueryRegion(
        region_id=f"{scene_id}-{row}-{col}", scene_id=scene_id, round=0, rank=1,
        cell=Window(col, row, width, height), mask=mask, score=1.0, reason="",
        error_probability=0.5, undecided_share=0.5, teacher_class=0, plar_class=None, margin=0.0,
        area_m2=None, cost_min=1.0, audit=False,
    )  # fmt: skip


@given(
    places=st.lists(st.tuples(st.integers(0, 470), st.integers(0, 470)), max_size=30),
    top=st.integers(0, 400),
    left=st.integers(0, 400),
    height=st.integers(1, 300),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_blocked_windows_are_cuts_of_the_whole(
    places: list[tuple[int, int]], top: int, left: int, height: int, seed: int
) -> None:
    """Regions of up to 30 pixels lie in one or more of the squares that they are found by."""
    rng = np.random.default_rng(seed)
    whole, blocked = np.zeros((500, 500), dtype=bool), Blocked()
    for row, col in places:
        mask = rng.random((int(rng.integers(1, 30)), int(rng.integers(1, 30)))) < 0.5
        one = region(row, col, mask)
        whole[slices(one.cell)] |= mask
        blocked.add(one)
    sent = pickle.loads(pickle.dumps(blocked))
    window = Window(left, top, 500 - left, min(height, 500 - top))
    found, cut = sent.window("s", window), whole[slices(window)]
    assert (found is None) == (not cut.any())
    assert found is None or np.array_equal(found, cut)
    assert sent.window("another", window) is None


def test_many_blocked_regions_are_small_and_found_at_once() -> None:
    """10^4 regions of a scene: well under a second, and half a kilobyte each when sent."""
    blocked, mask = Blocked(), np.ones((64, 64), dtype=bool)
    for number in range(10_000):
        blocked.add(region(100 * (number // 100), 100 * (number % 100), mask))
    assert len(pickle.dumps(blocked)) < 10_000 * 700
    began = time.perf_counter()
    for row in range(0, 10_000, 500):
        for col in range(0, 10_000, 500):
            found = blocked.window("s", Window(col, row, 500, 500))
            assert found is not None
            assert int(found.sum()) == 25 * 64 * 64
    assert time.perf_counter() - began < 5.0


def test_done_regions_are_blocked_and_doubtful_ones_rest(ingested: Run) -> None:
    regions = read_regions(ingested.round(0).regions)
    context = open_context(ingested.path)
    blocked, resting = blocked_pixels(ingested, context.scenes)
    done = regions[0]
    assert blocked.scene_ids == [done.scene_id]
    found = blocked.window(done.scene_id, context.scenes[done.scene_id].extent)
    assert found is not None
    assert np.array_equal(found[slices(done.cell)], done.mask)
    assert int(found.sum()) == done.pixels
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
