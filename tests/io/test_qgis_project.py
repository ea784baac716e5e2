"""The project as it is written; what QGIS makes of it is tested in tests/qgis."""

import sqlite3
import xml.etree.ElementTree as ET
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from project_factory import STRESS, make_project
from pyproj import CRS
from review_factory import CLASSES, GRIDS, tick

from geohsal.errors import DataError
from geohsal.geo.states import STATE_COLORS, PixelState
from geohsal.io import qgis_project
from geohsal.io.gpkg_read import is_edited
from geohsal.io.qgis_project import forget_project, write_project
from geohsal.io.qgis_xml import xml_text


def document(project: Path) -> ET.Element:
    """The one .qgs inside a .qgz."""
    with zipfile.ZipFile(project) as archive:
        [name] = archive.namelist()
        assert name == f"{project.stem}.qgs"
        return ET.fromstring(archive.read(name))


def layers(root: ET.Element, kind: str) -> dict[str, ET.Element]:
    """Definitions of the project's layers by their source."""
    found = root.findall(f"projectlayers/maplayer[@type='{kind}']")
    return {item.findtext("datasource", ""): item for item in found}


def test_layers_lie_in_order_and_under_the_folder(tmp_path: Path) -> None:
    made = make_project(tmp_path)
    root = document(made.project)
    names = ("query_regions", "answers", "undecided", "pseudo_labels")
    assert list(layers(root, "vector")) == [
        f"./queries_r000.gpkg|layername={name}" for name in names
    ]
    kinds = ("class", "error", "confidence", "state", "view")
    assert list(layers(root, "raster")) == [f"./rasters/utm_{kind}.tif" for kind in kinds]
    shown = {item.get("id"): item.get("checked") for item in root.iter("layer-tree-layer")}
    on = [name for name, checked in shown.items() if checked == "Qt::Checked"]
    assert on == ["layer_query_regions", "layer_answers", "raster_utm_view"]
    assert list(shown) == [item.get("id") for item in root.findall("layerorder/layer")]
    assert str(tmp_path) not in ET.tostring(root, encoding="unicode")
    assert root.findtext("properties/Paths/Absolute") == "false"


def test_layers_look_as_in_the_file_itself(tmp_path: Path) -> None:
    made = make_project(tmp_path)
    with closing(sqlite3.connect(made.review)) as connection:
        rows = connection.execute("SELECT f_table_name, styleQML FROM layer_styles").fetchall()
    definitions = layers(document(made.project), "vector")
    for name, text in rows:
        style = ET.fromstring(text.split("\n", 1)[1])
        definition = definitions[f"./queries_r000.gpkg|layername={name}"]
        for item in style:
            assert ET.tostring(definition.find(item.tag)) == ET.tostring(item)
        assert definition.get("readOnly") == style.get("readOnly")
        assert definition.get("labelsEnabled") == style.get("labelsEnabled")


def test_the_same_project_lies_inside_and_beside(tmp_path: Path) -> None:
    made = make_project(tmp_path)
    with closing(sqlite3.connect(made.review)) as connection:
        [(name, content)] = connection.execute("SELECT name, content FROM qgis_projects").fetchall()
    assert name == "review"
    assert bytes.fromhex(content) == made.project.read_bytes()
    assert not is_edited(made.review)


