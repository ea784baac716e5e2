"""`geohsal train --dry-run`: what a training would read, write and spend."""

import os
from pathlib import Path

from geohsal.config import Config
from geohsal.config.launch import Launch, find_launch
from geohsal.training.fit import plan_round
from geohsal.training.ranks import Ranks
from geohsal.workflows.context import RunContext
from geohsal.workflows.labelled import labelled_regions, pixels_by_class
from geohsal.workflows.outlooks import TrainOutlook
from geohsal.workflows.train_open import OpenRound, open_round


def foresee_training(
    run_dir: Path,
    *,
    config: Config | None = None,
    device: str = "auto",
    overwrite: bool = False,
    launch: Launch | None = None,
) -> TrainOutlook:
    """What `train` would do with the same arguments; reads labels, loads no image, changes nothing.

    Args:
        run_dir: a tiled run.
        config: settings for this round; default: those of the run.
        device: auto, cpu, cuda or cuda:N.
        overwrite: the round would be trained anew.
        launch: how this process was started; default: as the environment says.

    Raises:
        RunError, RequestError, LabelError, KernelError: as `train` would.
    """
    ranks = Ranks(launch=launch or find_launch(os.environ))
    opened = open_round(run_dir, config=config, device=device, overwrite=overwrite, ranks=ranks)
    context, round_ = opened.context, opened.round
    if opened.trained:
        return TrainOutlook(
            round=round_.index, would="nothing", model=round_.model_dir, device=str(opened.device)
        )
    regions, withheld = labelled_regions(context, round_.index)
    pixels = pixels_by_class(regions, context.manifest.class_names)
    return TrainOutlook(
        round=round_.index,
        would="go on" if opened.position else "train",
        model=round_.model_dir,
        device=str(opened.device),
        processes=ranks.world,
        steps=plan_round(context.config.train, round_index=round_.index).steps,
        steps_done=opened.position.step if opened.position else 0,
        starts_from=_start(opened),
        scenes=tuple(context.scenes_with("train")),
        val_scenes=tuple(context.scenes_with("val")),
        regions=len(regions),
        withheld_regions=len(withheld),
        labelled_pixels=pixels,
        classes_missing=tuple(name for name, count in pixels.items() if not count),
    )


def _start(opened: OpenRound) -> str:
    """Which weights the next step starts from, in words."""
    if opened.position is not None:
        return str(opened.round.checkpoint)
    context: RunContext = opened.context
    if opened.round.index == 0 or context.config.train.restart:
        return f"weights {context.config.model.weights or 'drawn at random'}"
    return f"the teacher of round {opened.round.index - 1}"
