"""`geohsal train`: one round of teacher, student and friend on the labels of the run."""

import hashlib
import json
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geohsal import __version__
from geohsal.config import Config, config_from_dict, config_to_dict
from geohsal.config.launch import Launch, find_launch
from geohsal.data.dataset import seed_of
from geohsal.errors import PreemptedError, RequestError, RunError
from geohsal.io.atomic import read_record, write_json
from geohsal.io.fingerprint import file_sha256
from geohsal.io.run import Round
from geohsal.io.run_tables import write_config
from geohsal.models.tsf import TeacherStudentFriend
from geohsal.refine.plar import require_kernel
from geohsal.training.checkpoint import saved_position
from geohsal.training.crops import RoundData, check_shares
from geohsal.training.fit import FitResult, RoundFit, plan_round
from geohsal.training.meeting import Stop
from geohsal.training.model_io import load_model, save_model
from geohsal.training.module import RoundPlan
from geohsal.training.ranks import Ranks, joined
from geohsal.training.seats import check_seats, seat_of
from geohsal.workflows.context import RunContext, open_context, pick_device
from geohsal.workflows.labelled import round_data
from geohsal.workflows.passport import data_hashes, write_item
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.standing import refuse_half_undone
from geohsal.workflows.train_metrics import metrics_of
from geohsal.workflows.validation import validator


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
    stop: Stop | None = None,
    ranks: Ranks | None = None,
) -> TrainSummary:
    """Train the open round of a run; goes on where an interrupted training stopped.

    Processes that srun or torchrun started together train one model, each on a device of its own;
    only the first one writes and tells progress.

    Args:
        run_dir: a tiled run.
        config: settings for this round and those after it; default: those of the run.
        device: auto, cpu, cuda or cuda:N.
        overwrite: train the round anew although it is trained or begun; not once it is queried.
        progress: told of every step.
        stop: whether to stop, asked while processes join, between reading and training, after every
            step and before each long pass; where it is so on any process, all stop.
        ranks: processes that have already joined; default: as the environment says.

    Raises:
        RunError: the round is trained with other settings, or already queried; or an undo before
            it was interrupted.
        RequestError: there are more processes than crops in a step, no device for one of them, or
            they do not train on the same kind of device.
        LabelError: no train pixel is labelled.
        KernelError: the kernel that the settings ask for cannot run here.
        PreemptedError: told to stop; a checkpoint holds all steps so far.
        LostError: another process was lost without a word.
        QuietError: this process ends because of another one, which has said why.
    """
    stop = stop or _never
    with _members(ranks, device, stop) as members:
        began = time.monotonic()
        ready = members.together(
            lambda: _prepare(
                run_dir, config=config, device=device, overwrite=overwrite, ranks=members, stop=stop
            )
        )
        _refuse_other_views(ready, run_dir, members)
        if isinstance(ready, TrainSummary):
            return ready
        seats = members.gather(seat_of(ready.device))
        members.together(lambda: check_seats(seats))
        members.together(lambda: _begin(ready, overwrite=overwrite, ranks=members))
        reporter = (progress if members.speaks else None) or Silent()
        result = _fit(ready, ranks=members, reporter=reporter, stop=stop)
        seconds = time.monotonic() - began
        return members.together(lambda: _finish(ready, result, ranks=members, seconds=seconds))


