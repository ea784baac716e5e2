"""The processes that train together: their shares of the work, and what they tell each other.

Small things travel over gloo on the hosts, gradients and loss denominators over the devices' own
backend (NCCL on CUDA, gloo on CPU). This module loads torch only where there are several processes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from geohsal.config.launch import Launch
from geohsal.errors import GeohsalError, LostError, PreemptedError, QuietError
from geohsal.training.meeting import Stop, meet, voiced

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

FAILED = "geohsal_failed"
"""Key in the common store: the exit code of a process that has said what went wrong."""

UNKNOWN = 1
"""Exit code where the first process may have said something: launchers report the largest code of
all processes, so that its own stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those that train together; alone, nothing is sent anywhere."""

    launch: Launch = field(default_factory=Launch)
    hosts: Any = None

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.launch.rank

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.launch.world

    @property
    def speaks(self) -> bool:
        """Whether this process writes results."""
        return self.launch.speaks

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """This process's part of things that all processes list alike."""
        from geohsal.data.steps import share_of

        own = share_of(len(things), rank=self.rank, world=self.world)
        return things[own.start : own.stop]

    def gather(self, value: T) -> list[T]:
        """The values of all processes in the order of their numbers, on every process."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self.hosts)
        return found

    def merge(self, own: list[T]) -> list[T]:
        """The results of all shares in the order in which one process would have made them."""
        return [value for part in self.gather(own) for value in part]

    def largest(self, value: int) -> int:
        """The largest of the processes' numbers."""
        if self.world == 1:
            return value
        import torch
        import torch.distributed as dist

        number = torch.tensor([value])
        dist.all_reduce(number, op=dist.ReduceOp.MAX, group=self.hosts)
        return int(number)

    def any(self, value: bool) -> bool:
        """Whether it is so on any process."""
        return self.largest(int(value)) > 0

    def total(self, values: "torch.Tensor") -> "torch.Tensor":
        """The sum over all processes of tensors of one shape, on the tensor's device."""
        summed = values.detach().clone()
        if self.world > 1:
            import torch.distributed as dist

            dist.all_reduce(summed)
        return summed

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives here; where it fails on any process, all fail alike and one says why.

        `work` sends nothing to other processes.

        Raises:
            GeohsalError: of the first process that failed.
            QuietError: the same, on all processes but the first.
        """
        if self.world == 1:
            return work()
        error: GeohsalError | None = None
        try:
            result = work()
        except GeohsalError as caught:
            error = caught
        failed = [(rank, one) for rank, one in enumerate(self.gather(error)) if one is not None]
        if not failed:
            return result
        rank, first = failed[0]
        if self.speaks:
            raise first if rank == 0 else _numbered(first, rank, self.world)
        raise QuietError(str(first), code=first.exit_code)


ALONE = Ranks()
"""One process."""


def _never() -> bool:
    return False


@contextmanager
def joined(launch: Launch, *, cuda: Callable[[], bool], stop: Stop = _never) -> Iterator[Ranks]:
    """Join the processes that were launched together, and leave them in the end.

    Args:
        launch: how this process was started.
        cuda: whether the work runs on CUDA devices; asked only if there are several processes.
        stop: whether this process was told to stop; asked while it waits for the others.

    Raises:
        QuietError: this process ends because of another one, which has said why.
        PreemptedError: told to stop before all had come.
        RequestError: some processes have CUDA devices and others not.
        LostError: another one was lost without a word.
        GeohsalError: this process failed.
    """
    if launch.world == 1:
        yield ALONE
        return
    import torch.distributed as dist

    store, on_cuda = meet(launch, cuda=cuda, stop=stop)
    dist.init_process_group(
        "nccl" if on_cuda else "gloo", store=store, rank=launch.rank, world_size=launch.world
    )
    try:
        ranks = Ranks(launch=launch, hosts=dist.new_group(backend="gloo"))
        yield ranks
        ranks.gather(None)  # nobody hangs up on others that are still at work
    except PreemptedError as error:
        raise voiced(error, launch) from None
    except QuietError:
        raise
    except GeohsalError as error:
        raise _mine(error, launch, store) from None
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise _lost(error, launch, store) from None
    finally:
        dist.destroy_process_group()


def _mine(error: GeohsalError, launch: Launch, store: Any) -> GeohsalError:
    """The error of this process, with its number; the others learn that it was said."""
    with suppress(RuntimeError):  # the process that keeps the store may be gone
        store.set(FAILED, str(error.exit_code))
    return error if launch.speaks else _numbered(error, launch.rank, launch.world)


def _numbered(error: GeohsalError, rank: int, world: int) -> GeohsalError:
    error.args = (f"process {rank} of {world}: {error}",)
    return error


def _is_lost(error: RuntimeError) -> bool:
    """Whether torch says that another process is gone."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _lost(error: RuntimeError, launch: Launch, store: Any) -> GeohsalError:
    """What a process ends with that waits for another one in vain."""
    reason = " ".join(str(error).split())[:200]
    lost = LostError(
        f"another process of this training was lost ({reason}); the same command goes on from the "
        "last checkpoint"
    )
    code = _code_said(store)
    return voiced(lost, launch) if code == lost.exit_code else QuietError(str(lost), code=code)


def _code_said(store: Any) -> int:
    """The exit code of a process that has said why it failed; where none has, that of a loss."""
    try:
        return int(store.get(FAILED)) if store.check([FAILED]) else LostError.exit_code
    except RuntimeError:  # the first process is gone, with the store that it kept
        return UNKNOWN
