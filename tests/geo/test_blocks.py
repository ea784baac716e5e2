import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window

from geohsal.geo.blocks import assign_blocks, split_codes
from geohsal.geo.scene import Scene, Tile
from geohsal.geo.states import Split
from geohsal.geo.tiling import make_tiles

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def tiles_of(height: int, width: int, *, size_px: int, seed: int = 0, core_px: int = 8):
    scene = Scene(
        scene_id="s",
        crs=None,
        transform=Affine.identity(),
        height=height,
        width=width,
        bands=("red",),
        local=True,
    )
    blocks = assign_blocks(height, width, size_px=size_px, shares=SHARES, seed=seed, scene_id="s")
    return make_tiles(scene, core_px=core_px, overlap_px=2, splits=blocks)


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(16, 200),
    st.integers(0, 50),
    st.fixed_dictionaries({s: st.sampled_from([0.0, 0.1, 0.3, 1.0]) for s in SHARES}),
)
def test_blocks_partition_the_scene_and_serve_every_split(height, width, size, seed, shares):
    if not any(shares.values()):
        with pytest.raises(ValueError, match="give nothing"):
            assign_blocks(height, width, size_px=size, shares=shares, seed=seed, scene_id="a")
        return
    blocks = assign_blocks(height, width, size_px=size, shares=shares, seed=seed, scene_id="a")
    again = assign_blocks(height, width, size_px=size, shares=shares, seed=seed, scene_id="a")
    assert blocks == again
    count = np.zeros((height, width), dtype=int)
    for block in blocks:
        window = block.window
        assert window.row_off % size == 0
        assert window.col_off % size == 0
        count[
            window.row_off : window.row_off + window.height,
            window.col_off : window.col_off + window.width,
        ] += 1
    assert (count == 1).all()
    wanted = {split for split, share in shares.items() if share}
    used = {block.split for block in blocks}
    assert used <= wanted
    if len(blocks) >= 3:
        assert used == wanted


def test_shares_are_met_by_area_and_scenes_draw_apart():
    def areas(scene_id: str) -> dict[str, float]:
        blocks = assign_blocks(2560, 2560, size_px=256, shares=SHARES, seed=3, scene_id=scene_id)
        return {
            split: sum(block.area_px for block in blocks if block.split == split) / 2560**2
            for split in SHARES
        }

    assert areas("north") == pytest.approx(SHARES, abs=0.011)
    draws = {
        tuple(
            block.split
            for block in assign_blocks(
                2560, 2560, size_px=256, shares=SHARES, seed=seed, scene_id=scene_id
            )
        )
        for scene_id in ("north", "south")
        for seed in (0, 1)
    }
    assert len(draws) == 4


def test_narrow_last_blocks_join_their_neighbour():
    blocks = assign_blocks(1428, 1128, size_px=512, shares=SHARES, seed=0, scene_id="zion")
    assert sorted({block.window.width for block in blocks}) == [512, 616]
    assert sorted({block.window.height for block in blocks}) == [404, 512]
    few = assign_blocks(600, 600, size_px=512, shares=SHARES, seed=0, scene_id="small")
    assert len(few) == 4


def brute_force(tiles: list[Tile], window: Window, buffer_px: int) -> np.ndarray:
    """Pixel by pixel, from the definition."""
    value = {"train": Split.TRAIN, "val": Split.VAL, "test": Split.TEST}

    def distance(tile: Tile, row: int, col: int) -> int:
        core = tile.core
        down = max(core.row_off - row, row - (core.row_off + core.height - 1), 0)
        right = max(core.col_off - col, col - (core.col_off + core.width - 1), 0)
        return max(down, right)

    raster = np.zeros((window.height, window.width), dtype=np.uint8)
    for r in range(window.height):
        for c in range(window.width):
            row, col = window.row_off + r, window.col_off + c
            own = [tile for tile in tiles if distance(tile, row, col) == 0]
            if own:
                code = value[own[0].split]
                stronger = [tile for tile in tiles if value[tile.split] > max(code, Split.TRAIN)]
                if not any(distance(tile, row, col) <= buffer_px for tile in stronger):
                    raster[r, c] = code
    return raster


@settings(max_examples=25)
@given(
    st.integers(10, 60),
    st.integers(10, 60),
    st.integers(0, 9),
    st.integers(0, 5),
    st.integers(-5, 40),
    st.integers(-5, 40),
)
def test_split_codes_follow_the_definition(height, width, buffer_px, seed, top, left):
    tiles = tiles_of(height, width, size_px=16, seed=seed)
    window = Window(left, top, 18, 15)
    found = split_codes(tiles, window, buffer_px=buffer_px)
    np.testing.assert_array_equal(found, brute_force(tiles, window, buffer_px))


def test_windows_agree_with_the_whole_scene():
    tiles = tiles_of(64, 80, size_px=16)
    whole = split_codes(tiles, Window(0, 0, 80, 64), buffer_px=3)
    assert set(np.unique(whole)) == {0, 1, 2, 3}
    part = split_codes(tiles, Window(13, 7, 40, 50), buffer_px=3)
    np.testing.assert_array_equal(part, whole[7:57, 13:53])


def test_tiles_that_were_dropped_belong_to_no_split():
    tiles = tiles_of(32, 32, size_px=32)[1:]
    assert (split_codes(tiles, Window(0, 0, 8, 8), buffer_px=0) == Split.BUFFER).all()
    assert split_codes([], Window(0, 0, 2, 2), buffer_px=4).tolist() == [[0, 0], [0, 0]]
