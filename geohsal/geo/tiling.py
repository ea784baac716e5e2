"""Tiles: cores that partition a scene, the windows around them, their footprints on Earth."""

from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from geohsal.geo.blocks import Block
from geohsal.geo.polygons import transformer_between
from geohsal.geo.scene import Scene, Tile

WGS84 = CRS.from_epsg(4326)
EDGE_POINTS = 8
"""Vertices per edge of a footprint: edges that are straight on the grid bend in longitude."""


def tile_windows(
    height: int, width: int, *, tile_size: int, overlap: int = 0
) -> Iterator[tuple[Window, Window]]:
    """(core, window) pairs, row by row, from the scene's origin.

    Cores partition the scene, each pixel in exactly one; the window is the core plus `overlap`
    pixels on each side, clipped to the scene.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        tile_size: side of a core in pixels.
        overlap: pixels added on each side.

    Raises:
        ValueError: `tile_size` is below 1 or `overlap` below 0.
    """
    if tile_size < 1 or overlap < 0:
        raise ValueError(f"tile_size {tile_size} must be >= 1 and overlap {overlap} >= 0")
    for top in range(0, height, tile_size):
        for left in range(0, width, tile_size):
            core = Window(left, top, min(tile_size, width - left), min(tile_size, height - top))
            yield core, grow(core, overlap, height=height, width=width)


def grow(core: Window, overlap: int, *, height: int, width: int) -> Window:
    """`core` with `overlap` pixels more on each side, clipped to the scene."""
    top, left = max(0, core.row_off - overlap), max(0, core.col_off - overlap)
    bottom = min(height, core.row_off + core.height + overlap)
    right = min(width, core.col_off + core.width + overlap)
    return Window(left, top, right - left, bottom - top)


def make_tiles(
    scene: Scene, *, core_px: int, overlap_px: int, splits: Sequence[Block] | str
) -> list[Tile]:
    """The tiles of a scene, row by row.

    Args:
        scene: where the pixels lie.
        core_px: largest side of a core.
        overlap_px: what a window adds on each side.
        splits: blocks that partition the scene (cores never straddle two), or one split's name.
    """
    blocks = [Block(window=scene.extent, split=splits)] if isinstance(splits, str) else splits
    cores = sorted(
        (
            (_shifted(core, block.window), block.split)
            for block in blocks
            for core, _ in tile_windows(
                block.window.height, block.window.width, tile_size=core_px, overlap=0
            )
        ),
        key=lambda pair: (pair[0].row_off, pair[0].col_off),
    )
    outlines = footprints(scene, [core for core, _ in cores])
    return [
        Tile(
            tile_id=f"{scene.scene_id}_r{core.row_off:06d}_c{core.col_off:06d}",
            scene_id=scene.scene_id,
            core=core,
            window=grow(core, overlap_px, height=scene.height, width=scene.width),
            split=split,
            footprint=outline,
        )
        for (core, split), outline in zip(cores, outlines, strict=True)
    ]


def _shifted(core: Window, block: Window) -> Window:
    return Window(
        core.col_off + block.col_off, core.row_off + block.row_off, core.width, core.height
    )


def footprints(scene: Scene, windows: Sequence[Window]) -> list[BaseGeometry | None]:
    """Outlines of windows in EPSG:4326, split at the antimeridian; None for local scenes."""
    if scene.local or scene.crs is None:
        return [None] * len(windows)
    outlines = map_outlines(scene, windows, edge_points=EDGE_POINTS)
    lon, lat = transformer_between(scene.crs, WGS84).transform(outlines[..., 0], outlines[..., 1])
    return [_footprint(np.column_stack([x, y])) for x, y in zip(lon, lat, strict=True)]


def map_outlines(
    scene: Scene, windows: Sequence[Window], *, edge_points: int
) -> NDArray[np.float64]:
    """Open rings of windows in map coordinates: (window, 4 x edge_points, xy)."""
    t = np.arange(edge_points) / edge_points
    zero, one = np.zeros(edge_points), np.ones(edge_points)
    cols = np.concatenate([t, one, 1 - t, zero])
    rows = np.concatenate([zero, t, one, 1 - t])
    corner = np.array([(w.col_off, w.row_off, w.width, w.height) for w in windows], dtype=float)
    corner = corner.reshape(-1, 4)
    col = corner[:, :1] + cols * corner[:, 2:3]
    row = corner[:, 1:2] + rows * corner[:, 3:4]
    a = scene.transform
    return np.stack([a.a * col + a.b * row + a.c, a.d * col + a.e * row + a.f], axis=-1)


def _footprint(ring: NDArray[np.float64]) -> BaseGeometry | None:
    ring = ring[np.isfinite(ring).all(axis=1)]
    if len(ring) < 3:
        return None
    lon = np.unwrap(np.append(ring[:, 0], ring[0, 0]), period=360.0)
    lat = np.append(ring[:, 1], ring[0, 1])
    if abs(lon[-1] - lon[0]) > 180.0:  # once around the Earth: the window holds a pole
        pole = np.copysign(90.0, lat.mean())
        lon, lat = np.append(lon, [lon[-1], lon[0]]), np.append(lat, [pole, pole])
    lon -= 360.0 * np.floor((lon.min() + 180.0) / 360.0)
    outline = _valid(Polygon(np.column_stack([lon, lat])))
    if lon.max() <= 180.0:
        return outline
    near = shapely.intersection(outline, box(-180.0, -90.0, 180.0, 90.0))
    far = shapely.intersection(outline, box(180.0, -90.0, 540.0, 90.0))
    shifted = shapely.transform(far, lambda points: points - np.array([360.0, 0.0]))
    return shapely.union_all([near, shifted])


def _valid(polygon: Polygon) -> BaseGeometry:
    if polygon.is_valid:
        return polygon
    return shapely.make_valid(polygon, method="structure", keep_collapsed=False)
