"""What QGIS makes of the review file and its project."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from conflict_factory import make_conflicts
from project_factory import STRESS, Made, make_project
from review_factory import CLASSES, GRIDS, SIDE

from geohsal.io.gpkg_read import is_edited
from geohsal.io.qgis_style import UNASSIGNED

pytestmark = pytest.mark.qgis

Qgis = Callable[..., Any]
NULL_ENTRY = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
EDITABLE = {
    "query_regions": ["status", "assigned_class", "notes"],
    "answers": ["assigned_class", "notes"],
    "undecided": [],
    "pseudo_labels": [],
}
LEGEND = ["Query regions", "Answers", "Undecided", "Pseudo-labels"]
RASTERS = [
    "Refined classes",
    "Error probability",
    "Confidence",
    "State of every pixel",
    "Picture: red, green, blue",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_project(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_project(tmp_path_factory.mktemp("zones"), ["utm", "utm33"])


def embedded(review: Path) -> str:
    return f"geopackage:{quote(str(review))}?projectName=review"


def grid(made: Made, scene_id: str) -> dict[str, Any]:
    """Where the pixels of a scene lie, as QGIS is told."""
    crs, transform = GRIDS[scene_id]
    if crs is None:  # GIS software draws rows downwards from y = 0
        transform = transform.scale(1, -1)
    return {
        "crs": f"EPSG:{crs.to_epsg()}" if crs else "",
        "transform": list(transform)[:6],
        "shape": list(made.asked.scenes[scene_id].shape),
    }


def check_layer(found: dict[str, Any], name: str) -> None:
    """Style and form of one layer."""
    assert found["renderer"] == "categorizedSymbol"
    assert found["unmatched"] == 0
    assert found["invalid"] == 0
    assert found["broken"] == []
    assert found["editable"] == EDITABLE[name]
    assert found["read_only"] == (not EDITABLE[name])
    unnamed = [field for field, alias in found["aliases"].items() if not alias]
    assert set(unnamed) <= set(found["hidden"]) == {"fid"}
    names = [info.name for info in CLASSES]
    if name == "undecided":
        assert found["categories"] == ["ambiguous: two classes fit", "novel: no class fits"]
    else:
        assert found["categories"][:-1] == names
    if EDITABLE[name]:
        first, *rest = found["maps"]["assigned_class"]
        assert first[1] == NULL_ENTRY
        assert rest == [[info.name, str(info.class_id)] for info in CLASSES]
        assert found["constraints"]["assigned_class"]


def test_all_layers_open_styled_from_the_file_alone(qgis: Qgis, made: Made) -> None:
    found = qgis("layers", path=made.review)
    for name, layer in found.items():
        check_layer(layer, name)
        assert layer["crs"] == "EPSG:32632"
        assert layer["title"] == LEGEND[list(found).index(name)]
    regions = found["query_regions"]
    assert regions["count"] == len(made.asked.regions)
    assert found["answers"]["count"] == len(made.asked.answers)
    assert regions["sort"] == regions["label"] == '"rank"'
    assert regions["tip"]
    assert regions["hard"] == ["fid", "status"]
    assert found["answers"]["hard"] == ["fid", "assigned_class"]
    assert [value for _, value in regions["maps"]["status"]] == [
        "todo",
        "done",
        "unsure",
        "skipped",
    ]
    assert set(regions["defaults"]) == {"status", "reviewed_by", "reviewed_ms"}


def test_the_form_offers_classes_and_shows_why(qgis: Qgis, made: Made) -> None:
    built = qgis("form", path=made.review, name="query_regions")
    classes = [info.name for info in CLASSES]
    assert ["— as the answers inside say —", *classes] in built["boxes"]
    assert ["To do", "Done", "Unsure", "Skipped"] in built["boxes"]
    assert {"1", "half of it undecided"} <= set(built["texts"])


def test_conflicts_open_styled_and_only_class_and_notes_can_be_edited(
    qgis: Qgis, tmp_path: Path
) -> None:
    path = make_conflicts(tmp_path).path
    found = qgis("layers", path=path, names=["conflicts"])["conflicts"]
    assert found["categories"] == [*(info.name for info in CLASSES), "not settled"]
    assert (found["unmatched"], found["invalid"], found["broken"]) == (0, 0, [])
    assert found["editable"] == ["assigned_class", "notes"]
    assert found["maps"]["assigned_class"][0] == [
        "— not settled: stays unknown —",
        NULL_ENTRY,
    ]
    assert "class_a" in found["label"]
    assert "class_b" in found["label"]
    built = qgis("form", path=path, name="conflicts")
    classes = [info.name for info in CLASSES]
    assert ["— not settled: stays unknown —", *classes] in built["boxes"]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("which", ["made", "zones"])
def test_project_opens_after_its_folder_was_moved(
    qgis: Qgis, request: pytest.FixtureRequest, tmp_path: Path, which: str, inside: bool
) -> None:
    made: Made = request.getfixturevalue(which)
    folder = tmp_path / "Prüf ung #1" / "copy"
    shutil.copytree(made.round.dir, folder)
    review = folder / made.review.name
    found = qgis("project", uri=embedded(review) if inside else folder / made.project.name)
    layers = found["layers"]
    assert all(layer["valid"] for layer in layers)
    assert all(layer["source"].startswith(str(folder)) for layer in layers)
    scenes = list(made.asked.scenes)
    assert [layer["name"] for layer in layers] == LEGEND + RASTERS * len(scenes)
    for layer, name in zip(layers[:4], EDITABLE, strict=True):
        check_layer(layer, name)
    shown = {layer["name"] for layer in layers if layer["shown"]}
    assert shown == {"Query regions", "Answers", "Picture: red, green, blue"}
    common = "EPSG:32632" if which == "made" else "EPSG:4326"
    assert found["crs"] == common
    assert {layer["crs"] for layer in layers[:4]} == {common}
    own = [f"EPSG:{GRIDS[scene][0].to_epsg()}" for scene in scenes]
    assert [layer["crs"] for layer in layers[4:]] == [code for code in own for _ in RASTERS]
    assert layers[4]["style"] == "paletted"
    assert layers[4]["legend"] == [info.name for info in CLASSES]
    assert [layer["style"] for layer in layers[5:8]] == [
        "singlebandpseudocolor",
        "singlebandpseudocolor",
        "paletted",
    ]
    assert found["groups"] == [f"Scene {scene}" for scene in scenes]
    assert found["bookmarks"] == [
        f"{region.rank:03d} {region.region_id}" for region in made.asked.regions
    ]
    assert all(left < right and low < top for left, low, right, top in found["extents"])
    assert "geohsal ingest" in found["about"]


@pytest.mark.parametrize("which", ["made", "zones"])
def test_gdals_validator_has_nothing_to_say(
    qgis: Qgis, request: pytest.FixtureRequest, which: str
) -> None:
    made: Made = request.getfixturevalue(which)
    assert qgis("validator", path=made.review) == []


@pytest.mark.parametrize("scenes", [["utm"], ["utm", "utm33"], ["grid"]])
def test_pixels_lie_where_answers_and_regions_say(
    qgis: Qgis, tmp_path: Path, scenes: list[str]
) -> None:
    made = make_project(tmp_path, scenes)
    for scene_id in scenes:
        place = grid(made, scene_id)
        drawn = qgis("raster", uri=made.project, layer_id=f"raster_{scene_id}_class", grid=place)
        classes = np.array([[255 if v is None else v for v in row] for row in drawn])
        assert np.array_equal(classes, made.asked.maps[scene_id].refined)
        asked = qgis("covering", path=made.review, name="query_regions", grid=place)
        inside = np.array([[bool(held) for held in row] for row in asked["held"]])
        expected = np.zeros((SIDE, SIDE), bool)
        for region in made.asked.regions:
            if region.scene_id == scene_id:
                top, left = region.cell.row_off, region.cell.col_off
                expected[top : top + 16, left : left + 16] = region.mask
        assert np.array_equal(inside, expected)
        answers = qgis("covering", path=made.review, name="answers", grid=place)
        suggested = [feature["suggested_class"] for feature in answers["features"]]
        for row, col in np.argwhere(expected):
            [number] = answers["held"][row][col]
            assert suggested[number] == classes[row, col]


@pytest.mark.parametrize("scenes", [["utm"], ["utm", "utm33"], ["grid"]])
def test_picture_is_drawn_where_it_should_be(qgis: Qgis, tmp_path: Path, scenes: list[str]) -> None:
    made = make_project(tmp_path, scenes)
    for scene_id in scenes:
        place, view = grid(made, scene_id), f"raster_{scene_id}_view"
        alone = qgis("picture", uri=made.project, grid=place, only=[view])
        seen = np.array(alone["centres"])
        expected = np.moveaxis(made.picture, 0, -1).copy()
        expected[:4] = 255  # nodata is transparent: the paper shows
        off = np.abs(seen - expected)[:, :, :2].max(axis=2)
        assert off.max() <= (3 if len(scenes) > 1 else 0)  # reprojected on the fly: one pixel
        whole = qgis("picture", uri=made.project, grid=place)
        assert UNASSIGNED in set(whole["colours"]) - set(alone["colours"])


def test_any_class_name_arrives(qgis: Qgis, tmp_path: Path) -> None:
    made = make_project(tmp_path, classes=STRESS, run='Köln & "Umland" <2> 🌲')
    names = [info.name for info in STRESS]
    found = qgis("project", uri=embedded(made.review))
    assert found["title"] == 'Köln & "Umland" <2> 🌲, round 0: review'
    regions, raster = found["layers"][0], found["layers"][4]
    assert regions["categories"][:-1] == names
    assert raster["legend"] == names
    alone = qgis("layers", path=made.review)
    for layer in (regions, alone["query_regions"], alone["answers"]):
        assert layer["unmatched"] == 0
        assert [label for label, _ in layer["maps"]["assigned_class"]][1:] == names


def test_saving_the_project_in_qgis_is_no_edit(qgis: Qgis, tmp_path: Path) -> None:
    made = make_project(tmp_path)
    assert qgis("save_again", uri=embedded(made.review))
    assert not is_edited(made.review)
    assert qgis("project", uri=embedded(made.review))["title"] == "saved by hand"
    assert qgis("validator", path=made.review) == []
