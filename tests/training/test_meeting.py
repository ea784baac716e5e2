"""Processes find each other, agree on one kind of device, or leave together; nobody waits long."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from geohsal.config.launch import Launch
from geohsal.errors import GeohsalError, LostError, PreemptedError, QuietError, RequestError
from geohsal.training import meeting
from geohsal.training.ranks import joined
from geohsal.training.seats import Seat, check_seats, seat_of

pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")

TWO = Launch(by="srun", world=2)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))


def both(
    cuda: tuple[bool, bool], stop: tuple[Callable[[], bool], Callable[[], bool]]
) -> list[object]:
    """What two processes find: whether they work on CUDA devices, or why they leave."""
    stores: list[object] = []  # kept until both have ended

    def one(rank: int) -> object:
        try:
            store, found = meeting.meet(
                replace(TWO, rank=rank), cuda=lambda: cuda[rank], stop=stop[rank]
            )
        except GeohsalError as error:
            return error
        stores.append(store)
        return found

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, (0, 1)))


def never() -> bool:
    return False


def always() -> bool:
    return True


@pytest.mark.parametrize("cuda", [False, True])
def test_processes_of_one_kind_go_on(cuda: bool) -> None:
    assert both((cuda, cuda), (never, never)) == [cuda, cuda]


def test_processes_of_two_kinds_are_refused_by_all_and_said_once() -> None:
    first, second = both((False, True), (never, never))
    assert isinstance(first, RequestError)
    assert "process 0 would train on cpu" in str(first)
    assert "process 1 on cuda" in str(first)
    assert isinstance(second, QuietError)
    assert second.code == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_told_to_stop_does_not_wait_for_the_others(rank: int) -> None:
    began = time.monotonic()
    with (
        pytest.raises(
            PreemptedError if rank == 0 else QuietError, match="before the first step"
        ) as caught,
        joined(replace(TWO, rank=rank), cuda=lambda: pytest.fail("asked"), stop=always),
    ):
        pytest.fail("joined")
    assert getattr(caught.value, "code", caught.value.exit_code) == 85
    assert time.monotonic() - began < 12


@pytest.mark.parametrize("told", [(always, never), (never, always), (always, always)])
def test_all_leave_or_none_whoever_is_told(
    monkeypatch: pytest.MonkeyPatch, told: tuple[Callable[[], bool], Callable[[], bool]]
) -> None:
    monkeypatch.setattr(meeting, "PATIENCE_S", 20.0)
    kinds = [type(one) for one in both((False, False), told)]
    assert kinds in ([bool, bool], [PreemptedError, QuietError])


def test_those_that_never_come_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "PATIENCE_S", 0.3)
    with pytest.raises(LostError, match="only 1 of 2 processes came") as caught:
        meeting.meet(TWO, cuda=never, stop=never)
    assert caught.value.exit_code == 75


def test_a_gpu_under_two_processes_is_refused() -> None:
    seats = [
        Seat(kind="cuda", host="a", gpu="x"),
        Seat(kind="cuda", host="b", gpu="x"),
        Seat(kind="cuda", host="a", gpu="y"),
    ]
    check_seats(seats)
    with pytest.raises(RequestError, match="processes 0 and 3 would train on one GPU of a; ask"):
        check_seats([*seats, seats[0]])


def test_many_processes_share_a_processor() -> None:
    seat = seat_of(torch.device("cpu"))
    assert seat == Seat(kind="cpu", host=socket.gethostname())
    check_seats([seat, seat])
