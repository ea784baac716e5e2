"""How the processes that were launched together find each other, before anything joins them.

They meet at a small store of keys that the first process (or torchrun) keeps. Whether to go on or
to stop is one word in it, which the first to write decides for all.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from geohsal.config.launch import Launch
from geohsal.errors import GeohsalError, LostError, PreemptedError, QuietError, RequestError

Stop = Callable[[], bool]

PATIENCE_S = 1800.0
"""How long processes wait for those that have not started yet: jobs may load torch slowly."""

ATTEMPT = timedelta(seconds=2)
"""How long torch tries to reach the store; between two attempts a signal is obeyed."""

ANSWER = timedelta(minutes=5)
"""How long the store may take for an answer once all have come."""

HERE, VERDICT, KIND, SEEN = "here", "verdict", "kind", "seen"
GO, LEAVE = "go", "leave"


def voiced(error: GeohsalError, launch: Launch) -> GeohsalError:
    """An error that all processes have found: the first one says it, the others end with it."""
    return error if launch.speaks else QuietError(str(error), code=error.exit_code)


def meet(launch: Launch, *, cuda: Callable[[], bool], stop: Stop) -> tuple[Any, bool]:
    """Wait until all are there; gives their store, and whether they work on CUDA devices.

    Args:
        launch: how this process was started.
        cuda: whether the work of this process runs on a CUDA device.
        stop: whether this process was told to stop.

    Raises:
        PreemptedError: some process was told to stop before all had come.
        RequestError: some processes have CUDA devices and others not.
        LostError: not all came, or the first one went away.
        QuietError: each of these, where another process says it.
    """
    import torch.distributed as dist

    until = time.monotonic() + PATIENCE_S
    store = _store(launch, stop, until)
    try:
        _wait_for_all(store, launch, stop, until)
        return store, _agree(store, launch, cuda=cuda())
    except dist.DistError as error:
        reason = " ".join(str(error).split())[:200]
        message = f"a process went away before the training began ({reason})"
        raise voiced(LostError(f"{message}; the same command begins again"), launch) from None


def linger(store: Any, key: str, count: int, *, seconds: float) -> None:
    """Keep the store for others until `count` of them have read what they need, or some seconds."""
    until = time.monotonic() + seconds
    while store.add(key, 0) < count and time.monotonic() < until:
        time.sleep(0.05)


def _store(launch: Launch, stop: Stop, until: float) -> Any:
    """The common store; MASTER_ADDR and MASTER_PORT may name another place."""
    from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

    if launch.by == "torchrun":  # its agents have met already
        from torch.distributed.rendezvous import rendezvous

        found, _, _ = next(rendezvous("env://", rank=launch.rank, world_size=launch.world))
        return PrefixStore(f"geohsal/{os.environ['TORCHELASTIC_RESTART_COUNT']}", found)
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    environment = SLURMEnvironment(auto_requeue=False)
    os.environ["MASTER_ADDR"] = environment.main_address
    os.environ["MASTER_PORT"] = str(environment.main_port)
    while True:
        try:
            store = TCPStore(
                environment.main_address,
                environment.main_port,
                launch.world,
                is_master=launch.rank == 0,
                timeout=ATTEMPT,
                wait_for_workers=False,
            )
        except DistError as error:
            if launch.rank == 0:  # its port is taken: another attempt would find the same
                raise
            if stop():
                raise voiced(_told(), launch) from None
            if time.monotonic() > until:
                reason = " ".join(str(error).split())[:200]
                raise LostError(
                    f"process {launch.rank} of {launch.world}: the first process cannot be reached "
                    f"at {environment.main_address} ({reason}); the same command begins again"
                ) from None
        else:
            store.set_timeout(ANSWER)
            return store


def _wait_for_all(store: Any, launch: Launch, stop: Stop, until: float) -> None:
    """All go on, or all leave: the first word in the store stands."""
    came = store.add(HERE, 1)
    verdict = b""
    while not verdict:
        if came == launch.world:
            verdict = store.compare_set(VERDICT, "", GO)
        elif stop():
            verdict = store.compare_set(VERDICT, "", LEAVE)
        elif store.check([VERDICT]):
            verdict = store.get(VERDICT)
        elif time.monotonic() > until:
            message = f"only {came} of {launch.world} processes came; the same command begins again"
            raise voiced(LostError(message), launch)
        else:
            time.sleep(0.2)
            came = store.add(HERE, 0)
    if verdict == LEAVE.encode():
        _all_have_seen(store, launch, came)
        raise voiced(_told(), launch)


def _told() -> PreemptedError:
    return PreemptedError("told to stop before the first step; the same command begins again")


def _agree(store: Any, launch: Launch, *, cuda: bool) -> bool:
    """One kind of device for all: torch would wait forever for processes of the other kind."""
    from geohsal.training.seats import Seat, check_seats

    own = "cuda" if cuda else "cpu"
    store.set(f"{KIND}/{launch.rank}", f"{own} {socket.gethostname()}")
    told = [store.get(f"{KIND}/{rank}").decode().split(" ") for rank in range(launch.world)]
    try:
        check_seats([Seat(kind=kind, host=host) for kind, host in told])
    except RequestError as error:
        _all_have_seen(store, launch, launch.world)
        raise voiced(error, launch) from None
    return cuda


def _all_have_seen(store: Any, launch: Launch, count: int) -> None:
    """The process that keeps the store leaves last."""
    import torch.distributed as dist

    with suppress(dist.DistError):
        store.add(SEEN, 1)
        if launch.rank == 0:
            linger(store, SEEN, count, seconds=10.0)
