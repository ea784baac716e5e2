import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from geohsal.errors import DataError
from geohsal.geo.scene import Scene
from geohsal.io.cog import open_cog, write_cog

LOCAL = 'LOCAL_CS["Local pixel grid",UNIT["metre",1]]'
COLORS = {0: "#ff0000", 1: "#00ff00", 3: "#0000ff"}
NAMES = {0: "water", 1: "<a> & b", 3: "road"}


def scene(crs: str | None = "EPSG:32612", *, height: int = 1100, width: int = 700) -> Scene:
    return Scene(
        scene_id="north",
        crs=None if crs is None else CRS.from_user_input(crs),
        transform=Affine.identity() if crs is None else Affine(30, 0, 301_905, 0, -30, 4_154_085),
        height=height,
        width=width,
        bands=("red",),
        local=crs is None or crs == LOCAL,
    )


@pytest.mark.parametrize("crs", ["EPSG:32612", LOCAL, None])
def test_georeference_values_and_layout_are_kept(tmp_path, crs):
    path = tmp_path / "error.tif"
    target = scene(crs)
    values = np.random.default_rng(0).random(target.shape, dtype=np.float32)
    write_cog(
        path,
        values,
        scene=target,
        nodata=float("nan"),
        band_names=("error",),
        overview_resampling="average",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as found:
            np.testing.assert_array_equal(found.read(1), values)
            assert found.crs == target.crs
            assert found.transform == target.transform
            assert np.isnan(found.nodata)
            assert found.descriptions == ("error",)
            assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert found.block_shapes == [(512, 512)]
            assert found.overviews(1) == [2, 4]
            assert found.tags()["format_version"] == "1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["error.tif"]


def test_overviews_of_codes_hold_no_new_codes(tmp_path):
    path = tmp_path / "class.tif"
    codes = np.random.default_rng(1).choice([0, 4], size=(1100, 700)).astype(np.uint8)
    write_cog(path, codes, scene=scene(), nodata=255, band_names=("class",))
    with rasterio.open(path, overview_level=0) as found:
        assert set(np.unique(found.read(1))) == {0, 4}


def test_one_band_carries_its_palette_and_names(tmp_path):
    path = tmp_path / "state.tif"
    codes = np.zeros((1100, 700), dtype=np.uint8)
    arguments = {"scene": scene(), "nodata": 0, "band_names": ("state",)}
    write_cog(path, codes, colors=COLORS, categories=NAMES, **arguments)
    with rasterio.open(path) as found:
        assert found.colorinterp == (ColorInterp.palette,)
        assert len(found.colormap(1)) == 4, "a legend of 256 entries helps nobody"
        assert found.colormap(1)[3] == (0, 0, 255, 255)
    sidecar = tmp_path / "state.tif.aux.xml"
    assert sidecar.read_text("utf-8").count("<Category>") == 4
    assert "&lt;a&gt; &amp; b" in sidecar.read_text("utf-8")
    sidecar.unlink()
    with rasterio.open(path) as found:
        assert found.colormap(1)[3] == (0, 0, 255, 255), "colours travel inside the file too"


def test_a_second_band_is_not_taken_for_transparency(tmp_path):
    path = tmp_path / "class.tif"
    codes = np.stack([np.zeros((1100, 700)), np.full((1100, 700), 3)]).astype(np.uint8)
    write_cog(
        path,
        codes,
        scene=scene(),
        nodata=255,
        band_names=("refined", "teacher"),
        colors=COLORS,
        categories=NAMES,
    )
    with rasterio.open(path) as found:
        assert found.colorinterp == (ColorInterp.palette, ColorInterp.undefined)
        assert found.colormap(1)[1] == (0, 255, 0, 255)
        assert found.read_masks(1).all()
        np.testing.assert_array_equal(found.read(), codes)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "class.tif",
        "class.tif.aux.xml",
    ]


def test_three_bands_are_a_picture(tmp_path):
    path = tmp_path / "view.tif"
    picture = np.zeros((3, 20, 30), dtype=np.uint8)
    target = scene(height=20, width=30)
    write_cog(path, picture, scene=target, nodata=None, band_names=("red", "green", "blue"))
    with rasterio.open(path) as found:
        assert found.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert found.nodata is None


def test_names_of_an_older_file_do_not_stay_behind(tmp_path):
    path = tmp_path / "state.tif"
    arguments = {"scene": scene(height=8, width=8), "nodata": None, "band_names": ("state",)}
    codes = np.zeros((8, 8), dtype=np.uint8)
    write_cog(path, codes, categories=NAMES, **arguments)
    write_cog(path, codes, **arguments)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.tif"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "error.tif"
    target = scene(height=8, width=8)
    write_cog(path, np.ones((8, 8), dtype=np.float32), scene=target, nodata=None, band_names=("e",))
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        _fail_inside(path, target)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["error.tif"]


def _fail_inside(path, target):
    with open_cog(path, scene=target, dtype=np.float32, nodata=None, band_names=("e",)) as out:
        out.write(np.zeros((1, 8, 8), dtype=np.float32))
        raise ZeroDivisionError


@pytest.mark.parametrize("resampling", ["nearest", "average"])
def test_the_bytes_do_not_depend_on_threads(tmp_path, resampling):
    array = np.random.default_rng(3).normal(size=(2, 1100, 700)).astype(np.float32)
    found = set()
    for threads in ("1", "4", "3"):
        path = tmp_path / f"{threads}.tif"
        with rasterio.Env(GDAL_NUM_THREADS=threads):
            write_cog(
                path, array, scene=scene(), nodata=None, band_names=["a", "b"],
                overview_resampling=resampling,
            )  # fmt: skip
        found.add(path.read_bytes())
    assert len(found) == 1


def test_windows_can_be_written_one_by_one(tmp_path):
    path = tmp_path / "class.tif"
    target = scene(height=600, width=600)
    with open_cog(path, scene=target, dtype=np.uint8, nodata=255, band_names=("class",)) as out:
        for row in range(0, 600, 200):
            window = rasterio.windows.Window(0, row, 600, 200)
            out.write(np.full((1, 200, 600), row // 200, dtype=np.uint8), window=window)
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(1)[:, 0], np.repeat([0, 1, 2], 200))


def test_requests_that_make_no_sense_and_places_that_cannot_be_written(tmp_path):
    codes = np.zeros((8, 8), dtype=np.int32)
    target = scene(height=8, width=8)
    with pytest.raises(ValueError, match="a colour table needs uint8, not int32"):
        write_cog(
            tmp_path / "x.tif", codes, scene=target, nodata=0, band_names=("c",), colors=COLORS
        )
    (tmp_path / "taken.tif").mkdir()
    with pytest.raises(DataError, match=r"taken\.tif: cannot be written"):
        write_cog(tmp_path / "taken.tif", codes, scene=target, nodata=0, band_names=("c",))
