"""Train one round with Lightning: loaders, resume, the final frozen pass."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from geohsal.config import Config, TrainConfig
from geohsal.data.dataset import (
    BandScale,
    LabelledCrops,
    TrainArea,
    UnlabelledCrops,
    collate,
    seed_of,
)
from geohsal.data.index import LabelledRegion, error_keys
from geohsal.data.sources import SceneOpener
from geohsal.errors import DataError, RunError
from geohsal.io.atomic import replacing
from geohsal.models.tsf import InferenceNetworks, TeacherStudentFriend
from geohsal.refine.priors import AnsweredRound
from geohsal.refine.statistics import LabelledPixels
from geohsal.refine.track_record import TrackRecord
from geohsal.training.collect import collect_pixels, collect_pool
from geohsal.training.inference import Predictor
from geohsal.training.judgement import RefineState, fit_refine_state
from geohsal.training.model_io import window_grid
from geohsal.training.module import RoundPlan, TsfModule, Validate
from geohsal.training.pool_priors import PriorTracker

logger = logging.getLogger(__name__)

Step = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundData:
    """What a round learns from."""

    opener: SceneOpener
    scale: BandScale
    regions: Sequence[LabelledRegion]
    withheld: frozenset[str]
    areas: Sequence[TrainArea]
    class_names: tuple[str, ...]
    answered: Sequence[AnsweredRound] = ()
    track_record: TrackRecord | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def class_pixels(self) -> torch.Tensor:
        """(class,) labelled pixels that enter the supervised loss."""
        counts = torch.zeros(self.num_classes, dtype=torch.int64)
        for region in self.regions:
            if region.key not in self.withheld:
                for class_id, count in region.counts.items():
                    counts[class_id] += count
        return counts

    def learn_errors_at(self, config: Config) -> frozenset[str]:
        """Withheld regions that the error-mask decoder learns from; none where it is off."""
        return error_keys(self.withheld, seed=config.seed) if config.emd.enabled else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """Trained networks with statistics and thresholds of the final frozen pass."""

    networks: InferenceNetworks
    refine_state: RefineState
    priors: PriorTracker
    history: list[dict[str, float]]
    guards: list[str]
    best_val_miou: float | None


class PartSampler(Sampler[int]):
    """Sample numbers of one part after the other: part p is p * length ... (p + 1) * length - 1.

    Lightning calls `set_epoch`, also after a resume, so a resumed round goes on exactly.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._part = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Any:
        start = self._part * self._length
        return iter(range(start, start + self._length))

    def set_epoch(self, epoch: int) -> None:
        """The part that comes next."""
        self._part = epoch


class _Report(L.Callback):
    """Tells progress after every step and appends the part's figures to log.jsonl."""

    def __init__(self, log: Path, advance: Step) -> None:
        self._log = log
        self._advance = advance

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._advance()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TsfModule)
        rows = [json.dumps(row, sort_keys=True) for row in pl_module.history]
        self._log.write_text("\n".join(rows) + "\n", "utf-8")


