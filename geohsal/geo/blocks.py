"""Spatial blocks: which part of a scene trains, validates and tests, and the gap between them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.geo.scene import Tile
from geohsal.geo.states import Split

SPLIT_CODES = {"train": Split.TRAIN, "val": Split.VAL, "test": Split.TEST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A rectangle of a scene that belongs to one split (train, val or test)."""

    window: Window
    split: str

    @property
    def area_px(self) -> int:
        """Pixels of the block."""
        return int(self.window.width * self.window.height)


def assign_blocks(
    height: int,
    width: int,
    *,
    size_px: int,
    shares: Mapping[str, float],
    seed: int,
    scene_id: str,
) -> tuple[Block, ...]:
    """Blocks of a grid anchored at the scene's origin, given to splits by area.

    A last row or column narrower than half a block joins the one before it, unless fewer than
    three blocks would remain. With three blocks or more every split with a share gets one.
    The draw depends on `seed` and `scene_id` only.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        size_px: side of a block in pixels.
        shares: split -> share of the area; need not sum to 1.
        seed: of the draw.
        scene_id: makes scenes draw independently.

    Returns:
        The blocks row by row; they partition the scene.
    """
    windows = _block_windows(height, width, size_px=size_px)
    wanted = {split: shares[split] for split in SPLIT_CODES if shares.get(split, 0.0) > 0.0}
    if not wanted:
        raise ValueError("shares give nothing to train, val or test")
    areas = [int(window.width * window.height) for window in windows]
    digest = hashlib.sha256(f"{seed}/{scene_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    splits = _deal(areas, wanted, rng=rng)
    return tuple(
        Block(window=window, split=split) for window, split in zip(windows, splits, strict=True)
    )


def _block_windows(height: int, width: int, *, size_px: int) -> list[Window]:
    merged = _windows(_edges(height, size_px, merge=True), _edges(width, size_px, merge=True))
    if len(merged) >= 3:
        return merged
    return _windows(_edges(height, size_px, merge=False), _edges(width, size_px, merge=False))


def _edges(length: int, size_px: int, *, merge: bool) -> list[int]:
    edges = [*range(0, length, size_px), length]
    if merge and len(edges) > 2 and 2 * (edges[-1] - edges[-2]) < size_px:
        del edges[-2]
    return edges


def _windows(rows: Sequence[int], cols: Sequence[int]) -> list[Window]:
    return [
        Window(left, top, right - left, bottom - top)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(cols)
    ]


def _deal(
    areas: Sequence[int], wanted: Mapping[str, float], *, rng: np.random.Generator
) -> list[str]:
    """Each block, in random order, goes to the split that lacks most; then nobody stays empty."""
    total, weight = sum(areas), sum(wanted.values())
    lacking = {split: share * total / weight for split, share in wanted.items()}
    dealt = [""] * len(areas)
    for block in rng.permutation(len(areas)):
        split = max(lacking, key=lambda name: (lacking[name], name not in dealt))
        dealt[block] = split
        lacking[split] -= areas[block]
    if len(areas) >= 3:
        _fill_empty(dealt, areas, wanted)
    return dealt


def _fill_empty(dealt: list[str], areas: Sequence[int], wanted: Mapping[str, float]) -> None:
    for split in wanted:
        if split not in dealt:
            richest = max(wanted, key=lambda name: (dealt.count(name), wanted[name]))
            owned = [block for block, owner in enumerate(dealt) if owner == richest]
            dealt[min(owned, key=lambda block: (areas[block], block))] = split


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitTable:
    """The tile cores of one scene as arrays, for many split rasters.

    `bounds` is (tile, 4): top, left, bottom, right of the cores; `codes` (tile,) their splits.
    """

    bounds: NDArray[np.int64]
    codes: NDArray[np.uint8]
    buffer_px: int

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Codes of `geo.states.Split` in a window, which may reach outside the scene (0 there).

        Train pixels within `buffer_px` (Chebyshev) of a val or test core, and val pixels within
        it of a test core, are BUFFER, as is whatever lies in no core.
        """
        top, left = round(window.row_off), round(window.col_off)
        height, width = round(window.height), round(window.width)
        raster = np.full((height, width), Split.BUFFER, dtype=np.uint8)
        near = self.bounds - np.array([top, left, top, left])
        for index, area in _slices(near, height=height, width=width, grow=0):
            raster[area] = self.codes[index]
        if self.buffer_px:
            for index, area in _slices(near, height=height, width=width, grow=self.buffer_px):
                if self.codes[index] != Split.TRAIN:
                    part = raster[area]
                    part[(part != Split.BUFFER) & (part < self.codes[index])] = Split.BUFFER
        return raster


def _slices(
    bounds: NDArray[np.int64], *, height: int, width: int, grow: int
) -> list[tuple[int, tuple[slice, slice]]]:
    grown = bounds + np.array([-grow, -grow, grow, grow])
    low = np.clip(grown[:, :2], 0, None)
    high = np.minimum(grown[:, 2:], [height, width])
    hits = np.flatnonzero((low < high).all(axis=1))
    return [
        (int(hit), (slice(low[hit, 0], high[hit, 0]), slice(low[hit, 1], high[hit, 1])))
        for hit in hits
    ]


def split_table(tiles: Sequence[Tile], *, buffer_px: int) -> SplitTable:
    """The table of one scene's tiles; `buffer_px` is 0 for scenes that are one split."""
    bounds = [
        (
            tile.core.row_off,
            tile.core.col_off,
            tile.core.row_off + tile.core.height,
            tile.core.col_off + tile.core.width,
        )
        for tile in tiles
    ]
    return SplitTable(
        bounds=np.array(bounds, dtype=np.int64).reshape(-1, 4),
        codes=np.array([SPLIT_CODES[tile.split] for tile in tiles], dtype=np.uint8),
        buffer_px=buffer_px,
    )


def split_codes(tiles: Sequence[Tile], window: Window, *, buffer_px: int) -> NDArray[np.uint8]:
    """Split codes of any window of the scene whose tiles these are (see `SplitTable.read`)."""
    return split_table(tiles, buffer_px=buffer_px).read(window)
