"""Every strategy and region unit through a whole round on a real run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_run import geohsal

from geohsal.io.round_record import read_regions
from geohsal.io.run import Run, open_run
from geohsal.query.acquisition import ACQUISITIONS
from geohsal.workflows.query import query


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    shutil.copytree(trained.path, tmp_path / "run")
    return open_run(tmp_path / "run")


def ask(run: Run, budget: str = "6regions", *, workers: int = 1, **settings: Any) -> list[Any]:
    """The regions of a query with other settings of the section `query`."""
    values = yaml.safe_load(run.config.read_text("utf-8"))
    values["query"] |= settings
    run.config.write_text(yaml.safe_dump(values), "utf-8")
    query(run.path, budget=budget, workers=workers, overwrite=True)
    return read_regions(run.round(0).regions)


@pytest.mark.parametrize("strategy", ["bald", "coreset", "badge", "ripu"])
def test_strategies_that_need_more_than_maps_ask(run: Run, strategy: str) -> None:
    regions = ask(run, strategy=strategy)
    assert len(regions) == 6
    assert sum(region.audit for region in regions) == 1
    assert all(region.score > 0 for region in regions if not region.audit)
    words = ACQUISITIONS[strategy].words(0.5).split()[0]
    assert all(region.reason.startswith(words) for region in regions if not region.audit)


@pytest.mark.parametrize(
    ("strategy", "unit", "workers"),
    [
        pytest.param("badge", "superpixel", 2, marks=pytest.mark.slow),  # processes load torch
        ("bald", "superpixel", 1),
        ("coreset", "window", 1),
    ],
)
def test_chunks_and_workers_change_nothing(
    run: Run, strategy: str, unit: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(run, strategy=strategy, region_unit=unit)
    shutil.rmtree(run.round(0).dir / "parts")
    monkeypatch.setattr("geohsal.training.collect.CHUNK_STRIDES", 1)
    cut = ask(run, "7regions", strategy=strategy, region_unit=unit, workers=workers)
    monkeypatch.undo()
    again = ask(run, strategy=strategy, region_unit=unit)  # from the parts that were kept
    assert len(cut) == 7
    assert [region.region_id for region in whole] == [region.region_id for region in again]
    assert [region.score for region in whole] == [region.score for region in again]


@pytest.mark.parametrize("unit", ["superpixel", "window", "grid"])
def test_a_round_with_every_unit(run: Run, unit: str) -> None:
    regions = ask(run, "8regions", region_unit=unit)
    letter = {"grid": "g", "superpixel": "s", "window": "w"}[unit]
    assert all(f"-{letter}32-r" in region.region_id for region in regions)
    asked: dict[str, Any] = {}
    for region in regions:
        seen = asked.setdefault(region.scene_id, np.zeros((192, 224), dtype=int))
        cell = region.cell
        box = (
            slice(cell.row_off, cell.row_off + cell.height),
            slice(cell.col_off, cell.col_off + cell.width),
        )
        seen[box] += region.mask
    assert max(seen.max() for seen in asked.values()) == 1  # every pixel is paid once
    first = run.round(0)
    answers = run.path / "answers.gpkg"
    geohsal("answer", run.path, first.queries(), "-o", answers)
    said = geohsal("ingest", run.path, answers)
    assert "8 regions" in said.stdout
    geohsal("ingest", run.path, "--undo")
    geohsal("ingest", run.path, answers)


def test_an_unknown_strategy_is_refused_before_anything_is_done(run: Run) -> None:
    values = yaml.safe_load(run.config.read_text("utf-8"))
    values["query"]["strategy"] = "entropie"
    run.config.write_text(yaml.safe_dump(values), "utf-8")
    before = sorted(run.path.rglob("*"))
    said = geohsal("query", run.path, code=2)
    assert "query.strategy 'entropie': is not known; use one of plar, random" in said.stderr
    assert sorted(run.path.rglob("*")) == before