class _WholeFiles(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed, also where /tmp is another disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write the whole file or leave the old one.

        Raises:
            DataError: the folder cannot be written or the disk is full.
        """
        with replacing(Path(path)) as part:
            try:
                torch.save(checkpoint, part)
            except RuntimeError as error:  # torch's own word for a full disk
                raise DataError(f"{path}: cannot be written ({error})") from None


class _Request(L.Callback):
    """Keeps what was asked for inside the checkpoint, so that another request cannot resume it."""

    def __init__(self, request: str) -> None:
        self._request = request

    @property
    def state_key(self) -> str:
        return "geohsal.request"

    def state_dict(self) -> dict[str, Any]:
        return {"request": self._request}


def plan_round(config: TrainConfig, *, round_index: int) -> RoundPlan:
    """Parts of equal length that together hold at least the configured steps."""
    parts = min(config.checkpoints, config.steps)
    return RoundPlan(round_index=round_index, parts=parts, part_steps=-(-config.steps // parts))


def fit_round(
    networks: TeacherStudentFriend,
    data: RoundData,
    *,
    config: Config,
    plan: RoundPlan,
    device: torch.device,
    checkpoint: Path,
    log: Path,
    request: str,
    validate: Validate,
    advance: Step,
) -> FitResult:
    """Train, then judge the final teacher (the best on val where there is val).

    Args:
        networks: initialised, or from the round before.
        data: labels, withheld regions and pool.
        config: all settings.
        plan: parts and steps.
        device: where to train.
        checkpoint: written after each part; resumed from where it exists.
        log: JSON lines, one per part.
        request: identifies settings and labels; a checkpoint of another request is refused.
        validate: mIoU of frozen networks on val labels, or None.
        advance: called after every step.

    Raises:
        RunError: the checkpoint belongs to another request, or cannot be read.
    """
    learn_errors_at = data.learn_errors_at(config)

    def predictor(frozen: InferenceNetworks) -> Predictor:
        return Predictor(frozen, scale=data.scale, grid=window_grid(config), device=device)

    def collect(frozen: InferenceNetworks) -> LabelledPixels:
        return collect_pixels(
            predictor(frozen),
            data.opener,
            data.regions,
            withheld=data.withheld,
            learn_errors_at=learn_errors_at,
        )

    def look_at_pool(frozen: InferenceNetworks) -> NDArray[np.float32]:
        return collect_pool(
            predictor(frozen),
            data.opener,
            data.areas,
            windows=config.prior.windows,
            seed=seed_of(config.seed, "pool", plan.round_index),
        )

    tracker = PriorTracker(config=config.prior, rounds=data.answered, look_at_pool=look_at_pool)

    def refresh(frozen: InferenceNetworks) -> RefineState:
        return state_of(tracker.update(frozen, collect(frozen)))

    def final(frozen: InferenceNetworks) -> RefineState:
        pixels = tracker.update(frozen, collect(frozen))
        return state_of(collect(frozen) if tracker.shift.any() else pixels)

    def state_of(pixels: LabelledPixels) -> RefineState:
        return fit_refine_state(
            pixels,
            num_classes=data.num_classes,
            config=config,
            log_share=tracker.log_share(),
            earlier=data.track_record,
        )

    module = TsfModule(
        networks,
        config=config,
        plan=plan,
        class_names=data.class_names,
        class_pixels=data.class_pixels(),
        refresh=refresh,
        validate=validate,
    )
    resume = checkpoint if is_resumable(checkpoint, request) else None
    with _quiet_lightning():
        trainer = _trainer(
            config, plan, device, checkpoint, _Report(log, advance), _Request(request)
        )
        trainer.fit(
            module,
            _loaders(data, learn_errors_at, config, plan),
            ckpt_path=resume,
            weights_only=True,
        )
    if module.best_teacher is not None:
        module.networks.teacher.load_state_dict(module.best_teacher)
    module.networks.to(device).eval()
    frozen = module.networks.inference_networks()
    return FitResult(
        networks=frozen,
        refine_state=final(frozen),
        priors=tracker,
        history=module.history,
        guards=module.guard.warnings,
        best_val_miou=None if module.best_teacher is None else module.best_score,
    )


def is_resumable(checkpoint: Path, request: str) -> bool:
    """Whether an unfinished training of the same request is there.

    Raises:
        RunError: one of another request is there, or it cannot be read.
    """
    if not checkpoint.exists():
        return False
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        found = saved["callbacks"]["geohsal.request"]["request"]
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise RunError(
            f"{checkpoint}: cannot be read ({reason}); train --overwrite starts the round anew"
        ) from None
    if found != request:
        raise RunError(
            f"{checkpoint}: an unfinished training with other settings or labels; "
            "give the same settings to go on, or --overwrite to start the round anew"
        )
    return True


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips, and its warnings about what is meant to be so."""
    lightning_logger = logging.getLogger("lightning.pytorch")
    level = lightning_logger.level
    lightning_logger.setLevel(logging.ERROR)
    meant = (
        "Found .* module.* in eval mode",  # the teacher
        "The '.*dataloader' does not have many workers",  # small scenes are read in process
        "Checkpoint directory .* exists and is not empty",  # it is rewritten after each part
        ".*LeafSpec.* is deprecated",  # Lightning's own affair
        "The `srun` command is available",  # one process needs no launcher
    )
    try:
        with warnings.catch_warnings():
            for message in meant:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        lightning_logger.setLevel(level)


def _trainer(
    config: Config, plan: RoundPlan, device: torch.device, checkpoint: Path, *callbacks: L.Callback
) -> L.Trainer:
    keep = ModelCheckpoint(
        dirpath=checkpoint.parent,
        filename=checkpoint.stem,
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=precision(config.train.precision, device),
        max_epochs=plan.parts,
        gradient_clip_val=config.train.grad_clip or None,
        callbacks=[*callbacks, keep],
        plugins=[_WholeFiles()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=checkpoint.parent,
    )


def precision(name: str, device: torch.device) -> Any:
    """Lightning's name of the precision; auto: bf16 or 16 mixed on a GPU, 32 on a CPU."""
    if name == "auto":
        if device.type == "cpu":
            return "32-true"
        name = "bf16" if torch.cuda.is_bf16_supported() else "16"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[name]


def _loaders(
    data: RoundData, learn_errors_at: frozenset[str], config: Config, plan: RoundPlan
) -> CombinedLoader:
    train = config.train
    labelled = LabelledCrops(
        data.opener,
        regions=data.regions,
        withheld=data.withheld,
        learn_errors_at=learn_errors_at,
        scale=data.scale,
        crop_px=train.crop_px,
        seed=seed_of(config.seed, "labelled", plan.round_index),
        length=plan.steps * train.batch_labelled,
        sampling_power=train.sampling_power,
    )
    loaders = {"labelled": _loader(labelled, train.batch_labelled, plan, train.loader_workers)}
    if config.ssl.active(plan.round_index):
        unlabelled = UnlabelledCrops(
            data.opener,
            areas=data.areas,
            scale=data.scale,
            crop_px=train.crop_px,
            seed=seed_of(config.seed, "unlabelled", plan.round_index),
            length=plan.steps * train.batch_unlabelled,
        )
        loaders["unlabelled"] = _loader(
            unlabelled, train.batch_unlabelled, plan, train.loader_workers
        )
    return CombinedLoader(loaders, mode="min_size")


def _loader(
    dataset: Dataset[dict[str, Any]], batch: int, plan: RoundPlan, workers: int
) -> DataLoader[dict[str, Any]]:
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=PartSampler(plan.part_steps * batch),
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
