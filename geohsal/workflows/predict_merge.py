"""The parts of a raster become its maps: one raster after the other, or each in some process.

Loads no torch: a process that writes maps begins at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from geohsal.errors import GeohsalError, RasterError
from geohsal.geo.scene import Scene
from geohsal.io.parts import part_path, read_part
from geohsal.io.plan import Plan
from geohsal.workflows.engine import chunk_of, read_one
from geohsal.workflows.pool import Tell
from geohsal.workflows.predict_write import MapFolder, Windowed
from geohsal.workflows.stages import StageFolder

FAILURE = "failure"
"""The only array (of UTF-8) in the part of a chunk whose raster cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapJob:
    """One raster to predict; `fingerprint` stands for its pixels and its labels."""

    name: str
    scene: Scene
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapMerge:
    """Writes the maps of rasters from their parts; see `engine.run_each`."""

    target: MapFolder
    plan: Plan
    stage: StageFolder
    overwrite: bool

    def __call__(self, job: MapJob, tell: Tell) -> dict[str, int] | GeohsalError | None:
        """Valid pixels by class; None if the maps were there; or why they could not be written."""
        try:
            counts = None
            if not self.target.is_done(job.name, overwrite=self.overwrite):
                windows = raster_windows(self.plan, job.name, stage=self.stage, tell=tell)
                counts = self.target.write(job.name, job.scene, windows)
            drop_parts(self.plan, job.name, stage=self.stage)
        except GeohsalError as error:
            return error
        return counts


def raster_windows(plan: Plan, name: str, *, stage: StageFolder, tell: Tell) -> Iterator[Windowed]:
    """The windows of a raster with what was found there, in plan order.

    Raises:
        PartsMissingError: a part is missing or damaged.
        RasterError: a window could not be read. The parts that say so are removed, so that the
            next command tries again.
    """
    for place in plan.chunks_of(name):
        part = read_one(plan, stage.parts, plan.chunk_ids[place])
        if FAILURE in part.arrays:
            _forget_failures(plan, name, stage)
            raise RasterError(part.arrays[FAILURE].tobytes().decode())
        yield chunk_of(plan, place).windows[0], part.arrays
        tell()


def _forget_failures(plan: Plan, name: str, stage: StageFolder) -> None:
    for place in plan.chunks_of(name):
        path = part_path(stage.parts, plan.chunk_ids[place])
        part = read_part(path, [FAILURE])
        if part is not None and FAILURE in part.arrays:
            path.unlink(missing_ok=True)


def drop_parts(plan: Plan, name: str, *, stage: StageFolder) -> None:
    """Remove the parts of a raster whose maps are written."""
    for place in plan.chunks_of(name):
        part_path(stage.parts, plan.chunk_ids[place]).unlink(missing_ok=True)
