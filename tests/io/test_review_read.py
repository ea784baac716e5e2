"""Reading what a person did: whose word a pixel takes, and what is refused."""

import shutil
import sqlite3
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from drawing import add, added, inside, square
from review_factory import GRIDS, Asked, delete, make_asked, person, tick
from shapely.geometry import LineString
from shapely.ops import split

from geohsal.errors import ReviewError
from geohsal.io.gpkg_edit import editing
from geohsal.io.review_read import ReviewedRegion


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return make_asked(tmp_path)


def first(asked: Asked, *paths: Path) -> ReviewedRegion:
    return asked.read(*paths).regions[0]


@pytest.mark.parametrize("grids", [("utm",), ("turned",), ("utm", "utm33"), ("grid",)])
def test_ticking_a_region_off_accepts_what_was_prefilled(
    tmp_path: Path, grids: tuple[str, ...]
) -> None:
    asked = make_asked(tmp_path, grids)
    tick(asked.path)
    reviewed = asked.read()
    for item in reviewed.regions:
        assert item.status == "done"
        assert np.array_equal(item.classes, asked.refined(item.region))
        assert item.unknown_pixels == 0
    assert reviewed.counts.accepted == len(asked.answers)
    assert reviewed.counts.corrected == reviewed.counts.added == reviewed.counts.deleted == 0
    assert reviewed.counts.unknown_pixels == 0
    pixels = sum(region.pixels for region in asked.regions)
    assert sum(reviewed.counts.class_pixels.values()) == pixels
    assert reviewed.notes == ()


def test_nothing_ticked_teaches_nothing(asked: Asked) -> None:
    with person(asked.path, "query_regions") as frame:
        frame.loc[2, "status"] = "unsure"
        frame.loc[3, "status"] = "skipped"
        frame.loc[1, "assigned_class"] = 1
    reviewed = asked.read()
    assert [item.status for item in reviewed.regions] == ["todo", "unsure", "skipped"]
    assert all((item.classes == 255).all() for item in reviewed.regions)
    assert (reviewed.counts.todo, reviewed.counts.unsure, reviewed.counts.skipped) == (1, 1, 1)
    assert reviewed.notes == ("region utm_r000000_c000000: has a class, but its status is todo",)


def test_a_class_for_the_whole_region_overrules_untouched_answers_only(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "query_regions") as frame:
        frame.loc[1, "assigned_class"] = 2
    with person(asked.path, "answers") as frame:
        frame.loc[1, "assigned_class"] = 1
        patch = inside(frame.loc[1].geometry, asked, 0)
    item = first(asked)
    assert 0 < patch.sum() < item.region.pixels
    assert np.array_equal(item.classes, np.where(patch, 1, np.where(item.region.mask, 2, 255)))


def test_reclassed_split_added_and_deleted_answers_burn_as_drawn(asked: Asked) -> None:
    tick(asked.path)
    region = asked.regions[1]
    expected = asked.refined(region).copy()
    with person(asked.path, "answers") as frame:
        own = frame[frame.region_id == region.region_id]
        order = own.geometry.area.sort_values(ascending=False).index
        cut, gone = order[0], order[1]
        # split the largest in two along a column, give the right half another class
        x = (GRIDS["utm"][1] @ (region.cell.col_off + 8, 0))[0]
        bounds = own.total_bounds
        halves = split(
            frame.loc[cut].geometry.geoms[0], LineString([(x, bounds[1] - 1), (x, bounds[3] + 1)])
        )
        right = [part for part in halves.geoms if part.centroid.x > x]
        left = [part for part in halves.geoms if part.centroid.x < x]
        assert left
        assert right
        removed = frame.loc[gone].geometry
        old_class = int(frame.loc[cut].suggested_class)
        new_class = (old_class + 1) % 3
        row = frame.loc[cut].to_dict()
        frame.loc[cut, "geometry"] = shapely.MultiPolygon(left)
        add(frame, row | {"geometry": shapely.MultiPolygon(right), "assigned_class": new_class})
        delete(frame, gone)
        add(frame, added(square(asked, 1, 1, 2, 3), 2))
    expected[inside(removed, asked, 1)] = 255
    expected[inside(shapely.MultiPolygon(right), asked, 1)] = new_class
    expected[2:5, 1:4] = 2
    expected[~region.mask] = 255
    reviewed = asked.read()
    item = reviewed.regions[1]
    assert np.array_equal(item.classes, expected)
    assert reviewed.counts.corrected == 1
    assert reviewed.counts.added == 1
    assert reviewed.counts.deleted == 1
    assert reviewed.counts.unknown_pixels == item.unknown_pixels > 0


