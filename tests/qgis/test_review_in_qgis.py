"""A round reviewed in QGIS with its own forms and tools, then taken in by `geohsal ingest`."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import TINY_SETTINGS, geohsal

from geohsal.geo.scene import QueryRegion, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.gpkg_read import is_edited
from geohsal.io.label_store import read_label_raster
from geohsal.io.round_record import read_regions
from geohsal.io.run import Round, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows.landscape import write_landscape

pytestmark = pytest.mark.qgis

Qgis = Callable[..., Any]
DONE = {"status": "done"}
STEPS = ("reclass", "split", "reshape", "draw", "leave", "uniform", "unsure", "skipped")


@pytest.fixture(scope="module")
def queried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with scenes in two UTM zones, whose round 0 is queried."""
    folder = tmp_path_factory.mktemp("queried")
    manifest = write_landscape(folder, shape=(192, 224))
    settings = folder / "settings.yaml"
    settings.write_text(TINY_SETTINGS, "utf-8")
    geohsal("tile", manifest, "-o", folder / "run", "-c", settings)
    geohsal("train", folder / "run")
    geohsal("query", folder / "run", "--budget", "14regions")
    return folder / "run"


def grid(scene: Scene) -> dict[str, Any]:
    return {
        "crs": f"EPSG:{scene.crs.to_epsg()}",
        "transform": list(scene.transform)[:6],
        "shape": list(scene.shape),
    }


def pick(regions: list[QueryRegion], answers: list[dict[str, Any]]) -> dict[str, QueryRegion]:
    """A region for every step; what edits polygons gets those with several, of all scenes."""
    several = Counter(answer["region_id"] for answer in answers)
    ordered = sorted(regions, key=lambda region: -several[region.region_id])
    return dict(zip(STEPS, ordered, strict=False))


def planned(chosen: dict[str, QueryRegion]) -> dict[str, tuple[str, dict[str, Any]]]:
    """What QGIS is told to do in each region."""
    values: dict[str, dict[str, Any]] = {
        "uniform": {"assigned_class": 1, "notes": "Prüfung „ok“"},  # the form sets the status
        "unsure": {"status": "unsure", "notes": "haze"},
        "skipped": {"status": "skipped"},
    }
    return {region.region_id: (step, values.get(step, DONE)) for step, region in chosen.items()}


def class_of(answer: dict[str, Any]) -> int:
    assigned = answer["assigned_class"]
    return answer["suggested_class"] if assigned is None else assigned


def expected_labels(
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    held: list[list[list[int]]],
    region: QueryRegion,
    assigned: int | None,
) -> np.ndarray:
    """What the cell of a region must become, from what QGIS itself finds at each pixel centre."""
    known = {answer["answer_id"]: answer["wkt"] for answer in before}
    copies = Counter(answer["answer_id"] for answer in after)

    def edited(answer: dict[str, Any]) -> bool:
        name = answer["answer_id"]
        untouched = known.get(name) == answer["wkt"] and copies[name] == 1
        return answer["assigned_class"] is not None or not untouched

    labels = np.full(region.mask.shape, IGNORE_INDEX)
    for row, col in np.argwhere(region.mask):
        there = [after[n] for n in held[region.cell.row_off + row][region.cell.col_off + col]]
        changed = {class_of(answer) for answer in there if edited(answer)}
        assert len(changed) <= 1
        if changed:
            [labels[row, col]] = changed
        elif assigned is not None:
            labels[row, col] = assigned
        elif there:
            [labels[row, col]] = map(class_of, there)
    return labels


@pytest.mark.parametrize("hard", [False, True], ids=["closed", "killed"])
def test_what_is_edited_in_qgis_becomes_labels_pixel_by_pixel(
    qgis: Qgis, queried: Path, tmp_path: Path, hard: bool
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(queried, run_dir)
    run = open_run(run_dir)
    round_: Round = run.round(0)
    regions, scenes = read_regions(round_.regions), load_scenes(run)
    review = round_.queries()
    first = {region.scene_id for region in regions}
    look = {"path": review, "name": "answers"}
    before = qgis("covering", **look, grid=grid(scenes[min(first)]))["features"]
    chosen = pick(regions, before)
    saved = qgis(
        "review",
        uri=review.with_suffix(".qgz"),
        actions=planned(chosen),
        num_classes=6,
        hard=hard,
    )
    assert review.with_name(f"{review.name}-wal").exists() == hard
    assert is_edited(review)
    row = saved[chosen["uniform"].region_id]
    assert (row["status"], row["assigned_class"]) == ("done", 1)
    assert row["reviewed_by"]
    assert row["reviewed_ms"] > 1.7e12
    assert saved[chosen["unsure"].region_id]["status"] == "unsure"

    told = json.loads(geohsal("ingest", run_dir, review, "--json").stdout)
    assert told["done"] == 6
    done = dict(list(chosen.items())[:6])
    for scene_id in sorted(first):
        found = qgis("covering", **look, grid=grid(scenes[scene_id]))
        labels = read_label_raster(run.labels(scene_id))
        base = read_label_raster(run.base_labels(scene_id))
        expected = base.classes.copy()
        for step, region in done.items():
            if region.scene_id != scene_id:
                continue
            cell = expected_labels(
                before, found["features"], found["held"], region, 1 if step == "uniform" else None
            )
            top, left = region.cell.row_off, region.cell.col_off
            height, width = region.mask.shape
            inside = expected[top : top + height, left : left + width]
            inside[region.mask] = cell[region.mask]
            if step == "draw":
                assert {IGNORE_INDEX} < set(cell[region.mask].tolist())
        assert np.array_equal(labels.classes, expected)
