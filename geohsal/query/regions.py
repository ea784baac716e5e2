"""Candidate regions of each scene, and what is known of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.geo.scene import Tile
from geohsal.query.layout import RegionUnit, atom_px

_LETTERS: Mapping[RegionUnit, str] = MappingProxyType(
    {"grid": "g", "superpixel": "s", "window": "w"}
)
_ONCE = ("scene_ids", "unit", "region_px")
"""What a table has once, not per region."""


def region_id(
    scene_id: str,
    row: int,
    *,
    col: int,
    region_px: int,
    unit: RegionUnit = "grid",
    number: int = 0,
) -> str:
    """Stable name of a region: scene, unit and side in pixels, place, number among superpixels."""
    name = f"{scene_id}-{_LETTERS[unit]}{region_px}-r{row:05d}-c{col:05d}"
    return f"{name}-{number}" if unit == "superpixel" else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Regions that may be asked about, of one or more scenes; one entry of each array per region.

    `scene` indexes `scene_ids`; `row`, `col` and `number` name a region as in `layout.Layout`,
    `atom` is the first of its atoms;
    `top`, `left`, `cell_height` and `cell_width` bound it in pixels of its scene.
    `pixels` counts the pool pixels of the region, and every statistic is over these alone:
    `score_sum` sums the acquisition map, `mean_error` and the shares are means, `margin` is the
    mean PLAR margin where PLAR was asked (else 0), `teacher_class` and `plar_class` are the most
    frequent classes (-1: PLAR was nowhere asked), `ambiguous` (region, 2) the two classes most
    named at AMBIGUOUS pixels (-1 none), `answers` the expected number of answer polygons,
    `features` (region, feature) the mean features, `embeddings` (region, dimension) the mean
    gradient embeddings (no columns unless the acquisition needs them).
    """

    scene_ids: tuple[str, ...]
    unit: RegionUnit
    region_px: int
    scene: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    number: NDArray[np.int32]
    atom: NDArray[np.int32]
    top: NDArray[np.int32]
    left: NDArray[np.int32]
    cell_height: NDArray[np.int32]
    cell_width: NDArray[np.int32]
    pixels: NDArray[np.int64]
    score_sum: NDArray[np.float64]
    mean_error: NDArray[np.float64]
    ambiguous_share: NDArray[np.float64]
    novel_share: NDArray[np.float64]
    margin: NDArray[np.float64]
    teacher_class: NDArray[np.int16]
    plar_class: NDArray[np.int16]
    ambiguous: NDArray[np.int16]
    answers: NDArray[np.int32]
    features: NDArray[np.float32]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scene)

    @property
    def undecided_share(self) -> NDArray[np.float64]:
        """Share of AMBIGUOUS and NOVEL pixels."""
        return self.ambiguous_share + self.novel_share

    def scene_id(self, index: int) -> str:
        """Scene of one region."""
        return self.scene_ids[int(self.scene[index])]

    def region_id(self, index: int) -> str:
        """Stable name of one region."""
        return region_id(
            self.scene_id(index),
            int(self.row[index]),
            col=int(self.col[index]),
            region_px=self.region_px,
            unit=self.unit,
            number=int(self.number[index]),
        )

    @property
    def anchor(self) -> NDArray[np.int32]:
        """A row of pixels at or above `top` that rises with `row`."""
        if self.unit == "superpixel":
            return self.row
        return self.row * np.int32(atom_px(self.unit, self.region_px))

    def window(self, index: int) -> Window:
        """The bounds of one region on its scene's grid, clipped to the scene."""
        return Window(
            int(self.left[index]),
            int(self.top[index]),
            int(self.cell_width[index]),
            int(self.cell_height[index]),
        )

    def take(self, indices: NDArray[np.integer] | Sequence[int]) -> "Candidates":
        """The regions at these indices, in this order."""
        index = np.asarray(indices, dtype=np.intp)
        return replace(self, **{name: getattr(self, name)[index] for name in _array_names()})


def join_candidates(parts: Sequence[Candidates]) -> Candidates:
    """One table from the tables of several scenes, or of several shares of the work.

    Raises:
        ValueError: there is no part, or the parts were cut otherwise.
    """
    if len({(part.unit, part.region_px) for part in parts}) != 1:
        raise ValueError("candidate tables to join must have one region unit and size")
    scene_ids = tuple(sorted({scene_id for part in parts for scene_id in part.scene_ids}))
    code_of = {name: code for code, name in enumerate(scene_ids)}
    codes = [np.array([code_of[name] for name in part.scene_ids], dtype=np.int32) for part in parts]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _array_names()
    }
    arrays["scene"] = np.concatenate(
        [code[part.scene] for code, part in zip(codes, parts, strict=True)]
    )
    return replace(parts[0], scene_ids=scene_ids, **arrays)


def _array_names() -> list[str]:
    return [f.name for f in fields(Candidates) if f.name not in _ONCE]


def tiles_of(candidates: Candidates, tiles: Sequence[Tile]) -> NDArray[np.str_]:
    """Tile id of each candidate: the tile whose core holds the centre pixel of its bounds."""
    found = np.full(len(candidates), -1, dtype=np.int64)
    row = candidates.top.astype(np.int64) + candidates.cell_height // 2
    col = candidates.left.astype(np.int64) + candidates.cell_width // 2
    cores: dict[str, list[tuple[int, Window]]] = {}
    for number, tile in enumerate(tiles):
        cores.setdefault(tile.scene_id, []).append((number, tile.core))
    for scene_id, inside in by_scene(candidates):
        own = cores.get(scene_id, [])
        if own:
            found[inside] = _core_at(own, row=row[inside], col=col[inside])
    if (found < 0).any():
        missing = candidates.region_id(int(np.argmin(found)))
        raise ValueError(f"no tile core holds the centre of region {missing}")
    return np.array([tile.tile_id for tile in tiles] or [""])[found]


def by_scene(candidates: Candidates) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Each scene that has candidates, with their places, in the order of the scenes' codes."""
    order = np.argsort(candidates.scene, kind="stable")
    codes = candidates.scene[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    for places in np.split(order, starts[1:]) if starts.size else ():
        yield candidates.scene_id(int(places[0])), places


def _core_at(
    cores: Sequence[tuple[int, Window]],
    *,
    row: NDArray[np.int64],
    col: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Number of the core at each pixel; cores are painted on a grid of their own edges."""
    row_edges = np.unique([e for _, c in cores for e in (c.row_off, c.row_off + c.height)])
    col_edges = np.unique([e for _, c in cores for e in (c.col_off, c.col_off + c.width)])
    owner = np.full((len(row_edges) + 1, len(col_edges) + 1), -1, dtype=np.int64)
    for index, core in cores:
        top, bottom = np.searchsorted(row_edges, (core.row_off, core.row_off + core.height))
        left, right = np.searchsorted(col_edges, (core.col_off, core.col_off + core.width))
        owner[top + 1 : bottom + 1, left + 1 : right + 1] = index
    at_row = np.searchsorted(row_edges, row, side="right")
    at_col = np.searchsorted(col_edges, col, side="right")
    return owner[at_row, at_col]