def test_an_added_polygon_lies_on_top_of_a_reclassed_one(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "answers") as frame:
        frame["assigned_class"] = 0
        add(frame, added(square(asked, 1, 4, 4, 5), 2))
    item = asked.read().regions[1]
    expected = np.where(item.region.mask, 0, 255)
    expected[4:9, 4:9] = np.where(item.region.mask[4:9, 4:9], 2, 255)
    assert np.array_equal(item.classes, expected)


def test_pixels_beyond_the_region_stay_unknown(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "answers") as frame:
        add(frame, added(square(asked, 1, -40, -40, 200), 1))
    for item in asked.read().regions:
        assert np.array_equal(item.classes, np.where(item.region.mask, 1, 255))


def test_a_save_by_other_software_is_no_edit(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "answers") as frame:
        frame["geometry"] = frame.geometry.apply(lambda shape: shapely.normalize(shape).reverse())
        frame["suggested_class"] = frame.suggested_class.astype(float)
    counts = asked.read().counts
    assert (counts.accepted, counts.corrected) == (len(asked.answers), 0)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_layers_that_were_moved_to_another_crs_burn_the_same_pixels(
    asked: Asked, tmp_path: Path, crs: str
) -> None:
    tick(asked.path)
    moved = tmp_path / "moved.gpkg"
    for layer in ("query_regions", "answers"):
        frame = geopandas.read_file(asked.path, layer=layer).to_crs(crs)
        frame.to_file(moved, layer=layer, driver="GPKG")
    reviewed = asked.read(moved)
    for item in reviewed.regions:
        assert np.array_equal(item.classes, asked.refined(item.region))
    assert reviewed.counts.corrected == 0
    assert reviewed.notes == ("moved.gpkg: carries no record of its run; matched by region ids",)


def test_edits_in_an_unclosed_wal_are_seen_and_the_file_is_left_alone(asked: Asked) -> None:
    tick(asked.path)
    with editing(asked.path) as connection:  # any connection that knows the ST_ functions
        connection.execute("UPDATE query_regions SET notes = 'x'")
    writer = sqlite3.connect(asked.path)
    writer.execute("PRAGMA journal_mode=WAL")
    for trigger in [
        row[0] for row in writer.execute("SELECT name FROM sqlite_master WHERE type='trigger'")
    ]:
        writer.execute(f'DROP TRIGGER "{trigger}"')
    writer.execute("UPDATE query_regions SET status = 'skipped' WHERE fid = 1")
    writer.commit()
    wal = asked.path.with_name(asked.path.name + "-wal")
    before = wal.stat().st_size, asked.path.read_bytes()
    assert first(asked).status == "skipped"
    assert (wal.stat().st_size, asked.path.read_bytes()) == before
    writer.close()


def test_two_people_share_the_regions(asked: Asked, tmp_path: Path) -> None:
    other = tmp_path / "second.gpkg"
    shutil.copy(asked.path, other)
    ids = [region.region_id for region in asked.regions]
    tick(asked.path, region_id=ids[0])
    tick(other, region_id=ids[1])
    with person(other, "answers") as frame:
        frame["assigned_class"] = 2
    reviewed = asked.read(asked.path, other)
    assert [item.status for item in reviewed.regions] == ["done", "done", "todo"]
    assert [item.source for item in reviewed.regions] == [asked.path.name, "second.gpkg", ""]
    assert np.array_equal(reviewed.regions[0].classes, asked.refined(asked.regions[0]))
    assert set(np.unique(reviewed.regions[1].classes)) <= {2, 255}
    assert not any(item.conflict.any() for item in reviewed.regions)


