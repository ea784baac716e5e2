"""What happens between two steps: parts end, checkpoints are written, a signal is obeyed."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L

from geohsal.io.atomic import write_text
from geohsal.training.meeting import Stop
from geohsal.training.module import TsfModule
from geohsal.training.ranks import Ranks

Advance = Callable[[int], None]

GO_ON, SAVE, STOP = 0, 1, 2
"""What a process wishes for after a step; the largest wish of all processes comes true."""


class StepBoundary(L.Callback):
    """Ends steps and parts, and saves: after each part, after some minutes, and on a signal.

    Args:
        ranks: the processes; they agree on each save and stop.
        checkpoint: file to write.
        minutes: between two checkpoints inside a part; 0: only parts are saved.
        log: JSON lines, one per part.
        stop: whether this process was told to stop.
        advance: told of every step.
    """

    def __init__(
        self,
        *,
        ranks: Ranks,
        checkpoint: Path,
        minutes: float,
        log: Path,
        stop: Stop,
        advance: Advance,
    ) -> None:
        self._ranks = ranks
        self._checkpoint = checkpoint
        self._seconds = 60.0 * minutes
        self._log = log
        self._stop = stop
        self.advance = advance
        self._saved_at = time.monotonic()
        self.stopped = False

    def told(self) -> bool:
        """Whether any process was told to stop; all ask together, where nothing is to be saved."""
        self.stopped = self._ranks.any(self._stop())
        return self.stopped

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Finish the step, then save or stop where that is due."""
        assert isinstance(pl_module, TsfModule)
        closed = pl_module.end_step()
        wish = self._ranks.largest(self._wish())
        if closed and self._ranks.speaks:
            self._write_log(pl_module)
        if closed or wish != GO_ON:
            trainer.save_checkpoint(self._checkpoint, weights_only=False)
            self._saved_at = time.monotonic()
        if wish == STOP:
            self.stopped = True
            trainer.should_stop = True
        self.advance(1)

    def _wish(self) -> int:
        if self._stop():
            return STOP
        waited = time.monotonic() - self._saved_at
        return SAVE if self._ranks.speaks and 0 < self._seconds <= waited else GO_ON

    def _write_log(self, module: TsfModule) -> None:
        rows = [
            json.dumps(row | told, sort_keys=True)
            for row, told in zip(module.history, module.timings, strict=True)
        ]
        write_text(self._log, "\n".join(rows) + "\n")
