"""What tests know of the Slurm they started, and of the program that stands in for `geohsal`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geohsal.workflows.slurm import QueueState, squeue


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """A running one; Slurm's commands of this process speak to it."""

    folder: Path

    def wait(self, job_ids: Sequence[str], *, seconds: float = 240.0) -> dict[str, QueueState]:
        """States of jobs once all are out of the queue."""
        return self.until(
            job_ids, lambda states: not any(s.active for s in states.values()), seconds=seconds
        )

    def until(
        self,
        job_ids: Sequence[str],
        true: Callable[[dict[str, QueueState]], bool],
        *,
        seconds: float = 120.0,
    ) -> dict[str, QueueState]:
        """States of jobs once something is true of them."""
        deadline = time.monotonic() + seconds
        while True:
            states = squeue(job_ids)
            if len(states) == len(job_ids) and true(states):
                return states
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seconds:.0f} s: {states}")
            time.sleep(0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """A program `geohsal` that notes its calls and then does what a shell text says."""

    folder: Path

    def calls(self) -> list[str]:
        """Words of every call, with the number of restarts before it, in order."""
        path = self.folder / "calls"
        return path.read_text("utf-8").splitlines() if path.exists() else []
