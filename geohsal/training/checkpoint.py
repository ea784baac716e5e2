"""The checkpoint of an unfinished round: written whole, resumed only by the same request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from geohsal.errors import RunError
from geohsal.io.atomic import replacing, unwritten

SECTION = "geohsal"
"""Key of what geohsal itself keeps in a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a checkpoint stands: finished steps, and the processes that made them."""

    step: int = 0
    world: int = 1


class WholeFiles(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed, also where /tmp is another disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write the whole file or leave the old one.

        Raises:
            WriteError: the folder cannot be written or the disk is full.
        """
        with replacing(Path(path)) as part:
            try:
                torch.save(checkpoint, part)
            except RuntimeError as error:  # torch's own word for a full disk
                raise unwritten(Path(path), error) from None


def saved_position(checkpoint: Path, request: str) -> Position | None:
    """Where an unfinished training of the same request stands; None where there is none.

    Raises:
        RunError: one of another request is there, or it cannot be read.
    """
    if not checkpoint.exists():
        return None
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)[SECTION]
        found, position = saved["request"], Position(step=saved["step"], world=saved["world"])
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
    return position
