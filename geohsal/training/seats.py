"""Where each process works: all on one kind of device, and each GPU under one process."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from geohsal.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The device of one process: `kind` (cpu, cuda), its host, and which GPU if known."""

    kind: str
    host: str
    gpu: str = ""


def seat_of(device: torch.device) -> Seat:
    """The seat of this process; a GPU by its own number, whatever name it is shown under."""
    gpu = "" if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid)
    return Seat(kind=device.type, host=socket.gethostname(), gpu=gpu)


def check_seats(seats: Sequence[Seat]) -> None:
    """Refuse seats, in the order of the processes, on which they cannot train together.

    Raises:
        RequestError: some have CUDA devices and others not, or two share a GPU.
    """
    first = seats[0]
    taken: dict[tuple[str, str], int] = {}
    for rank, seat in enumerate(seats):
        if seat.kind != first.kind:
            raise RequestError(
                f"process 0 would train on {first.kind} ({first.host}), process {rank} on "
                f"{seat.kind} ({seat.host}); mend the node that shows no GPU (geohsal doctor), or "
                "give --device cpu"
            )
        if seat.gpu and (other := taken.setdefault((seat.host, seat.gpu), rank)) != rank:
            raise RequestError(
                f"processes {other} and {rank} would train on one GPU of {seat.host}; ask for as "
                "many GPUs (--gpus-per-node) as tasks (--ntasks-per-node), one for each process"
            )
