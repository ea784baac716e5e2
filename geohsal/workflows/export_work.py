"""Scenes of an export as chunks of a plan: one scene is one chunk, its polygons set aside.

The polygons lie in a file of their own under the chunk's name, complete before its part is there;
the part counts them.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from geohsal.errors import DataError, WriteError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.atomic import scratch, unwritten
from geohsal.io.fingerprint import file_sha256
from geohsal.io.parts import Part
from geohsal.io.plan import Plan, SceneUnits, make_plan
from geohsal.io.polygon_file import PackedBatch, PolygonBatch, pack_batches, packed_batches
from geohsal.io.review_schema import Field, Layer
from geohsal.io.run import Round, Run
from geohsal.workflows.engine import Chunk
from geohsal.workflows.export_scene import KINDS, SOURCES, What, batches, stage

STAGE = "export"
FORMAT_VERSION = 2
_TITLES = {"refined": "Refined pseudo-labels", "final": "Land-cover map"}
_LAYERS = {"refined": "pseudo_labels", "final": "final_map"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportWork:
    """What a process needs to cut scenes into polygons.

    `crs` is that of each scene's layer; `folder` takes the polygons, by chunk.
    """

    run: Run
    round: Round
    classes: tuple[ClassInfo, ...]
    what: What
    sieve_px: int
    simplify_px: float
    scenes: Mapping[str, Scene]
    crs: Mapping[str, CRS | None]
    layer: Layer
    folder: Path

    def open(self) -> "ExportWorker":
        """A worker of this process."""
        return ExportWorker(self)

    def request(self) -> str:
        """Digest of what all scenes share; no path goes into it."""
        shared = [
            FORMAT_VERSION,
            [self.round.index, self.what, self.sieve_px, self.simplify_px],
            [info.name for info in self.classes],
        ]
        return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:32]

    def plan(self, inputs: Mapping[str, Sequence[str]]) -> Plan:
        """One chunk per scene that is in `inputs`: the hashes of its files."""
        units = []
        for scene_id, hashes in inputs.items():
            crs = self.crs[scene_id]
            seen = [*hashes, crs.to_wkt() if crs else None]
            units.append(
                SceneUnits(
                    scene_id=scene_id,
                    fingerprint=hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32],
                    windows=np.array([(0, 0, *self.scenes[scene_id].shape)], dtype=np.int32),
                )
            )
        return make_plan(STAGE, request=self.request(), scenes=units, chunk_units=1)

    def fits(self, plan: Plan, inputs: Mapping[str, Sequence[str]]) -> bool:
        """Whether a plan is of all these scenes, and those in `inputs` are still what it saw."""
        if (plan.stage, plan.request) != (STAGE, self.request()):
            return False
        known = set(plan.chunk_ids)
        return plan.scenes == tuple(self.scenes) and known.issuperset(self.plan(inputs).chunk_ids)


class ExportWorker:
    """Cuts the scenes it is given."""

    def __init__(self, work: ExportWork) -> None:
        self._work = work

    def run(self, chunk: Chunk) -> dict[str, NDArray[Any]]:
        """Count and areas of a scene's polygons, or why there are none.

        Raises:
            DataError: the folder cannot be written.
        """
        folder = self._work.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with scratch(folder, "export") as own:
                return self._cut(chunk, own)
        except OSError as error:
            raise unwritten(folder, error) from None

    def _cut(self, chunk: Chunk, folder: Path) -> dict[str, NDArray[Any]]:
        work, scene = self._work, self._work.scenes[chunk.scene_id]
        try:
            hashes = input_hashes(work.run, work.round, scene.scene_id, what=work.what)
            staged = stage(
                work.run,
                work.round,
                scene,
                num_classes=len(work.classes),
                what=work.what,
                sieve_px=work.sieve_px,
                folder=folder,
            )
        except DataError as error:
            if isinstance(error, WriteError) and folder.is_dir():  # else another call has finished
                raise  # nothing is wrong with the scene
            return {"error": np.frombuffer(str(error).encode(), dtype=np.uint8)}
        counts = _Counts(len(work.classes))
        found = batches(
            staged, work.classes, work.crs[scene.scene_id], simplify_px=work.simplify_px
        )
        pack_batches(polygons_path(work.folder, chunk.chunk_id), work.layer, counts.of(found))
        return {
            "polygons": np.array([counts.polygons]),
            "areas": counts.areas,
            "inputs": np.frombuffer(" ".join(hashes).encode(), dtype=np.uint8),
        }

    def close(self) -> None:
        """Nothing stays open between scenes."""


class _Counts:
    """What passes by: polygons, and areas by class."""

    def __init__(self, num_classes: int) -> None:
        self.polygons = 0
        self.areas = np.zeros(num_classes, dtype=np.float64)

    def of(self, found: Iterator[PolygonBatch]) -> Iterator[PolygonBatch]:
        for batch in found:
            self.polygons += len(batch.polygons)
            areas = np.nan_to_num(np.asarray(batch.columns["area_m2"], dtype=np.float64))
            self.areas += np.bincount(batch.columns["class_id"], areas, self.areas.size)
            yield batch


def polygons_path(folder: Path, chunk_id: str) -> Path:
    """File of a scene's polygons."""
    return folder / f"{chunk_id}.polygons"


