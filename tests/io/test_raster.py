"""Scene readers: bands, validity, windows, position, and files that are not what they seem."""

import hashlib
import warnings
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
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window
from shapely.affinity import affine_transform
from shapely.geometry import Point, Polygon, box

from geohsal.errors import GeoreferenceError, LabelError, RasterError
from geohsal.io.manifest import SceneSource
from geohsal.io.raster import SceneReader, open_scene

RasterFactory = Callable[..., Path]
GpkgFactory = Callable[..., Path]

RGB = ("red", "green", "blue")
TRANSFORM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
SHAPE = (40, 50)
LOCAL_WKT = 'LOCAL_CS["Site grid",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
MARS_WKT = (
    'PROJCS["Mars",GEOGCS["GCS_Mars",DATUM["D_Mars",SPHEROID["S_Mars",3396190,0]],'
    'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Equirectangular"],PARAMETER["central_meridian",0],UNIT["metre",1]]'
)


def pixels(count: int = 3, *, dtype: str = "uint16") -> np.ndarray[Any, Any]:
    """Values from 1 that differ everywhere."""
    stack = np.arange(1, count * SHAPE[0] * SHAPE[1] + 1).reshape(count, *SHAPE)
    return stack.astype(dtype)


def opened(image: Path, names: tuple[str, ...] = RGB, **keys: Any) -> SceneReader:
    limit = keys.pop("max_pixels", 10_000)
    keys = {key: str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    source = SceneSource(scene_id="north", image=str(image), **keys)
    return open_scene(source, names, max_pixels=limit)


def extent() -> Window:
    return Window(0, 0, SHAPE[1], SHAPE[0])


def test_reads_bands_in_the_manifests_order(make_raster: RasterFactory) -> None:
    image = make_raster("a.tif", pixels())
    with opened(image) as reader:
        assert (reader.scene.shape, reader.scene.bands) == (SHAPE, RGB)
        assert reader.scene.transform == TRANSFORM
        assert reader.scene.crs.to_epsg() == 32632
        assert not reader.scene.local
        whole, valid = reader.read_with_valid(extent())
    assert whole.dtype == np.float32
    assert valid.all()
    np.testing.assert_array_equal(whole, pixels())


def source_bands(
    image: Path, names: tuple[str, ...], numbers: dict[str, int] | None
) -> list[float]:
    source = SceneSource(scene_id="north", image=str(image), bands=numbers)
    with open_scene(source, names, max_pixels=10_000) as reader:
        return [float(value) for value in reader.read(Window(0, 0, 1, 1))[:, 0, 0]]


def test_bands_by_mapping_description_or_order(make_raster: RasterFactory) -> None:
    values = np.arange(1, 5, dtype="uint16")[:, None, None] * np.ones((4, 4, 4), "uint16")
    plain = make_raster("plain.tif", values)
    named = make_raster("named.tif", values, descriptions=["NIR", "Red", "green", "blue"])
    numbered = make_raster("numbered.tif", values[:3], descriptions=["Band 1", "Band 2", "Band 3"])
    assert source_bands(plain, RGB, {"red": 3, "green": 2, "blue": 4}) == [3, 2, 4]
    assert source_bands(named, RGB, None) == [2, 3, 4]
    assert source_bands(plain, (*RGB, "nir"), None) == [1, 2, 3, 4]
    assert source_bands(numbered, RGB, None) == [1, 2, 3]


@pytest.mark.parametrize(
    ("count", "keys", "told"),
    [
        (4, {}, "the manifest wants red, green, blue; the file has 1 without description"),
        (3, {"descriptions": ["B2_blue", "B3_green", "B4_red"]}, "1 'B2_blue', 2 'B3_green'"),
        (3, {"descriptions": ["green", "green", "red"]}, "1 'green', 2 'green'"),
        (
            3,
            {"colorinterp": [ColorInterp.blue, ColorInterp.green, ColorInterp.red]},
            r"1 without description \(blue\)",
        ),
    ],
)
def test_unclear_bands_are_refused(
    make_raster: RasterFactory, count: int, keys: dict[str, Any], told: str
) -> None:
    image = make_raster("a.tif", pixels(count), **keys)
    with pytest.raises(RasterError, match=told):
        opened(image)


def test_band_number_beyond_the_file(make_raster: RasterFactory) -> None:
    with pytest.raises(RasterError, match="blue is number 9, but the file has 3 bands"):
        source_bands(make_raster("a.tif", pixels()), RGB, {"red": 1, "green": 2, "blue": 9})


def test_colour_tags_of_a_false_colour_image_do_not_matter(make_raster: RasterFactory) -> None:
    """GDAL tags every 8-bit file of three bands red, green, blue."""
    image = make_raster("irrg.tif", pixels(dtype="uint8"), photometric="RGB")
    with opened(image, ("nir", "far", "swir")) as reader:
        assert reader.valid(extent()).all()


@pytest.mark.parametrize("row", [-7, 0, 13, 39, 60])
@pytest.mark.parametrize("col", [-70, -3, 0, 45])
def test_windows_may_reach_outside(make_raster: RasterFactory, row: int, col: int) -> None:
    stack = pixels()
    with opened(make_raster("a.tif", stack)) as reader:
        window = Window(col, row, 12, 9)
        part, valid = reader.read_with_valid(window)
        np.testing.assert_array_equal(reader.valid(window), valid)
    padded = np.pad(stack, ((0, 0), (100, 100), (100, 100)))
    expected = padded[:, 100 + row : 109 + row, 100 + col : 112 + col]
    np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(valid, expected[0] > 0)


@pytest.mark.parametrize(
    ("dtype", "nodata", "override"),
    [("uint16", 0, None), ("int16", -9999, None), ("float32", -3.4028234663852886e38, None),
     ("uint16", None, 7), ("float64", np.nan, None), ("uint16", 5, 7)],
)  # fmt: skip
def test_nodata_in_any_band_is_invalid(
    make_raster: RasterFactory, dtype: str, nodata: float | None, override: float | None
) -> None:
    stack = pixels(dtype=dtype)
    stack[1, 2, 3] = stack[0, 4, 4] = nodata if override is None else override
    expected = np.ones(SHAPE, dtype=bool)
    expected[2, 3] = expected[4, 4] = False
    if override is not None:
        expected &= (stack != override).all(axis=0)
    with opened(make_raster("a.tif", stack, nodata=nodata), nodata=override) as reader:
        part, valid = reader.read_with_valid(extent())
        np.testing.assert_array_equal(reader.valid(extent()), valid)
    np.testing.assert_array_equal(valid, expected)
    assert not part[:, ~valid].any()
    np.testing.assert_array_equal(part[:, valid], stack[:, valid].astype(np.float32))


def test_nan_as_nodata_switches_an_integer_nodata_off(make_raster: RasterFactory) -> None:
    with opened(make_raster("a.tif", pixels(), nodata=5), nodata=float("nan")) as reader:
        assert reader.valid(extent()).all()


def test_values_that_float32_cannot_hold_are_invalid(make_raster: RasterFactory) -> None:
    stack = pixels(dtype="float64")
    stack[0, 0, 0], stack[1, 0, 1], stack[2, 0, 2] = np.nan, np.inf, -1e300
    with opened(make_raster("a.tif", stack)) as reader:
        part, valid = reader.read_with_valid(extent())
    assert not valid[0, :3].any()
    assert valid.sum() == valid.size - 3
    assert np.isfinite(part).all()


def test_numbers_are_read_as_stored(make_raster: RasterFactory) -> None:
    """Neither scale and offset nor a palette's colours; nodata is a stored number, too."""
    scaled = make_raster("scaled.tif", pixels(dtype="int16"), nodata=9)
    with rasterio.open(scaled, "r+") as target:
        target.scales, target.offsets = (2e-5,) * 3, (-0.2,) * 3
    with opened(scaled) as reader:
        part, valid = reader.read_with_valid(extent())
    np.testing.assert_array_equal(valid, (pixels(dtype="int16") != 9).all(axis=0))
    np.testing.assert_array_equal(part[:, valid], pixels()[:, valid])
    colors = {index: (255 - index, 0, index, 255) for index in range(256)}
    codes = pixels(1, dtype="uint8")
    with opened(make_raster("palette.tif", codes, colormap=colors), ("code",)) as reader:
        assert reader.valid(extent()).all()
        np.testing.assert_array_equal(reader.read(extent()), codes)


def test_overviews_are_never_read(make_raster: RasterFactory) -> None:
    image = make_raster("a.tif", pixels())
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(image, "r+") as target:
        target.build_overviews([2, 4])
    make_raster("other.tif", np.zeros_like(pixels())[:, ::2, ::2]).rename(f"{image}.ovr")
    with opened(image) as reader:
        np.testing.assert_array_equal(reader.read(extent()), pixels())
        corner = Window(3, 5, 20, 11)
        np.testing.assert_array_equal(reader.read(corner), pixels()[:, 5:16, 3:23])


def alpha_image(make_raster: RasterFactory) -> Path:
    stack = pixels(4, dtype="uint8")
    stack[3] = 255
    stack[3, :10] = 0
    tags = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return make_raster("rgba.tif", stack, colorinterp=tags)


def test_an_alpha_band_masks(make_raster: RasterFactory) -> None:
    with opened(alpha_image(make_raster)) as reader:
        part, valid = reader.read_with_valid(extent())
        np.testing.assert_array_equal(reader.valid(extent()), valid)
    assert not valid[:10].any()
    assert valid[10:].all()
    assert not part[:, :10].any()


def test_an_alpha_band_that_the_manifest_uses_is_a_band(make_raster: RasterFactory) -> None:
    """GDAL calls the fourth band of any 8-bit file alpha; here it is near infrared."""
    with opened(alpha_image(make_raster), (*RGB, "nir")) as reader:
        part, valid = reader.read_with_valid(extent())
        assert reader.valid(extent()).all()
    assert valid.all()
    assert part[3, 0, 0] == 0
    assert part[3, 20, 0] == 255


@pytest.mark.parametrize("internal", [True, False])
def test_masks_inside_and_beside_the_file(make_raster: RasterFactory, internal: bool) -> None:
    mask = np.ones(SHAPE, dtype=bool)
    mask[5:9, 7:11] = False
    image = make_raster("a.tif", pixels(), mask=mask if internal else None)
    if not internal:
        with rasterio.open(image, "r+") as out:
            out.write_mask(mask)
    with opened(image) as reader:
        np.testing.assert_array_equal(reader.valid(extent()), mask)
        window = Window(5, 3, 10, 10)
        np.testing.assert_array_equal(reader.read_with_valid(window)[1], mask[3:13, 5:15])


def test_mask_raster_of_the_manifest(make_raster: RasterFactory) -> None:
    image = make_raster("a.tif", pixels())
    mask = np.ones(SHAPE, dtype="uint8")
    mask[3] = 0
    with opened(image, mask=make_raster("mask.tif", mask)) as reader:
        np.testing.assert_array_equal(reader.valid(extent()), mask == 1)
    moved = make_raster(
        "moved.tif", mask, transform=Affine(10.0, 0.0, 500_010.0, 0.0, -10.0, 5_200_000.0)
    )
    with pytest.raises(RasterError, match=r"moved\.tif: its grid \(40 x 50\) is not the scene's"):
        opened(image, mask=moved)


class TestAreaOfInterest:
    @given(
        corners=st.lists(st.tuples(st.floats(-5, 55), st.floats(-5, 45)), min_size=3, max_size=3),
        south_up=st.booleans(),
    )
    def test_counts_pixels_by_their_centre(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        corners: list[tuple[float, float]],
        south_up: bool,
    ) -> None:
        """Against shapely's own answer, on a rotated grid; pixels on an edge may go either way."""
        triangle = Polygon(corners)
        if triangle.area < 4 or triangle.intersection(box(0, 0, 50, 40)).area < 1e-3:
            return
        place = Affine(8.0, 3.0, 500_000.0, 2.0, 9.0 if south_up else -9.0, 5_200_000.0)
        folder = tmp_path_factory.mktemp("aoi")
        image, aoi = folder / "a.tif", folder / "aoi.gpkg"
        profile = {"count": 1, "height": 40, "width": 50, "dtype": "uint8", "crs": "EPSG:32632"}
        with rasterio.open(image, "w", driver="GTiff", transform=place, **profile) as out:
            out.write(np.ones((1, *SHAPE), dtype="uint8"))
        moved = affine_transform(triangle, (place.a, place.b, place.d, place.e, place.c, place.f))
        geopandas.GeoDataFrame(geometry=[moved], crs="EPSG:32632").to_file(aoi)
        with opened(image, ("gray",), aoi=aoi) as reader:
            valid = reader.valid(Window(-2, -2, 60, 50))[2:42, 2:52]
        for row, col in np.ndindex(*SHAPE):
            centre = Point(col + 0.5, row + 0.5)
            if triangle.exterior.distance(centre) > 1e-3:
                assert valid[row, col] == triangle.contains(centre)

    def test_is_reprojected(self, make_raster: RasterFactory, make_gpkg: GpkgFactory) -> None:
        half = geopandas.GeoSeries([box(500_000, 5_199_000, 500_250, 5_200_100)], crs="EPSG:32632")
        aoi = make_gpkg("aoi.gpkg", [(half.to_crs(4326)[0], {})], crs="EPSG:4326")
        with opened(make_raster("a.tif", pixels()), aoi=aoi) as reader:
            valid = reader.valid(extent())
        assert valid[:, :24].all()
        assert not valid[:, 26:].any()

    def test_elsewhere_is_refused(self, make_raster: RasterFactory, make_gpkg: GpkgFactory) -> None:
        image = make_raster("a.tif", pixels())
        aoi = make_gpkg("aoi.gpkg", [(box(0, 0, 10, 10), {})])
        with pytest.raises(GeoreferenceError, match=r"aoi\.gpkg: does not touch the scene"):
            opened(image, aoi=aoi)

    def test_needs_one_layer_of_polygons(
        self, make_raster: RasterFactory, make_gpkg: GpkgFactory
    ) -> None:
        image = make_raster("a.tif", pixels())
        make_gpkg("aoi.gpkg", [(box(0, 0, 1, 1), {})], layer="a")
        two = make_gpkg("aoi.gpkg", [(box(0, 0, 1, 1), {})], layer="b")
        with pytest.raises(LabelError, match="must have one layer of polygons, found a, b"):
            opened(image, aoi=two)
        points = make_gpkg("points.gpkg", [(Point(0, 0), {})])
        with pytest.raises(LabelError, match="fid 1: a Point, not a polygon; repair it"):
            opened(image, aoi=points)


class TestPosition:
    def test_no_crs_needs_the_manifests(self, make_raster: RasterFactory) -> None:
        image = make_raster("a.tif", pixels(), crs=None)
        with pytest.raises(GeoreferenceError, match=r'has no CRS; add crs: "EPSG:\.\.\."'):
            opened(image)
        with opened(image, crs="EPSG:32632") as reader:
            assert reader.scene.crs.to_epsg() == 32632

    def test_crs_key_is_only_for_files_without(self, make_raster: RasterFactory) -> None:
        image = make_raster("a.tif", pixels())
        with pytest.raises(GeoreferenceError, match="crs: says EPSG:4326, but the file says"):
            opened(image, crs="EPSG:4326")
        with pytest.raises(GeoreferenceError, match="crs: local, but the file lies in EPSG:32632"):
            opened(image, crs="local")
        opened(image, crs="EPSG:32632").close()

    def test_pixel_grids_are_local(self, make_raster: RasterFactory) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotGeoreferencedWarning)
            bare = make_raster("bare.tif", pixels(), crs=None, transform=None)
            with opened(bare, crs="local") as reader:
                assert reader.scene.local
                assert reader.scene.crs is None
            with pytest.raises(GeoreferenceError, match="has neither a CRS nor a transform"):
                opened(bare)

    @pytest.mark.parametrize("crs", [LOCAL_WKT, MARS_WKT])
    def test_crs_without_a_place_on_earth_is_local(
        self, make_raster: RasterFactory, crs: str
    ) -> None:
        with opened(make_raster("a.tif", pixels(), crs=crs)) as reader:
            assert reader.scene.local

    def test_control_points_need_a_warp(self, make_raster: RasterFactory, tmp_path: Path) -> None:
        image = make_raster("a.tif", pixels(), crs=None, transform=None)
        points = [GroundControlPoint(r, c, 5e5 + c, 5e6 - r) for r, c in [(0, 0), (0, 9), (9, 0)]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(image, "r+") as out:
                out.gcps = (points, rasterio.crs.CRS.from_epsg(32632))
        with pytest.raises(GeoreferenceError, match=r"only control points .* gdalwarp"):
            opened(image)

    def test_crs_without_transform_is_refused(self, make_raster: RasterFactory) -> None:
        image = make_raster("a.tif", pixels(), transform=None)
        with pytest.raises(GeoreferenceError, match="has a CRS but no transform"):
            opened(image)
        with opened(image, crs="local") as reader:
            assert reader.scene.local


class TestRefusals:
    def test_size_is_guarded_first(self, tmp_path: Path) -> None:
        image = tmp_path / "huge.tif"
        shape = {"count": 1, "height": 200_000, "width": 200_000, "dtype": "uint8"}
        place = {"transform": TRANSFORM, "crs": "EPSG:32632"}
        layout = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True}
        rasterio.open(image, "w", driver="GTiff", **shape, **place, **layout).close()
        with pytest.raises(RasterError, match=r"200000 x 200000 pixels .* tile\.max_pixels"):
            opened(image, ("gray",), max_pixels=2_000_000_000)

    @pytest.mark.parametrize("content", [b"", b"II*\0", b"<html>404</html>"])
    def test_no_raster(self, tmp_path: Path, content: bytes) -> None:
        image = tmp_path / "a.tif"
        image.write_bytes(content)
        with pytest.raises(
            RasterError, match=r"scene 'north': .*a\.tif: cannot be opened"
        ) as caught:
            opened(image)
        assert "\n" not in str(caught.value)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RasterError, match=r"cannot be opened \(.*No such file"):
            opened(tmp_path / "a.tif")

    def test_damaged_pixels(self, make_raster: RasterFactory) -> None:
        image = make_raster("a.tif", pixels(), compress="deflate")
        damaged = bytearray(image.read_bytes())
        with rasterio.open(image) as dataset:
            offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
        damaged[offset : offset + 60] = b"\xff" * 60
        image.write_bytes(damaged)
        with (
            opened(image) as reader,
            pytest.raises(
                RasterError, match=r"cannot be read \(.*\); the file is damaged"
            ) as caught,
        ):
            reader.read(extent())
        assert "\n" not in str(caught.value)

    def test_complex_numbers(self, make_raster: RasterFactory) -> None:
        with pytest.raises(RasterError, match="holds complex numbers"):
            opened(make_raster("a.tif", pixels(dtype="complex64")))

    def test_another_sha256(self, make_raster: RasterFactory) -> None:
        image = make_raster("a.tif", pixels())
        opened(image, sha256=hashlib.sha256(image.read_bytes()).hexdigest()).close()
        with pytest.raises(RasterError, match=r"its sha256 is .*, the manifest says 000000000000"):
            opened(image, sha256="0" * 64)


def test_fingerprint_follows_content_not_place(
    make_raster: RasterFactory, make_gpkg: GpkgFactory
) -> None:
    def fingerprint(image: Path, **keys: Any) -> str:
        with opened(image, **keys) as reader:
            return reader.fingerprint()

    first = fingerprint(make_raster("a.tif", pixels()))
    assert fingerprint(make_raster("b/copy.tif", pixels())) == first
    assert fingerprint(make_raster("a.tif", pixels()[::-1].copy())) != first
    image = make_raster("a.tif", pixels())
    assert fingerprint(image, nodata=7) != first
    aoi = make_gpkg("aoi.gpkg", [(box(500_000, 5_199_000, 500_250, 5_200_100), {})])
    assert fingerprint(image, aoi=aoi) != first


def test_many_readers_leave_no_handle_open(make_raster: RasterFactory) -> None:
    image = make_raster("a.tif", pixels())
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("no /proc here")
    before = len(list(handles.iterdir()))
    for _ in range(200):
        with opened(image) as reader:
            reader.read(Window(0, 0, 5, 5))
        with pytest.raises(RasterError):
            opened(image, ("a", "b"))
    assert len(list(handles.iterdir())) <= before + 1
