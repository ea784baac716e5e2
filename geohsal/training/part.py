"""Loss sums and time of the part under way, over all processes and across interruptions."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from geohsal.training.ranks import Ranks


class PartSums:
    """Sums up losses step by step; a part that was interrupted goes on with what it had."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self.reset()

    def reset(self) -> None:
        """A new part begins."""
        self.losses: dict[str, Tensor | float] = {}
        self._began = time.monotonic()
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Time spent on the part, without what an interruption undid."""
        return self._seconds_before + time.monotonic() - self._began

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take note of one step."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value.detach()

    def means(self, steps: int) -> dict[str, float]:
        """Each loss per step: the mean over the processes, which is the loss of the whole batch."""
        found = self._ranks.gather(self._floats())
        names = sorted({name for one in found for name in one})
        return {
            name: sum(one.get(name, 0.0) for one in found) / len(found) / steps for name in names
        }

    def to_state(self) -> dict[str, Any]:
        """What this process holds, for a checkpoint."""
        return {"losses": self._floats(), "seconds": self.seconds}

    def load(self, states: Sequence[Mapping[str, Any]], *, scale: float) -> None:
        """Hold the sum of what some processes held, times `scale`: now by before, in processes."""
        self.reset()
        for state in states:
            self._seconds_before = max(self._seconds_before, state["seconds"])
            for name, value in state["losses"].items():
                self.losses[name] = self.losses.get(name, 0.0) + scale * value

    def _floats(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.losses.items()}
