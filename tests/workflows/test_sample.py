"""A sample drawn, answered and estimated through the command line; bad samples are refused."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from review_factory import person
from tiny_run import geohsal

from geohsal.geo.areas import cell_areas_m2
from geohsal.geo.scene import Scene
from geohsal.io.labels import read_truth
from geohsal.io.run import Run
from geohsal.io.sample_file import read_sample
from geohsal.workflows.class_strata import draw_pixels, measure_strata
from geohsal.workflows.context import open_context


@pytest.fixture(scope="module")
def run(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sampled") / "run"
    shutil.copytree(trained.path, folder)
    geohsal("query", folder, "--budget", "4regions")
    return Run(path=folder)


@pytest.fixture
def sample(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "sample.gpkg"
    geohsal("evaluate", run.path, "--design", "stratified", "-o", path, "--points", "300")
    return path


def true_maps(run: Run) -> dict[str, np.ndarray]:
    context = open_context(run.path)
    return {
        scene_id: read_truth(
            context.manifest.scene(scene_id).truth, scene, context.manifest.classes, where=scene_id
        )
        for scene_id, scene in context.scenes.items()
    }


def layer_of(path: Path) -> Any:
    [name] = [str(row[0]) for row in pyogrio.list_layers(path) if row[1]]
    return pyogrio.read_dataframe(path, layer=name)


def middles(frame: Any, scenes: dict[str, Scene]) -> dict[int, tuple[int, int]]:
    """(row, column) of each square's middle in its scene, by feature id."""
    found = {}
    for scene_id, own in frame.groupby("scene_id"):
        inverse = ~scenes[scene_id].transform
        for fid, point in own.to_crs(scenes[scene_id].crs.to_wkt()).geometry.centroid.items():
            col, row = inverse @ (point.x, point.y)
            found[fid] = (int(row), int(col))
    return found


def answer(run: Run, path: Path) -> None:
    """Say of each square what the truth says where its middle lies."""
    truth = true_maps(run)
    with person(path, "sample") as frame:
        for fid, place in middles(frame, open_context(run.path).scenes).items():
            scene_id = frame.loc[fid, "scene_id"]
            frame.loc[fid, "reference_class"] = int(truth[scene_id][place])


def evaluated(run: Run, path: Path) -> dict[str, Any]:
    said = geohsal(
        "evaluate", run.path, "--design", "stratified", "--reference", path, "--json"
    ).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def test_the_layer_does_not_show_what_the_map_says(run: Run, sample: Path) -> None:
    frame = layer_of(sample)
    assert set(frame.columns) == {"sample_id", "scene_id", "reference_class", "notes", "geometry"}
    assert frame["reference_class"].isna().all()
    assert list(frame["sample_id"]) == sorted(frame["sample_id"])
    strata = list(read_sample(sample).design.strata.values())
    assert sorted(strata) != strata, "the order gives the class away"


def test_each_square_is_a_pixel_of_its_stratum(run: Run, sample: Path) -> None:
    design = read_sample(sample).design
    assert sum(design.draws.values()) == 300
    frame = layer_of(sample)
    mapped = {}
    for scene_id in frame["scene_id"].unique():
        with rasterio.open(run.round(0).raster(scene_id, "class")) as source:
            mapped[scene_id] = source.read(1)
    for fid, place in middles(frame, open_context(run.path).scenes).items():
        row = frame.loc[fid]
        assert mapped[row["scene_id"]][place] == design.strata[row["sample_id"]]


def test_answers_from_the_truth_give_its_areas_within_the_intervals(run: Run, sample: Path) -> None:
    answer(run, sample)
    found = evaluated(run, sample)
    context = open_context(run.path)
    area = 0.0
    true = dict.fromkeys(context.manifest.class_names, 0.0)
    for scene_id, truth in true_maps(run).items():
        scene = context.scenes[scene_id]
        pixel = float(cell_areas_m2(scene, [scene.extent])[0]) / truth.size / 10_000
        with rasterio.open(run.round(0).raster(scene_id, "class")) as source:
            mapped = source.read(1) != 255
        area += mapped.sum() * pixel
        for number, name in enumerate(true):
            true[name] += (mapped & (truth == number)).sum() * pixel
    assert found["unit"] == "ha"
    rows = found["per_class"]
    assert sum(row["mapped_area"] for row in rows.values()) == pytest.approx(area, rel=1e-4)
    assert sum(row["area"]["value"] for row in rows.values()) == pytest.approx(area, rel=1e-4)
    for name, row in rows.items():  # 1.5 times a 95 % interval: about 1 in 300 lies outside
        assert abs(row["area"]["value"] - true[name]) <= 1.5 * row["area"]["half_width"] + 1
    assert np.sum(found["confusion"]) == found["points"] == 300


