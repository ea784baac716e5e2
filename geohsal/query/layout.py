"""How a scene is cut into regions: cells of a grid, overlapping windows, superpixels.

Pixels are counted in atoms, which never overlap; a region is made of one atom, or, where regions
overlap, of several.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RegionUnit = Literal["grid", "superpixel", "window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The regions of one scene of `shape` (rows, columns); one entry of each array per region.

    `row`, `col` and `number` name a region among those of its unit: cell, stride, or the first
    pixel of its tile core and the number within. `top`, `left`, `height` and `width` bound it in
    pixels, clipped to the scene, and `size` is the pixels that a whole one has. `parts` (part,
    region) lists its atoms; atom `atoms` is always empty and stands for none.
    """

    unit: RegionUnit
    region_px: int
    shape: tuple[int, int]
    atoms: int
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    number: NDArray[np.int32]
    top: NDArray[np.int32]
    left: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    size: NDArray[np.int64]
    parts: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.row)


def atom_px(unit: RegionUnit, region_px: int) -> int:
    """Side of the atoms of a grid or of windows, whose stride is half their side."""
    return region_px if unit == "grid" else region_px // 2


def grid_atoms(
    row0: int, col0: int, *, shape: tuple[int, int], side: int, scene_width: int
) -> NDArray[np.int32]:
    """Atom of each pixel (row, col) of a window whose first pixel is (row0, col0)."""
    rows = (np.arange(shape[0], dtype=np.int32) + row0) // side
    cols = (np.arange(shape[1], dtype=np.int32) + col0) // side
    across = -(-scene_width // side)
    return (rows[:, None] * across + cols[None, :]).astype(np.int32)


def grid_layout(shape: tuple[int, int], *, region_px: int) -> Layout:
    """Cells of `region_px` a side from the scene's origin on."""
    across = -(-shape[1] // region_px)
    return _squares("grid", shape, region_px=region_px, stride=region_px, steps=(0,), across=across)


def window_layout(shape: tuple[int, int], *, region_px: int) -> Layout:
    """Windows of `region_px` a side every half side; `region_px` must be even."""
    stride = atom_px("window", region_px)
    across = -(-shape[1] // stride)
    return _squares(
        "window", shape, region_px=region_px, stride=stride, steps=(0, 1), across=across
    )


def _squares(
    unit: RegionUnit,
    shape: tuple[int, int],
    *,
    region_px: int,
    stride: int,
    steps: tuple[int, ...],
    across: int,
) -> Layout:
    down = -(-shape[0] // stride)
    # a window that begins in the last atom of a side would lie inside the one before it
    rows, cols = np.indices((max(1, down - steps[-1]), max(1, across - steps[-1])))
    row, col = rows.ravel(), cols.ravel()
    parts = [
        np.where((row + i < down) & (col + j < across), (row + i) * across + col + j, down * across)
        for i in steps
        for j in steps
    ]
    return Layout(
        unit=unit,
        region_px=region_px,
        shape=shape,
        atoms=down * across,
        row=row.astype(np.int32),
        col=col.astype(np.int32),
        number=np.zeros(len(row), dtype=np.int32),
        top=(row * stride).astype(np.int32),
        left=(col * stride).astype(np.int32),
        height=np.minimum(region_px, shape[0] - row * stride).astype(np.int32),
        width=np.minimum(region_px, shape[1] - col * stride).astype(np.int32),
        size=np.full(len(row), region_px**2, dtype=np.int64),
        parts=np.stack(parts).astype(np.intp),
    )
