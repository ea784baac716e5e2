"""Mistakes in reviewed files: named, and nothing is taken in."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from drawing import add, added, square
from review_factory import Asked, make_asked, person, tick
from shapely.geometry import Polygon

from geohsal.errors import ReviewError
from geohsal.io.review_origin import read_origin
from geohsal.io.review_source import gather


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return make_asked(tmp_path)


def bow_tie(asked: Asked) -> Polygon:
    (x, y), size = square(asked, 1, 8, 8, 1).centroid.coords[0], 25
    return Polygon(
        [(x - size, y - size), (x + size, y + size), (x + size, y - size), (x - size, y + size)]
    )


Mistake = tuple[str, Callable[[Asked, geopandas.GeoDataFrame], None], str]


def sets(layer: str, field: str, value: object, message: str) -> Mistake:
    """The second row of a layer gets a value that is wrong."""

    def spoil(asked: Asked, frame: geopandas.GeoDataFrame) -> None:
        frame.loc[2, field] = value(asked) if callable(value) else value

    return layer, spoil, message


def draws(*squares: tuple[int, int, int, int | None], message: str) -> Mistake:
    """Squares of (left, top, side, class) are added over the second region."""

    def spoil(asked: Asked, frame: geopandas.GeoDataFrame) -> None:
        add(frame, *(added(square(asked, 1, *place), class_id) for *place, class_id in squares))

    return "answers", spoil, message


A2 = r"answers feature 2 \(utm_r000000_c000000_a002\)"
R2 = "query_regions feature 2"


@pytest.mark.parametrize(
    ("layer", "spoil", "message"),
    [
        sets(
            "answers",
            "assigned_class",
            7,
            rf"{A2}: assigned_class 7\S* is not a class id \(0 to 2\)",
        ),
        sets("answers", "assigned_class", 1.5, rf"{A2}: assigned_class 1\.5 is not a class id"),
        sets(
            "answers", "region_id", "nowhere", rf"{A2}: region_id nowhere was not asked in round 0"
        ),
        sets("answers", "scene_id", "nowhere", rf"{A2}: scene_id nowhere is not a scene of this"),
        sets("answers", "geometry", None, rf"{A2}: has no geometry"),
        sets("answers", "geometry", bow_tie, rf"{A2}: has an invalid geometry \(Self-intersection"),
        sets("query_regions", "region_id", "nowhere", f"{R2}: region_id nowhere was not asked"),
        sets("query_regions", "region_id", None, f"{R2}: region_id empty was not asked"),
        sets("query_regions", "status", "finished", f"{R2}: status 'finished' is none of todo, "),
        sets(
            "query_regions", "round", 4, f"{R2}: region_id utm_r000016_c000032 was not asked in r"
        ),
        draws((5, 5, 3, None), message=r"answers feature \d+: has no class"),
        draws((500, 5, 3, 1), message=r"answers feature \d+: lies outside every region"),
        draws(
            (2, 2, 5, 1),
            (4, 2, 5, 2),
            message=r"answers feature \d+ and feature \d+ give 15 pixels two classes",
        ),
    ],
)
def test_mistakes_are_named_and_nothing_is_taken(
    asked: Asked,
    layer: str,
    spoil: Callable[[Asked, geopandas.GeoDataFrame], None],
    message: str,
) -> None:
    tick(asked.path)
    with person(asked.path, layer) as frame:
        spoil(asked, frame)
    with pytest.raises(ReviewError, match=message) as caught:
        asked.read()
    assert "nothing was taken in" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_the_first_ten_problems_are_named_and_the_rest_counted(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "answers") as frame:
        frame["assigned_class"] = 9
    with pytest.raises(ReviewError) as caught:
        asked.read()
    assert str(caught.value).count("is not a class id") == 10
    assert f"; and {len(asked.answers) - 10} more (all: --accept-valid" in str(caught.value)


def test_a_file_of_another_round_or_run_is_refused(asked: Asked, tmp_path: Path) -> None:
    tick(asked.path)
    with pytest.raises(
        ReviewError, match="belongs to round 0, but round 1 is the one under review"
    ):
        asked.read(index=1)
    with pytest.raises(ReviewError, match="belongs to another run"):
        asked.read(request="that-query")
    other = make_asked(tmp_path / "other", cells=((16, 0), (32, 32)))
    with pytest.raises(
        ReviewError, match="belongs to another run, or to a query that was made anew"
    ):
        asked.read(other.path)


def test_what_is_no_review_file_is_refused_in_one_line(asked: Asked, tmp_path: Path) -> None:
    text = tmp_path / "notes.gpkg"
    text.write_text("not a database")
    with pytest.raises(ReviewError, match=r"notes\.gpkg: not a GeoPackage"):
        asked.read(text)
    with pytest.raises(ReviewError, match=r"gone\.gpkg: cannot be read \(No such file"):
        asked.read(tmp_path / "gone.gpkg")
    bare = tmp_path / "bare.gpkg"
    frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=32632)
    frame.to_file(bare, layer="other")
    with pytest.raises(
        ReviewError, match="no layer query_regions; give the file as it was written"
    ):
        asked.read(bare)
    pyogrio.write_dataframe(frame, asked.path, layer="answers", driver="GPKG")
    with pytest.raises(ReviewError, match=r"layer answers has no field answer_id, .* \(found: a\)"):
        asked.read()


def test_an_added_row_over_two_scenes_must_name_one(tmp_path: Path) -> None:
    asked = make_asked(tmp_path, ["utm", "turned"], cells=((16, 0),))
    tick(asked.path)
    # both scenes start at the same corner, so this square reaches regions of both
    with person(asked.path, "answers") as frame:
        add(frame, added(shapely.box(499_950, 5_199_600, 500_200, 5_200_200), 1))
    with pytest.raises(
        ReviewError, match="touches regions of scenes turned, utm; set its scene_id"
    ):
        asked.read()
    with person(asked.path, "answers") as frame:
        frame.loc[frame.index.max(), "scene_id"] = "utm"
    reviewed = asked.read()
    assert {item.region.scene_id for item in reviewed.regions if (item.classes == 1).all()} <= {
        "utm"
    }


def test_a_sliver_without_a_pixel_centre_is_only_told(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "answers") as frame:
        add(frame, added(square(asked, 1, 4.1, 4.1, 0.2), 1))
    reviewed = asked.read()
    assert np.array_equal(reviewed.regions[1].classes, asked.refined(asked.regions[1]))
    assert "holds no pixel's centre of a region, so it says nothing" in reviewed.notes[0]


def test_class_ids_are_the_manifests(asked: Asked) -> None:
    tick(asked.path)
    with pytest.raises(ReviewError, match=r"suggested_class 2(\.0)? is not a class id \(0 to 1\)"):
        asked.read(num_classes=2)


@pytest.mark.parametrize("layer", ["query_regions", "answers"])
def test_a_file_without_a_layer_is_refused_in_one_line(asked: Asked, layer: str) -> None:
    with closing(sqlite3.connect(asked.path)) as connection, connection:
        connection.execute(f"DELETE FROM gpkg_contents WHERE table_name = '{layer}'")
        connection.execute(f"DELETE FROM gpkg_geometry_columns WHERE table_name = '{layer}'")
        connection.execute(f"DROP TABLE {layer}")
    with pytest.raises(ReviewError, match=f"no layer {layer}"):
        read_origin(*gather([asked.path]))


def test_a_word_in_a_class_column_is_not_read_as_class_0(asked: Asked) -> None:
    with closing(sqlite3.connect(asked.path)) as connection, connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE answers SET assigned_class = 'forest' WHERE fid = 1")
    with pytest.raises(
        ReviewError, match=r"answers feature 1 \(\S+\): assigned_class 'forest' is not"
    ):
        asked.read(asked.path)
