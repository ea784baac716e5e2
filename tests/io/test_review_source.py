"""Reviews as other software and other habits leave them; what is taken if some of it is wrong."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from review_factory import Asked, delete, make_asked, person, tick
from shapely.geometry import Point

from geohsal.errors import ReviewError
from geohsal.io.review_read import ReviewedRound

LAYERS = ("query_regions", "answers")


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """A round whose regions are all done; the first answer has another class."""
    asked = make_asked(tmp_path)
    tick(asked.path)
    with person(asked.path, "answers") as frame:
        frame.loc[1, "assigned_class"] = (frame.loc[1, "suggested_class"] + 1) % 3
    return asked


def accepted(asked: Asked) -> ReviewedRound:
    """What is taken with --accept-valid."""
    return asked.read(accept_valid=True)


def same(one: ReviewedRound, other: ReviewedRound) -> bool:
    return all(
        np.array_equal(a.classes, b.classes) and (a.status, a.reviewer) == (b.status, b.reviewer)
        for a, b in zip(one.regions, other.regions, strict=True)
    )


def frames(asked: Asked) -> dict[str, geopandas.GeoDataFrame]:
    return {layer: geopandas.read_file(asked.path, layer=layer) for layer in LAYERS}


def resaved(path: Path, layers: dict[str, geopandas.GeoDataFrame], **options: object) -> Path:
    for layer, frame in layers.items():
        frame.to_file(path, layer=layer, driver="GPKG", **options)
    return path


def test_columns_and_layers_that_shout_are_found(asked: Asked, tmp_path: Path) -> None:
    layers = {
        name.upper(): frame.rename(columns={c: c.upper() for c in frame if c != "geometry"})
        for name, frame in frames(asked).items()
    }
    path = resaved(tmp_path / "LOUD.gpkg", layers)
    assert same(asked.read(path), asked.read())


@pytest.mark.parametrize("version", ["1.2", "1.3", "1.4"])
def test_a_copy_by_other_software_is_read(asked: Asked, tmp_path: Path, version: str) -> None:
    """No styles, OBJECTID and Shape, more columns, another version of the format."""
    layers = {
        name: frame.assign(Shape_Length=1.5, GlobalID="{0-1}", CHECKED=None)
        for name, frame in frames(asked).items()
    }
    path = tmp_path / "arc.gpkg"
    for name, frame in layers.items():
        pyogrio.write_dataframe(
            frame,
            path,
            layer=name,
            driver="GPKG",
            dataset_options={"VERSION": version} if name == LAYERS[0] else {},
            layer_options={"FID": "OBJECTID", "GEOMETRY_NAME": "Shape"},
        )
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT OBJECTID, Shape FROM answers").fetchone()
    found = asked.read(path)
    assert same(found, asked.read())
    assert found.counts == asked.read().counts


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb"])
def test_layers_saved_to_files_of_their_own_are_put_together(
    asked: Asked, tmp_path: Path, suffix: str
) -> None:
    driver = {".geojson": "GeoJSON", ".gpkg": "GPKG", ".fgb": "FlatGeobuf"}[suffix]
    paths = []
    for name, frame in frames(asked).items():
        paths.append(tmp_path / f"my {name}{suffix}")
        moved = frame.to_crs(4326) if suffix == ".geojson" else frame
        moved.to_file(paths[-1], driver=driver, engine="pyogrio")
    found = asked.read(*paths)
    assert same(found, asked.read())
    assert found.counts == asked.read().counts
    names = f"my query_regions{suffix} + my answers{suffix}"
    assert list(found.contents) == [names]
    assert found.notes == (f"{names}: carries no record of its run; matched by region ids",)


def test_half_a_review_is_refused_with_what_is_missing(asked: Asked, tmp_path: Path) -> None:
    answers = tmp_path / "answers.geojson"
    frames(asked)["answers"].to_crs(4326).to_file(answers, driver="GeoJSON")
    with pytest.raises(ReviewError, match=r"answers\.geojson: no layer query_regions; give the "):
        asked.read(answers)
    with pytest.raises(ReviewError, match=r"answers\.geojson: no layer query_regions; give the "):
        asked.read(asked.path, answers)
    regions = [tmp_path / f"regions_{n}.geojson" for n in range(2)]
    for path in regions:
        frames(asked)["query_regions"].to_crs(4326).to_file(path, driver="GeoJSON")
    with pytest.raises(ReviewError, match="which file of layer answers belongs to which is not"):
        asked.read(*regions, answers)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("answers.shp", "a shapefile cuts field names to ten letters; save the layer as Geo"),
        (
            "queries_r000.html",
            "the review page, which holds no answers; download decisions.csv from this page",
        ),
        ("queries_r000.qgz", "a QGIS project, which holds no answers; give the review file"),
        ("reviewed.zip", "an archive; unpack it"),
        ("gone.geojson", r"cannot be read \(No such file"),
    ],
)
def test_what_cannot_hold_a_review_is_refused_by_name(
    asked: Asked, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ReviewError, match=rf"{name}: {message}"):
        asked.read(tmp_path / name)


def test_broken_geojson_is_one_line(asked: Asked, tmp_path: Path) -> None:
    path = tmp_path / "answers.geojson"
    path.write_text('{"type": "FeatureCollection", "features": [{]}')
    with pytest.raises(ReviewError, match=r"answers\.geojson: cannot be read") as caught:
        asked.read(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_a_program_is_writing_to_is_refused(asked: Asked) -> None:
    with closing(sqlite3.connect(asked.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(ReviewError, match="another program is writing to it; save the edits"):
            asked.read()
        writer.execute("ROLLBACK")
    before = asked.path.read_bytes()
    assert asked.read().counts.done == 3
    assert asked.path.read_bytes() == before
    assert not list(asked.path.parent.glob("*-journal"))


def test_an_open_file_is_read_as_saved_and_that_is_told(asked: Asked) -> None:
    with closing(sqlite3.connect(asked.path)) as viewer:
        viewer.execute("PRAGMA journal_mode=WAL")
        viewer.execute("SELECT count(*) FROM answers").fetchone()
        found = asked.read()
        assert found.counts.done == 3
        assert "queries_r000.gpkg: is open in another program; what was saved" in found.notes[0]
    assert asked.read().notes == ()


# --- what is taken if something is wrong ---------------------------------------------------------


def test_a_wrong_answer_makes_its_pixels_unknown_and_the_rest_counts(asked: Asked) -> None:
    with person(asked.path, "answers") as frame:
        frame.loc[2, "assigned_class"] = 9
        patch = frame.loc[2].geometry
    clean = asked.refined(asked.regions[0])
    with pytest.raises(ReviewError, match=r"nothing was taken in: .* --accept-valid"):
        asked.read()
    found = accepted(asked)
    (problem,) = found.problems
    assert problem.startswith("queries_r000.gpkg: answers feature 2 (utm_r000000_c000000_a002): ")
    assert found.counts.left_out == 1
    item = found.regions[0]
    unknown = item.region.mask & (item.classes == 255)
    assert 0 < unknown.sum() == item.unknown_pixels
    assert unknown.sum() == pytest.approx(patch.area / 100, abs=1)
    assert np.array_equal(found.regions[1].classes, asked.refined(asked.regions[1]))
    assert clean.shape == item.classes.shape
    assert found.counts.accepted == len(asked.answers) - 2


def test_a_wrong_answer_over_a_right_one_leaves_nothing_known_there(asked: Asked) -> None:
    """What lies below was not confirmed by somebody who drew something else over it."""
    with person(asked.path, "answers") as frame:
        box = frame[frame.region_id == asked.regions[1].region_id].total_bounds
        row = {"geometry": shapely.box(*box), "assigned_class": 7}
        frame.loc[frame.index.max() + 1] = {name: row.get(name) for name in frame.columns}
    found = accepted(asked)
    assert (found.regions[1].classes == 255).all()
    assert found.counts.added == 0


def test_two_classes_on_one_pixel_are_unknown_there_only(asked: Asked) -> None:
    with person(asked.path, "answers") as frame:
        west, south, east, north = frame[frame.region_id == asked.regions[1].region_id].total_bounds
        for class_id, left, right in ((0, west, east - 40), (1, west + 40, east)):
            row = {"geometry": shapely.box(left, south, right, north), "assigned_class": class_id}
            frame.loc[frame.index.max() + 1] = {name: row.get(name) for name in frame.columns}
    found = accepted(asked)
    item = found.regions[1]
    assert "give" in found.problems[0]
    assert set(item.classes[:, :4][item.region.mask[:, :4]]) <= {0}
    assert set(item.classes[:, -4:][item.region.mask[:, -4:]]) <= {1}
    assert (item.classes[:, 4:-4] == 255).all()


Spoil = Callable[[geopandas.GeoDataFrame], None]


def status_of(value: str) -> Spoil:
    def spoil(frame: geopandas.GeoDataFrame) -> None:
        frame.loc[2, "status"] = value

    return spoil


def class_of(value: int) -> Spoil:
    def spoil(frame: geopandas.GeoDataFrame) -> None:
        frame.loc[2, "assigned_class"] = value

    return spoil


def twice(frame: geopandas.GeoDataFrame) -> None:
    frame.loc[9] = frame.loc[2].to_dict() | {"status": "skipped"}


def foreign(frame: geopandas.GeoDataFrame) -> None:
    frame.loc[2, "region_id"] = "elsewhere"


@pytest.mark.parametrize("spoil", [status_of("finished"), class_of(12), twice, foreign])
def test_a_wrong_region_stays_to_do(asked: Asked, spoil: Spoil) -> None:
    with person(asked.path, "query_regions") as frame:
        spoil(frame)
    found = accepted(asked)
    assert [item.status for item in found.regions] == ["done", "todo", "done"]
    assert (found.regions[1].classes == 255).all()
    assert found.counts.left_out == 1


def test_outside_and_shapeless_answers_are_left_out(asked: Asked) -> None:
    clean = asked.read()
    with person(asked.path, "answers") as frame:
        x, y = frame.total_bounds[0] - 5000, frame.total_bounds[1]
        for number, geometry in enumerate((shapely.box(x, y, x + 50, y + 50), None)):
            row = {"geometry": geometry, "assigned_class": 1}
            frame.loc[100 + number] = {name: row.get(name) for name in frame.columns}
    found = accepted(asked)
    assert same(found, clean)
    assert "lies outside every region" in " ".join(found.problems)
    assert "has no geometry" in " ".join(found.problems)


def test_points_are_no_answers(asked: Asked, tmp_path: Path) -> None:
    layers = frames(asked)
    x, y = layers["answers"].total_bounds[:2]
    layers["answers"].loc[0, "geometry"] = Point(x, y)
    path = resaved(tmp_path / "points.gpkg", layers)
    with pytest.raises(ReviewError, match="is a Point, not a polygon"):
        asked.read(path)


def test_a_damaged_geometry_is_named(asked: Asked) -> None:
    with closing(sqlite3.connect(asked.path)) as connection, connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE answers SET geom = substr(geom, 1, 60) WHERE fid = 2")
    with pytest.raises(ReviewError, match=r"feature 2|cannot be read"):
        asked.read()


def test_deleted_rows_in_a_shared_copy_are_somebody_elses(asked: Asked, tmp_path: Path) -> None:
    other = tmp_path / "other.gpkg"
    shutil.copy(asked.path, other)
    for path, fids in ((asked.path, [1]), (other, [2, 3])):
        with person(path, "query_regions") as frame:
            for fid in fids:
                delete(frame, fid)
    found = asked.read(asked.path, other)
    assert [item.status for item in found.regions] == ["done"] * 3
    assert [len(item.reviews) for item in found.regions] == [1, 1, 1]
