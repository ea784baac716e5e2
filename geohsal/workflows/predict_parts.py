"""The plan of `geohsal predict`, and the parts that its windows leave until maps are written."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from geohsal.config import Config, config_to_dict
from geohsal.errors import GeohsalError, RasterError
from geohsal.geo.scene import Scene
from geohsal.io.atomic import OLD_S
from geohsal.io.parts import SUFFIX, part_path, read_part
from geohsal.io.plan import Plan, SceneUnits, find_plan, freeze_plan, make_plan, window_rows
from geohsal.training.collect import CHUNK_STRIDES
from geohsal.training.inference import chunks
from geohsal.training.model_io import window_grid
from geohsal.workflows.engine import Shard, chunk_of, read_one
from geohsal.workflows.predict_work import CHUNK_UNITS, FAILURE, STAGE_VERSION
from geohsal.workflows.predict_write import MapFolder, Windowed
from geohsal.workflows.stages import StageFolder

GROUP_CHUNKS = 256
"""Rasters are worked off in groups of so many chunks, so that only their parts take up disk."""

PLANS = "plan-"
"""Start of the names of plans, beside the newest one."""

PLAN_OLD_S = 30 * OLD_S
"""A plan that is older was given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapJob:
    """One raster to predict; `fingerprint` stands for its pixels and its labels."""

    name: str
    scene: Scene
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapShare:
    """A share of the windows of all the rasters that a command names.

    Which windows of a raster these are follows from its place among `names`: shares that cannot
    open the same rasters, or find others done, still share out the rest alike.
    """

    shard: Shard
    names: Sequence[str]

    def of(self, name: str) -> slice:
        """Places of the raster's windows."""
        count = self.shard.count
        return slice((self.shard.index - self.names.index(name)) % count, None, count)


def plan_maps(
    jobs: Sequence[MapJob], config: Config, *, model_hash: str, share: MapShare | None = None
) -> Plan:
    """The windows of rasters; ids do not depend on which rasters are planned together."""
    settings = [STAGE_VERSION, model_hash, config_to_dict(config)]
    side = CHUNK_STRIDES * window_grid(config).stride
    return make_plan(
        "predict",
        request=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        scenes=[
            SceneUnits(
                scene_id=job.name,
                fingerprint=job.fingerprint,
                windows=window_rows(chunks(job.scene.height, job.scene.width, size=side))[
                    share.of(job.name) if share else slice(None)
                ],
            )
            for job in jobs
        ],
        chunk_units=CHUNK_UNITS,
    )


def group_jobs(jobs: Sequence[MapJob], plan: Plan) -> Iterator[list[MapJob]]:
    """Rasters in their order; a group ends once it has `GROUP_CHUNKS` chunks."""
    group: list[MapJob] = []
    size = 0
    for job in jobs:
        group.append(job)
        size += len(plan.chunks_of(job.name))
        if size >= GROUP_CHUNKS:
            yield group
            group, size = [], 0
    if group:
        yield group


@dataclass(frozen=True, slots=True, kw_only=True)
class MapMerge:
    """Writes the maps of rasters from their parts; in another process, where it is sent there.

    `tell` is called after each window.
    """

    target: MapFolder
    plan: Plan
    stage: StageFolder
    overwrite: bool
    tell: Callable[[], None]

    def __call__(self, job: MapJob) -> dict[str, int] | GeohsalError | None:
        """Valid pixels by class; None if the maps were there; or why they could not be written."""
        try:
            counts = None
            if not self.target.is_done(job.name, overwrite=self.overwrite):
                windows = raster_windows(self.plan, job.name, stage=self.stage, tell=self.tell)
                counts = self.target.write(job.name, job.scene, windows)
            drop_parts(self.plan, job.name, stage=self.stage)
        except GeohsalError as error:
            return error
        return counts


def raster_windows(
    plan: Plan, name: str, *, stage: StageFolder, tell: Callable[[], None]
) -> Iterator[Windowed]:
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


def keep_plan(plan: Plan, stage: StageFolder) -> None:
    """Freeze a plan, and keep it apart from those of other commands that write into this folder.

    Raises:
        DataError: the folder cannot be written.
    """
    freeze_plan(stage.plan, plan)
    digest = hashlib.sha256(" ".join(plan.chunk_ids).encode()).hexdigest()[:16]
    freeze_plan(stage.path / f"{PLANS}{digest}{stage.plan.suffix}", plan)


def tidy(plan: Plan, stage: StageFolder, *, names: Sequence[str]) -> None:
    """Remove parts that no plan wants, and the folder once nothing in it is of use.

    Args:
        plan: whose maps are written.
        stage: the folder.
        names: rasters of this command: plans of nothing else are done.
    """
    own = _part_names(plan)
    with suppress(OSError):  # another command may be at the same; what it needs is younger
        standing, ended = _sorted_plans(stage, done=names)
        wanted = own.union(*map(_part_names, standing))
        gone = set[str]().union(*map(_part_names, ended.values()))
        for path in stage.parts.iterdir() if stage.parts.is_dir() else ():
            old = time.time() - path.stat().st_mtime > OLD_S
            if path.name not in wanted and (path.name in gone or old):
                path.unlink()
        for path in ended:  # after their parts: whoever is killed in between finds them again
            path.unlink()
        if stage.parts.is_dir():
            stage.parts.rmdir()  # only where it is empty
        stage.plan.unlink(missing_ok=True)
        stage.path.rmdir()


def _part_names(plan: Plan | None) -> set[str]:
    return set() if plan is None else {f"{chunk_id}{SUFFIX}" for chunk_id in plan.chunk_ids}


def _sorted_plans(
    stage: StageFolder, *, done: Sequence[str]
) -> tuple[list[Plan], dict[Path, Plan | None]]:
    """The plans that stand, and the files of those that are done, old or damaged."""
    standing: list[Plan] = []
    ended: dict[Path, Plan | None] = {}
    for path in sorted(stage.path.glob(f"{PLANS}*{stage.plan.suffix}")):
        plan = find_plan(path)
        old = time.time() - path.stat().st_mtime > PLAN_OLD_S
        if plan is None or old or set(plan.scenes) <= set(done):
            ended[path] = plan
        else:
            standing.append(plan)
    return standing, ended