def test_a_copy_under_another_name_can_go_without_a_project(tmp_path: Path) -> None:
    made = make_project(tmp_path)
    with closing(sqlite3.connect(made.review)) as connection, connection:
        forget_project(connection)
        forget_project(connection)  # none there is no error
    with closing(sqlite3.connect(made.review)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert ("qgis_projects",) not in names
    assert not is_edited(made.review)


def test_the_same_query_gives_the_same_project(tmp_path: Path) -> None:
    one = make_project(tmp_path / "one").project.read_bytes()
    assert make_project(tmp_path / "two").project.read_bytes() == one


def test_rasters_have_the_colours_of_the_manifest_and_of_the_states(tmp_path: Path) -> None:
    root = document(make_project(tmp_path).project)
    rasters = layers(root, "raster")

    def legend(kind: str) -> list[tuple]:
        entries = rasters[f"./rasters/utm_{kind}.tif"].iter("paletteEntry")
        return [(item.get("value"), item.get("color"), item.get("label")) for item in entries]

    assert legend("class") == [(str(c.class_id), c.color, c.name) for c in CLASSES]
    states = legend("state")
    assert [int(value) for value, _, _ in states] == [s for s in PixelState if s]
    assert [color for _, color, _ in states] == [STATE_COLORS[s] for s in PixelState if s]
    for kind in ("error", "confidence"):
        values = [float(i.get("value")) for i in rasters[f"./rasters/utm_{kind}.tif"].iter("item")]
        assert values == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(("bands", "kind"), [(3, "multibandcolor"), (1, "singlebandgray")])
def test_picture_is_in_colour_or_grey(tmp_path: Path, bands: int, kind: str) -> None:
    root = document(make_project(tmp_path, bands=bands).project)
    view = layers(root, "raster")["./rasters/utm_view.tif"]
    assert view.find("pipe/rasterrenderer").get("type") == kind
    assert view.findtext("layername") == (
        "Picture: red, green, blue" if bands == 3 else "Picture: red"
    )


def test_bookmarks_follow_the_rank_and_show_some_surroundings(tmp_path: Path) -> None:
    made = make_project(tmp_path)
    found = document(made.project).findall("Bookmarks/Bookmark")
    expected = [f"{region.rank:03d} {region.region_id}" for region in made.asked.regions]
    assert [item.get("name") for item in found] == expected
    _, transform = GRIDS["utm"]
    left, top = transform * (32 - 8, 16 - 8)  # region 2: column 32, row 16, 16 pixels wide
    right, bottom = transform * (48 + 8, 32 + 8)
    corners = f"{left:.0f} {bottom:.0f}, {left:.0f} {top:.0f}, {right:.0f} {top:.0f}"
    assert found[1].get("extent").startswith(f"POLYGON (({corners}")


def test_opens_on_the_regions_of_the_first_scene(tmp_path: Path) -> None:
    root = document(make_project(tmp_path, ["utm", "utm33"]).project)
    extent = root.find("mapcanvas/extent")
    west, east = (float(extent.findtext(tag)) for tag in ("xmin", "xmax"))
    assert 8.99 < west < 9.0
    assert 9.0 < east < 9.01
    assert root.findtext("mapcanvas/units") == "degrees"


def test_scenes_of_several_crs_keep_their_own(tmp_path: Path) -> None:
    root = document(make_project(tmp_path, ["utm", "utm33"]).project)
    assert root.findtext("projectCrs/spatialrefsys/authid") == "EPSG:4326"
    rasters = layers(root, "raster")
    for scene, code in (("utm", 32632), ("utm33", 32633)):
        srs = rasters[f"./rasters/{scene}_view.tif"].find("srs/spatialrefsys")
        assert srs.findtext("authid") == f"EPSG:{code}"
        assert CRS.from_wkt(srs.findtext("wkt")) == CRS.from_epsg(code)
        assert srs.findtext("wkt").startswith("PROJCRS[")
    groups = [item.get("name") for item in root.findall("layer-tree-group/layer-tree-group")]
    assert groups == ["Scene utm", "Scene utm33"]


def test_pixel_grids_have_no_crs(tmp_path: Path) -> None:
    root = document(make_project(tmp_path, ["grid"]).project)
    assert all(len(item) == 0 for item in root.iter("spatialrefsys"))
    assert root.findtext("mapcanvas/units") == "unknown"


def test_says_where_it_comes_from_and_what_to_do(tmp_path: Path) -> None:
    root = document(make_project(tmp_path).project)
    assert root.findtext("title") == "geohsal, round 0: review"
    assert root.findtext("projectMetadata/history") == "query this-query"
    assert "geohsal ingest" in root.findtext("projectMetadata/abstract")
    name = 'Köln & "Umland" <2> 🌲'
    other = document(make_project(tmp_path / "other", run=name, package=2).project)
    assert other.findtext("title") == f"{name}, round 0, package 2: review"
    assert other.findtext("projectMetadata/history") == f"run {name}, query this-query"


def test_any_name_gives_a_readable_project(tmp_path: Path) -> None:
    made = make_project(tmp_path, classes=STRESS)
    view = layers(document(made.project), "raster")["./rasters/utm_class.tif"]
    assert [item.get("label") for item in view.iter("paletteEntry")] == [c.name for c in STRESS]


def test_characters_that_xml_forbids_are_left_out() -> None:
    assert xml_text(ET.Element("a", b="x\x01\x1f\ud800\uffffy🌲")) == '<a b="xy🌲" />'


def test_scenes_without_rasters_are_left_out_and_damaged_ones_named(tmp_path: Path) -> None:
    made = make_project(tmp_path, ["utm", "utm33"])
    for kind in ("class", "error", "confidence", "state", "view"):
        made.round.raster("utm", kind).unlink()
    write_project(made.review, round_=made.round, classes=CLASSES)
    assert len(layers(document(made.project), "raster")) == 5
    made.round.raster("utm33", "view").write_bytes(b"II*")
    with pytest.raises(DataError, match=r"utm33_view\.tif: cannot be read"):
        write_project(made.review, round_=made.round, classes=CLASSES)


def test_a_killed_write_leaves_the_review_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_project(tmp_path)
    tick(made.review)
    before = made.review.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(qgis_project.shutil, "copyfile", full)
    with pytest.raises(DataError, match=r"queries_r000\.gpkg: cannot be written \(No space left"):
        write_project(made.review, round_=made.round, classes=CLASSES)
    assert made.review.read_bytes() == before
    assert {path.name for path in made.round.dir.iterdir()} == {
        "queries_r000.gpkg",
        "queries_r000.qgz",
        "rasters",
    }


def test_one_region_is_not_called_several(tmp_path: Path) -> None:
    made = make_project(tmp_path, cells=((0, 0),))
    about = document(made.project).findtext("projectMetadata/abstract", "")
    assert about.startswith("1 region to review. Set the status")