@dataclass(frozen=True, slots=True, kw_only=True)
class CutScene:
    """What the part of a scene says; `error` is why it could not be cut, else None."""

    chunk_id: str
    error: str | None
    polygons: int
    areas: NDArray[np.float64]

    def batches(self, folder: Path) -> Iterator[PackedBatch]:
        """Its polygons, from their file."""
        return packed_batches(polygons_path(folder, self.chunk_id))


def cut_scene(part: Part) -> CutScene:
    """Read the part of a scene."""
    chunk_id = part.manifest["chunk"]
    if "error" in part.arrays:
        error = part.arrays["error"].tobytes().decode()
        return CutScene(chunk_id=chunk_id, error=error, polygons=0, areas=np.zeros(0))
    polygons, areas = int(part.arrays["polygons"][0]), part.arrays["areas"]
    return CutScene(chunk_id=chunk_id, error=None, polygons=polygons, areas=areas)


def inputs_of(part: Part) -> list[str] | None:
    """`input_hashes` of the files that a part was cut from; None where it could not be cut."""
    found = part.arrays.get("inputs")
    return None if found is None else found.tobytes().decode().split()


def input_hashes(run: Run, round_: Round, scene_id: str, *, what: What) -> list[str]:
    """Hashes of the files that a scene's polygons are made of."""
    return [file_sha256(path) for path in input_paths(run, round_, scene_id, what=what)]


def input_paths(run: Run, round_: Round, scene_id: str, *, what: What) -> list[Path]:
    """The files that a scene's polygons are made of, as far as they are there."""
    paths = [round_.raster(scene_id, kind) for kind in KINDS]
    if what == "final":
        paths.append(run.labels(scene_id))
    return [path for path in paths if path.exists()]


def map_layer(what: What, local: str | None) -> Layer:
    """The layer of polygons; `local` names a scene without a position, which has one of its own."""
    title = _TITLES[what]
    return Layer(
        name=f"{_LAYERS[what]}_{local}" if local else _LAYERS[what],
        title=f"{title} ({local})" if local else title,
        description="Whole scenes as polygons without gaps or overlaps",
        fields=(
            Field(name="class_id", kind="int", alias="Class", choices="class"),
            Field(name="class_name", kind="text", alias="Class name"),
            Field(name="source", kind="text", alias="Source", note=", ".join(SOURCES)),
            Field(name="confidence", kind="real", alias="Confidence", note="mean"),
            Field(name="scene_id", kind="text", alias="Scene"),
            Field(name="area_m2", kind="real", alias="Area (m²)"),
        ),
    )
