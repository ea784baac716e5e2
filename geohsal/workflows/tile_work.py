"""Scenes of a tile run as chunks of a plan: one scene is one chunk, its part tells what it gave.

Rasters of a scene are put aside under the chunk's name before its part is there, so a part means
that they are complete; the merge renames them into the run.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import geohsal.errors
from geohsal.errors import DataError, GeohsalError, WriteError
from geohsal.geo.scene import Tile
from geohsal.io.atomic import PART, unwritten
from geohsal.io.fingerprint import file_sha256
from geohsal.io.parts import Part
from geohsal.io.plan import Plan, SceneUnits, make_plan, window_rows
from geohsal.io.raster import open_scene
from geohsal.io.run import Run
from geohsal.io.run_tables import labels_digest, scene_record, scene_values
from geohsal.workflows.engine import Chunk
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.scan import SceneScan, SceneTask, scan_scene, scene_tiles

STAGE = "tile"
FORMAT_VERSION = 2
_UNREADABLE = "unreadable"
"""Stands for a scene that cannot be opened: its chunk says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneWork:
    """What a process needs to scan scenes of a plan.

    `stage` is the folder of the rasters, by chunk; None: look only. `progress` is told of every
    tile where the work stays in this process.
    """

    tasks: Mapping[str, SceneTask]
    stage: Path | None
    progress: Progress | None = None

    def open(self) -> "SceneWorker":
        """A worker of this process."""
        return SceneWorker(self)


class SceneWorker:
    """Scans the scenes it is given."""

    def __init__(self, work: SceneWork) -> None:
        self._work = work

    def run(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        """What a scene gave, or the error that it ended in."""
        try:
            return self._scan(chunk)
        except WriteError:  # nothing is wrong with the scene
            raise
        except GeohsalError as error:
            return {"error": _text([type(error).__name__, str(error)])}

    def close(self) -> None:
        """Nothing stays open between scenes."""

    def _scan(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        task, progress = self._work.tasks[chunk.scene_id], self._work.progress or Silent()
        if self._work.stage is None:
            return _arrays(scan_scene(task, None, progress=progress), files={})
        beside = self._work.stage / f".{chunk.chunk_id}.{uuid.uuid4().hex[:8]}{PART}"
        try:
            scan = scan_scene(task, beside, progress=progress)
            _refuse_lost(task, scan, beside)
            return _arrays(scan, files=_put_aside(beside, self._work.stage / chunk.chunk_id))
        except OSError as error:
            raise unwritten(beside, error) from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _refuse_lost(task: SceneTask, scan: SceneScan, folder: Path) -> None:
    """A part says that its rasters are there: all that were asked for.

    Raises:
        DataError: some are gone.
    """
    run = Run(path=folder)
    wanted = [run.labels(scan.record.scene_id), run.base_labels(scan.record.scene_id)]
    if task.patches:
        wanted += [folder / "patches" / f"{tile.tile_id}.tif" for tile in scan.tiles]
    lost = [path for path in wanted if not path.is_file()]
    if lost:
        raise DataError(
            f"{folder}: {len(lost)} of {len(wanted)} rasters were removed while the scene was "
            "read; run the same command again"
        )


def _put_aside(beside: Path, folder: Path) -> dict[str, str]:
    """Move finished rasters to the chunk's folder; their hashes by name."""
    files = {}
    for path in sorted(beside.rglob("*.tif")):
        name = path.relative_to(beside).as_posix()
        files[name] = file_sha256(path)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    return files


def _arrays(scan: SceneScan, *, files: dict[str, str]) -> dict[str, NDArray[Any]]:
    note = {
        "record": scene_values(scan.record),
        "files": files,
        "pixel_bytes": scan.pixel_bytes,
    }
    return {
        "note": _text(note),
        "cores": window_rows(tile.core for tile in scan.tiles),
        "valid_share": np.array([tile.valid_share for tile in scan.tiles], dtype=np.float64),
        "labelled_share": np.array([tile.labelled_share for tile in scan.tiles], dtype=np.float64),
    }


def _text(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, sort_keys=True).encode(), dtype=np.uint8)


def _value(array: NDArray[Any]) -> Any:
    return json.loads(array.tobytes())


def error_of(part: Part) -> GeohsalError | None:
    """The error in which a scene ended; None where it was scanned."""
    if "error" not in part.arrays:
        return None
    kind, message = _value(part.arrays["error"])
    error: GeohsalError = getattr(geohsal.errors, kind)(message)
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedScene:
    """A scene as its part tells; `files` are hashes of its rasters by their name in a run."""

    chunk_id: str
    scan: SceneScan
    files: Mapping[str, str]


def scanned(part: Part, task: SceneTask) -> ScannedScene:
    """What the part of a scene says.

    Raises:
        KeyError: it was written by another version.
    """
    note = _value(part.arrays["note"])
    record = scene_record(note["record"])
    sizes = task.tile
    tiles = scene_tiles(
        task.source,
        record.scene,
        task.blocks,
        core_px=sizes.core_px,
        overlap_px=sizes.overlap_px,
    )
    by_place: dict[tuple[int, int], Tile] = {
        (tile.core.row_off, tile.core.col_off): tile for tile in tiles
    }
    columns = zip(
        part.arrays["cores"].tolist(),
        part.arrays["valid_share"].tolist(),
        part.arrays["labelled_share"].tolist(),
        strict=True,
    )
    kept = tuple(
        replace(by_place[row, col], valid_share=valid, labelled_share=labelled)
        for (row, col, _, _), valid, labelled in columns
    )
    scan = SceneScan(record=record, tiles=kept, pixel_bytes=note["pixel_bytes"])
    return ScannedScene(chunk_id=part.manifest["chunk"], scan=scan, files=note["files"])


def request_of(tasks: Sequence[SceneTask]) -> str:
    """Digest of what all scenes of a tile run share; no path goes into it."""
    first = tasks[0]
    shared = [
        FORMAT_VERSION,
        first.bands,
        [info.name for info in first.classes],
        repr(first.blocks),
        [first.tile.core_px, first.tile.overlap_px, first.region_px, first.patches],
    ]
    return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:32]


def plan_scenes(tasks: Sequence[SceneTask]) -> tuple[Plan, dict[str, tuple[str, str]]]:
    """One chunk per scene; and of every scene that can be opened the image's and labels' digests.

    A chunk's id follows its image, its labels, its split and its answers, not where they lie.
    """
    units, seen_now = [], {}
    for task in tasks:
        scene_id = task.source.scene_id
        try:
            image, labels, shape = _look(task)
            seen_now[scene_id] = image, labels
        except GeohsalError:
            image, labels, shape = _UNREADABLE, "", (1, 1)
        seen = [image, labels, task.source.split, [repr(entry) for entry in task.entries]]
        units.append(
            SceneUnits(
                scene_id=scene_id,
                fingerprint=hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32],
                windows=np.array([(0, 0, *shape)], dtype=np.int32),
            )
        )
    return make_plan(STAGE, request=request_of(tasks), scenes=units, chunk_units=1), seen_now


def _look(task: SceneTask) -> tuple[str, str, tuple[int, int]]:
    """Fingerprints of image and labels, and the scene's shape."""
    with open_scene(
        task.source, task.bands, max_pixels=task.tile.max_pixels, verify=False
    ) as reader:
        labels = labels_digest(task.source.labels, region_px=task.region_px)
        return reader.fingerprint(), labels, reader.scene.shape
