"""The plan of a stage: which windows of which scenes make which chunk, frozen before any work.

A plan holds numbers only (no geometry, paths, hosts or times), so that a million windows are
planned in a second and every process that plans the same work writes the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import DataError
from geohsal.io.atomic import replacing

FORMAT_VERSION = 1
COLUMNS = ("chunk", "scene", "row", "col", "height", "width")
_ID_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneUnits:
    """What is to be done of one scene.

    `windows` (unit, 4) are row, col, height and width; `fingerprint` stands for the scene's
    content and whatever else of it the result depends on.
    """

    scene_id: str
    fingerprint: str
    windows: NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """The frozen work of a stage for one request.

    `chunk_ids` are in plan order; the arrays have one entry per unit, chunk after chunk: the
    positions of its chunk and of its scene, and its window.
    """

    stage: str
    request: str
    scenes: tuple[str, ...]
    chunk_ids: tuple[str, ...]
    chunk: NDArray[np.int32]
    scene: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]

    def __len__(self) -> int:
        """Units."""
        return len(self.chunk)

    def units_of(self, chunk: int) -> slice:
        """Where the units of the chunk at this position lie in the arrays."""
        low, high = np.searchsorted(self.chunk, np.array([chunk, chunk + 1], dtype=np.int32))
        return slice(int(low), int(high))

    def scene_of(self, chunk: int) -> str:
        """Scene of the chunk at this position."""
        return self.scenes[int(self.scene[self.units_of(chunk).start])]

    def windows_of(self, chunk: int) -> NDArray[np.int32]:
        """Windows (unit, 4) of the chunk at this position: row, col, height, width."""
        units = self.units_of(chunk)
        columns = [getattr(self, name)[units] for name in ("row", "col", "height", "width")]
        return np.column_stack(columns).astype(np.int32, copy=False)

    def chunks_of(self, scene_id: str) -> range:
        """Positions of the chunks of a scene."""
        units = self._units_in(scene_id)
        if not units:
            return range(0)
        return range(int(self.chunk[units[0]]), int(self.chunk[units[-1]]) + 1)

    def size_of(self, scene_id: str) -> int:
        """Units of a scene."""
        return len(self._units_in(scene_id))

    def _units_in(self, scene_id: str) -> range:
        position = self.scenes.index(scene_id)
        low, high = np.searchsorted(self.scene, np.array([position, position + 1], dtype=np.int32))
        return range(int(low), int(high))


def window_rows(windows: Iterable[Window]) -> NDArray[np.int32]:
    """Windows as (window, 4) row, col, height and width."""
    rows = [(window.row_off, window.col_off, window.height, window.width) for window in windows]
    return np.array(rows, dtype=np.int32).reshape(-1, 4)


def make_plan(stage: str, *, request: str, scenes: Sequence[SceneUnits], chunk_units: int) -> Plan:
    """Cut the units of each scene, in their order, into chunks of at most `chunk_units`.

    Args:
        stage: name of the stage.
        request: identifies everything that the results depend on besides the scenes: the model,
            the settings.
        scenes: in the order in which they are merged; ids must differ.
        chunk_units: units of a chunk.
    """
    if len({scene.scene_id for scene in scenes}) < len(scenes):
        raise ValueError("a scene is planned twice")
    windows = [np.asarray(scene.windows, dtype=np.int32).reshape(-1, 4) for scene in scenes]
    ids, sizes, owners = [], [], []
    for position, (scene, own) in enumerate(zip(scenes, windows, strict=True)):
        head = json.dumps([FORMAT_VERSION, stage, request, scene.scene_id, scene.fingerprint])
        for start in range(0, len(own), chunk_units):
            part = own[start : start + chunk_units]
            ids.append(_chunk_id(head, part))
            sizes.append(len(part))
            owners.append(position)
    table = np.concatenate([np.zeros((0, 4), dtype=np.int32), *windows])
    row, col, height, width = (np.ascontiguousarray(column) for column in table.T)
    return Plan(
        stage=stage,
        request=request,
        scenes=tuple(scene.scene_id for scene in scenes),
        chunk_ids=tuple(ids),
        chunk=np.repeat(np.arange(len(ids), dtype=np.int32), sizes),
        scene=np.repeat(np.asarray(owners, dtype=np.int32), sizes),
        row=row,
        col=col,
        height=height,
        width=width,
    )


def _chunk_id(head: str, windows: NDArray[np.int32]) -> str:
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(windows, dtype="<i4").tobytes())
    return digest.hexdigest()[:_ID_DIGITS]


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan whole or not at all; the same plan gives the same bytes.

    Raises:
        DataError: the folder cannot be written.
    """
    note = {
        "format_version": FORMAT_VERSION,
        "stage": plan.stage,
        "request": plan.request,
        "scenes": plan.scenes,
        "chunk_ids": plan.chunk_ids,
    }
    table = pa.table({name: getattr(plan, name) for name in COLUMNS})
    with replacing(path) as beside:
        pq.write_table(
            table.replace_schema_metadata({"geohsal": json.dumps(note)}),
            beside,
            compression="zstd",
        )


def read_plan(path: Path) -> Plan:
    """Read what `write_plan` wrote.

    Raises:
        DataError: the plan is missing, damaged, or of another version.
    """
    try:
        table = pq.read_table(path, memory_map=False)
        note = json.loads(table.schema.metadata[b"geohsal"])
        if note["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {note['format_version']}, not {FORMAT_VERSION}")
        columns = {name: table.column(name).to_numpy() for name in COLUMNS}
        return Plan(
            stage=note["stage"],
            request=note["request"],
            scenes=tuple(note["scenes"]),
            chunk_ids=tuple(note["chunk_ids"]),
            **columns,
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{path}: cannot be read ({reason}); delete it and run the command again"
        ) from None


def find_plan(path: Path) -> Plan | None:
    """The plan that is there; None where there is none, or it cannot be read."""
    try:
        return read_plan(path)
    except DataError:
        return None


def freeze_plan(path: Path, plan: Plan) -> None:
    """Put a plan in its place unless it is there; processes that do so at once do not disturb.

    Raises:
        DataError: the folder cannot be written.
    """
    if not _is_frozen(path, plan):
        write_plan(path, plan)


def _is_frozen(path: Path, plan: Plan) -> bool:
    found = find_plan(path)
    if found is None:
        return False
    same = (found.stage, found.request, found.scenes, found.chunk_ids)
    return same == (plan.stage, plan.request, plan.scenes, plan.chunk_ids)
