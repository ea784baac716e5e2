"""Rasters of every kind, generated: `tile` and `predict` place them right or say what is wrong."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from raster_checks import check_maps, check_tiled, valid_of
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from tiny_model import model_of, train_one_band, write_manifest
from tiny_run import geohsal

from geohsal.config import TileConfig
from geohsal.geo.areas import pixel_area_m2
from geohsal.geo.scene import ClassInfo
from geohsal.io.manifest import Blocks, SceneSource
from geohsal.io.run import open_run
from geohsal.io.run_tables import read_summary
from geohsal.workflows.progress import Silent
from geohsal.workflows.scan import SceneTask, scan_scene

RGB = ("red", "green", "blue")
SHAPE = (20, 24)
PLACE = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
UTM = "EPSG:32632"
LOCAL_WKT = 'LOCAL_CS["Site grid",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
MARS_WKT = (
    'PROJCS["Mars",GEOGCS["GCS_Mars",DATUM["D_Mars",SPHEROID["S_Mars",3396190,0]],'
    'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Equirectangular"],PARAMETER["central_meridian",0],UNIT["metre",1]]'
)
OWN_TM = "+proj=tmerc +lat_0=46 +lon_0=11.3 +k=1 +x_0=1000 +y_0=2000 +ellps=bessel +units=m"
SEEN_FROM_ORBIT = "+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80 +units=m"


def pixels(count: int = 3, *, dtype: str = "uint16") -> NDArray[Any]:
    """Values from 1 to 100 that differ between neighbours."""
    stack = 1 + np.arange(count * SHAPE[0] * SHAPE[1]).reshape(count, *SHAPE) % 100
    return stack.astype(dtype)


def write(path: Path, stack: NDArray[Any], **profile: Any) -> None:
    count, height, width = stack.shape
    shape = {"count": count, "height": height, "width": width, "dtype": stack.dtype}
    own = {"crs": UTM, "transform": PLACE} | profile
    own = {key: value for key, value in own.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **({"driver": "GTiff"} | shape | own)) as target:
            target.write(stack)


def plain(dtype: str = "uint16", **profile: Any) -> Callable[[Path], None]:
    return lambda path: write(path, pixels(dtype=dtype), **profile)


def with_values(dtype: str, values: Mapping[float, int], **profile: Any) -> Callable[[Path], None]:
    """Some values, each in a row of the first band."""

    def make(path: Path) -> None:
        stack = pixels(dtype=dtype)
        for value, row in values.items():
            stack[0, row] = value
        write(path, stack, **profile)

    return make


def sized(rows: int, columns: int) -> Callable[[Path], None]:
    return lambda path: write(path, pixels()[:, :rows, :columns])


def with_alpha(path: Path) -> None:
    """GDAL itself tags the fourth 8-bit band alpha."""
    stack = pixels(4, dtype="uint8")
    stack[3] = 255
    stack[3, :5] = 0
    write(path, stack)
    with rasterio.open(path) as source:
        assert source.colorinterp[3] is ColorInterp.alpha


def masked(*, inside: bool) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        mask = np.ones(SHAPE, dtype=bool)
        mask[2:6, 3:9] = False
        write(path, pixels())
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as target:
            target.write_mask(mask)
        assert path.with_name(f"{path.name}.msk").exists() is not inside

    return make


def with_side_overviews(path: Path) -> None:
    write(path, pixels())
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as target:
        target.build_overviews([2, 4])
    assert path.with_name(f"{path.name}.ovr").exists()


def scaled(path: Path) -> None:
    write(path, pixels(dtype="int16"), nodata=7)
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = (2e-5,) * 3, (-0.2,) * 3


def point_pixels(path: Path) -> None:
    write(path, pixels())
    with rasterio.open(path, "r+") as target:
        target.update_tags(AREA_OR_POINT="Point")


def mixed_types(path: Path) -> None:
    """A VRT of three files: bytes, negative integers with nodata, floats with NaN."""
    stacks = pixels(1, dtype="uint8"), -pixels(1, dtype="int16"), pixels(1, dtype="float32")
    stacks[2][0, 3] = np.nan
    bands = []
    for number, (stack, kind) in enumerate(zip(stacks, ("Byte", "Int16", "Float32"), strict=True)):
        part = path.with_name(f"{path.stem}_{number}.tif")
        write(part, stack)
        nodata = "<NoDataValue>-9</NoDataValue>" if number == 1 else ""
        bands.append(
            f'<VRTRasterBand dataType="{kind}" band="{number + 1}">{nodata}<SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{part.name}</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    place = ", ".join(str(value) for value in PLACE.to_gdal())
    path.write_text(
        f'<VRTDataset rasterXSize="{SHAPE[1]}" rasterYSize="{SHAPE[0]}"><SRS>{UTM}</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{''.join(bands)}</VRTDataset>",
        "utf-8",
    )


WORKING: dict[str, Callable[[Path], None]] = {
    "rotated": plain(transform=PLACE * Affine.rotation(30.0)),
    "sheared": plain(transform=Affine(30.0, 4.0, 5e5, 3.0, -30.0, 5.2e6)),
    "south_up": plain(transform=Affine(10.0, 0.0, 5e5, 0.0, 10.0, 5.2e6)),
    "mirrored": plain(transform=Affine(-10.0, 0.0, 5e5, 0.0, -10.0, 5.2e6)),
    "oblong_pixels": plain(transform=Affine(30.0, 0.0, 5e5, 0.0, -45.0, 5.2e6)),
    "lonlat": plain(crs="EPSG:4326", transform=Affine(0.001, 0.0, 11.0, 0.0, -0.001, 46.0)),
    "antimeridian": plain(
        crs="EPSG:4326", transform=Affine(0.002, 0.0, 179.98, 0.0, -0.002, -17.0)
    ),
    "from_0_to_360": plain(crs="EPSG:4326", transform=Affine(0.001, 0, 247.0, 0, -0.001, 37.0)),
    "utm_over_antimeridian": plain(
        crs="EPSG:32660", transform=Affine(100.0, 0.0, 811_000.0, 0.0, -100.0, 2e6)
    ),
    "south_pole": plain(crs="EPSG:3031", transform=Affine(1e3, 0.0, -1e4, 0.0, -1e3, 1e4)),
    "feet": plain(crs="EPSG:2264", transform=Affine(98.4, 0.0, 2.0e6, 0.0, -98.4, 6e5)),
    "own_crs": plain(crs=OWN_TM),
    "orbit": plain(crs=SEEN_FROM_ORBIT, transform=Affine(2e4, 0.0, -2e5, 0.0, -2e4, 3e6)),
    "compound": plain(crs="EPSG:32632+5773"),
    "mars": plain(crs=MARS_WKT),
    "engineering": plain(crs=LOCAL_WKT),
    "centre_is_the_point": point_pixels,
    **{
        f"type_{dtype}": plain(dtype)
        for dtype in ("uint8", "int8", "int16", "uint32", "int32", "uint64", "int64", "float64")
    },
    "mixed_types.vrt": mixed_types,
    "alpha": with_alpha,
    "mask_inside": masked(inside=True),
    "mask_beside": masked(inside=False),
    "overviews_beside": with_side_overviews,
    "scale_and_offset": scaled,
    "nodata": with_values("uint16", {0: 4}, nodata=0),
    "nan_as_nodata": with_values("float32", {np.nan: 4}, nodata=np.nan),
    "nan_without_nodata": with_values("float32", {np.nan: 4, np.inf: 5}),
    "nodata_and_infinity": with_values(
        "float32", {-3.4028234663852886e38: 4, -np.inf: 6}, nodata=-3.4028234663852886e38
    ),
    "one_pixel": sized(1, 1),
    "one_row": sized(1, 24),
    "one_column": sized(20, 1),
    "overlapping": plain(transform=PLACE * Affine.translation(3, 5)),
}
"""Makers by name: all of three bands, one run."""

NUMBERS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Tiled:
    """All working rasters, the run they were tiled into, and the folder of their maps."""

    rasters: Mapping[str, Path]
    run: Path
    maps: Path
    said: str


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_one_band(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def tiled(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiled:
    folder = tmp_path_factory.mktemp("odd")
    rasters = {}
    for name, make in WORKING.items():
        stem = name.partition(".")[0]
        rasters[stem] = folder / (name if "." in name else f"{name}.tif")
        make(rasters[stem])
    scenes: list[dict[str, object]] = [
        {"id": name, "image": path.name} for name, path in rasters.items()
    ]
    manifest = write_manifest(folder / "manifest.yaml", bands=RGB, scenes=scenes)
    said = geohsal("tile", manifest, "-o", folder / "run").output
    model = model_of(RGB, like=taught, folder=folder / "model")
    maps = folder / "maps"
    geohsal("predict", "--model", model, *rasters.values(), "-o", maps, "--device", "cpu")
    return Tiled(rasters, folder / "run", maps, said)


@pytest.mark.parametrize("name", [name.partition(".")[0] for name in WORKING])
def test_place_and_validity_are_those_of_the_file(tiled: Tiled, name: str) -> None:
    record = check_tiled(tiled.run, name, tiled.rasters[name], NUMBERS)
    assert record.local == (name in ("mars", "engineering"))
    check_maps(tiled.maps, name, tiled.rasters[name], NUMBERS)


@pytest.mark.parametrize(
    ("name", "invalid"),
    [("alpha", 5 * 24), ("mask_inside", 24), ("mask_beside", 24), ("nodata", 24),
     ("nan_as_nodata", 24), ("nan_without_nodata", 48), ("nodata_and_infinity", 48),
     ("overviews_beside", 0), ("overlapping", 0)],
)  # fmt: skip
def test_so_many_pixels_have_no_data(tiled: Tiled, name: str, invalid: int) -> None:
    assert (~valid_of(tiled.rasters[name], NUMBERS)).sum() == invalid
    record = read_summary(open_run(tiled.run)).scenes[name]
    assert record.valid_pixels == SHAPE[0] * SHAPE[1] - invalid


def test_areas_are_those_on_the_ground(tiled: Tiled) -> None:
    """Square metres in degrees, feet and near the pole; none where there is no ground."""
    scenes = read_summary(open_run(tiled.run)).scenes
    area = {name: pixel_area_m2(record.scene) for name, record in scenes.items()}
    assert area["lonlat"] == pytest.approx(111.15 * 77.4, rel=0.01)
    assert area["antimeridian"] == pytest.approx(221.3 * 212.8, rel=0.01)
    assert area["from_0_to_360"] == pytest.approx(111.0 * 88.9, rel=0.01)
    assert area["feet"] == pytest.approx((98.4 * 1200 / 3937) ** 2, rel=0.01)
    assert area["south_pole"] == pytest.approx(1e6 * 1.0551, rel=0.01)  # true scale at 71 S
    assert area["rotated"] == pytest.approx(100.0, rel=0.01)
    assert area["mars"] is area["engineering"] is None


@settings(max_examples=40)
@given(
    nodata=st.sampled_from([None, 0, 3, 255, 256, -1, np.nan]),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
    core_px=st.integers(16, 30),
    seed=st.integers(0, 1000),
)
def test_tiles_count_what_the_mask_shows(
    tmp_path_factory: pytest.TempPathFactory,
    nodata: float | None,
    dtype: str,
    core_px: int,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("count") / "a.tif"
    stack = np.random.default_rng(seed).integers(0, 5, (2, *SHAPE)).astype(dtype)
    held = dtype.startswith("float") or nodata in range(256) or (dtype, nodata) == ("int16", -1)
    write(path, stack, nodata=nodata if held else None)  # the manifest may say what no pixel can
    task = SceneTask(
        source=SceneSource(scene_id="any", image=str(path), nodata=nodata),
        bands=("a", "b"),
        classes=(ClassInfo(class_id=0, name="all", color="#000000"),),
        blocks=Blocks(),
        tile=TileConfig(core_px=core_px, overlap_px=2),
        region_px=8,
    )
    scan = scan_scene(task, None, progress=Silent())
    counted = sum(tile.valid_share * tile.core.width * tile.core.height for tile in scan.tiles)
    assert scan.record.valid_pixels == pytest.approx(counted) == valid_of(path, (1, 2)).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A raster that is no scene: its maker, what is said, and whether `predict` says it too."""

    make: Callable[[Path], None]
    told: str
    both: bool = True
    keys: dict[str, object] = field(default_factory=dict)


