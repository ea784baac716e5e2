"""Statistics of every region of a scene, added window by window; any cut gives the same."""

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.geo.scene import SceneMaps
from geohsal.geo.states import PixelState
from geohsal.query.feature_sums import STEP, FeatureSums
from geohsal.query.layout import Layout
from geohsal.query.regions import Candidates

ANSWER_SHARE = 0.01
"""A class is expected to need an answer polygon if it holds this share of a region's pixels."""

_BAND_PIXELS = 1 << 17
"""Pixels worked on at a time, whatever window is added: their maps stay in the CPU's cache."""


class CellSums:
    """Sums over the pool pixels of each region of one scene.

    `add` windows that together hold every pixel of the scene once (pixels that are in no window
    count as outside the pool and as nodata), then take `candidates`. Memory is per region, not
    per pixel. Sums are exact, so the cut into windows and their order change no bit.
    """

    def __init__(
        self,
        scene_id: str,
        layout: Layout,
        *,
        num_classes: int,
        num_features: int = 0,
        num_embedding: int = 0,
    ) -> None:
        self.scene_id = scene_id
        self.layout = layout
        self.num_classes = num_classes
        atoms = layout.atoms + 1  # the last one stays empty
        self._valid = np.zeros(atoms, dtype=np.int64)
        self._pool = np.zeros(atoms, dtype=np.int64)
        self._summed = np.zeros(atoms, dtype=np.int64)
        self._asked = np.zeros(atoms, dtype=np.int64)
        self._ambiguous = np.zeros(atoms, dtype=np.int64)
        self._novel = np.zeros(atoms, dtype=np.int64)
        self._score = np.zeros(atoms)
        self._error = np.zeros(atoms)
        self._margin = np.zeros(atoms)
        self._features = np.zeros((num_features, atoms))
        self._embeddings = np.zeros((num_embedding, atoms))
        self._teacher = np.zeros((atoms, num_classes), dtype=np.int32)
        self._refined = np.zeros((atoms, num_classes), dtype=np.int32)
        self._plar = np.zeros((atoms, num_classes), dtype=np.int32)
        self._named = np.zeros((atoms, num_classes), dtype=np.int32)

    def add(self, atoms: NDArray[np.int32], pool: NDArray[np.bool_], *, maps: SceneMaps) -> None:
        """Add one window.

        Args:
            atoms: (row, col) atom of each pixel; -1 where it belongs to none.
            pool: (row, col) pixels that may be asked about: valid, unlabelled, train.
            maps: the round's maps of this window; `undecided` is the acquisition map.

        Raises:
            ValueError: the arrays do not fit together, or an atom is not of this layout.
        """
        self._check(atoms, pool, maps=maps)
        step = max(1, _BAND_PIXELS // max(1, pool.shape[1]))
        for top in range(0, pool.shape[0], step):
            rows = slice(top, top + step)
            band = SceneMaps(**{f.name: getattr(maps, f.name)[rows] for f in fields(SceneMaps)})
            self._add_band(_Band(atoms[rows]), pool[rows], maps=band)

    def add_features(self, sums: FeatureSums, embeddings: FeatureSums | None = None) -> None:
        """Add the features of one window, whose maps are added by `add`; numbers are atoms.

        They may be over more pixels than the pool of `add` (where regions turn out to rest): means
        are over the pixels that were summed. `embeddings` are over the same pixels as `sums`.

        Raises:
            ValueError: the sums do not fit into the scene's regions.
        """
        for total, part in ((self._features, sums), (self._embeddings, embeddings)):
            if part is None:
                continue
            if len(part.sums) != len(total) or (part.numbers >= self.layout.atoms).any():
                raise ValueError(
                    f"scene {self.scene_id}: sums of {len(part.sums)} features, expected "
                    f"{len(total)}, over atoms of {self.layout.atoms}"
                )
            total[:, part.numbers] += part.sums
        self._summed[sums.numbers] += sums.pixels

    def _add_band(self, band: "_Band", pool: NDArray[np.bool_], *, maps: SceneMaps) -> None:
        ambiguous = pool & (maps.state == PixelState.AMBIGUOUS)
        asked = pool & (maps.plar < self.num_classes)
        band.add_count(self._valid, maps.state != PixelState.NODATA)
        band.add_count(self._pool, pool)
        band.add_count(self._asked, asked)
        band.add_count(self._ambiguous, ambiguous)
        band.add_count(self._novel, pool & (maps.state == PixelState.NOVEL))
        band.add_sum(self._score, maps.undecided, where=pool)
        band.add_sum(self._error, maps.error, where=pool)
        band.add_sum(self._margin, maps.margin, where=asked)
        band.add_classes(self._teacher, maps.teacher, where=pool)
        band.add_classes(self._refined, maps.refined, where=pool)
        band.add_classes(self._plar, maps.plar, where=asked)
        band.add_classes(self._named, maps.teacher, where=ambiguous)
        band.add_classes(self._named, maps.plar, where=ambiguous)

    def _check(self, atoms: NDArray[np.int32], pool: NDArray[np.bool_], *, maps: SceneMaps) -> None:
        wrong = [f.name for f in fields(SceneMaps) if getattr(maps, f.name).shape != pool.shape]
        if wrong or atoms.shape != pool.shape:
            names = ", ".join(wrong or ["atoms"])
            raise ValueError(f"scene {self.scene_id}: maps {names} do not fit the pool")
        if atoms.size and int(atoms.max()) >= self.layout.atoms:
            raise ValueError(
                f"scene {self.scene_id}: atom {int(atoms.max())} of {self.layout.atoms}"
            )

    def candidates(self, *, min_share: float) -> Candidates:
        """The regions of which at least `min_share` (of a whole, unclipped one) may be asked.

        Where no region of the scene has even that many valid pixels (a scene or an area of
        interest smaller than a region), the one with most pool pixels is kept.

        Raises:
            ValueError: a pixel was added twice, or a map holds NaN.
        """
        layout = self.layout
        valid, pool = self._of(self._valid), self._of(self._pool)
        area = layout.height.astype(np.int64) * layout.width
        if (valid > np.minimum(area, layout.size)).any():
            raise ValueError(f"scene {self.scene_id}: windows added to its regions overlap")
        needed = np.maximum(1.0, min_share * layout.size)
        kept = np.flatnonzero(pool >= needed)
        if not kept.size and pool.any() and not (valid >= needed).any():
            kept = np.array([int(np.argmax(pool))])
        return self._table(kept)

    def _of(self, table: NDArray[Any], kept: NDArray[np.intp] | None = None) -> NDArray[Any]:
        """Sums of regions from those of their atoms (the first axis of `table`)."""
        parts = self.layout.parts if kept is None else self.layout.parts[:, kept]
        found: NDArray[Any] = table[parts[0]].copy()
        for part in parts[1:]:
            found += table[part]
        return found

    def _table(self, kept: NDArray[np.intp]) -> Candidates:
        layout = self.layout
        pixels = self._of(self._pool, kept)
        summed = np.maximum(self._of(self._summed, kept), 1)  # none where no features are added
        vectors = [
            self._of(table.T, kept) / summed[:, None]
            for table in (self._features, self._embeddings)
        ]
        sums = [self._of(table, kept) for table in (self._score, self._error, self._margin)]
        if not all(np.isfinite(values).all() for values in (*sums, *vectors)):
            raise ValueError(f"scene {self.scene_id}: a map or feature of the pool is not finite")
        return Candidates(
            scene_ids=(self.scene_id,),
            unit=layout.unit,
            region_px=layout.region_px,
            scene=np.zeros(len(kept), dtype=np.int32),
            row=layout.row[kept],
            col=layout.col[kept],
            number=layout.number[kept],
            atom=layout.parts[0, kept].astype(np.int32),
            top=layout.top[kept],
            left=layout.left[kept],
            cell_height=layout.height[kept],
            cell_width=layout.width[kept],
            pixels=pixels,
            score_sum=np.round(sums[0], 6),
            mean_error=np.round(sums[1] / pixels, 6),
            ambiguous_share=self._of(self._ambiguous, kept) / pixels,
            novel_share=self._of(self._novel, kept) / pixels,
            margin=sums[2] / np.maximum(self._of(self._asked, kept), 1),
            teacher_class=_most_frequent(self._of(self._teacher, kept), 1)[:, 0],
            plar_class=_most_frequent(self._of(self._plar, kept), 1)[:, 0],
            ambiguous=_most_frequent(self._of(self._named, kept), 2),
            answers=expected_answers(self._of(self._refined, kept), pixels),
            features=np.ascontiguousarray(vectors[0], dtype=np.float32),
            embeddings=np.ascontiguousarray(vectors[1], dtype=np.float32),
        )


class _Band:
    """Adds the maps of a few rows to tables of all atoms."""

    def __init__(self, atoms: NDArray[np.int32]) -> None:
        self._inside = atoms >= 0
        self._first = int(atoms[self._inside].min()) if self._inside.any() else 0
        self._atoms = atoms - self._first

    def _add(self, total: NDArray[Any], counts: NDArray[Any]) -> None:
        total[self._first : self._first + len(counts)] += counts.astype(total.dtype)

    def add_count(self, total: NDArray[np.int64], where: NDArray[np.bool_]) -> None:
        self._add(total, np.bincount(self._atoms[where & self._inside]))

    def add_sum(
        self,
        total: NDArray[np.float64],
        values: NDArray[np.float32],
        *,
        where: NDArray[np.bool_],
    ) -> None:
        where = where & self._inside
        exact = np.rint(values[where].astype(np.float64) / STEP)
        self._add(total, np.bincount(self._atoms[where], weights=exact) * STEP)

    def add_classes(
        self,
        total: NDArray[np.int32],
        classes: NDArray[np.uint8],
        *,
        where: NDArray[np.bool_],
    ) -> None:
        num_classes = total.shape[-1]
        inside = where & self._inside & (classes < num_classes)
        code = self._atoms[inside].astype(np.int64) * num_classes + classes[inside]
        atoms = int(code.max()) // num_classes + 1 if code.size else 0
        counts = np.bincount(code, minlength=atoms * num_classes)
        self._add(total, counts[: atoms * num_classes].reshape(atoms, num_classes))


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
