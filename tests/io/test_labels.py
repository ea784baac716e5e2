"""Labels and truth: polygons and rasters of any CRS on the scene's grid, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from shapely.geometry import Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from geohsal.errors import GeohsalError, LabelError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.label_raster import cell_numbers, cell_regions, labelled_cells
from geohsal.io.labels import LabelRaster, label_rows, read_labels, read_truth
from geohsal.io.manifest import LabelSource

RasterFactory = Callable[..., Path]
GpkgFactory = Callable[..., Path]

CLASSES = tuple(
    ClassInfo(class_id=index, name=name, color="#000000")
    for index, name in enumerate(("water", "forest", "building"))
)
TRANSFORM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
LOCAL_WKT = 'LOCAL_CS["Site grid",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
SCENE = Scene(
    scene_id="north",
    crs=CRS.from_epsg(32632),
    transform=TRANSFORM,
    height=40,
    width=50,
    bands=("gray",),
)
LOCAL = Scene(
    scene_id="bench", crs=None, transform=Affine.identity(), height=40, width=50, bands=("gray",),
    local=True,
)  # fmt: skip


def cells(top: float, left: float, bottom: float, right: float) -> Polygon:
    """The rectangle of pixels [top, bottom) x [left, right) in map coordinates of SCENE."""
    return box(500_000 + 10 * left, 5_200_000 - 10 * bottom, 500_000 + 10 * right,
               5_200_000 - 10 * top)  # fmt: skip


def labels(path: Path, *, scene: Scene = SCENE, region_px: int = 8, **keys: Any) -> LabelRaster:
    source = LabelSource(path=str(path), **keys)
    return read_labels(source, scene, CLASSES, region_px=region_px, where="scene 'north': labels")


def truth(path: Path, *, scene: Scene = SCENE, **keys: Any) -> np.ndarray[Any, Any]:
    source = LabelSource(path=str(path), **keys)
    return read_truth(source, scene, CLASSES, where="scene 'north': truth")


def refused(path: Path, read: Callable[..., object] = labels, **keys: Any) -> str:
    """The one line with which a label source is refused."""
    with pytest.raises(LabelError) as caught:
        read(path, **keys)
    message = str(caught.value)
    assert message.startswith("scene 'north': ")
    assert str(path) in message
    assert "\n" not in message
    return message


class TestPolygons:
    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("class", ["water", "forest", "building"]),
            ("class_name", [" Water", "FOREST", "building"]),
            ("class_id", [0, 1, 2]),
            ("class_id", [0.0, 1.0, 2.0]),
            ("class_id", ["0", "1", "2.0"]),
            ("CLASS", ["water", "forest", "building"]),
        ],
    )
    def test_bare_path(self, make_gpkg: GpkgFactory, field: str, values: list[Any]) -> None:
        shapes = [cells(0, 0, 4, 5), cells(10, 10, 12, 20), cells(39, 49, 45, 60)]
        path = make_gpkg("l.gpkg", [(s, {field: v}) for s, v in zip(shapes, values, strict=True)])
        found = labels(path)
        expected = np.full((40, 50), 255)
        expected[0:4, 0:5], expected[10:12, 10:20], expected[39, 49] = 0, 1, 2
        np.testing.assert_array_equal(found.classes, expected)
        np.testing.assert_array_equal(found.regions, np.where(expected == 255, 0, expected + 1))
        assert (found.classes.dtype, found.regions.dtype) == (np.uint8, np.int32)
        assert found.issues == ()
        np.testing.assert_array_equal(truth(path), expected)

    def test_values_ignore_layer_and_field(self, make_gpkg: GpkgFactory) -> None:
        make_gpkg("l.gpkg", [(cells(0, 0, 1, 1), {"kind": "Roof"})], layer="other")
        crossed = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
        rows = [
            (cells(0, 0, 2, 2), {"kind": "Roof"}),
            (cells(4, 4, 6, 6), {"kind": "Unknown"}),
            (crossed, {"kind": "unknown"}),
            (cells(8, 8, 9, 9), {"kind": "forest"}),
        ]
        path = make_gpkg("l.gpkg", rows, layer="north")
        keys: dict[str, Any] = {"values": {"Roof": "building"}, "ignore": ("Unknown",)}
        found = labels(path, layer="north", field="kind", **keys)
        assert found.classes[0, 0] == 2
        assert found.classes[4, 4] == 255
        assert (found.classes[8, 8], found.regions[8, 8]) == (1, 2)
        assert "2 layers (other, north); name one with layer:" in refused(path, field="kind")
        assert "no layer 'nroth'; it has other, north" in refused(path, layer="nroth")

    def test_missing_field_names_what_there_is(self, make_gpkg: GpkgFactory) -> None:
        path = make_gpkg("l.gpkg", [(cells(0, 0, 1, 1), {"id": 1, "kind": "x"})])
        assert "no field class, class_name, class_id; it has id, kind" in refused(path)
        assert "no field 'clas'; it has id, kind" in refused(path, field="clas")

    def test_bad_features_are_listed_with_their_ids(self, make_gpkg: GpkgFactory) -> None:
        x, y = 500_000, 5_199_900
        rows: list[tuple[BaseGeometry | None, dict[str, Any]]] = [
            (cells(0, 0, 1, 1), {"class": "biulding"}),
            (Polygon([(x, y), (x + 20, y + 20), (x + 20, y), (x, y + 20)]), {"class": "water"}),
            (None, {"class": "water"}),
            (cells(2, 2, 3, 3), {"class": None}),
            (cells(2, 2, 3, 3), {"class": "7"}),
            (cells(4, 4, 5, 5), {"class": "water"}),
            (Point(x, y), {"class": "water"}),
            (cells(0, 0, 1, 1), {"class": "biulding"}),
        ]
        message = refused(make_gpkg("l.gpkg", rows))
        assert "7 of 8 features cannot be used" in message
        assert "unknown class 'biulding'; did you mean 'building'?: fid 1, 8" in message
        assert "invalid geometry (Self-intersection): fid 2" in message
        assert "no geometry: fid 3" in message
        assert "no class given: fid 4" in message
        assert "value 7 is no class id (0 to 2): fid 5" in message
        assert "a Point, not a polygon: fid 7" in message

    def test_an_empty_field_may_be_ignored(self, make_gpkg: GpkgFactory) -> None:
        rows = [(cells(0, 0, 1, 1), {"class": "water"}), (cells(2, 2, 3, 3), {"class": None})]
        assert labels(make_gpkg("l.gpkg", rows), ignore=(None,)).classes[2, 2] == 255

    def test_overlap_of_classes_is_unknown_and_listed(self, make_gpkg: GpkgFactory) -> None:
        rows = [
            (cells(0, 0, 10, 10), {"class": "water"}),
            (cells(5, 5, 15, 15), {"class": "forest"}),
            (cells(0, 0, 2, 2), {"class": "water"}),
            (cells(15, 5, 16, 15), {"class": "water"}),
        ]
        path = make_gpkg("l.gpkg", rows)
        found = labels(path)
        assert (found.classes[5:10, 5:10] == 255).all()
        assert (found.regions[5:10, 5:10] == 0).all()
        assert (found.classes[:2, :2] == 0).all()
        assert (found.classes == 0).sum() == 85
        assert (found.classes == 1).sum() == 75
        (issue,) = found.issues
        assert "25 pixels lie in features of different classes and stay unlabelled" in issue
        assert issue.endswith("fids 1 and 2")
        last = labels(path, overlap="last")
        assert (last.classes[5:10, 5:10] == 1).all()
        assert last.issues == ()

    def test_three_layers_of_overlap(self, make_gpkg: GpkgFactory) -> None:
        """A middle class that two features of another class enclose is still seen."""
        rows = [(cells(0, 0, 4, 4), {"class": name}) for name in ("water", "forest", "water")]
        assert (labels(make_gpkg("l.gpkg", rows)).classes == 255).all()

    def test_outside_and_tiny_features_are_told(self, make_gpkg: GpkgFactory) -> None:
        rows = [
            (cells(0, 0, 2, 2), {"class": "water"}),
            (cells(5.6, 5.6, 5.9, 5.9), {"class": "water"}),
            (cells(-9, -9, -5, -5), {"class": "water"}),
            (cells(7, 7, 8, 8), {"class": "forest"}),
        ]
        found = labels(make_gpkg("l.gpkg", rows))
        assert found.regions[7, 7] == 4
        outside, tiny = found.issues
        assert "1 of 4 features lie outside the scene" in outside
        assert tiny.endswith("fids 2")
        assert "1 features label no pixel" in tiny

    def test_all_outside_is_refused(self, make_gpkg: GpkgFactory) -> None:
        path = make_gpkg("l.gpkg", [(box(0, 0, 9, 9), {"class": "water"})])
        assert "none of its 1 features lies on scene 'north'" in refused(path)
        far = make_gpkg("far.gpkg", [(box(-170, 0, -160, 9), {"class": "water"})], crs="EPSG:4326")
        assert "none of its 1 features lies on scene 'north'" in refused(far)

    @pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:25833"])
    def test_any_crs(self, make_gpkg: GpkgFactory, crs: str) -> None:
        shape = geopandas.GeoSeries([cells(3.2, 4.2, 20.3, 30.3)], crs="EPSG:32632").to_crs(crs)[0]
        found = labels(make_gpkg("l.gpkg", [(shape, {"class": "forest"})], crs=crs))
        expected = np.full((40, 50), 255)
        expected[3:20, 4:30] = 1
        np.testing.assert_array_equal(found.classes, expected)

    def test_no_crs_only_for_local_scenes(self, make_gpkg: GpkgFactory) -> None:
        bare = make_gpkg("bare.gpkg", [(box(2, 3, 5, 7), {"class": "forest"})], crs=None)
        assert "has no CRS; assign the one it was drawn in" in refused(bare)
        found = labels(bare, scene=LOCAL)
        assert (found.classes[3:7, 2:5] == 1).all()
        assert (found.classes == 1).sum() == 12
        placed = make_gpkg("placed.gpkg", [(box(2, 3, 5, 7), {"class": "forest"})])
        assert "lies in EPSG:32632, but the scene is a pixel grid" in refused(placed, scene=LOCAL)

    def test_shapefile(self, make_gpkg: GpkgFactory) -> None:
        path = make_gpkg(
            "l.shp", [(cells(1, 1, 3, 3), {"class": "water"})], driver="ESRI Shapefile"
        )
        assert (labels(path).classes[1:3, 1:3] == 0).all()

    def test_empty_layer(self, make_gpkg: GpkgFactory, tmp_path: Path) -> None:
        frame = geopandas.GeoDataFrame(
            {"class": np.array([], dtype=object)}, geometry=[], crs="EPSG:32632"
        )
        frame.to_file(tmp_path / "l.gpkg", layer="labels", geometry_type="Polygon")
        assert "layer 'labels' has no features" in refused(tmp_path / "l.gpkg")

    @given(
        boxes=st.lists(
            st.tuples(st.integers(0, 39), st.integers(0, 49), st.integers(1, 9), st.integers(1, 9),
                      st.integers(0, 2)),
            min_size=1, max_size=8,
        )
    )  # fmt: skip
    def test_overlap_rule_against_a_count(
        self, tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[int, ...]]
    ) -> None:
        held = np.zeros((3, 40, 50), dtype=bool)
        for row, col, height, width, class_id in boxes:
            held[class_id, row : row + height, col : col + width] = True
        path = tmp_path_factory.mktemp("l") / "l.gpkg"
        shapes = [cells(r, c, r + h, c + w) for r, c, h, w, _ in boxes]
        frame = geopandas.GeoDataFrame(
            {"class_id": [entry[4] for entry in boxes]}, geometry=shapes, crs="EPSG:32632"
        )
        frame.to_file(path)
        expected = np.where(held.sum(axis=0) == 1, held.argmax(axis=0), 255)
        np.testing.assert_array_equal(labels(path).classes, expected)


class TestRasters:
    def codes(self) -> np.ndarray[Any, Any]:
        array = np.zeros((40, 50), dtype="uint8")
        array[:20, :25], array[20:, 25:] = 1, 2
        return array

    def test_ids_on_the_scenes_grid(self, make_raster: RasterFactory) -> None:
        array = self.codes()
        array[0, 0] = 255
        path = make_raster("l.tif", array)
        found = labels(path)
        np.testing.assert_array_equal(found.classes, array)
        np.testing.assert_array_equal(truth(path), array)
        assert found.regions[0, 0] == 0
        assert found.regions.max() == 5 * 7

    def test_values_ignore_and_nodata(self, make_raster: RasterFactory) -> None:
        path = make_raster("l.tif", self.codes() * 10, nodata=20)
        found = labels(path, values={10: "forest"}, ignore=(0,))
        np.testing.assert_array_equal(found.classes, np.where(self.codes() == 1, 1, 255))

    def test_nodata_that_is_a_class_id_is_told(self, make_raster: RasterFactory) -> None:
        path = make_raster("l.tif", self.codes(), nodata=0)
        found = labels(path)
        assert (found.classes == 255).sum() == 1000
        assert "value 0 is the file's nodata and counts as unlabelled" in found.issues[0]
        mapped = labels(path, values={0: "water", 1: "forest", 2: "building"})
        np.testing.assert_array_equal(mapped.classes, self.codes())
        assert mapped.issues == ()

    def test_unknown_values_are_counted(self, make_raster: RasterFactory) -> None:
        array = self.codes().astype("int16")
        array[0, :4], array[1, 0] = -3, 300
        path = make_raster("l.tif", array)
        message = refused(path, read=truth)
        assert "value -3 is no class id (0 to 2) (4 pixels); value 300 is no class id" in message
        keys = {"values": {0: "water", 1: "forest"}}
        assert "value 2 is not in values: (500 pixels)" in refused(path, **keys)

    def test_float_labels_must_be_whole(self, make_raster: RasterFactory) -> None:
        array = self.codes().astype("float32")
        array[0, 0] = np.nan
        assert labels(make_raster("l.tif", array)).classes[0, 0] == 255
        array[1, 1] = 0.5
        assert "value 0.5 is no whole number (1 pixels)" in refused(make_raster("l.tif", array))

    def test_colours(self, make_raster: RasterFactory) -> None:
        array = np.zeros((3, 40, 50), dtype="uint8")
        array[0, :10], array[1, 10:20] = 255, 255
        path = make_raster("l.tif", array)
        values: dict[Any, str] = {(255, 0, 0): "building", (0, 255, 0): "forest"}
        found = labels(path, values=values, ignore=((0, 0, 0),))
        assert (found.classes[:10] == 2).all()
        assert (found.classes[10:20] == 1).all()
        assert (found.classes[20:] == 255).all()
        assert "colour 0,0,0 is not in values: (1000 pixels)" in refused(path, values=values)
        assert "has 3 bands, needs one band; labels as colours need values:" in refused(path)

    def test_palette_colours(self, make_raster: RasterFactory) -> None:
        colors = {0: (9, 9, 9, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255)}
        path = make_raster("l.tif", self.codes(), colormap=colors)
        values: dict[Any, str] = {(255, 0, 0): "building", (0, 255, 0): "forest"}
        found = labels(path, values=values, ignore=((9, 9, 9),))
        np.testing.assert_array_equal(found.classes, np.array([255, 2, 1])[self.codes()])

    def test_another_grid_and_crs_is_brought_over_by_the_nearest_pixel(
        self, make_raster: RasterFactory
    ) -> None:
        place = Affine(20.0, 0.0, 500_100.0, 0.0, -20.0, 5_200_000.0)
        coarse = np.arange(200).reshape(10, 20).astype("uint8") % 3
        found = labels(make_raster("l.tif", coarse, transform=place))
        expected = np.full((40, 50), 255)
        expected[:20, 10:50] = np.kron(coarse, np.ones((2, 2), int))
        np.testing.assert_array_equal(found.classes, expected)
        degrees = Affine(0.0001, 0.0, 8.99, 0.0, -0.0001, 46.96)
        fine = np.full((400, 400), 2, dtype="uint8")
        other = labels(make_raster("d.tif", fine, crs="EPSG:4326", transform=degrees))
        assert set(np.unique(other.classes)) <= {2, 255}
        assert (other.classes == 2).mean() > 0.9

    @pytest.mark.parametrize("moved", [False, True])
    def test_a_mask_or_alpha_says_where_labels_are(
        self, make_raster: RasterFactory, moved: bool
    ) -> None:
        place = Affine(10.0, 0.0, 499_990.0, 0.0, -10.0, 5_200_000.0) if moved else TRANSFORM
        alpha = np.full((40, 50), 255, dtype="uint8")
        alpha[:, 30:] = 0
        tags = [ColorInterp.gray, ColorInterp.alpha]
        both = make_raster(
            "a.tif", np.stack([self.codes(), alpha]), colorinterp=tags, transform=place
        )
        masked = make_raster("m.tif", self.codes(), mask=alpha > 0, transform=place)
        edge = 29 if moved else 30
        for path in (both, masked):
            found = labels(path).classes
            assert (found[:, edge:] == 255).all()
            assert (found[:, :edge] != 255).all()

    def test_elsewhere_is_refused(self, make_raster: RasterFactory) -> None:
        place = Affine(10.0, 0.0, 600_000.0, 0.0, -10.0, 5_200_000.0)
        path = make_raster("l.tif", self.codes(), transform=place)
        assert "does not cover scene 'north' anywhere; check its CRS" in refused(path)

    def test_local_scenes_need_the_same_grid(self, make_raster: RasterFactory) -> None:
        bare = make_raster("bare.tif", self.codes(), crs=None, transform=None)
        np.testing.assert_array_equal(labels(bare, scene=LOCAL).classes, self.codes())
        small = make_raster("small.tif", self.codes()[1:], crs=None, transform=None)
        assert "its labels need the same shape and transform" in refused(small, scene=LOCAL)
        assert "has no CRS and not the scene's grid" in refused(bare)
        placed = make_raster("placed.tif", self.codes())
        assert "the scene is a pixel grid without a position" in refused(placed, scene=LOCAL)

    def test_engineering_coordinates_place_labels(self, make_raster: RasterFactory) -> None:
        site = Scene(
            scene_id="site", crs=CRS.from_wkt(LOCAL_WKT), transform=Affine(0.5, 0, 0, 0, -0.5, 20),
            height=40, width=50, bands=("gray",), local=True,
        )  # fmt: skip
        half = Affine(0.25, 0, 0, 0, -0.25, 20)
        fine = np.kron(self.codes(), np.ones((2, 2), "uint8"))
        path = make_raster("l.tif", fine, crs=LOCAL_WKT, transform=half)
        np.testing.assert_array_equal(labels(path, scene=site).classes, self.codes())

    @pytest.mark.parametrize("content", [None, b"", b"no raster"])
    def test_unreadable(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "l.tif"
        if content is not None:
            path.write_bytes(content)
        told = "no such file" if content is None else "cannot be read"
        assert told in refused(path)
        assert told in refused(path, read=truth)


@given(
    height=st.integers(1, 30), width=st.integers(1, 30), side=st.integers(1, 12),
    step=st.integers(1, 30), seed=st.integers(0, 99),
)  # fmt: skip
def test_grid_regions_are_cells_with_labels(
    height: int, width: int, side: int, step: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    classes = np.where(rng.random((height, width)) < 0.1, 1, 255).astype(np.uint8)
    numbers = cell_numbers(labelled_cells(classes, region_px=side))
    parts = [
        cell_regions(classes[top : top + step], numbers, top=top, region_px=side)
        for top in range(0, height, step)
    ]
    regions = np.concatenate(parts)
    expected = np.zeros((height, width), dtype=int)
    number = 0
    for row in range(0, height, side):
        for col in range(0, width, side):
            cell = classes[row : row + side, col : col + side] != 255
            if cell.any():
                number += 1
                expected[row : row + side, col : col + side][cell] = number
    np.testing.assert_array_equal(regions, expected)
    assert regions.dtype == np.int32


@pytest.mark.parametrize("step", [1, 3, 17, 40])
@pytest.mark.parametrize("overlap", ["unknown", "last"])
def test_rows_of_polygons_give_the_whole(make_gpkg: GpkgFactory, step: int, overlap: str) -> None:
    rng = np.random.default_rng(7)
    triangles = [cells(*rng.uniform(-5, 30, 2), *rng.uniform(8, 45, 2)) for _ in range(12)]
    names = [CLASSES[number % 3].name for number in range(len(triangles))]
    rows = [
        (Polygon(shape.exterior.coords[:3]), {"class": name})
        for shape, name in zip(triangles, names, strict=True)
    ]
    path = make_gpkg("l.gpkg", [*rows, (cells(60, 60, 70, 70), {"class": "water"})])
    _same_by_rows(path, step, overlap=overlap)


@pytest.mark.parametrize("step", [1, 7, 16, 40])
def test_rows_of_a_raster_give_the_whole(make_raster: RasterFactory, step: int) -> None:
    values = np.where(np.random.default_rng(1).random((90, 90)) < 0.2, 1, 255).astype(np.uint8)
    corner = Affine(7.0, 0.0, 500_003.0, 0.0, -7.0, 5_199_996.0)
    _same_by_rows(make_raster("l.tif", values, nodata=255, transform=corner), step)


def _same_by_rows(path: Path, step: int, **keys: Any) -> None:
    whole = labels(path, **keys)
    assert (whole.classes != 255).any()
    source = LabelSource(path=str(path), **keys)
    where = "scene 'north': labels"
    with label_rows(source, SCENE, CLASSES, region_px=8, where=where) as rows:
        parts = [rows.read(top, min(step, 40 - top)) for top in range(0, 40, step)]
        assert tuple(rows.issues()) == whole.issues
        assert rows.regions >= whole.regions.max()
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), whole.classes)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), whole.regions)


NLCD = ("Water", "Developed", "Barren", "Forest", "Shrubland", "Herbaceous", "Cultivated",
        "Wetlands")  # fmt: skip


@pytest.mark.real
def test_real_truth_on_another_grid_and_polygons_agree(real_data: Path) -> None:
    folder = real_data / "zion_landsat"
    with rasterio.open(folder / "zion_landsat8_20150818_b2345.tif") as image:
        scene = Scene(
            scene_id="zion", crs=image.crs, transform=image.transform, height=image.height,
            width=image.width, bands=("gray",),
        )  # fmt: skip
    classes = [ClassInfo(class_id=i, name=n, color="#000000") for i, n in enumerate(NLCD)]
    values: dict[Any, str] = dict(enumerate(NLCD, start=1))

    def codes(name: str) -> np.ndarray[Any, Any]:
        source = LabelSource(path=str(folder / name), values=values)
        return read_truth(source, scene, classes, where="scene 'zion': truth")

    on_grid = codes("zion_labels_8class.tif")
    np.testing.assert_array_equal(codes("native/nlcd.tif"), on_grid)
    source = LabelSource(path=str(folder / "zion_training_polygons.gpkg"))
    found = read_labels(source, scene, classes, region_px=32, where="scene 'zion': labels")
    labelled = found.classes != 255
    assert (int(labelled.sum()), int(found.regions.max())) == (10_260, 171)
    np.testing.assert_array_equal(found.classes[labelled], on_grid[labelled])


@pytest.mark.real
def test_real_shapefile(real_data: Path) -> None:
    """30 hand-drawn polygons burn the 718 pixels that their author's raster has."""
    folder = real_data / "landsat7_polygons"
    with rasterio.open(folder / "training_data_raster.tif") as raster:
        drawn = raster.read(1) > 0
        scene = Scene(
            scene_id="l7", crs=raster.crs, transform=raster.transform, height=250, width=250,
            bands=("gray",),
        )  # fmt: skip
    names = ("forest", "water", "herbaceous", "barren", "urban")
    classes = [ClassInfo(class_id=i, name=n, color="#000000") for i, n in enumerate(names)]
    source = LabelSource(path=str(folder / "training_data.shp"))
    found = read_labels(source, scene, classes, region_px=32, where="scene 'l7': labels")
    np.testing.assert_array_equal(found.classes != 255, drawn)
    assert found.regions.max() == 30


def test_every_refusal_is_a_data_error() -> None:
    assert issubclass(LabelError, GeohsalError)
    assert LabelError("x").exit_code == 3
