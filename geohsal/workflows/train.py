"""`geohsal train`: one round of teacher, student and friend on the labels of the run."""

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geohsal import __version__
from geohsal.config import Config, config_from_dict, config_to_dict
from geohsal.data.dataset import seed_of
from geohsal.data.index import LabelledRegion, find_regions, withheld_keys
from geohsal.data.sources import SceneCrops
from geohsal.errors import LabelError, RunError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import read_record, write_json
from geohsal.io.fingerprint import file_sha256
from geohsal.io.run import Round
from geohsal.io.run_tables import write_config
from geohsal.models.tsf import TeacherStudentFriend
from geohsal.refine.plar import require_kernel
from geohsal.refine.sampling import interior_mask
from geohsal.training.fit import RoundData, fit_round, is_resumable, plan_round
from geohsal.training.model_io import load_model, save_model
from geohsal.workflows.answered import answered_rounds
from geohsal.workflows.context import RunContext, open_context, pick_device
from geohsal.workflows.passport import data_hashes, write_item
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.replayed import track_record
from geohsal.workflows.standing import refuse_half_undone
from geohsal.workflows.train_metrics import metrics_of
from geohsal.workflows.validation import validator

logger = logging.getLogger(__name__)

EROSION_PX = 1
"""Labelled pixels this near to a border are not evidence for class statistics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """What a training did; `changed` is False where the round was already trained."""

    round: int
    changed: bool
    model: Path
    steps: int
    regions: int
    withheld_regions: int
    labelled_pixels: dict[str, int]
    classes_missing: tuple[str, ...]
    val_miou: float | None
    fallbacks: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float


def train(
    run_dir: Path,
    *,
    config: Config | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TrainSummary:
    """Train the open round of a run; goes on where an interrupted training stopped.

    Args:
        run_dir: a tiled run.
        config: settings for this round and those after it; default: those of the run.
        device: auto, cpu, cuda or cuda:N.
        overwrite: train the round anew although it is trained or begun; not once it is queried.
        progress: told of every step.

    Raises:
        RunError: the round is trained with other settings, or already queried; or an undo before
            it was interrupted.
        LabelError: no train pixel is labelled.
        KernelError: the kernel that the settings ask for cannot run here.
    """
    began = time.monotonic()
    context = open_context(run_dir, config=config)
    refuse_half_undone(context.run)
    torch_device = pick_device(device)
    require_kernel(context.config.plar, torch_device)
    round_ = context.run.current
    if round_.step != "tiled":
        done = _finished(context, round_, overwrite=overwrite)
        if done is not None:
            return done
    if overwrite:
        round_.model_json.unlink(missing_ok=True)
        round_.checkpoint.unlink(missing_ok=True)
    request = request_hash(context, round_)
    is_resumable(round_.checkpoint, request)  # refuses before anything is changed
    data = round_data(context, round_.index, device=torch_device)
    round_.dir.mkdir(parents=True, exist_ok=True)
    write_config(context.run.config, context.config, version=__version__)
    plan = plan_round(context.config.train, round_index=round_.index)
    reporter = progress or Silent()
    reporter.start(f"train round {round_.index}", plan.steps)
    result = fit_round(
        initial_networks(context, round_),
        data,
        config=context.config,
        plan=plan,
        device=torch_device,
        checkpoint=round_.checkpoint,
        log=round_.log,
        request=request,
        validate=validator(context, torch_device),
        advance=reporter.advance,
    )
    reporter.done()
    seconds = time.monotonic() - began
    metrics = metrics_of(context, data, result, seconds=seconds)
    write_json(round_.metrics, metrics)
    save_model(
        round_.model_dir,
        result.networks,
        refine_state=result.refine_state,
        config=context.config,
        bands=context.manifest.bands,
        scale=data.scale,
        classes=context.manifest.classes,
        extra={
            "round": round_.index,
            "request": request,
            "taught": result.priors.taught.tolist(),
            "parameters": sum(value.numel() for value in result.networks.parameters()),
            "data": data_hashes(context),
        },
    )
    write_item(context, round_)
    round_.checkpoint.unlink(missing_ok=True)
    return _summary(round_, metrics, changed=True)


def _finished(context: RunContext, round_: Round, *, overwrite: bool) -> TrainSummary | None:
    """The summary of a round that is trained as asked; None where it shall be trained anew."""
    queried = round_.step == "queried"
    if overwrite and not queried:
        return None
    trained = read_record(round_.model_json, "config")
    before = config_from_dict(trained["config"], where=f"{round_.model_json}: config")
    same = before == context.config  # settings that are newer than the model have their defaults
    if overwrite or not same:
        why = "is already queried" if queried else "is already trained with other settings"
        remedy = (
            "ingest its review, then train the next round"
            if queried
            else "use --overwrite to train it anew"
        )
        raise RunError(f"{context.run.path}: round {round_.index} {why}; {remedy}")
    write_item(context, round_)  # a killed training may have ended just before it
    return _summary(round_, read_record(round_.metrics, *SUMMARY_KEYS), changed=False)


SUMMARY_KEYS = (
    "steps",
    "regions",
    "withheld_regions",
    "labelled_pixels",
    "classes_missing",
    "val_miou",
    "fallbacks",
    "guards",
    "seconds",
)
"""What metrics.json must hold for a summary."""


def _summary(round_: Round, metrics: dict[str, Any], *, changed: bool) -> TrainSummary:
    return TrainSummary(
        round=round_.index,
        changed=changed,
        model=round_.model_dir,
        steps=metrics["steps"],
        regions=metrics["regions"],
        withheld_regions=metrics["withheld_regions"],
        labelled_pixels=metrics["labelled_pixels"],
        classes_missing=tuple(metrics["classes_missing"]),
        val_miou=metrics["val_miou"],
        fallbacks=tuple(f"{f['threshold']}: {f['reason']}" for f in metrics["fallbacks"]),
        warnings=tuple(metrics["guards"]),
        seconds=metrics["seconds"],
    )


def request_hash(context: RunContext, round_: Round) -> str:
    """Identifies a training: settings and the labels that it reads."""
    digest = hashlib.sha256(json.dumps(config_to_dict(context.config), sort_keys=True).encode())
    digest.update(f"round {round_.index}".encode())
    for scene_id in context.record.scenes:
        digest.update(file_sha256(context.run.labels(scene_id)).encode())
    return digest.hexdigest()


def round_data(context: RunContext, round_index: int, *, device: torch.device) -> RoundData:
    """Labelled regions, the withheld fold and the pool of a round.

    Raises:
        LabelError: no train pixel is labelled.
    """
    regions: list[LabelledRegion] = []
    for scene_id in context.scenes_with("train"):
        with context.open(scene_id) as scene:
            regions += _scene_regions(scene, seed=context.config.seed)
    if not regions:
        raise LabelError(
            f"{context.run.path}: no train pixel is labelled; give `labels:` to a train scene in "
            "the manifest and run geohsal tile again"
        )
    withheld = withheld_keys(
        regions,
        share=context.config.train.heldout_share,
        round_index=round_index,
        seed=context.config.seed,
    )
    answered = answered_rounds(context, round_index)
    return RoundData(
        opener=context.opener,
        scale=context.scale,
        regions=regions,
        withheld=withheld,
        areas=context.train_areas(),
        class_names=context.manifest.class_names,
        answered=answered,
        track_record=track_record(
            context, regions, before=round_index, answered=answered, device=device
        ),
    )


def _scene_regions(scene: SceneCrops, *, seed: int) -> list[LabelledRegion]:
    """Labelled regions of a scene with sampled pixels away from label borders."""
    extent = scene.scene.extent
    labels, numbers = scene.labels(extent)
    usable = (labels != IGNORE_INDEX) & scene.trainable(extent)
    labels = np.where(usable, labels, np.uint8(IGNORE_INDEX))
    counts_everything = find_regions(scene.scene.scene_id, [(0, labels, numbers)], seed=seed)
    inner = interior_mask(labels, numbers, distance_px=EROSION_PX)
    eroded = np.where(inner, labels, np.uint8(IGNORE_INDEX))
    sampled = {
        region.number: region
        for region in find_regions(scene.scene.scene_id, [(0, eroded, numbers)], seed=seed)
    }
    return [
        LabelledRegion(
            key=region.key,
            scene_id=region.scene_id,
            number=region.number,
            counts=region.counts,
            pixels=sampled[region.number].pixels,
            classes=sampled[region.number].classes,
        )
        for region in counts_everything
    ]


def initial_networks(context: RunContext, round_: Round) -> TeacherStudentFriend:
    """Random or pretrained networks for the first round (or `train.restart`), else the last ones.

    A later round's student and teacher start from the last teacher, which labels if ssl says so.
    """
    config = context.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "init"))
        networks = TeacherStudentFriend(
            config, bands=len(context.manifest.bands), classes=context.manifest.num_classes
        )
    labelled_by_last = config.ssl.teacher == "previous" and config.ssl.active(round_.index)
    if round_.index == 0 or (config.train.restart and not labelled_by_last):
        return networks
    previous = load_model(context.run.round(round_.index - 1).model_dir).networks
    try:
        if labelled_by_last:
            networks.label_by(previous.teacher)
        if config.train.restart:
            return networks
        networks.student.load_state_dict(previous.teacher.state_dict())
        networks.teacher.load_state_dict(previous.teacher.state_dict())
        networks.emd.load_state_dict(previous.emd.state_dict())
        if networks.friend is not None and previous.friend is not None:
            source = previous.friend.decoder if networks.kind == "head" else previous.friend
            networks.friend.load_state_dict(source.state_dict())  # type: ignore[union-attr]
    except RuntimeError:
        raise RunError(
            f"{context.run.path}: the model of round {round_.index - 1} has another architecture; "
            "keep the model and ssl.friend settings, or set train.restart=true and ssl.teacher=ema"
        ) from None
    return networks