def test_pixels_that_two_people_answer_differently_stay_unknown(
    asked: Asked, tmp_path: Path
) -> None:
    other = tmp_path / "second.gpkg"
    shutil.copy(asked.path, other)
    tick(asked.path)
    ids = [region.region_id for region in asked.regions]
    tick(other, region_id=ids[0])
    tick(other, "unsure", ids[1])
    with person(other, "answers") as frame:
        frame["assigned_class"] = 2
        delete(frame, 1)
        gone = inside(frame.loc[1].geometry, asked, 0)
    reviewed = asked.read(asked.path, other)
    one, two, three = reviewed.regions
    refined = asked.refined(asked.regions[0])
    differ = one.region.mask & (refined != 2) & ~gone
    assert 0 < differ.sum() < one.region.pixels
    assert np.array_equal(one.conflict, differ)
    assert np.array_equal(one.classes, np.where(differ, 255, refined))
    assert [review.status for review in two.reviews] == ["done", "unsure"]
    assert two.status == "done"
    assert np.array_equal(two.classes, asked.refined(asked.regions[1]))
    assert [review.source for review in three.reviews] == [asked.path.name]
    assert reviewed.counts.unknown_pixels == differ.sum()


def test_the_same_review_twice_counts_once(asked: Asked, tmp_path: Path) -> None:
    tick(asked.path)
    shutil.copy(asked.path, tmp_path / "again.gpkg")
    reviewed = asked.read(asked.path, tmp_path / "again.gpkg")
    assert {len(item.reviews) for item in reviewed.regions} == {1}
    assert reviewed.notes == ("again.gpkg: says the same as queries_r000.gpkg; counted once",)


def test_edits_in_a_region_that_is_not_done_are_told(asked: Asked) -> None:
    tick(asked.path, region_id=asked.regions[0].region_id)
    with person(asked.path, "answers") as frame:
        add(frame, added(square(asked, 1, 4, 4, 5), 2))
    reviewed = asked.read()
    assert (reviewed.regions[1].classes == 255).all()
    assert reviewed.notes == (
        "region utm_r000016_c000032: answers in it were edited or added (1), but its status is "
        "todo, so they teach nothing",
    )


def test_a_region_cut_in_two_counts_once_unless_the_halves_disagree(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "query_regions") as frame:
        add(frame, frame.loc[2].to_dict())
    reviewed = asked.read()
    assert np.array_equal(reviewed.regions[1].classes, asked.refined(asked.regions[1]))
    with person(asked.path, "query_regions") as frame:
        frame.loc[4, "assigned_class"] = 1
    with pytest.raises(
        ReviewError, match=r"query_regions features 2, 4: region \S+ is there 2 tim"
    ):
        asked.read()


def test_a_deleted_region_row_stays_to_do(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "query_regions") as frame:
        delete(frame, 2)
    reviewed = asked.read()
    assert reviewed.counts.todo == 1
    assert reviewed.notes == ("1 region has no row and stays to do: utm_r000016_c000032",)


def test_a_redrawn_region_is_told_and_the_cell_counts(asked: Asked) -> None:
    tick(asked.path)
    with person(asked.path, "query_regions") as frame:
        frame.loc[1, "geometry"] = square(asked, 0, 0, 0, 3)
    reviewed = asked.read()
    assert np.array_equal(reviewed.regions[0].classes, asked.refined(asked.regions[0]))
    assert "utm_r000000_c000000: its outline was changed; the cell as asked" in reviewed.notes[0]
