"""conflicts_rNNN.gpkg as QGIS gets it: what can be edited, and what is said of each difference."""

import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import pyogrio
import pytest
from conflict_factory import make_conflicts
from review_factory import CLASSES, person

from geohsal.io.conflict_file import is_settled, read_settlements
from geohsal.io.qgis_form import NULL_VALUE


def style(path: Path, layer: str) -> ET.Element:
    """The layer's style, which must be its only one."""
    with closing(sqlite3.connect(path)) as connection:
        found = "SELECT styleQML FROM layer_styles WHERE f_table_name = ? AND useAsDefault"
        [(text,)] = connection.execute(found, (layer,)).fetchall()
    return ET.fromstring(text.split("\n", 1)[1])


@pytest.mark.parametrize(("grid", "layer"), [("utm", "conflicts"), ("grid", "conflicts_grid")])
def test_only_class_and_notes_can_be_edited_and_the_class_can_be_taken_back(
    tmp_path: Path, grid: str, layer: str
) -> None:
    found = style(make_conflicts(tmp_path, grid).path, layer)
    editable = [item.get("name") for item in found.find("editable") if item.get("editable") == "1"]
    assert editable == ["assigned_class", "notes"]
    assert found.get("readOnly") == "0"
    [field] = found.findall("fieldConfiguration/field[@name='assigned_class']")
    assert field.find("editWidget").get("type") == "ValueMap"
    entries = [option.get("value") for option in field.iter("Option") if option.get("value")]
    assert entries == [NULL_VALUE, "0", "1", "2"]


def test_a_conflict_is_labelled_with_both_classes_and_drawn_by_the_one_that_holds(
    tmp_path: Path,
) -> None:
    found = style(make_conflicts(tmp_path).path, "conflicts")
    label = found.find("labeling/settings/text-style").get("fieldName")
    assert label == """represent_value("class_a") || ' / ' || represent_value("class_b")"""
    assert found.get("labelsEnabled") == "1"
    renderer = found.find("renderer-v2")
    assert renderer.get("attr") == "assigned_class"
    labels = [item.get("label") for item in renderer.iter("category")]
    assert labels == [*(info.name for info in CLASSES), "not settled"]


def test_a_row_with_a_class_settles_its_pixels_and_the_others_say_nothing(tmp_path: Path) -> None:
    made = make_conflicts(tmp_path)
    assert not is_settled(made.path)
    with person(made.path, "conflicts") as frame:
        first = frame.index[0]
        frame.loc[first, "assigned_class"] = 1
        region_id, pixels = frame.loc[first, ["region_id", "pixels"]]
    assert is_settled(made.path)
    said = read_settlements(
        made.path,
        {region.region_id: region for region in made.asked.regions},
        scenes=made.asked.scenes,
        num_classes=len(CLASSES),
    )
    assert said.problems == ()
    assert {name: int((classes == 1).sum()) for name, classes in said.classes.items()} == {
        region_id: pixels
    }


def test_every_conflict_names_both_people(tmp_path: Path) -> None:
    frame = pyogrio.read_dataframe(make_conflicts(tmp_path).path, layer="conflicts")
    assert (frame.class_a != frame.class_b).all()
    assert set(frame.reviewer_a) | set(frame.reviewer_b) == {"queries_r000.gpkg", "second.gpkg"}
    assert frame.assigned_class.isna().all()
