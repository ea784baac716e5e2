"""Several processes as threads of one: what `Ranks` promises, without sockets."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from geohsal.config.launch import Launch
from geohsal.training.ranks import Ranks

T = TypeVar("T")


class Meeting:
    """Where threads lay down a value each, wait for all, and read all."""

    def __init__(self, world: int) -> None:
        self.values: list[Any] = [None] * world
        self.barrier = threading.Barrier(world, timeout=120)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRanks(Ranks):
    """One of several threads that act as processes."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def gather(self, value: T) -> list[T]:
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        found: list[T] = list(self.meeting.values)
        self.meeting.barrier.wait()
        return found

    def largest(self, value: int) -> int:
        return max(self.gather(value))

    def total(self, values: Tensor) -> Tensor:
        result: Tensor = sum(self.gather(values.detach().clone()))  # type: ignore[assignment]
        return result


def each_rank(world: int, work: Callable[[Ranks], T]) -> list[T]:
    """What `work` gives in each of `world` threads."""
    meeting = Meeting(world)
    ranks = [
        ThreadRanks(
            launch=Launch(by="torchrun", rank=rank, world=world, local_rank=rank), meeting=meeting
        )
        for rank in range(world)
    ]
    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(work, ranks))
