import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from geohsal.geo.blocks import Block
from geohsal.geo.scene import Scene
from geohsal.geo.tiling import footprints, make_tiles, tile_windows

SIDE = st.integers(1, 70)
LANDSAT = Affine(30, 0, 301_905, 0, -30, 4_154_085)


def scene(
    height: int,
    width: int,
    *,
    epsg: int | None = 32612,
    transform: Affine = LANDSAT,
) -> Scene:
    crs = None if epsg is None else CRS.from_epsg(epsg)
    return Scene(
        scene_id="north",
        crs=crs,
        transform=transform,
        height=height,
        width=width,
        bands=("red",),
        local=crs is None,
    )


def cover(windows: list[Window], height: int, width: int) -> np.ndarray:
    count = np.zeros((height, width), dtype=int)
    for window in windows:
        count[
            window.row_off : window.row_off + window.height,
            window.col_off : window.col_off + window.width,
        ] += 1
    assert count.sum() == sum(window.height * window.width for window in windows)
    return count


@given(SIDE, SIDE, st.integers(1, 80), st.integers(0, 20))
def test_cores_partition_and_windows_are_cores_plus_overlap_inside(height, width, size, overlap):
    pairs = list(tile_windows(height, width, tile_size=size, overlap=overlap))
    assert (cover([core for core, _ in pairs], height, width) == 1).all()
    for core, window in pairs:
        assert core.height <= size
        assert core.width <= size
        assert window.row_off == max(0, core.row_off - overlap)
        assert window.col_off == max(0, core.col_off - overlap)
        assert window.row_off + window.height == min(height, core.row_off + core.height + overlap)
        assert window.col_off + window.width == min(width, core.col_off + core.width + overlap)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="tile_size 0 must be >= 1"):
        list(tile_windows(4, 4, tile_size=0))


def test_tile_ids_come_from_the_core_and_are_in_reading_order():
    tiles = make_tiles(scene(300, 520), core_px=256, overlap_px=32, splits="val")
    assert [tile.tile_id for tile in tiles] == [
        "north_r000000_c000000",
        "north_r000000_c000256",
        "north_r000000_c000512",
        "north_r000256_c000000",
        "north_r000256_c000256",
        "north_r000256_c000512",
    ]
    assert {tile.split for tile in tiles} == {"val"}
    assert tiles[4].window == Window(224, 224, 296, 76)


@settings(max_examples=30)
@given(SIDE, SIDE, st.integers(5, 40), st.integers(1, 69))
def test_cores_never_straddle_two_blocks(height, width, core_px, cut):
    cut = min(cut, height)
    blocks = [Block(window=Window(0, 0, width, cut), split="train")]
    if cut < height:
        blocks.append(Block(window=Window(0, cut, width, height - cut), split="test"))
    tiles = make_tiles(scene(height, width), core_px=core_px, overlap_px=3, splits=blocks)
    assert (cover([tile.core for tile in tiles], height, width) == 1).all()
    for tile in tiles:
        assert (tile.core.row_off + tile.core.height <= cut) == (tile.split == "train")
    offsets = [(tile.core.row_off, tile.core.col_off) for tile in tiles]
    assert offsets == sorted(offsets)


def test_footprint_of_a_utm_scene():
    tiles = make_tiles(scene(1428, 1128), core_px=2000, overlap_px=0, splits="train")
    outline = tiles[0].footprint
    assert outline is not None
    assert outline.is_valid
    bounds = transform_bounds(
        CRS.from_epsg(32612), CRS.from_epsg(4326), 301_905, 4_111_245, 335_745, 4_154_085
    )
    assert outline.bounds == pytest.approx(bounds, abs=1e-6)


def test_local_scenes_have_no_footprint():
    assert footprints(scene(5, 5, epsg=None), [Window(0, 0, 5, 5)]) == [None]


def test_footprint_is_split_at_the_antimeridian():
    crossing = scene(100, 100, epsg=32760, transform=Affine(1000, 0, 783_000, 0, -1000, 8_200_000))
    outline = footprints(crossing, [crossing.extent])[0]
    assert outline is not None
    assert outline.is_valid
    west, _, east, _ = outline.bounds
    assert (west, east) == (-180.0, 180.0)
    assert sorted(part.bounds[0] < 0 for part in outline.geoms) == [False, True]
    assert outline.area < 1.5


def test_longitudes_beyond_180_come_back_into_range():
    east = scene(10, 10, epsg=4326, transform=Affine(1, 0, 185, 0, -1, 60))
    outline = footprints(east, [east.extent])[0]
    assert outline is not None
    assert outline.bounds == pytest.approx((-175, 50, -165, 60))


def test_footprint_of_the_whole_earth():
    earth = scene(180, 360, epsg=4326, transform=Affine(1, 0, -180, 0, -1, 90))
    outline = footprints(earth, [earth.extent])[0]
    assert outline is not None
    assert outline.area == pytest.approx(360 * 180)


def test_footprint_around_a_pole_reaches_the_pole():
    polar = scene(100, 100, epsg=3031, transform=Affine(10_000, 0, -5e5, 0, -10_000, 5e5))
    outline = footprints(polar, [polar.extent])[0]
    assert outline is not None
    assert outline.is_valid
    assert outline.bounds == pytest.approx((-180, -90, 180, -83.5), abs=0.1)