def _members(ranks: Ranks | None, device: str, stop: Stop) -> AbstractContextManager[Ranks]:
    """The processes that have joined, or those that the environment tells of."""
    if ranks is not None:
        return nullcontext(ranks)
    return joined(
        find_launch(os.environ), cuda=lambda: pick_device(device).type == "cuda", stop=stop
    )


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A round about to be trained."""

    context: RunContext
    round: Round
    data: RoundData
    plan: RoundPlan
    device: torch.device
    request: str


def _prepare(
    run_dir: Path, *, config: Config | None, device: str, overwrite: bool, ranks: Ranks, stop: Stop
) -> _Ready | TrainSummary:
    """Check and read everything; nothing is changed. The summary of a round that is trained.

    Raises:
        PreemptedError: this process was told to stop before the reading, or by its end.
    """
    context = open_context(run_dir, config=config)
    refuse_half_undone(context.run)
    torch_device = own_device(device, ranks.launch)
    require_kernel(context.config.plar, torch_device)
    round_ = context.run.current
    if round_.step != "tiled":
        done = _finished(context, round_, overwrite=overwrite)
        if done is not None:
            return done
    check_shares(context.config, round_index=round_.index, ranks=ranks)
    request = request_hash(context, round_)
    if not overwrite:
        saved_position(round_.checkpoint, request)  # refuses before anything is changed
    _refuse_told(run_dir, stop)
    data = round_data(context, round_.index, device=torch_device)
    _refuse_told(run_dir, stop)
    return _Ready(
        context=context,
        round=round_,
        data=data,
        plan=plan_round(context.config.train, round_index=round_.index),
        device=torch_device,
        request=request,
    )


def _refuse_told(run_dir: Path, stop: Stop) -> None:
    if stop():
        raise PreemptedError(
            f"{run_dir}: told to stop before the first step; nothing is changed, and the same "
            "command goes on"
        )


def _refuse_other_views(ready: _Ready | TrainSummary, run_dir: Path, ranks: Ranks) -> None:
    """All processes must have found the same.

    Raises:
        RunError: they have not.
    """
    found = ranks.gather(ready.round if isinstance(ready, TrainSummary) else ready.request)

    def check() -> None:
        if len(set(found)) > 1:
            raise RunError(
                f"{run_dir}: the processes do not see the same run; it must lie on a file system "
                "that all nodes share"
            )

    ranks.together(check)  # said once


def _begin(ready: _Ready, *, overwrite: bool, ranks: Ranks) -> None:
    """Open the round's folder; what is to be made anew goes."""
    if not ranks.speaks:
        return
    if overwrite:
        ready.round.model_json.unlink(missing_ok=True)
        ready.round.checkpoint.unlink(missing_ok=True)
    ready.round.dir.mkdir(parents=True, exist_ok=True)
    write_config(ready.context.run.config, ready.context.config, version=__version__)


def _fit(ready: _Ready, *, ranks: Ranks, reporter: Progress, stop: Stop) -> FitResult:
    reporter.start(f"train round {ready.round.index}", ready.plan.steps)
    fit = RoundFit(
        data=ready.data,
        config=ready.context.config,
        plan=ready.plan,
        device=ready.device,
        ranks=ranks,
    )
    result = fit(
        initial_networks(ready.context, ready.round),
        checkpoint=ready.round.checkpoint,
        log=ready.round.log,
        request=ready.request,
        validate=validator(ready.context, ready.device, ranks),
        stop=stop,
        advance=reporter.advance,
    )
    reporter.done()
    return result


def _finish(ready: _Ready, result: FitResult, *, ranks: Ranks, seconds: float) -> TrainSummary:
    """Write the model and what is known of it; the checkpoint is not needed any more."""
    round_, context, data = ready.round, ready.context, ready.data
    metrics = metrics_of(context, data, result, seconds=seconds)
    if ranks.speaks:
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
                "request": ready.request,
                "taught": result.priors.taught.tolist(),
                "parameters": sum(value.numel() for value in result.networks.parameters()),
                "data": data_hashes(context),
            },
        )
        write_item(context, round_)
        round_.checkpoint.unlink(missing_ok=True)
    return _summary(round_, metrics, changed=True)


def own_device(name: str, launch: Launch) -> torch.device:
    """The device of this process; with several on a node, each has a GPU of its own.

    Raises:
        RequestError: there is no such device, or fewer GPUs than processes on the node.
    """
    device = pick_device(name)
    if launch.world == 1 or device.type == "cpu":
        return device
    if device.index is not None:
        raise RequestError(
            f"--device {name}: {launch.world} processes cannot train on one GPU; use --device cuda"
        )
    seen = torch.cuda.device_count()
    if seen == 1:  # the launcher shows each process its own
        return torch.device("cuda", 0)
    if seen < launch.local_world:
        raise RequestError(
            f"{launch.local_world} processes on a node that shows {seen} GPUs; start one process "
            "per GPU"
        )
    return torch.device("cuda", launch.local_rank)


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
    write_item(context, round_)  # a killed training may have ended just before these two
    round_.checkpoint.unlink(missing_ok=True)
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
