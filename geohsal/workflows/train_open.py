"""The open round of a run as a training finds it: what is refused, and what is there already."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from geohsal.config import Config, config_from_dict, config_to_dict
from geohsal.config.launch import Launch
from geohsal.errors import RequestError, RunError
from geohsal.io.atomic import read_record
from geohsal.io.fingerprint import file_sha256
from geohsal.io.run import Round
from geohsal.refine.plar import require_kernel
from geohsal.training.checkpoint import Position, saved_position
from geohsal.training.crops import check_shares
from geohsal.training.ranks import Ranks
from geohsal.workflows.context import RunContext, open_context, pick_device
from geohsal.workflows.standing import refuse_half_undone


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    """The open round as a training finds it.

    `trained` says that nothing is left to do; else `request` identifies the training, and
    `position` is where one that was interrupted stands (None: it begins).
    """

    context: RunContext
    round: Round
    device: torch.device
    trained: bool
    request: str = ""
    position: Position | None = None


def open_round(
    run_dir: Path, *, config: Config | None, device: str, overwrite: bool, ranks: Ranks
) -> OpenRound:
    """Open a round to be trained, and refuse what `train` refuses; nothing is changed."""
    context = open_context(run_dir, config=config)
    refuse_half_undone(context.run)
    torch_device = own_device(device, ranks.launch)
    require_kernel(context.config.plar, torch_device)
    round_ = context.run.current
    if round_.step != "tiled" and _is_trained(context, round_, overwrite=overwrite):
        return OpenRound(context=context, round=round_, device=torch_device, trained=True)
    check_shares(context.config, round_index=round_.index, ranks=ranks)
    request = request_hash(context, round_)
    return OpenRound(
        context=context,
        round=round_,
        device=torch_device,
        trained=False,
        request=request,
        position=None if overwrite else saved_position(round_.checkpoint, request),
    )


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


def _is_trained(context: RunContext, round_: Round, *, overwrite: bool) -> bool:
    """Whether a round is trained as asked, and not to be trained anew.

    Raises:
        RunError: it is trained with other settings, or may not be trained anew.
    """
    queried = round_.step == "queried"
    if overwrite and not queried:
        return False
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
    return True


def request_hash(context: RunContext, round_: Round) -> str:
    """Identifies a training: settings and the labels that it reads."""
    digest = hashlib.sha256(json.dumps(config_to_dict(context.config), sort_keys=True).encode())
    digest.update(f"round {round_.index}".encode())
    for scene_id in context.record.scenes:
        digest.update(file_sha256(context.run.labels(scene_id)).encode())
    return digest.hexdigest()
