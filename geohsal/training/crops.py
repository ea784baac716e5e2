"""What a round learns from, and how the crops of its steps reach the processes."""

import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, Dataset

from geohsal.config import Config
from geohsal.config.launch import STOP_SIGNALS
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
from geohsal.data.steps import StepSampler
from geohsal.errors import RequestError
from geohsal.refine.priors import AnsweredRound
from geohsal.refine.track_record import TrackRecord
from geohsal.training.module import RoundPlan
from geohsal.training.ranks import Ranks

logger = logging.getLogger(__name__)


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


def round_loaders(
    data: RoundData, config: Config, plan: RoundPlan, *, first: int, ranks: Ranks
) -> CombinedLoader:
    """This process's crops of the steps from `first` on: labelled, and unlabelled where used.

    Args:
        data: of the round.
        config: batches, crops and seed.
        plan: steps of the round.
        first: the step to begin with, counted from 0.
        ranks: processes that share out each step.
    """
    train = config.train
    samplers = {
        name: StepSampler(
            batch=batch, first=first, steps=plan.steps, rank=ranks.rank, world=ranks.world
        )
        for name, batch in batches(config, plan.round_index).items()
    }
    labelled = LabelledCrops(
        data.opener,
        regions=data.regions,
        withheld=data.withheld,
        learn_errors_at=data.learn_errors_at(config),
        scale=data.scale,
        crop_px=train.crop_px,
        seed=seed_of(config.seed, "labelled", plan.round_index),
        length=plan.steps * train.batch_labelled,
        sampling_power=train.sampling_power,
    )
    loaders = {"labelled": _loader(labelled, samplers["labelled"], train.loader_workers)}
    if "unlabelled" in samplers:
        unlabelled = UnlabelledCrops(
            data.opener,
            areas=data.areas,
            scale=data.scale,
            crop_px=train.crop_px,
            seed=seed_of(config.seed, "unlabelled", plan.round_index),
            length=plan.steps * train.batch_unlabelled,
        )
        loaders["unlabelled"] = _loader(unlabelled, samplers["unlabelled"], train.loader_workers)
    return CombinedLoader(loaders, mode="min_size")


class _Deaf(DataLoader[dict[str, Any]]):
    """Its processes do not hear the signals that stop a training: batch systems send them to all.

    They end by themselves when the loader does, or when the training is gone.
    """

    def __iter__(self) -> Any:
        if self.num_workers == 0:
            return super().__iter__()
        resource_tracker.ensure_running()  # its start would let SIGTERM through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # inherited when started
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _loader(
    dataset: Dataset[dict[str, Any]], sampler: StepSampler, workers: int
) -> DataLoader[dict[str, Any]]:
    return _Deaf(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def batches(config: Config, round_index: int) -> dict[str, int]:
    """Crops of a step by kind, over all processes."""
    found = {"labelled": config.train.batch_labelled}
    if config.ssl.active(round_index):
        found["unlabelled"] = config.train.batch_unlabelled
    return found


def check_shares(config: Config, *, round_index: int, ranks: Ranks) -> None:
    """Whether every process has crops in every step; warns where one has too few to mix.

    Raises:
        RequestError: a process would have none.
    """
    found = batches(config, round_index)
    for kind, batch in found.items():
        if batch < ranks.world:
            raise RequestError(
                f"train.batch_{kind} is {batch}, the crops of a step over all processes, but "
                f"{ranks.world} processes train: start at most {batch}, or enlarge it"
            )
    least = found.get("unlabelled", 2 * ranks.world) // ranks.world
    if ranks.world > 1 and least < 2 and config.ssl.class_mix != "none":
        logger.warning(
            "train.batch_unlabelled leaves a process a single crop: ssl.class_mix mixes crops of "
            "one process, so it does nothing there"
        )