def with_points(path: Path) -> None:
    write(path, pixels(), crs=None, transform=None)
    points = [GroundControlPoint(r, c, 5e5 + c, 5e6 - r) for r, c in [(0, 0), (0, 9), (9, 0)]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "r+") as target:
            target.gcps = points, CRS.from_epsg(32632)


def with_rpcs(path: Path) -> None:
    rpcs = RPC(
        height_off=0.0, height_scale=500.0, lat_off=46.0, lat_scale=0.1, long_off=11.0,
        long_scale=0.1, line_off=10.0, line_scale=10.0, samp_off=12.0, samp_scale=12.0,
        line_num_coeff=[0.0, 0.0, 1.0, *[0.0] * 17], line_den_coeff=[1.0, *[0.0] * 19],
        samp_num_coeff=[0.0, 1.0, *[0.0] * 18], samp_den_coeff=[1.0, *[0.0] * 19],
    )  # fmt: skip
    write(path, pixels(), crs=None, transform=None, rpcs=rpcs)


def damaged(path: Path) -> None:
    write(path, pixels(), compress="deflate")
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as source:
        offset = int(source.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content[offset : offset + 60] = b"\xff" * 60
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    write(path, pixels())
    path.write_bytes(path.read_bytes()[:100])


def huge(path: Path) -> None:
    shape = {"count": 3, "height": 200_000, "width": 200_000, "dtype": "uint8"}
    layout = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True}
    rasterio.open(path, "w", driver="GTiff", crs=UTM, transform=PLACE, **shape, **layout).close()


