"""The review file as it is written: layers, fields, styles, domains, geometry."""

import dataclasses
import json
import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.windows import Window
from review_factory import CELL, CLASSES, GRIDS, SIDE, Asked, make_asked, reader_of, tick

from geohsal.config import OutputConfig
from geohsal.errors import DataError, RunError
from geohsal.geo.patches import find_patches, merge_windows, shape_hash
from geohsal.geo.scene import Scene, SceneMaps
from geohsal.geo.states import PixelState
from geohsal.io.geopackage import file_groups
from geohsal.io.gpkg_read import is_edited
from geohsal.io.review_file import write_review
from geohsal.io.round_record import read_answers, read_regions, write_answers, write_regions

FIELDS = {
    "query_regions": "region_id scene_id round rank score reason error_probability undecided_share "
    "teacher_class plar_class margin area_m2 pixels cost_min audit status assigned_class notes "
    "reviewed_by reviewed_ms",
    "answers": "answer_id region_id scene_id suggested_class source assigned_class notes",
    "undecided": "scene_id state pixels area_m2",
    "pseudo_labels": "scene_id class_id class_name source old_class confidence area_m2",
}


def query(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_layers_and_fields_are_the_promised_ones(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    names = [name for name, _ in pyogrio.list_layers(asked.path)]
    assert names[:4] == list(FIELDS)
    for layer, fields in FIELDS.items():
        info = pyogrio.read_info(asked.path, layer=layer)
        assert info["fields"].tolist() == fields.split()
        assert info["geometry_type"] == "MultiPolygon"
        assert info["crs"] == "EPSG:32632"
    frame = geopandas.read_file(asked.path, layer="query_regions")
    assert frame["rank"].tolist() == [1, 2, 3]
    assert set(frame.status) == {"todo"}
    assert set(frame.notes) == {""}
    assert frame.assigned_class.isna().all()
    assert frame.audit.tolist() == [False, False, True]
    assert frame.pixels.tolist() == [int(region.mask.sum()) for region in asked.regions]


def test_file_is_geopackage_1_3_with_utc_times_and_no_side_files(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    assert query(asked.path, "PRAGMA user_version") == [(10300,)]
    assert query(asked.path, "PRAGMA journal_mode") == [("delete",)]
    stamps = query(asked.path, "SELECT last_change FROM gpkg_contents")
    assert all(stamp.endswith("Z") and len(stamp) == 24 for (stamp,) in stamps)
    assert [path.name for path in tmp_path.iterdir()] == [asked.path.name]


def test_every_layer_has_one_default_style_that_names_the_classes(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    rows = query(
        asked.path,
        "SELECT f_table_name, f_table_catalog, f_table_schema, f_geometry_column, useAsDefault,"
        " styleQML FROM layer_styles",
    )
    assert [row[0] for row in rows] == list(FIELDS)
    assert {row[1:5] for row in rows} == {("", "", "geom", 1)}
    styles = {row[0]: ET.fromstring(row[5].split("\n", 1)[1]) for row in rows}
    for layer in ("query_regions", "answers", "pseudo_labels"):
        labels = [item.get("label") for item in styles[layer].iter("category")]
        assert labels[:3] == [info.name for info in CLASSES]
    assert [item.get("value") for item in styles["undecided"].iter("category")] == [
        "AMBIGUOUS",
        "NOVEL",
    ]
    assert {name: style.get("readOnly") for name, style in styles.items()} == {
        "query_regions": "0",
        "answers": "0",
        "undecided": "1",
        "pseudo_labels": "1",
    }


def test_only_the_reviewers_fields_can_be_edited_and_choices_can_be_undone(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    [(text,)] = query(
        asked.path, "SELECT styleQML FROM layer_styles WHERE f_table_name = 'query_regions'"
    )
    style = ET.fromstring(text.split("\n", 1)[1])
    editable = [item.get("name") for item in style.find("editable") if item.get("editable") == "1"]
    assert editable == ["status", "assigned_class", "notes"]
    [field] = style.findall("fieldConfiguration/field[@name='assigned_class']")
    entries = [option.get("value") for option in field.iter("Option") if option.get("value")]
    assert entries == ["{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}", "0", "1", "2"]
    defaults = {item.get("field"): item.get("expression") for item in style.find("defaults")}
    assert defaults["reviewed_ms"] == "epoch(now())"
    assert set(defaults) == {"status", "reviewed_by", "reviewed_ms"}


def test_other_software_finds_the_classes_as_a_field_domain(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    rows = query(
        asked.path,
        "SELECT value, description FROM gpkg_data_column_constraints"
        " WHERE constraint_name = 'geohsal_class'",
    )
    assert rows == [("0", "water"), ("1", "forest & shrub"), ("2", "building")]
    linked = query(
        asked.path,
        "SELECT table_name, column_name FROM gpkg_data_columns"
        " WHERE constraint_name IS NOT NULL ORDER BY table_name, column_name",
    )
    assert ("query_regions", "status") in linked
    assert ("answers", "assigned_class") in linked


def test_provenance_travels_with_the_file(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    text = pyogrio.read_info(asked.path, layer="answers")["dataset_metadata"]
    record = json.loads(text["GPKG_METADATA_ITEM_1"])
    assert record["request"] == "this-query"
    assert record["round"] == 0
    assert record["scenes"] == ["utm"]
    assert record["classes"] == [info.name for info in CLASSES]


@pytest.mark.parametrize("grids", [("utm",), ("turned",), ("utm", "utm33"), ("grid",)])
def test_answers_cover_exactly_the_asked_pixels_with_their_class(
    tmp_path: Path, grids: tuple[str, ...]
) -> None:
    asked = make_asked(tmp_path, grids)
    info = pyogrio.read_info(asked.path, layer="answers")
    mixed = len(grids) > 1
    assert info["crs"].startswith(
        "EPSG:4326" if mixed else "EPSG:32632" if grids != ("grid",) else ""
    )
    frame = geopandas.read_file(asked.path, layer="answers")
    assert frame.geometry.is_valid.all()
    for scene in asked.scenes.values():
        crs, transform = GRIDS[scene.scene_id]
        own = frame[frame.scene_id == scene.scene_id]
        if mixed:
            own = own.to_crs(crs.to_wkt())
        if transform.is_identity:
            transform = transform.scale(1, -1)
        burnt = np.full((SIDE, SIDE), 255)
        counts = np.zeros((SIDE, SIDE), int)
        for geometry, code in zip(own.geometry, own.suggested_class, strict=True):
            inside = rasterio.features.geometry_mask(
                [geometry], (SIDE, SIDE), transform, invert=True
            )
            burnt[inside] = code
            counts += inside
        assert counts.max() == 1
        for region in asked.regions:
            if region.scene_id == scene.scene_id:
                rows, cols = (int(region.cell.row_off), int(region.cell.col_off))
                cell = burnt[rows : rows + 16, cols : cols + 16]
                assert np.array_equal(np.where(region.mask, cell, 255), asked.refined(region))
        assert counts.sum() == sum(r.pixels for r in asked.regions if r.scene_id == scene.scene_id)


def test_sieved_answers_still_cover_the_region(tmp_path: Path) -> None:
    asked = make_asked(tmp_path, sieve_px=12)
    reviewed_by_nobody = geopandas.read_file(asked.path, layer="answers")
    total = sum(region.pixels for region in asked.regions)
    assert reviewed_by_nobody.area.sum() == pytest.approx(100 * total)
    assert len(reviewed_by_nobody) < len(make_asked(tmp_path / "raw").answers)


def test_context_is_either_undecided_or_a_pseudo_label(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    _, transform = GRIDS["utm"]
    state = asked.maps["utm"].state

    def burn(layer: str) -> np.ndarray:
        frame = geopandas.read_file(asked.path, layer=layer)
        return rasterio.features.geometry_mask(frame.geometry, (SIDE, SIDE), transform, invert=True)

    undecided, labels = burn("undecided"), burn("pseudo_labels")
    near = np.zeros((SIDE, SIDE), bool)
    for row, col in ((0, 0), (16, 32), (48, 16)):
        near[max(row - 4, 0) : row + 20, max(col - 4, 0) : col + 20] = True
    assert np.array_equal(undecided, near & np.isin(state, (5, 6)))
    assert np.array_equal(labels, near & ~np.isin(state, (PixelState.NODATA, 5, 6)))
    frame = geopandas.read_file(asked.path, layer="pseudo_labels")
    corrected = frame[frame.source == "corrected"]
    assert set(frame.source) <= {"teacher", "confirmed", "corrected", "label"}
    assert (corrected.old_class != corrected.class_id).all()
    assert frame[frame.source != "corrected"].old_class.isna().all()
    assert frame.area_m2.sum() == pytest.approx(100 * labels.sum(), rel=2e-3)


def test_local_scene_gets_its_own_file_without_areas(tmp_path: Path) -> None:
    asked = make_asked(tmp_path, ["grid"])
    frame = geopandas.read_file(asked.path, layer="query_regions")
    assert frame.area_m2.isna().all()
    rows = query(asked.path, "SELECT srs_id, srs_name FROM gpkg_spatial_ref_sys WHERE srs_id > 99")
    assert rows[-1] == (100000, "Pixel grid")
    assert frame.total_bounds.tolist()[1] == -SIDE
    earth = Scene(
        scene_id="utm",
        crs=GRIDS["utm"][0],
        transform=GRIDS["utm"][1],
        height=SIDE,
        width=SIDE,
        bands=("red",),
    )
    groups = file_groups([asked.scenes["grid"], earth])
    assert [(name, [scene.scene_id for scene in scenes]) for name, scenes in groups] == [
        (None, ["utm"]),
        ("grid", ["grid"]),
    ]
    with pytest.raises(DataError, match="scene grid has no position on Earth and cannot share"):
        make_asked(tmp_path / "mixed", ["grid", "utm"])


def test_an_edited_file_is_never_replaced(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    assert not is_edited(asked.path)
    make_asked(tmp_path)  # unedited: replaced without a word
    tick(asked.path)
    before = asked.path.read_bytes()
    assert is_edited(asked.path)
    with pytest.raises(RunError, match=r"queries_r000\.gpkg: has been edited or is open in QGIS"):
        make_asked(tmp_path)
    assert asked.path.read_bytes() == before


def test_a_file_that_is_open_counts_as_edited(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    asked.path.with_name(asked.path.name + "-wal").touch()
    with pytest.raises(RunError, match="is open in QGIS"):
        make_asked(tmp_path)


def test_no_regions_around_means_empty_layers_not_a_crash(tmp_path: Path) -> None:
    asked = make_asked(tmp_path)
    maps = {
        name: dataclasses.replace(item, state=np.full_like(item.state, PixelState.TRUSTED))
        for name, item in asked.maps.items()
    }
    path = tmp_path / "trusted.gpkg"
    write_review(
        path,
        regions=asked.regions,
        scenes=asked.scenes,
        maps=reader_of(maps),
        classes=CLASSES,
        config=OutputConfig(),
        provenance={},
    )
    assert pyogrio.read_info(path, layer="undecided")["features"] == 0


def test_a_huge_scene_is_read_only_around_its_regions(tmp_path: Path) -> None:
    small = make_asked(tmp_path)
    side = 20_000
    scene = dataclasses.replace(small.scenes["utm"], height=side, width=side)
    cells = [Window(col, row, CELL, CELL) for row, col in ((0, 0), (9000, 19_984), (19_984, 7))]
    regions = [
        dataclasses.replace(small.regions[0], region_id=f"r{number}", cell=cell)
        for number, cell in enumerate(cells)
    ]
    windows: list[Window] = []

    def maps(scene_id: str, window: Window) -> SceneMaps:
        windows.append(window)
        corner = Window(0, 0, window.width, window.height)
        return reader_of(small.maps)(scene_id, corner)

    answers = write_review(
        tmp_path / "huge.gpkg",
        regions=regions,
        scenes={"utm": scene},
        maps=maps,
        classes=CLASSES,
        config=OutputConfig(context_px=4),
        provenance={},
    )
    assert {answer.region_id for answer in answers} == {"r0", "r1", "r2"}
    assert max(window.width * window.height for window in windows) <= (CELL + 8) ** 2
    assert all(window.row_off + window.height <= side for window in windows)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return make_asked(tmp_path_factory.mktemp("once"))


@settings(max_examples=20)
@given(mask=hnp.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_record_of_regions_comes_back_exactly(once: Asked, mask: np.ndarray) -> None:
    height, width = mask.shape
    region = dataclasses.replace(
        once.regions[0], mask=mask, cell=Window(3, 5, width, height), score=0.1 + 0.2
    )
    path = once.path.with_name("regions.parquet")
    write_regions(path, [region, once.regions[1]], once.scenes)
    for one, other in zip([region, once.regions[1]], read_regions(path), strict=True):
        for field in dataclasses.fields(one):
            ours, theirs = getattr(one, field.name), getattr(other, field.name)
            assert np.array_equal(ours, theirs) if field.name == "mask" else ours == theirs
            assert type(ours) is type(theirs)


def test_record_opens_as_geoparquet(tmp_path: Path) -> None:
    asked = make_asked(tmp_path, ["utm", "utm33"])
    write_regions(tmp_path / "regions.parquet", asked.regions, asked.scenes)
    frame = geopandas.read_parquet(tmp_path / "regions.parquet")
    assert frame.crs == "EPSG:4326"
    assert frame.geometry.is_valid.all()
    write_answers(tmp_path / "answers.parquet", asked.answers)
    assert read_answers(tmp_path / "answers.parquet") == asked.answers
    (tmp_path / "answers.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"answers\.parquet: cannot be read"):
        read_answers(tmp_path / "answers.parquet")


@given(hnp.arrays(np.uint8, (12, 12), elements=st.integers(0, 2)), st.integers(0, 9))
def test_patches_partition_their_mask(codes: np.ndarray, sieve_px: int) -> None:
    mask = codes != 2
    found = find_patches(codes, mask=mask, sieve_px=sieve_px)
    assert np.array_equal(found.ids > 0, mask)
    assert found.pixels.sum() == mask.sum()
    areas = [polygon.area for polygon in found.polygons]
    assert areas == found.pixels.tolist()
    if sieve_px <= 1 and mask.any():
        assert np.array_equal(found.codes[found.ids[mask] - 1], codes[mask])


def test_majority_and_mean_are_per_patch() -> None:
    codes = np.array([[1, 1, 2], [1, 3, 2]], np.uint8)
    found = find_patches(codes, mask=codes < 3, sieve_px=0)
    values = np.array([[5, 7, 9], [7, 0, 8]], np.uint8)
    assert found.codes.tolist() == [1, 2]
    assert found.majority(values).tolist() == [7, 8]
    assert found.mean(values.astype(np.float32)).tolist() == pytest.approx([19 / 3, 8.5])


def test_shape_hash_sees_edits_and_nothing_else() -> None:
    square = shapely.box(0, 0, 4, 4)
    started_elsewhere = shapely.Polygon([(4, 0), (4, 4), (0, 4), (0, 2), (0, 0)])
    assert shape_hash(square) == shape_hash(shapely.MultiPolygon([started_elsewhere.reverse()]))
    assert shape_hash(square) == shape_hash(shapely.transform(square, lambda p: p + 1e-6))
    assert shape_hash(square) != shape_hash(shapely.box(0, 0, 4, 4.2))
    assert shape_hash(square) != shape_hash(square.difference(shapely.box(1, 1, 2, 2)))


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 9)] * 2), max_size=12))
def test_merged_windows_cover_all_and_stay_apart(boxes: list[tuple[int, int, int, int]]) -> None:
    merged = merge_windows([Window(c, r, w, h) for r, c, h, w in boxes])
    shapes = [
        shapely.box(w.col_off, w.row_off, w.col_off + w.width, w.row_off + w.height) for w in merged
    ]
    for row, col, height, width in boxes:
        box = shapely.box(col, row, col + width, row + height)
        assert sum(shape.covers(box) for shape in shapes) == 1
    for number, shape in enumerate(shapes):
        assert not any(shape.intersects(other) for other in shapes[:number])
