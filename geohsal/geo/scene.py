"""Scenes, tiles, regions and maps as plain values: where pixels lie, without opening a file."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassInfo:
    """One land-cover class of the manifest; `class_id` is dense from 0, `color` is #rrggbb."""

    class_id: int
    name: str
    color: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A georeferenced raster, described without its pixels.

    `local` is true where the grid has no position on Earth (engineering CRS, or `crs: local`):
    areas then exist in pixels only.
    """

    scene_id: str
    crs: CRS | None
    transform: Affine
    height: int
    width: int
    bands: tuple[str, ...]
    local: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def extent(self) -> Window:
        """The window of the whole scene."""
        return Window(0, 0, self.width, self.height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One window of a scene: the unit that is split, predicted and counted.

    `core` windows partition the scene; `window` is the core plus overlap, clipped to the scene.
    Shares are of core pixels: `valid_share` of all, `labelled_share` of the valid ones.
    """

    tile_id: str
    scene_id: str
    core: Window
    window: Window
    split: str
    valid_share: float = 0.0
    labelled_share: float = 0.0
    footprint: BaseGeometry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneMaps:
    """What a round says of every pixel of one scene; all arrays are (row, col).

    `teacher` and `refined` hold class ids (255 where the state is NODATA), `state` holds
    `PixelState` codes, `confidence`, `error` lie in [0, 1]; `margin` is the score distance of the
    two best classes in PLAR (0 where PLAR was not asked); `undecided` is the map a(u) of the
    acquisition; all three float maps are 0 where the state is NODATA.
    """

    teacher: NDArray[np.uint8]
    refined: NDArray[np.uint8]
    plar: NDArray[np.uint8]
    state: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    error: NDArray[np.float32]
    margin: NDArray[np.float32]
    undecided: NDArray[np.float32]


MapReader = Callable[[str, Window], SceneMaps]
"""Gives the maps of a window of a scene, by its id: nothing needs the whole scene at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRegion:
    """A compact region to ask a person about: a grid cell minus nodata and labelled pixels.

    `cell` is the window of the cell on the scene's grid and `mask` (row, col) marks, inside the
    cell, the pixels that are asked about. `area_m2` is None for local scenes.
    """

    region_id: str
    scene_id: str
    round: int
    rank: int
    cell: Window
    mask: NDArray[np.bool_]
    score: float
    reason: str
    error_probability: float
    undecided_share: float
    teacher_class: int
    plar_class: int | None
    margin: float
    area_m2: float | None
    cost_min: float
    audit: bool

    @property
    def pixels(self) -> int:
        """Pixels that the answer costs."""
        return int(self.mask.sum())
