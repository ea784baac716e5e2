"""The first half of a query: plan the chunks of every scene, and judge those that lack a part."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from geohsal.io.atomic import clear_dead, discard, read_record
from geohsal.io.fingerprint import file_sha256
from geohsal.io.plan import Plan, SceneUnits, freeze_plan, make_plan, window_rows
from geohsal.io.run import Round
from geohsal.refine.plar import require_kernel
from geohsal.training.maps import scene_chunks
from geohsal.training.model_io import load_model
from geohsal.workflows.asked import blocked_pixels
from geohsal.workflows.context import RunContext, pick_device
from geohsal.workflows.engine import Engine, Shard, drop_strangers, missing, run_plan
from geohsal.workflows.progress import Progress
from geohsal.workflows.query_parts import kept_path, read_kept
from geohsal.workflows.region_units import superpixel_rasters
from geohsal.workflows.scene_pass import ScenePass
from geohsal.workflows.stages import StageFolder

CHUNK_WINDOWS = 4
"""Windows of the whole-scene pass that are one chunk: minutes of work, their maps in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The chunks of a query: what is planned, and where their parts lie.

    `unit` identifies the maps of the round; scenes in `kept` were merged before and need none.
    """

    plan: Plan
    folder: StageFolder
    unit: str
    kept: frozenset[str] = field(default_factory=frozenset)

    @property
    def left(self) -> int:
        """Chunks that lack a part."""
        return len(missing(self.plan, self.folder.parts))


def unit_hash(context: RunContext, round_: Round) -> str:
    """Identifies the maps of a round: model, settings of refinement and query, labels."""
    config = context.config
    model_hash = str(read_record(round_.model_json, "model_hash")["model_hash"])
    parts = [model_hash, repr(config.plar), repr(config.query)]
    parts += [repr(config.ssl), repr(config.emd), str(config.seed)]
    parts += [file_sha256(context.run.labels(scene_id)) for scene_id in context.record.scenes]
    if context.run.ledger.exists():
        parts.append(file_sha256(context.run.ledger))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def kept_scenes(context: RunContext, round_: Round, unit: str) -> frozenset[str]:
    """Scenes that were merged before."""
    return frozenset(
        scene_id
        for scene_id in context.scenes
        if read_kept(kept_path(round_, scene_id), unit) is not None
    )


def plan_scores(context: RunContext, round_: Round, folder: StageFolder, *, unit: str) -> Scores:
    """The chunks of the scenes that are not merged yet; nothing is written.

    `unit` is the round's `unit_hash`.

    Raises:
        ModelError: the model of the round is missing or damaged.
    """
    kept = kept_scenes(context, round_, unit)
    predictor = load_model(round_.model_dir).predictor(torch.device("cpu"))
    scenes = [
        SceneUnits(
            scene_id=scene_id,
            fingerprint=context.record.scenes[scene_id].fingerprint,
            windows=window_rows(scene_chunks(predictor, *scene.shape)),
        )
        for scene_id, scene in context.scenes.items()
        if scene_id not in kept
    ]
    plan = make_plan("query", request=unit, scenes=scenes, chunk_units=CHUNK_WINDOWS)
    return Scores(plan=plan, folder=folder, unit=unit, kept=kept)


def sweep(context: RunContext, round_: Round, folder: StageFolder, *, unit: str) -> None:
    """Remove what shares left that were at work while the round was queried.

    Nothing is touched while scenes are to be merged: then shares of another query are at work.
    What killed commands left goes in any case.
    """
    clear_dead(folder.path.parent)
    queried = round_.query_json.exists() and folder.path.exists()
    if queried and len(kept_scenes(context, round_, unit)) == len(context.scenes):
        discard(folder.path)


def score_chunks(
    context: RunContext,
    round_: Round,
    scores: Scores,
    engine: Engine,
    *,
    device: str,
    shard: Shard | None = None,
) -> int:
    """Judge the chunks (of a shard) that lack a part; gives back how many.

    `device` is auto, cpu, cuda or cuda:N.

    Raises:
        KernelError: the kernel that the settings ask for cannot run here.
        LostError: a process died.
        RequestError: there is no such device or scheduler.
    """
    plan, folder = scores.plan, scores.folder
    if not plan.chunk_ids:
        return 0
    freeze_plan(folder.plan, plan)
    drop_strangers(plan, folder.parts)
    if engine.scheduler is None:
        require_kernel(context.config.plar, pick_device(device))
    work = ScenePass(
        model_dir=round_.model_dir.resolve(),
        opener=context.opener,
        config=context.config,
        device=device,
        blocked=blocked_pixels(context.run, plan.scenes)[0],
        superpixels=_superpixels(context, _scenes_of(scores, shard), engine.progress),
    )
    return run_plan(plan, work, folder.parts, shard=shard, engine=engine)


def _superpixels(
    context: RunContext, scene_ids: Collection[str], progress: Progress
) -> Mapping[str, Path]:
    found = superpixel_rasters(context, scene_ids, progress)
    return {scene_id: path.resolve() for scene_id, path in found.items()}


def _scenes_of(scores: Scores, shard: Shard | None) -> list[str]:
    """Scenes that a shard looks at, in plan order."""
    places = range(len(scores.plan.chunk_ids))
    own = places if shard is None else shard.of(places)
    return list(dict.fromkeys(scores.plan.scene_of(place) for place in own))
