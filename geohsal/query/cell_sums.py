"""Statistics of every region cell of a scene, added window by window; any cut gives the same."""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from geohsal.geo.scene import SceneMaps
from geohsal.geo.states import PixelState
from geohsal.query.regions import Candidates

ANSWER_SHARE = 0.01
"""A class is expected to need an answer polygon if it holds this share of a region's pixels."""

STEP = 2.0**-24
"""Values are summed in multiples of this: float64 adds those exactly, in any order."""

_BAND_PIXELS = 1 << 17
"""Pixels worked on at a time, whatever window is added: their maps stay in the CPU's cache."""


class CellSums:
    """Sums over the pool pixels of each cell of one scene.

    `add` windows that together hold every pixel of the scene once (pixels that are in no window
    count as outside the pool and as nodata), then take `candidates`. Memory is per cell, not per
    pixel. Sums are exact, so the cut into windows and their order change no bit of the result.
    """

    def __init__(
        self,
        scene_id: str,
        shape: tuple[int, int],
        *,
        region_px: int,
        num_classes: int,
        num_features: int = 0,
    ) -> None:
        """`shape` is (rows, columns) of the scene in pixels."""
        self.scene_id = scene_id
        self.shape = shape
        self.region_px = region_px
        self.num_classes = num_classes
        grid = (-(-shape[0] // region_px), -(-shape[1] // region_px))
        self._valid = np.zeros(grid, dtype=np.int64)
        self._pool = np.zeros(grid, dtype=np.int64)
        self._asked = np.zeros(grid, dtype=np.int64)
        self._ambiguous = np.zeros(grid, dtype=np.int64)
        self._novel = np.zeros(grid, dtype=np.int64)
        self._score = np.zeros(grid)
        self._error = np.zeros(grid)
        self._margin = np.zeros(grid)
        self._features = np.zeros((num_features, *grid))
        counts = (*grid, num_classes)
        self._teacher = np.zeros(counts, dtype=np.int32)
        self._refined = np.zeros(counts, dtype=np.int32)
        self._plar = np.zeros(counts, dtype=np.int32)
        self._named = np.zeros(counts, dtype=np.int32)

    def add(
        self,
        row0: int,
        col0: int,
        *,
        pool: NDArray[np.bool_],
        maps: SceneMaps,
    ) -> None:
        """Add one window whose first pixel lies at (row0, col0) of the scene.

        Args:
            row0: first row of the window.
            col0: first column of the window.
            pool: (row, col) pixels that may be asked about: valid, unlabelled, train.
            maps: the round's maps of this window; `undecided` is the acquisition map.

        Raises:
            ValueError: the window leaves the scene, or the arrays do not fit together.
        """
        self._check(row0, col0, pool=pool, maps=maps)
        height, width = pool.shape
        step = max(1, _BAND_PIXELS // max(1, width))
        for top in range(0, height, step):
            rows = slice(top, top + step)
            band = SceneMaps(**{f.name: getattr(maps, f.name)[rows] for f in fields(SceneMaps)})
            cut = _CellCut(row0 + top, col0, shape=pool[rows].shape, region_px=self.region_px)
            self._add_band(cut, pool[rows], maps=band)

    def add_features(self, row0: int, col0: int, *, sums: NDArray[np.float64]) -> None:
        """Add the features of one window, whose maps are added by `add`.

        Args:
            row0: first row of the window.
            col0: first column of the window.
            sums: what `sum_features` gives for the window.

        Raises:
            ValueError: the sums do not fit into the scene's cells.
        """
        row, col = row0 // self.region_px, col0 // self.region_px
        place = self._features[:, row : row + sums.shape[1], col : col + sums.shape[2]]
        if sums.shape != place.shape:
            raise ValueError(
                f"scene {self.scene_id}: feature sums are {sums.shape}, the scene takes "
                f"{place.shape} there"
            )
        place += sums

    def merge(self, other: "CellSums") -> "CellSums":
        """These sums and those of other windows of the same scene together; changes this one.

        Raises:
            ValueError: the other belongs to another scene or grid.
        """
        if (self.scene_id, self.shape, self.region_px) != (
            other.scene_id,
            other.shape,
            other.region_px,
        ):
            raise ValueError(f"scene {self.scene_id}: sums of another scene or grid")
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                value += getattr(other, name)
        return self

    def _add_band(self, cut: "_CellCut", pool: NDArray[np.bool_], *, maps: SceneMaps) -> None:
        ambiguous = pool & (maps.state == PixelState.AMBIGUOUS)
        asked = pool & (maps.plar < self.num_classes)
        cut.add_count(self._valid, maps.state != PixelState.NODATA)
        cut.add_count(self._pool, pool)
        cut.add_count(self._asked, asked)
        cut.add_count(self._ambiguous, ambiguous)
        cut.add_count(self._novel, pool & (maps.state == PixelState.NOVEL))
        cut.add_sum(self._score, maps.undecided, where=pool)
        cut.add_sum(self._error, maps.error, where=pool)
        cut.add_sum(self._margin, maps.margin, where=asked)
        cut.add_classes(self._teacher, maps.teacher, where=pool)
        cut.add_classes(self._refined, maps.refined, where=pool)
        cut.add_classes(self._plar, maps.plar, where=asked)
        cut.add_classes(self._named, maps.teacher, where=ambiguous)
        cut.add_classes(self._named, maps.plar, where=ambiguous)

    def _check(
        self,
        row0: int,
        col0: int,
        *,
        pool: NDArray[np.bool_],
        maps: SceneMaps,
    ) -> None:
        height, width = pool.shape
        if row0 < 0 or col0 < 0 or row0 + height > self.shape[0] or col0 + width > self.shape[1]:
            raise ValueError(
                f"scene {self.scene_id}: window {height} x {width} at ({row0}, {col0}) leaves the "
                f"scene of {self.shape[0]} x {self.shape[1]} pixels"
            )
        wrong = [f.name for f in fields(SceneMaps) if getattr(maps, f.name).shape != pool.shape]
        if wrong:
            raise ValueError(f"scene {self.scene_id}: maps {', '.join(wrong)} do not fit the pool")

    def candidates(self, *, min_share: float) -> Candidates:
        """The cells of which at least `min_share` (of the full, unclipped cell) may be asked.

        Where no cell of the scene has even that many valid pixels (a scene or an area of interest
        smaller than a region), the cell with most pool pixels is kept.

        Raises:
            ValueError: a pixel was added twice, or a map holds NaN.
        """
        heights, widths = self._cell_sides()
        if (self._valid > heights[:, None] * widths[None, :]).any():
            raise ValueError(f"scene {self.scene_id}: windows added to its cells overlap")
        needed = max(1.0, min_share * self.region_px**2)
        rows, cols = np.nonzero(self._pool >= needed)
        if not rows.size and self._pool.any() and not (self._valid >= needed).any():
            row, col = np.unravel_index(int(np.argmax(self._pool)), self._pool.shape)
            rows, cols = np.array([row]), np.array([col])
        return self._table(rows, cols, heights=heights, widths=widths)

    def _cell_sides(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sides = [
            np.minimum(self.region_px, length - np.arange(0, length, self.region_px))
            for length in self.shape
        ]
        return sides[0], sides[1]

    def _table(
        self,
        rows: NDArray[np.intp],
        cols: NDArray[np.intp],
        *,
        heights: NDArray[np.int64],
        widths: NDArray[np.int64],
    ) -> Candidates:
        at = (rows, cols)
        pixels = self._pool[at]
        features = (self._features[:, rows, cols] / pixels).T
        sums = np.stack([self._score[at], self._error[at], self._margin[at]])
        if not (np.isfinite(sums).all() and np.isfinite(features).all()):
            raise ValueError(f"scene {self.scene_id}: a map or feature of the pool is not finite")
        return Candidates(
            scene_ids=(self.scene_id,),
            region_px=self.region_px,
            scene=np.zeros(len(rows), dtype=np.int32),
            row=rows.astype(np.int32),
            col=cols.astype(np.int32),
            cell_height=heights[rows].astype(np.int32),
            cell_width=widths[cols].astype(np.int32),
            pixels=pixels,
            score_sum=np.round(sums[0], 6),
            mean_error=np.round(sums[1] / pixels, 6),
            ambiguous_share=self._ambiguous[at] / pixels,
            novel_share=self._novel[at] / pixels,
            margin=sums[2] / np.maximum(self._asked[at], 1),
            teacher_class=_most_frequent(self._teacher[at], 1)[:, 0],
            plar_class=_most_frequent(self._plar[at], 1)[:, 0],
            ambiguous=_most_frequent(self._named[at], 2),
            answers=expected_answers(self._refined[at], pixels),
            features=np.ascontiguousarray(features, dtype=np.float32),
        )


class _CellCut:
    """How a window is cut by the grid of cells: adds its maps to tables of all cells."""

    def __init__(self, row0: int, col0: int, *, shape: tuple[int, ...], region_px: int) -> None:
        self._row_starts, self._rows = _cut_axis(row0, shape[0], region_px)
        self._col_starts, self._cols = _cut_axis(col0, shape[1], region_px)
        cell_rows = (np.arange(shape[0]) + row0) // region_px - self._rows.start
        cell_cols = (np.arange(shape[1]) + col0) // region_px - self._cols.start
        self._grid = (len(self._row_starts), len(self._col_starts))
        self._cell = cell_rows[:, None] * self._grid[1] + cell_cols[None, :]

    def add_count(self, total: NDArray[np.int64], where: NDArray[np.bool_]) -> None:
        by_row = np.add.reduceat(where, self._row_starts, axis=0, dtype=np.int32)
        total[self._rows, self._cols] += np.add.reduceat(by_row, self._col_starts, axis=1)

    def add_sum(
        self,
        total: NDArray[np.float64],
        values: NDArray[np.float32],
        *,
        where: NDArray[np.bool_],
    ) -> None:
        exact = np.where(where, values, np.float32(0)).astype(np.float64)
        exact *= 1 / STEP
        np.rint(exact, out=exact)
        by_row = np.add.reduceat(exact, self._row_starts, axis=0)
        by_cell = np.add.reduceat(by_row, self._col_starts, axis=1)
        total[self._rows, self._cols] += by_cell * STEP

    def add_classes(
        self,
        total: NDArray[np.int32],
        classes: NDArray[np.uint8],
        *,
        where: NDArray[np.bool_],
    ) -> None:
        num_classes = total.shape[-1]
        inside = where & (classes < num_classes)
        code = self._cell[inside] * num_classes + classes[inside]
        size = self._grid[0] * self._grid[1] * num_classes
        counts = np.bincount(code, minlength=size).reshape(*self._grid, num_classes)
        total[self._rows, self._cols] += counts.astype(np.int32)


def _cut_axis(start: int, length: int, region_px: int) -> tuple[NDArray[np.intp], slice]:
    """Offsets in the window at which cells begin, and the range of those cells."""
    first, last = start // region_px, (start + length - 1) // region_px
    starts = np.maximum(np.arange(first, last + 1) * region_px - start, 0)
    return starts.astype(np.intp), slice(first, last + 1)


def _most_frequent(counts: NDArray[np.int32], number: int) -> NDArray[np.int16]:
    """The `number` most frequent classes per row (ties: lowest id); -1 where there are fewer."""
    padded = np.pad(counts, ((0, 0), (0, number)))
    order = np.argsort(-padded, axis=1, kind="stable")[:, :number]
    found = np.take_along_axis(padded, order, axis=1) > 0
    return np.where(found, order, -1).astype(np.int16)


def expected_answers(counts: NDArray[np.integer], pixels: NDArray[np.integer]) -> NDArray[np.int32]:
    """Answer polygons to expect per region, from its refined pixels per class (region, class)."""
    needed = np.maximum(1.0, ANSWER_SHARE * pixels)
    answers: NDArray[np.int32] = (counts >= needed[:, None]).sum(axis=1, dtype=np.int32)
    return np.maximum(1, answers)
