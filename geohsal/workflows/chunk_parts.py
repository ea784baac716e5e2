"""What a query keeps of a chunk: maps of each of its windows, counts and sums of all together."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.geo.patches import slices
from geohsal.io.plan import Plan
from geohsal.query.acquisition import Doubt
from geohsal.query.feature_sums import FeatureSums, merge_sums
from geohsal.refine.correction_caps import Corrections, count_corrections, merge_corrections
from geohsal.training.maps import ChunkMaps
from geohsal.workflows.engine import read_one

Arrays = Mapping[str, NDArray[Any]]
SumKind = Literal["features", "embeddings", "labelled"]
KINDS: tuple[SumKind, ...] = ("features", "embeddings", "labelled")
MAPS = tuple(field.name for field in fields(ChunkMaps) if field.name != "window")
_DOUBTS: Mapping[str, Doubt] = {"entropy": "entropy", "top2": "top2_margin"}
_COUNTS = tuple(f"corrections.{field.name}" for field in fields(Corrections))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSums:
    """Sums over the pool pixels of a chunk by atom, and over its labelled train pixels by region.

    `embeddings` and `labelled` are None unless the acquisition needs them.
    """

    features: FeatureSums
    embeddings: FeatureSums | None
    labelled: FeatureSums | None


def pack_chunk(
    maps: Sequence[ChunkMaps], sums: Sequence[ChunkSums], *, doubts: Collection[Doubt]
) -> dict[str, NDArray[Any]]:
    """The arrays of a chunk.

    Args:
        maps: of its windows, in their order.
        sums: of the same windows.
        doubts: maps of doubt that the acquisition reads; the others are left out.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for number, own in enumerate(maps):
        arrays |= {f"{name}.{number}": values for name, values in _kept(own, doubts)}
    counts = merge_corrections(
        [count_corrections(own.state, own.teacher, own.plar, own.margin) for own in maps]
    )
    arrays |= {f"corrections.{f.name}": getattr(counts, f.name) for f in fields(Corrections)}
    for kind in KINDS:
        parts = [part for own in sums if (part := getattr(own, kind)) is not None]
        if parts:
            arrays |= _pack_sums(kind, merge_sums(parts))
    return arrays


def _kept(maps: ChunkMaps, doubts: Collection[Doubt]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in MAPS:
        values = getattr(maps, name)
        if values is not None and (name not in _DOUBTS or _DOUBTS[name] in doubts):
            yield name, values


def _pack_sums(kind: str, sums: FeatureSums) -> dict[str, NDArray[Any]]:
    return {f"{kind}.{field.name}": getattr(sums, field.name) for field in fields(FeatureSums)}


def _sums_of(kind: SumKind, arrays: Arrays) -> FeatureSums | None:
    if f"{kind}.numbers" not in arrays:
        return None
    return FeatureSums(**{f.name: arrays[f"{kind}.{f.name}"] for f in fields(FeatureSums)})


class SceneParts:
    """The parts of one scene, read a window at a time.

    Args:
        plan: of the query; all parts of the scene must be there.
        folder: of the parts.
        scene_id: the scene.
        command: what makes a damaged part anew.
    """

    def __init__(self, plan: Plan, folder: Path, scene_id: str, *, command: str) -> None:
        self._plan = plan
        self._folder = folder
        self._command = command
        self._chunks = plan.chunks_of(scene_id)
        own = np.concatenate([plan.windows_of(place) for place in self._chunks])
        self._boxes = np.column_stack([own[:, :2], own[:, :2] + own[:, 2:]])
        self._places = [
            (place, number)
            for place in self._chunks
            for number in range(len(plan.windows_of(place)))
        ]

    def windows(self) -> Iterator[Window]:
        """The windows that partition the scene, in plan order."""
        for top, left, bottom, right in self._boxes.tolist():
            yield Window(left, top, right - left, bottom - top)

    def corrections(self) -> Corrections:
        """The corrections of the whole scene, counted.

        Raises:
            PartsMissingError: a part is damaged.
        """
        total: Corrections | None = None
        for place in self._chunks:
            found = self._read(place, _COUNTS)
            own = Corrections(
                **{f.name: found[f"corrections.{f.name}"] for f in fields(Corrections)}
            )
            total = own if total is None else merge_corrections([total, own])
        assert total is not None, "a scene without chunks"
        return total

    def sums(self) -> Iterator[ChunkSums]:
        """The sums of each chunk.

        Raises:
            PartsMissingError: a part is damaged.
        """
        names = [f"{kind}.{field.name}" for kind in KINDS for field in fields(FeatureSums)]
        for place in self._chunks:
            found = self._read(place, names)
            features = _sums_of("features", found)
            assert features is not None, "a part without features"
            yield ChunkSums(
                features=features,
                embeddings=_sums_of("embeddings", found),
                labelled=_sums_of("labelled", found),
            )

    def maps(self, window: Window) -> ChunkMaps:
        """What is believed of any window inside the scene, before the caps; 0 where not kept.

        Raises:
            PartsMissingError: a part is damaged.
        """
        found: dict[str, Any] = {"information": None, **self._cut(window, MAPS)}
        for name in _DOUBTS:
            found.setdefault(name, np.zeros_like(found["error"]))
        return ChunkMaps(window=window, **found)

    def teacher(self, window: Window) -> NDArray[np.uint8]:
        """The teacher's classes of any window inside the scene.

        Raises:
            PartsMissingError: a part is damaged.
        """
        return self._cut(window, ("teacher",))["teacher"]

    def _read(self, place: int, names: Sequence[str]) -> Arrays:
        chunk_id = self._plan.chunk_ids[place]
        return read_one(
            self._plan, self._folder, chunk_id, names=names, command=self._command
        ).arrays

    def _cut(self, window: Window, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        rows, cols = slices(window)
        target = np.array([rows.start, cols.start, rows.stop, cols.stop])
        low = np.maximum(self._boxes[:, :2], target[:2])
        high = np.minimum(self._boxes[:, 2:], target[2:])
        hits = np.flatnonzero((low < high).all(axis=1)).tolist()
        if len(hits) == 1 and (self._boxes[hits[0]] == target).all():
            return self._unit(hits[0], names)
        found: dict[str, NDArray[Any]] = {}
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        for hit in hits:
            there = _slices(low[hit] - target[:2], high[hit] - target[:2])
            inside = _slices(low[hit] - self._boxes[hit, :2], high[hit] - self._boxes[hit, :2])
            for name, values in self._unit(hit, names).items():
                if name not in found:
                    found[name] = np.empty(shape, dtype=values.dtype)
                found[name][there] = values[inside]
        return found

    def _unit(self, hit: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        place, number = self._places[hit]
        arrays = self._read(place, [f"{name}.{number}" for name in names])
        return {name.rpartition(".")[0]: values for name, values in arrays.items()}


def _slices(low: NDArray[np.integer], high: NDArray[np.integer]) -> tuple[slice, slice]:
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
