"""The plans of `geohsal predict`: which windows of which rasters, and what is kept until when."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from geohsal.config import Config, config_to_dict
from geohsal.io.atomic import OLD_S
from geohsal.io.parts import SUFFIX
from geohsal.io.plan import Plan, SceneUnits, find_plan, freeze_plan, make_plan, window_rows
from geohsal.training.collect import CHUNK_STRIDES
from geohsal.training.inference import chunks
from geohsal.training.model_io import window_grid
from geohsal.workflows.engine import Shard
from geohsal.workflows.predict_merge import MapJob
from geohsal.workflows.predict_work import CHUNK_UNITS, STAGE_VERSION
from geohsal.workflows.stages import StageFolder

GROUP_CHUNKS = 256
"""Rasters are worked off in groups of so many chunks, so that only their parts take up disk."""

PLANS = "plan-"
"""Start of the names of plans, beside the newest one."""

PLAN_OLD_S = 30 * OLD_S
"""A plan that is older was given up."""


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