def pages(path: Path) -> None:
    """Bands of unequal grids can only be parts of a file: here its pages."""
    write(path, pixels(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", APPEND_SUBDATASET=True, count=1, height=10, width=12,
            dtype="uint16", crs=UTM, transform=PLACE * Affine.scale(2.0),
        ) as target:  # fmt: skip
            target.write(pixels(1)[:, :10, :12])


REFUSED = {
    "no_crs": Refused(make=plain(crs=None), told='has no CRS; add crs: "EPSG:..."'),
    "no_transform": Refused(
        make=plain(transform=None), told="has a CRS but no transform, so its pixels lie nowhere"
    ),
    "neither": Refused(
        make=plain(crs=None, transform=None), told="has neither a CRS nor a transform"
    ),
    "control_points": Refused(
        make=with_points, told="only control points (GCPs or RPCs) say where it lies; warp it"
    ),
    "rpcs": Refused(
        make=with_rpcs, told="only control points (GCPs or RPCs) say where it lies; warp it"
    ),
    "no_area": Refused(
        make=plain(transform=Affine(10.0, 10.0, 5e5, 10.0, 10.0, 5.2e6)),
        told="its transform gives pixels no area; repair the file",
    ),
    "not_a_number": Refused(
        make=plain(transform=Affine(np.nan, 1.0, 5e5, 1.0, -10.0, 5.2e6)),
        told="its transform gives pixels no area; repair the file",
    ),
    "complex": Refused(make=plain("complex64"), told="holds complex numbers; write amplitude"),
    "damaged": Refused(make=damaged, told="the file is damaged or incomplete: get it again"),
    "cut_off": Refused(make=cut_off, told="cannot be opened"),
    "text": Refused(
        make=lambda path: path.write_text("<html>404</html>", "utf-8") and None,
        told="cannot be opened",
    ),
    "huge": Refused(make=huge, told="are more than tile.max_pixels (2000000000); cut it into"),
    "unequal_grids": Refused(make=pages, told="cannot tell which band is which"),
    "nothing_valid": Refused(
        make=lambda path: write(path, np.ones_like(pixels()), nodata=1),
        told="no valid pixel; check nodata",
        both=False,
    ),
    "crs_contradicts": Refused(
        make=plain(),
        told="crs: says EPSG:4326, but the file says EPSG:32632",
        keys={"crs": "EPSG:4326"},
        both=False,
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_one_line_says_what_is_wrong(tiled: Tiled, tmp_path: Path, name: str) -> None:
    case, image = REFUSED[name], tmp_path / f"{name}.tif"
    case.make(image)
    scene = {"id": "odd", "image": image.name, **case.keys}
    manifest = write_manifest(tmp_path / "manifest.yaml", bands=RGB, scenes=[scene])
    said = [geohsal("tile", manifest, "-o", tmp_path / "run", "-q", code=3).stderr]
    if case.both:
        model, maps = tiled.rasters["rotated"].parent / "model", tmp_path / "maps"
        found = geohsal("predict", "--model", model, image, "-o", maps, "-q", code=3)
        said.append(found.stderr)
        assert not list(maps.glob("[!.]*"))
    assert not (tmp_path / "run").exists()
    for text in said:
        (line,) = text.splitlines()
        assert line.startswith("geohsal: error: scene ")
        assert str(image) in line
        assert case.told in line
