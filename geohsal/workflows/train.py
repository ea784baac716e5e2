"""`geohsal train`: one round of teacher, student and friend on the labels of the run."""

import os
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geohsal import __version__
from geohsal.config import Config
from geohsal.config.launch import find_launch
from geohsal.data.dataset import seed_of
from geohsal.errors import PreemptedError, RunError
from geohsal.io.atomic import make_folder, read_record, write_json
from geohsal.io.lock import changing
from geohsal.io.run import Round, open_run
from geohsal.io.run_tables import write_config
from geohsal.models.tsf import TeacherStudentFriend
from geohsal.training.crops import RoundData
from geohsal.training.fit import FitResult, RoundFit, plan_round
from geohsal.training.meeting import Stop
from geohsal.training.model_io import load_model, save_model
from geohsal.training.module import RoundPlan
from geohsal.training.ranks import Ranks, joined
from geohsal.training.seats import check_seats, seat_of
from geohsal.workflows.context import RunContext, pick_device
from geohsal.workflows.labelled import round_data
from geohsal.workflows.passport import data_hashes, write_item
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.train_metrics import metrics_of
from geohsal.workflows.train_open import open_round
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
        BusyError: another command is changing the run.
        PreemptedError: told to stop; a checkpoint holds all steps so far.
        LostError: another process was lost without a word.
        QuietError: this process ends because of another one, which has said why.
    """
    stop = stop or _never
    with _members(ranks, device, stop) as members, ExitStack() as held:
        began = time.monotonic()
        members.together(lambda: _hold(held, run_dir, members))
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


def _hold(held: ExitStack, run_dir: Path, ranks: Ranks) -> None:
    """The first process holds the run's lock, for all of them."""
    run = open_run(run_dir)
    if ranks.speaks:
        held.enter_context(changing(run, "train"))


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
    opened = open_round(run_dir, config=config, device=device, overwrite=overwrite, ranks=ranks)
    context, round_ = opened.context, opened.round
    if opened.trained:
        return _finished(context, round_)
    _refuse_told(run_dir, stop)
    data = round_data(context, round_.index, device=opened.device)
    _refuse_told(run_dir, stop)
    return _Ready(
        context=context,
        round=round_,
        data=data,
        plan=plan_round(context.config.train, round_index=round_.index),
        device=opened.device,
        request=opened.request,
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
    make_folder(ready.round.dir)
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


def _finished(context: RunContext, round_: Round) -> TrainSummary:
    """The summary of a round that is trained as asked."""
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
