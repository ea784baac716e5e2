"""Lightning's Trainer as a round uses it: one device, or one per process under DDP."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from geohsal.config import TrainConfig
from geohsal.config.launch import Launch
from geohsal.training.checkpoint import WholeFiles


class _NoSignals(_SignalConnector):
    """Leaves signals to the command: Lightning's handlers send from inside and can deadlock."""

    def register_signal_handlers(self) -> None:
        """Nothing is registered."""


def make_trainer(
    config: TrainConfig,
    *callbacks: L.Callback,
    device: torch.device,
    launch: Launch,
    folder: Path,
) -> L.Trainer:
    """A trainer of one epoch, which holds all steps that are left.

    Args:
        config: precision and clipping.
        callbacks: what happens around the steps.
        device: of this process.
        launch: how the processes were started.
        folder: Lightning's root; nothing but checkpoints is written.
    """
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        **(_single(device) if launch.world == 1 else _parallel(device, launch)),
        precision=precision(config.precision, device),
        max_epochs=1,
        gradient_clip_val=config.grad_clip or None,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer._signal_connector = _NoSignals(trainer)
    return trainer


def _single(device: torch.device) -> dict[str, Any]:
    """One device, whatever launcher the environment tells of."""
    return {
        "devices": [device.index or 0] if device.type == "cuda" else 1,
        "plugins": [WholeFiles(), LightningEnvironment()],
    }


def _parallel(device: torch.device, launch: Launch) -> dict[str, Any]:
    """DDP; a parameter may get no gradient in a step (error mask, projection)."""
    strategy = DDPStrategy(
        parallel_devices=[device] * launch.local_world,
        cluster_environment=(
            SLURMEnvironment(auto_requeue=False)
            if launch.by == "srun"
            else TorchElasticEnvironment()
        ),
        find_unused_parameters=True,
        broadcast_buffers=False,  # they are equal: see `geohsal.training.norms`
    )
    return {"strategy": strategy, "num_nodes": launch.nodes, "plugins": [WholeFiles()]}


def precision(name: str, device: torch.device) -> Any:
    """Lightning's name of the precision; auto: bf16 or 16 mixed on a GPU, 32 on a CPU."""
    if name == "auto":
        if device.type == "cpu":
            return "32-true"
        name = "bf16" if torch.cuda.is_bf16_supported() else "16"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[name]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips, and its warnings about what is meant to be so."""
    lightning_logger = logging.getLogger("lightning.pytorch")
    level = lightning_logger.level
    lightning_logger.setLevel(logging.ERROR)
    meant = (
        "Found .* module.* in eval mode",  # the teacher
        "The '.*dataloader' does not have many workers",  # small scenes are read in process
        "Consider setting `persistent_workers=True`",  # there is a single epoch
        "Detected call of `lr_scheduler.step",  # told to stop before the first step
        "Total length of `.*` across ranks is zero",  # only the last pass is left to do
        "`broadcast_buffers` is deprecated",  # its successor is younger than the oldest torch here
        "find_unused_parameters=True was specified",  # whether any is unused depends on the step
        "The `srun` command is available",  # a single process needs none
        ".*LeafSpec.* is deprecated",  # Lightning's own affair
    )
    try:
        with warnings.catch_warnings():
            for message in meant:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        lightning_logger.setLevel(level)
