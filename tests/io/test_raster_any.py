"""Any transform, type, nodata value and window: pixels and validity are what rasterio reads."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geohsal.errors import GeoreferenceError, RasterError
from geohsal.io.cog import write_cog
from geohsal.io.manifest import SceneSource
from geohsal.io.raster import SceneReader, open_scene

DTYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64"),
)
CRS = ("EPSG:32632", "EPSG:4326", "EPSG:3031", "EPSG:2264", "EPSG:32632+5773")

sizes = st.floats(1e-6, 1e6) | st.sampled_from([1e-5, 1.0, 10.0, 100_000.0])
signs = st.sampled_from([-1.0, 1.0])
turns = st.just(0.0) | st.floats(-180.0, 180.0)
shears = st.just(0.0) | st.floats(-60.0, 60.0)
offsets = st.floats(-1e7, 1e7, allow_subnormal=False)


@st.composite
def transforms(draw: st.DrawFn) -> Affine:
    """Tiny and huge, oblong, mirrored, south-up, rotated and sheared pixels."""
    scale = np.diag([draw(signs) * draw(sizes), draw(signs) * draw(sizes)])
    turn, shear = np.radians(draw(turns)), np.tan(np.radians(draw(shears)))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    (a, b), (d, e) = (rotation @ np.array([[1.0, shear], [0.0, 1.0]]) @ scale).tolist()
    return Affine(a, b, draw(offsets), d, e, draw(offsets))


@st.composite
def stacks(draw: st.DrawFn) -> tuple[NDArray[Any], float | None]:
    """A few bands of few different values, and a nodata value: of them, of the type, NaN, none."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind == "f":
        known = [0.0, -9999.0, np.nan, np.inf, np.finfo(dtype).min, np.finfo(dtype).max, 0.1]
    else:
        limits = np.iinfo(dtype)
        known = [0, 1, 100, limits.min if abs(limits.min) < 2**53 else 0, limits.max % 2**53]
    stack = np.array(known, dtype=dtype)[rng.integers(0, len(known), shape)]
    return stack, draw(st.none() | st.sampled_from([float(value) for value in known]))


windows = st.builds(
    Window, st.integers(-9, 15), st.integers(-9, 15), st.integers(1, 16), st.integers(1, 16)
)


def write(
    path: Path, stack: NDArray[Any], *, nodata: float | None, crs: str, transform: Affine
) -> Path:
    count, height, width = stack.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width,
            dtype=stack.dtype, nodata=nodata, crs=crs, transform=transform,
        ) as target:  # fmt: skip
            target.write(stack)
    return path


def opened(path: Path, count: int, **keys: Any) -> SceneReader:
    names = tuple(f"b{number}" for number in range(count))
    source = SceneSource(scene_id="any", image=str(path), **keys)
    return open_scene(source, names, max_pixels=10_000)


def expected(path: Path, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rasterio's masked read; outside, and what float32 cannot hold, is invalid."""
    with rasterio.open(path) as source:
        whole = source.read(masked=True)
    with np.errstate(over="ignore", invalid="ignore"):
        values = whole.data.astype(np.float32)
    good = ~np.ma.getmaskarray(whole).any(axis=0) & np.isfinite(values).all(axis=0)
    edge = ((40, 40), (40, 40))
    values = np.pad(np.where(good, values, np.float32(0)), ((0, 0), *edge))
    row, col = 40 + window.row_off, 40 + window.col_off
    place = slice(row, row + window.height), slice(col, col + window.width)
    return values[(slice(None), *place)], np.pad(good, edge)[place]


@given(made=stacks(), window=windows)
def test_windows_are_what_rasterio_reads(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[NDArray[Any], float | None],
    window: Window,
) -> None:
    stack, nodata = made
    path = tmp_path_factory.mktemp("any") / "a.tif"
    write(path, stack, nodata=nodata, crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -10, 5e6))
    with opened(path, len(stack)) as reader:
        pixels, valid = reader.read_with_valid(window)
        np.testing.assert_array_equal(reader.valid(window), valid)
        whole = reader.valid(reader.scene.extent)
    values, good = expected(path, window)
    np.testing.assert_array_equal(valid, good)
    np.testing.assert_array_equal(pixels, values)
    assert whole.sum() == expected(path, Window(0, 0, *stack.shape[:0:-1]))[1].sum()


@given(transform=transforms(), crs=st.sampled_from(CRS))
def test_a_scene_and_its_cog_lie_where_the_file_lies(
    tmp_path_factory: pytest.TempPathFactory, transform: Affine, crs: str
) -> None:
    assume(not transform.is_identity and transform.determinant != 0.0)
    folder = tmp_path_factory.mktemp("any")
    stack = np.ones((1, 3, 5), np.uint8)
    path = write(folder / "a.tif", stack, nodata=None, crs=crs, transform=transform)
    with opened(path, 1) as reader:
        scene = reader.scene
    write_cog(folder / "cog.tif", stack, scene=scene, nodata=None, band_names=["b0"])
    with rasterio.open(path) as source, rasterio.open(folder / "cog.tif") as target:
        assert scene.transform == source.transform
        assert (scene.crs, scene.shape) == (source.crs, source.shape)
        assert target.transform == source.transform
        assert (target.crs, target.shape) == (source.crs, source.shape)
        np.testing.assert_allclose([*source.transform], [*transform], rtol=1e-12, atol=1e-9)


@given(
    a=st.sampled_from([0.0, 1e-200, np.nan, np.inf, 1e200]),
    e=st.sampled_from([0.0, 1e-200, np.nan, np.inf, 1e200]),
)
def test_pixels_without_a_finite_area_are_refused(
    tmp_path_factory: pytest.TempPathFactory, a: float, e: float
) -> None:
    assume(a * e in (0.0, np.inf) or np.isnan(a * e))
    path = tmp_path_factory.mktemp("any") / "a.vrt"
    place = f"5e5, {a}, 0, 5e6, 0, {e}"
    path.write_text(
        '<VRTDataset rasterXSize="5" rasterYSize="3"><SRS>EPSG:32632</SRS>'
        f'<GeoTransform>{place}</GeoTransform><VRTRasterBand dataType="Byte" band="1"/>'
        "</VRTDataset>",
        "utf-8",
    )
    with pytest.raises(GeoreferenceError, match="its transform gives pixels no area"):
        opened(path, 1)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    stack = np.ones((1, 3, 5), dtype)
    path = tmp_path / "a.tif"
    write(path, stack, nodata=None, crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -10, 5e6))
    with pytest.raises(RasterError, match=r"a\.tif: holds complex numbers; write amplitude"):
        opened(path, 1)