def test_the_same_request_draws_the_same_and_another_seed_draws_others(
    run: Run, sample: Path, tmp_path: Path
) -> None:
    again, other = tmp_path / "again.gpkg", tmp_path / "other.gpkg"
    common = ("evaluate", run.path, "--design", "stratified", "--points", "300")
    geohsal(*common, "-o", again)
    geohsal(*common, "-o", other, "--seed", "9")
    first = layer_of(sample)
    assert first.equals(layer_of(again))
    assert not first["geometry"].equals(layer_of(other)["geometry"])


def test_regions_that_were_asked_are_no_reference(run: Run) -> None:
    path = run.round(0).queries()
    said = geohsal(
        "evaluate", run.path, "--design", "stratified", "--reference", path, code=3
    ).stderr
    assert "chosen because the map is likely wrong there" in said
    assert len(said.splitlines()) == 1


def test_points_without_an_answer_are_counted_and_too_few_are_refused(
    run: Run, sample: Path
) -> None:
    refused = ("evaluate", run.path, "--design", "stratified", "--reference", sample)
    assert "fewer than two answered points" in geohsal(*refused, code=3).stderr
    answer(run, sample)
    with person(sample, "sample") as frame:
        frame.loc[frame.index[:3], "reference_class"] = None
    assert evaluated(run, sample)["unanswered"] == 3


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE sample SET reference_class = 77 WHERE fid = 1", "reference_class"),
        ("UPDATE sample SET sample_id = 'p999999' WHERE fid = 1", "was not drawn"),
        (
            "UPDATE sample SET sample_id = (SELECT sample_id FROM sample WHERE fid = 2) "
            "WHERE fid = 1",
            "stands twice",
        ),
    ],
)
def test_rows_that_cannot_be_meant_are_named(
    run: Run, sample: Path, statement: str, finding: str
) -> None:
    answer(run, sample)
    with closing(sqlite3.connect(sample)) as connection:
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.execute(triggers).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
        connection.commit()
    said = geohsal(
        "evaluate", run.path, "--design", "stratified", "--reference", sample, code=3
    ).stderr
    assert finding in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        (("--design", "stratified"), "give -o FILE"),
        (("-o", "sample.gpkg"), "only with --design"),
        (("--design", "stratified", "-o", "sample.shp"), "must end in .gpkg"),
        (("--design", "stratified", "-o", "s.gpkg", "--target-error", "0"), "between 0 and 0.5"),
        (("--design", "stratified", "-o", "s.gpkg", "--maps", "nowhere"), "no such map"),
        (("--design", "stratified", "--reference", "s.gpkg", "--points", "9"), "not together"),
        (
            ("--design", "stratified", "-o", "s.gpkg", "--points", "9", "--target-error", "0.1"),
            "one of them",
        ),
    ],
)
def test_a_request_without_sense_is_refused(
    run: Run, tmp_path: Path, options: tuple[str, ...], finding: str
) -> None:
    said = geohsal("evaluate", run.path, *options, code=2).stderr
    assert finding in said


def test_an_answered_sample_is_not_overwritten_by_chance(run: Run, sample: Path) -> None:
    before = sample.read_bytes()
    again = ("evaluate", run.path, "--design", "stratified", "-o", sample)
    assert "answers in it would be lost" in geohsal(*again, code=2).stderr
    assert sample.read_bytes() == before
    geohsal(*again, "--overwrite")
    assert "200" not in geohsal(*again, "--overwrite").stdout.splitlines()[0]


def test_pixels_are_drawn_by_area_where_rows_differ(tmp_path: Path) -> None:
    """In longitude and latitude a row near the pole covers less ground."""
    scene = Scene(
        scene_id="north",
        crs=CRS.from_epsg(4326),
        transform=Affine(0.1, 0, 10, 0, -20, 80),
        height=4,
        width=300,
        bands=("a",),
    )
    path = tmp_path / "north_class.tif"
    codes = np.zeros((4, 300), np.uint8)
    codes[:, 200:] = 1
    codes[0, :10] = 255
    with rasterio.open(
        path, "w", driver="GTiff", height=4, width=300, count=1, dtype="uint8", crs=scene.crs,
        transform=scene.transform,
    ) as target:  # fmt: skip
        target.write(codes, 1)
    maps, scenes = {"north": path}, {"north": scene}
    strata = measure_strata(maps, scenes, num_classes=3)
    row_areas = strata.rows["north"][1] / 100
    assert row_areas[0] < 0.5 * row_areas[3]
    assert strata.rows["north"][0] == pytest.approx(row_areas * np.array([190, 200, 200, 200]))
    assert strata.areas[2] == 0
    drawn = draw_pixels(strata, maps, scenes, class_id=0, number=8000, rng=np.random.default_rng(2))
    by_row = np.zeros(4)
    for (_, row, col), times in drawn.items():
        assert codes[row, col] == 0
        by_row[row] += times
    expected = 8000 * strata.rows["north"][0] / strata.areas[0]
    assert ((by_row - expected) ** 2 / expected).sum() < 16.3  # chi squared, 3 degrees, 0.1 %
