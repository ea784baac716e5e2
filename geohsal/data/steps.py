"""Which samples a step takes, and which of them fall to which process.

Sample numbers follow from the step alone, and a sample from (seed, number): the set of samples of
a step is the same for any number of processes, and a training that goes on at step k takes what
an undisturbed one would have taken there.
"""

from collections.abc import Iterator

from torch.utils.data import Sampler


def share_of(count: int, *, rank: int, world: int) -> range:
    """Which of `count` things, in order, fall to a process: a run of neighbours, maybe none.

    The shares of all processes, one after the other, are all things, each once.
    """
    return range(count * rank // world, count * (rank + 1) // world)


class StepSampler(Sampler[list[int]]):
    """Sample numbers of each step from `first` to the last: step s has s * batch and those after.

    Args:
        batch: samples of a step, over all processes.
        first: the step to begin with, counted from 0.
        steps: of the whole round.
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self, *, batch: int, first: int, steps: int, rank: int = 0, world: int = 1
    ) -> None:
        self._batch = batch
        self._steps = range(first, steps)
        self._own = share_of(batch, rank=rank, world=world)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            yield [step * self._batch + place for place in self._own]
